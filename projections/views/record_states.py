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

    from psycopg import Cursor

    from projections.recorded import RecordedEvent

decode_state = msgspec.json.Decoder(RecordState).decode
"""Read a state as the view keeps it."""


class RecordStates(View):
    """What is the state of this record? One row a record."""

    name: ClassVar[str] = "record_state"

    def write(self, cursor: Cursor[Any], events: Sequence[RecordedEvent]) -> None:
        """Fold each entry into its record's state.

        Raises:
            TamperDetected: as `fold` says.
        """
        ours = [event for event in events if event.stream_kind == "record"]
        states = self._select_states(cursor, {event.stream for event in ours})
        for event in ours:
            states[event.stream] = fold(states.get(event.stream), event)
        if states:
            self._upsert(cursor, states.values())

    SELECT_STATES = "SELECT record, state::text AS state FROM {view} WHERE record = ANY(%b)"

    def _select_states(self, cursor: Cursor[Any], records: set[UUID]) -> dict[UUID, RecordState]:
        if not records:
            return {}
        rows = cursor.execute(self.sql(self.SELECT_STATES), (list(records),), prepare=True)
        return {row["record"]: decode_state(row["state"]) for row in rows}

    UPSERT = """
INSERT INTO {view} AS v (record, status, version, first_seq, last_seq, state)
SELECT u.record, u.status, u.version, u.first_seq, u.last_seq, u.state::jsonb
FROM unnest(%b::uuid[], %b::text[], %b::bigint[], %b::bigint[], %b::bigint[], %b::text[])
    AS u (record, status, version, first_seq, last_seq, state)
ON CONFLICT (record) DO UPDATE SET status = excluded.status, version = excluded.version,
    last_seq = excluded.last_seq, state = excluded.state"""

    def _upsert(self, cursor: Cursor[Any], states: Iterable[RecordState]) -> None:
        rows = [
            (
                state.record,
                state.status,
                state.version,
                state.first_seq,
                state.last_seq,
                msgspec.json.encode(state).decode(),
            )
            for state in states
        ]
        columns = [list(column) for column in zip(*rows, strict=True)]
        cursor.execute(self.sql(self.UPSERT), columns, prepare=True)
