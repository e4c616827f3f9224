"""What is known of one source, and how an event changes it; `source_sequences` keeps it.

Numbers (`sequence`) are contiguous per source and instance where an emitter gives them. The
fold notices those that are missing, used twice, or going back, in whatever order events come.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ledger.errors import TamperDetected
from projections.completeness import incomplete_members

if TYPE_CHECKING:
    from collections.abc import Iterable

    from projections.recorded import RecordedEvent

REPORT: Final = "source.reported"
"""Type by which a source says how much it has sent."""

_MAX_NUMBER: Final = 2**53 - 1
_MAX_SUM: Final = 2**62
"""Where sums stop; what PostgreSQL's bigint holds is a little more."""
_MILLISECOND: Final = timedelta(milliseconds=1)
_MINUTE_MS, _HOUR_MS, _DAY_MS = 60_000, 3_600_000, 86_400_000
_AHEAD_MS: Final = -5_000


class SourceState(msgspec.Struct, kw_only=True, gc=False):
    """How a source, or one instance of it, stands. Mutable: there is one fold at a time."""

    source: str
    """Effective source (FORMAT.md 1.4)."""
    instance: str
    """Which of its instances; empty where it names none."""
    events: int = 0
    """Events, each once, without the source's reports on itself."""
    first_recorded: datetime
    """When its first event was sequenced."""
    last_recorded: datetime
    """When its newest event or report was sequenced."""
    last_seq: int
    """Position of that one's entry."""
    numbered: int = 0
    """Events that had a number."""
    first_sequence: int | None = None
    """The least number met."""
    last_sequence: int | None = None
    """The greatest number met."""
    latest_sequence: int | None = None
    """The number met last."""
    missing: int = 0
    """Numbers between the least and the greatest that no event had."""
    gaps: int = 0
    """How many runs those make."""
    repeats: int = 0
    """Events with a number that another event had."""
    last_repeat_seq: int | None = None
    """Position of the newest of them."""
    went_back: int = 0
    """Events with a lower number than the one recorded before."""
    last_back_seq: int | None = None
    """Position of the newest of them."""
    backfill: int = 0
    """Events imported later."""
    incomplete: int = 0
    """Events that lacked something expected of their type."""
    timed: int = 0
    """Events that say when they happened and weren't imported later; these can be late."""
    late_ms: int = 0
    """Sum of how late they were sequenced, milliseconds."""
    late_max_ms: int = 0
    """The most of that."""
    late_minute: int = 0
    """How many were late by more than a minute."""
    late_hour: int = 0
    """By more than an hour."""
    late_day: int = 0
    """By more than a day."""
    ahead: int = 0
    """How many say that they happened more than 5 seconds after they were sequenced."""
    reports: int = 0
    """Reports of the source on itself (`source.reported`)."""
    reported_total: int = 0
    """Sum of the events that they tell of."""
    report_seq: int | None = None
    """Position of the newest report; what follows is what it says."""
    report_recorded: datetime | None = None
    """When it was sequenced."""
    report_count: int | None = None
    """Events sent since the report before."""
    report_last_sequence: int | None = None
    """The last number given."""
    report_until: datetime | None = None
    """Up to when it speaks."""

    def meet(self, event: RecordedEvent) -> int | None:
        """Take an event into account; give its number where that still has to be.

        Raises:
            TamperDetected: a member that the taxonomy knows isn't of its kind.
        """
        data, recorded = event.data, event.recorded
        self.last_recorded, self.last_seq = recorded, event.seq
        if event.type == REPORT:
            self._report(event)
        else:
            self.events += 1
        if data.get("backfill") is True:
            self.backfill += 1
        elif event.time_given:
            self._time((recorded - event.time) // _MILLISECOND)
        if incomplete_members(event):
            self.incomplete += 1
        return number_of(data, "sequence") if "sequence" in data else None

    def _time(self, late_ms: int) -> None:
        self.timed += 1
        if late_ms <= 0:
            self.ahead += late_ms < _AHEAD_MS
            return
        self.late_ms = min(self.late_ms + late_ms, _MAX_SUM)
        self.late_max_ms = max(self.late_max_ms, late_ms)
        if late_ms > _MINUTE_MS:
            self.late_minute += 1
            self.late_hour += late_ms > _HOUR_MS
            self.late_day += late_ms > _DAY_MS

    def _report(self, event: RecordedEvent) -> None:
        self.reports += 1
        self.report_seq, self.report_recorded = event.seq, event.recorded
        self.report_count = number_of(event.data, "count")
        self.reported_total = min(self.reported_total + (self.report_count or 0), _MAX_SUM)
        self.report_last_sequence = number_of(event.data, "last_sequence")
        try:
            self.report_until = datetime.fromisoformat(event.data["until"])
        except (KeyError, TypeError, ValueError) as error:
            raise TamperDetected("member until: expected a time with its offset") from error

    def count(self, number: int, seq: int, gaps: Gaps) -> None:
        """Take a number into account, wherever it stands among those met so far."""
        first, last, latest = self.first_sequence, self.last_sequence, self.latest_sequence
        if first is None or last is None:
            self.first_sequence = self.last_sequence = number
        elif number > last:
            self._open(gaps, last + 1, number - 1)
            self.last_sequence = number
        elif number < first:
            self._open(gaps, number + 1, first - 1)
            self.first_sequence = number
        elif (pieces := gaps.fill(number)) is None:
            self.repeats += 1
            self.last_repeat_seq = seq
        else:
            self.missing -= 1
            self.gaps += pieces - 1
        if latest is not None and number < latest:
            self.went_back += 1
            self.last_back_seq = seq
        self.latest_sequence = number
        self.numbered += 1

    def _open(self, gaps: Gaps, first: int, last: int) -> None:
        if first <= last:
            gaps.add(first, last)
            self.missing += last - first + 1
            self.gaps += 1


class Gaps:
    """Runs of missing numbers, as far as they have to be known: disjoint, in order."""

    def __init__(self, runs: Iterable[tuple[int, int]] = ()) -> None:
        self.loaded = frozenset(runs)
        """What was there before."""
        self._runs = sorted(self.loaded)

    def add(self, first: int, last: int) -> None:
        """Add a run that meets no other."""
        insort(self._runs, (first, last))

    def fill(self, number: int) -> int | None:
        """Take a number out of its run; give how many pieces are left of that, None for none."""
        place = bisect_right(self._runs, (number, _MAX_NUMBER)) - 1
        if place < 0 or self._runs[place][1] < number:
            return None
        first, last = self._runs[place]
        pieces = [(first, number - 1), (number + 1, last)]
        left = [piece for piece in pieces if piece[0] <= piece[1]]
        self._runs[place : place + 1] = left
        return len(left)

    @property
    def gone(self) -> set[tuple[int, int]]:
        """Runs that were there before and aren't any more."""
        return set(self.loaded.difference(self._runs))

    @property
    def new(self) -> set[tuple[int, int]]:
        """Runs that weren't there before."""
        return set(self._runs).difference(self.loaded)


def number_of(data: dict[str, Any], name: str) -> int:
    """Give a member that is a whole number from 0 to 2^53-1.

    Raises:
        TamperDetected: it is something else, which the ledger never records.
    """
    value = data.get(name)
    if type(value) is int and 0 <= value <= _MAX_NUMBER:
        return value
    raise TamperDetected(f"member {name}: expected a whole number")
