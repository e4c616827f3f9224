"""Is something of a source missing, and does it still speak?

One row for each source and instance, and a table of the runs of numbers that are missing.
The ledger's own entries are left out: it sends itself nothing that could get lost.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from psycopg.sql import SQL, Composed, Identifier

from projections.recorded import text_of
from projections.view import View
from projections.views.source_state import Gaps, SourceState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eventsourcing.postgres import PostgresDatastore
    from psycopg import Connection, Cursor

    from projections.recorded import RecordedEvent

Key = tuple[str, str]
"""Source and instance."""

MAX_KEPT = 10_000
"""States kept in memory, so that a source in constant use isn't read again each time."""

COLUMNS = SourceState.__struct_fields__
_KEY = ("source", "instance")


class SourceSequences(View):
    """Is something of a source missing, and does it still speak? One row an instance."""

    name: ClassVar[str] = "source_sequences"

    def __init__(self, datastore: PostgresDatastore, **kwargs: Any) -> None:
        super().__init__(datastore, **kwargs)
        self._kept: dict[Key, SourceState] = {}
        self._kept_at = -1

    def sql(self, text: str) -> Composed:
        """Fill in the names of the view's tables and of the log's."""
        schema = self.datastore.schema
        return SQL(text).format(
            view=Identifier(schema, f"view_{self.name}"),
            gaps=Identifier(schema, f"view_{self.name}_gaps"),
            tracking=Identifier(schema, self.tracking_table_name),
            entries=Identifier(schema, "entries"),
        )

    def write(self, cursor: Cursor[Any], events: Sequence[RecordedEvent]) -> None:
        """Take each event into account once, however many entries it has.

        Raises:
            TamperDetected: a member that the taxonomy knows isn't of its kind.
        """
        first, last = events[0].seq, events[-1].seq
        # States are changed in place: what a failure leaves of them must not be gone on with.
        states, self._kept, kept_at = self._kept, {}, self._kept_at
        if kept_at != first - 1:
            states = {}
        if first == 1:
            # Whoever emptied the view by hand may have thought of one table only.
            cursor.execute(self.sql(self.DELETE_GAPS))
        met = self._meet(cursor, states, events)
        if met:
            self._upsert(cursor, met.values())
        self._keep(states, met, last)

    DELETE_GAPS = "DELETE FROM {gaps}"

    def _meet(
        self, cursor: Cursor[Any], states: dict[Key, SourceState], events: Sequence[RecordedEvent]
    ) -> dict[Key, SourceState]:
        """Change the states that events concern; give those."""
        ours = [(key_of(e), e) for e in events if not e.part and e.by != "ledger" and e.source]
        keys = {key for key, _ in ours}
        self._load(cursor, states, keys - states.keys())
        apart: dict[Key, list[tuple[int, int]]] = {}
        for key, event in ours:
            state = states.get(key)
            if state is None:
                state = states[key] = _new_state(key, event)
            number = state.meet(event)
            if number is None:
                continue
            if key not in apart and number - 1 == state.latest_sequence == state.last_sequence:
                # What nearly every number does.
                state.numbered += 1
                state.last_sequence = state.latest_sequence = number
            else:
                apart.setdefault(key, []).append((number, event.seq))
        if apart:
            self._count(cursor, states, apart)
        return {key: states[key] for key in keys}

    def _count(
        self,
        cursor: Cursor[Any],
        states: dict[Key, SourceState],
        apart: dict[Key, list[tuple[int, int]]],
    ) -> None:
        """Count numbers that don't simply follow, with the runs that they may fall into."""
        gaps = self._select_gaps(cursor, apart)
        for key, numbers in apart.items():
            for number, seq in numbers:
                states[key].count(number, seq, gaps[key])
        self._write_gaps(cursor, gaps)

    # By the key's index, for each number: a source may have any number of runs.
    SELECT_GAPS = """
SELECT DISTINCT n.source, n.instance, g.first, g.last
FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS n (source, instance, number)
CROSS JOIN LATERAL (
    SELECT first, last FROM {gaps}
    WHERE source = n.source AND instance = n.instance AND first <= n.number
    ORDER BY first DESC LIMIT 1
) AS g
WHERE g.last >= n.number"""

    def _select_gaps(
        self, cursor: Cursor[Any], apart: dict[Key, list[tuple[int, int]]]
    ) -> dict[Key, Gaps]:
        asked = [(*key, number) for key, numbers in apart.items() for number, _ in numbers]
        columns = [list(column) for column in zip(*asked, strict=True)]
        found: dict[Key, list[tuple[int, int]]] = {key: [] for key in apart}
        for row in cursor.execute(self.sql(self.SELECT_GAPS), columns, prepare=True):
            found[row["source"], row["instance"]].append((row["first"], row["last"]))
        return {key: Gaps(runs) for key, runs in found.items()}

    DELETE_FILLED = """
DELETE FROM {gaps} AS g USING unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[])
    AS n (source, instance, first, last)
WHERE g.source = n.source AND g.instance = n.instance AND g.first = n.first"""
    INSERT_GAPS = """
INSERT INTO {gaps} SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[])"""

    def _write_gaps(self, cursor: Cursor[Any], gaps: dict[Key, Gaps]) -> None:
        gone = [(*key, *run) for key, runs in gaps.items() for run in sorted(runs.gone)]
        new = [(*key, *run) for key, runs in gaps.items() for run in sorted(runs.new)]
        for query, rows in ((self.DELETE_FILLED, gone), (self.INSERT_GAPS, new)):
            if rows:
                columns = [list(column) for column in zip(*rows, strict=True)]
                cursor.execute(self.sql(query), columns, prepare=True)

    SELECT_STATES = f"""
SELECT {", ".join(COLUMNS)} FROM {{view}} JOIN unnest(%s::text[], %s::text[])
    AS n (source, instance) USING (source, instance)"""  # noqa: S608 - our own names

    def _load(self, cursor: Cursor[Any], states: dict[Key, SourceState], keys: set[Key]) -> None:
        if keys:
            columns = [list(column) for column in zip(*sorted(keys), strict=True)]
            for row in cursor.execute(self.sql(self.SELECT_STATES), columns, prepare=True):
                states[row["source"], row["instance"]] = SourceState(**row)

    UPSERT = f"""
INSERT INTO {{view}} SELECT * FROM jsonb_populate_recordset(NULL::{{view}}, %s::jsonb)
ON CONFLICT (source, instance) DO UPDATE SET
{", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in _KEY)}"""  # noqa: S608

    def _upsert(self, cursor: Cursor[Any], states: Iterable[SourceState]) -> None:
        document = msgspec.json.encode(list(states)).decode()
        cursor.execute(self.sql(self.UPSERT), (document,), prepare=True)

    def _keep(self, states: dict[Key, SourceState], met: dict[Key, SourceState], last: int) -> None:
        """Keep what was met last; see `RecordStates` for why the position stands beside it."""
        if len(states) > MAX_KEPT:
            rest = ((key, state) for key, state in states.items() if key not in met)
            newest = chain(met.items(), rest)
            states = dict(pair for pair, _ in zip(newest, range(MAX_KEPT), strict=False))
        self._kept, self._kept_at = states, last

    TRUNCATE = "TRUNCATE {view}, {gaps}"

    def clear(self, connection: Connection[Any]) -> None:
        """Empty the view and forget its position, while holding the lock."""
        self._kept, self._kept_at = {}, -1
        super().clear(connection)


def key_of(event: RecordedEvent) -> Key:
    """Give an event's source and instance.

    Raises:
        TamperDetected: the instance isn't a string.
    """
    data = event.data
    return event.source, (text_of(data, "instance") or "") if "instance" in data else ""


def _new_state(key: Key, event: RecordedEvent) -> SourceState:
    return SourceState(
        source=key[0],
        instance=key[1],
        first_recorded=event.recorded,
        last_recorded=event.recorded,
        last_seq=event.seq,
    )
