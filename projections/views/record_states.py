"""Keep the state of every record in a table, as `record_fold` gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from projections.view import View
from projections.views.record_fold import fold
from projections.views.record_state import RecordState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from eventsourcing.postgres import PostgresDatastore
    from psycopg import Cursor

    from projections.recorded import RecordedEvent

decode_state = msgspec.json.Decoder(RecordState).decode
"""Read a state as the view keeps it."""


MAX_KEPT = 10_000
"""States kept in memory, so that a record in constant use isn't read again each time."""


class RecordStates(View):
    """What is the state of this record? One row a record."""

    name: ClassVar[str] = "record_state"

    def __init__(self, datastore: PostgresDatastore, **kwargs: Any) -> None:
        super().__init__(datastore, **kwargs)
        self._kept: dict[UUID, RecordState] = {}
        self._kept_at = 0

    def write(self, cursor: Cursor[Any], events: Sequence[RecordedEvent]) -> None:
        """Fold each entry into its record's state.

        Raises:
            TamperDetected: as `fold` says.
        """
        before = self._kept_states(events[0].seq - 1)
        ours = [event for event in events if event.stream_kind == "record"]
        records = {event.stream for event in ours}
        states = {record: before[record] for record in records & before.keys()}
        states |= self._select_states(cursor, records - before.keys())
        for event in ours:
            states[event.stream] = fold(states.get(event.stream), event)
        if states:
            self._upsert(cursor, states.values())
        self._keep(states, events[-1].seq)

    # What is kept is the fold up to one position. Where the transaction is rolled back, or
    # somebody else wrote meanwhile, the next entries don't begin there, and it's dropped.
    def _kept_states(self, position: int) -> dict[UUID, RecordState]:
        if self._kept_at != position:
            self._kept = {}
        return self._kept

    def _keep(self, states: dict[UUID, RecordState], position: int) -> None:
        for record in states:
            self._kept.pop(record, None)
        self._kept |= states
        while len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept_at = position

    SELECT_STATES = "SELECT record, state::text AS state FROM {view} WHERE record = ANY(%b)"

    def _select_states(self, cursor: Cursor[Any], records: set[UUID]) -> dict[UUID, RecordState]:
        if not records:
            return {}
        rows = cursor.execute(self.sql(self.SELECT_STATES), (list(records),), prepare=True)
        return {row["record"]: decode_state(row["state"]) for row in rows}

    # One parameter for all rows: the server reads the JSON once, for states and columns both.
    UPSERT = """
INSERT INTO {view} AS v (record, status, version, first_seq, last_seq, state)
SELECT (s ->> 'record')::uuid, s ->> 'status', (s ->> 'version')::bigint,
    (s ->> 'first_seq')::bigint, (s ->> 'last_seq')::bigint, s
FROM jsonb_array_elements(%s::jsonb) AS s
ON CONFLICT (record) DO UPDATE SET status = excluded.status, version = excluded.version,
    last_seq = excluded.last_seq, state = excluded.state"""

    def _upsert(self, cursor: Cursor[Any], states: Iterable[RecordState]) -> None:
        document = msgspec.json.encode(list(states)).decode()
        cursor.execute(self.sql(self.UPSERT), (document,), prepare=True)
