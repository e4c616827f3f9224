"""Who looked, and why?

One row for each `record.accessed`, `record.exported`, `record.used` and `record.shared`,
tried or done. A share is among them because the recipient, and whoever sent it, came to
know the values: without it the answer to "who has seen this customer?" would be too short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from projections.completeness import incomplete_members
from projections.copy_binary import (
    HEADER,
    TRAILER,
    pack_bool,
    pack_bytes,
    pack_int8,
    pack_moment,
    pack_row_start,
    pack_text,
    pack_texts,
    pack_uuid,
)
from projections.recorded import object_of, text_of, texts_of, uuid_of
from projections.view import View
from projections.views.record_state import ACCESSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Cursor

    from projections.recorded import RecordedEvent

COLUMNS = (
    "seq",
    "leaf",
    "record",
    "type",
    "time",
    "time_given",
    "recorded",
    "actor",
    "actor_kind",
    "actor_role",
    "on_behalf_of",
    "fields",
    "activity",
    "purpose",
    "legal_basis",
    "outcome",
    "source",
    "reason_ref",
    "recipient",
    "recipient_kind",
    "masked",
    "backfill",
    "incomplete",
)
"""Columns that a row is written with; the others come with corrections."""

_ROW_START = pack_row_start(len(COLUMNS))


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
                copy.write(b"".join((HEADER, *rows, TRAILER)))
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


def access_row(event: RecordedEvent) -> bytes:
    """Give an access as a row for COPY, in the order of `COLUMNS`.

    Raises:
        TamperDetected: a member that the taxonomy knows isn't of its kind.
    """
    data = event.data
    actor = object_of(data, "actor")
    recipient = object_of(data, "recipient")
    return b"".join(
        (
            _ROW_START,
            pack_int8(event.seq),
            pack_bytes(event.leaf),
            pack_uuid(event.stream if event.stream_kind == "record" else None),
            pack_text(event.type),
            pack_moment(event.time),
            pack_bool(event.time_given),
            pack_moment(event.recorded),
            pack_uuid(uuid_of(actor, "id")),
            pack_text(text_of(actor, "kind") or "person"),
            pack_text(text_of(actor, "role")),
            pack_uuid(uuid_of(data, "on_behalf_of")),
            pack_texts(tuple(texts_of(data, "fields"))),
            pack_text(text_of(data, "activity")),
            pack_text(text_of(data, "purpose")),
            pack_text(text_of(data, "legal_basis")),
            pack_text(text_of(data, "outcome") or "success"),
            pack_text(event.source),
            pack_text(text_of(data, "reason_ref")),
            pack_text(text_of(recipient, "id")),
            pack_text(text_of(recipient, "kind")),
            pack_bool(data.get("masked")),
            pack_bool(event.backfill),
            pack_texts(incomplete_members(event)),
        )
    )
