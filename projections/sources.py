"""Read what the view of sources holds: for people page by page, for metrics in sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from projections.views.source_sequences import COLUMNS
from projections.views.source_state import SourceState

if TYPE_CHECKING:
    from projections.queries import ViewReader
    from projections.views.source_sequences import Key

MAX_LISTED = 100
"""Most runs of missing numbers that are listed of one instance; all of them are counted."""


class SourceRow(NamedTuple):
    """How one instance of a source stands."""

    state: SourceState
    """What was counted."""
    silent_s: float
    """Seconds since its newest event or report was sequenced, by the database's clock."""
    missing_reported: int
    """Of the missing numbers, those up to the one that the newest report names as the last."""
    gaps: list[list[int]]
    """The first runs of missing numbers, `[first, last]`."""

    @property
    def unreceived(self) -> int | None:
        """Give how many events the source says it has sent that are not here; None if unsaid.

        Where it numbers its events, by number; else by the sums of both sides.
        """
        state = self.state
        if state.report_last_sequence is None:
            return None
        if state.report_last_sequence or state.last_sequence is not None:
            beyond = state.report_last_sequence - (state.last_sequence or 0)
            return self.missing_reported + max(beyond, 0)
        return max(state.reported_total - state.events, 0)


class SourceSums(NamedTuple):
    """How a source stands, all its instances taken together."""

    source: str | None
    """The source; None for all the others."""
    missing: int
    """Numbers not met, up to the greatest that was met or reported."""
    repeats: int
    """Events with a number that another event had."""
    silent_s: float
    """Seconds since anything came from any of its instances."""


# What narrows comes first: runs are looked up for the page's rows only.
_SELECT_SOURCES = f"""
SELECT s.*, extract(epoch FROM clock_timestamp() - s.last_recorded)::float8,
    coalesce((SELECT sum(least(g.last, s.report_last_sequence) - g.first + 1)::bigint
        FROM {{view_source_sequences_gaps}} g WHERE s.gaps > 0 AND g.source = s.source
        AND g.instance = s.instance AND g.first <= s.report_last_sequence), 0),
    ARRAY(SELECT ARRAY[g.first, g.last] FROM {{view_source_sequences_gaps}} g
        WHERE s.gaps > 0 AND g.source = s.source AND g.instance = s.instance
        ORDER BY g.first LIMIT {MAX_LISTED})
FROM (
    SELECT {", ".join(COLUMNS)} FROM {{view_source_sequences}}
    WHERE (source, instance) > (%s, %s)
    AND (%s = 0 OR last_recorded <= clock_timestamp() - make_interval(secs => %s))
    AND (NOT %s OR missing > 0 OR report_last_sequence > coalesce(last_sequence, 0))
    ORDER BY source, instance LIMIT %s
) s ORDER BY source, instance"""  # noqa: S608 - our own names


def select_sources(
    views: ViewReader,
    *,
    after: Key = ("", ""),
    silent_for_s: int = 0,
    with_gaps: bool = False,
    limit: int,
) -> list[SourceRow]:
    """Give sources by name and instance: the next page begins after the last row's.

    Args:
        views: the ledger's views.
        after: source and instance of the page before.
        silent_for_s: only those of which nothing was sequenced for so many seconds; 0 for all.
        with_gaps: only those of which numbers are missing, or reported and not met.
        limit: most rows; the caller bounds it.
    """
    seconds = float(silent_for_s)
    rows = views.select(_SELECT_SOURCES, (*after, silent_for_s, seconds, with_gaps, limit))
    return [
        SourceRow(SourceState(**dict(zip(COLUMNS, row, strict=False))), *row[-3:]) for row in rows
    ]


# Those met first have a row each: so the same ones keep theirs from one look to the next.
_SELECT_SUMS = """
SELECT source, sum(missing)::bigint, sum(repeats)::bigint,
    extract(epoch FROM clock_timestamp() - max(last_recorded))::float8
FROM (
    SELECT CASE WHEN place <= %s THEN source END AS source, missing, repeats, last_recorded
    FROM (
        SELECT source, rank() OVER (ORDER BY min(first_recorded), source) AS place,
            sum(missing + greatest(report_last_sequence - coalesce(last_sequence, 0), 0))
            AS missing, sum(repeats) AS repeats, max(last_recorded) AS last_recorded
        FROM {view_source_sequences} GROUP BY source
    ) AS ranked
) AS named GROUP BY source"""


def select_sums(views: ViewReader, most: int) -> list[SourceSums]:
    """Give sums of the first `most` sources, and of all others together."""
    return [SourceSums(*row) for row in views.select(_SELECT_SUMS, (most,))]
