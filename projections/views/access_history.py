"""Who looked, and why?

One row for each `record.accessed`, `record.exported`, `record.used` and `record.shared`,
tried or done. A share is among them because the recipient, and whoever sent it, came to
know the values: without it the answer to "who has seen this customer?" would be too short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from projections.completeness import incomplete_members
from projections.recorded import object_of, text_of, texts_of, uuid_of
from projections.view import View
from projections.views.record_state import ACCESSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Cursor

    from projections.recorded import RecordedEvent

COLUMNS = {
    "seq": "int8",
    "leaf": "bytea",
    "record": "uuid",
    "type": "text",
    "time": "timestamptz",
    "time_given": "bool",
    "recorded": "timestamptz",
    "actor": "uuid",
    "actor_kind": "text",
    "actor_role": "text",
    "on_behalf_of": "uuid",
    "fields": "text[]",
    "activity": "text",
    "purpose": "text",
    "legal_basis": "text",
    "outcome": "text",
    "source": "text",
    "reason_ref": "text",
    "recipient": "text",
    "recipient_kind": "text",
    "masked": "bool",
    "backfill": "bool",
    "incomplete": "text[]",
}
"""Columns that a row is written with, and their types; the others come with corrections."""


class AccessHistory(View):
    """Who looked, and why? One row an access, by position."""

    name: ClassVar[str] = "access_history"

    COPY = f"COPY {{view}} ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"

    def write(self, cursor: Cursor[Any], events: Sequence[RecordedEvent]) -> None:
        """Add a row for each access; mark the rows of entries declared wrong.

        Raises:
            TamperDetected: a member that the taxonomy knows isn't of its kind.
        """
        rows = [access_row(event) for event in events if event.type in ACCESSES]
        if rows:
            with cursor.copy(self.sql(self.COPY)) as copy:
                copy.set_types(list(COLUMNS.values()))
                for row in rows:
                    copy.write_row(row)
        for event in events:
            if event.type == "event.corrected":
                self._mark(cursor, event)

    # An entry can only correct one before it: without this bound the outcome would depend
    # on which entries happen to be folded together.
    MARK = """
UPDATE {view} SET correction = %(correction)s, corrected_seq = %(seq)s
WHERE seq = %(target)s AND seq < %(seq)s"""

    def _mark(self, cursor: Cursor[Any], event: RecordedEvent) -> None:
        target = event.data.get("target_seq")
        correction = text_of(event.data, "correction")
        if event.took_place and type(target) is int:
            values = {"correction": correction, "seq": event.seq, "target": target}
            cursor.execute(self.sql(self.MARK), values)


def access_row(event: RecordedEvent) -> tuple[Any, ...]:
    """Give an access as a row, in the order of `COLUMNS`.

    Raises:
        TamperDetected: a member that the taxonomy knows isn't of its kind.
    """
    data = event.data
    actor = object_of(data, "actor")
    recipient = object_of(data, "recipient")
    return (
        event.seq,
        event.leaf,
        event.stream if event.stream_kind == "record" else None,
        event.type,
        event.time,
        event.time_given,
        event.recorded,
        uuid_of(actor, "id"),
        text_of(actor, "kind") or "person",
        text_of(actor, "role"),
        uuid_of(data, "on_behalf_of"),
        texts_of(data, "fields"),
        text_of(data, "activity"),
        text_of(data, "purpose"),
        text_of(data, "legal_basis"),
        text_of(data, "outcome") or "success",
        event.source,
        text_of(data, "reason_ref"),
        text_of(recipient, "id"),
        text_of(recipient, "kind"),
        data.get("masked"),
        event.backfill,
        incomplete_members(event),
    )
