"""Read the views: what the API and the reports ask."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime  # noqa: TC003 - a row's annotations are read
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID  # noqa: TC003 - a row's annotations are read

import psycopg
from eventsourcing.persistence import PersistenceError
from eventsourcing.utils import Environment
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composable, Identifier

from ledger.application import LedgerFactory, LedgerLog, log_environment
from ledger.errors import Unavailable
from projections.catalogue import VIEWS
from projections.views.record_states import decode_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from projections.views.record_state import RecordState


class AccessRow(NamedTuple):
    """Say who looked at a record, and why: one row of the access history."""

    seq: int
    """Position of the entry that the row rests on."""
    leaf: bytes
    """Leaf hash of that entry, 32 bytes."""
    record: UUID | None
    """The record."""
    type: str
    """`record.accessed`, `record.exported`, `record.used` or `record.shared`."""
    time: datetime
    """When it happened, by the emitter's clock where it was given, else `recorded`."""
    time_given: bool
    """Whether the emitter said when it happened."""
    recorded: datetime
    """When it was sequenced."""
    actor: UUID | None
    """Pseudonym of who did it."""
    actor_kind: str
    """Code of `actor_kind`; `person` where unsaid."""
    actor_role: str | None
    """Role in which it was done."""
    on_behalf_of: UUID | None
    """Pseudonym of whom it was done for."""
    fields: list[str]
    """Names of the fields; none for a use."""
    activity: str | None
    """Processing activity."""
    purpose: str | None
    """Code of `purpose`, where the event itself says it."""
    legal_basis: str | None
    """Code of `legal_basis`, where the event itself says it."""
    outcome: str
    """`success`, `denied` or `failed`; `success` where unsaid."""
    source: str
    """Effective source."""
    reason_ref: str | None
    """The case, ticket or order it was done for."""
    recipient: str | None
    """Of a share: the recipient's reference."""
    recipient_kind: str | None
    """Of a share: code of `recipient_kind`."""
    masked: bool | None
    """Whether values were masked, where the event says so."""
    backfill: bool
    """Whether it is history imported later."""
    incomplete: list[str]
    """Expected members that the event lacked."""
    correction: str | None
    """Code of `correction`, where a later entry declares this one wrong."""
    corrected_seq: int | None
    """Position of that later entry."""


_TESTS: Final = {
    "after_seq": "seq > %s",
    "last_seq": "seq <= %s",
    "record": "record = %s",
    "actor": "actor = %s",
    "type_name": "type = %s",
    "from_time": "time >= %s",
    "to_time": "time < %s",
}
"""What narrows accesses."""

_GAPS = "view_source_sequences_gaps"


class ViewPosition(NamedTuple):
    """Say how far a view has come."""

    view: str
    """The view's name."""
    position: int
    """Position of the last entry it holds; 0 before the first."""
    lag: int
    """How many entries of the log it doesn't hold yet."""


class ViewReader:
    """Reads the views of one ledger."""

    def __init__(self, dsn: str, schema: str) -> None:
        """Prepare a small pool; nothing connects before the first query."""
        env = Environment("views", log_environment(dsn, schema))
        self._datastore = LedgerFactory(env).datastore
        self._names: dict[str, Composable] = {
            name: Identifier(schema, name)
            for name in ("head", "entries", *(f"view_{view}" for view in VIEWS), _GAPS)
        }
        self._names["columns"] = SQL(", ").join(map(Identifier, AccessRow._fields))
        self._schema = schema

    def close(self) -> None:
        """Close the pool."""
        self._datastore.close()

    SELECT_STATE = "SELECT state::text FROM {view_record_state} WHERE record = %s"

    def select_state(self, record: UUID) -> RecordState | None:
        """Give a record's state as of the view's position; None for one it hasn't met."""
        rows = self.select(self.SELECT_STATE, (record,))
        return decode_state(rows[0][0]) if rows else None

    SELECT_ACCESSES = "SELECT {columns} FROM {view_access_history} WHERE "

    def select_accesses(
        self,
        *,
        record: UUID | None = None,
        actor: UUID | None = None,
        type_name: str | None = None,
        from_time: datetime | None = None,
        to_time: datetime | None = None,
        after_seq: int = 0,
        last_seq: int | None = None,
        limit: int,
    ) -> list[AccessRow]:
        """Give accesses by position: the next page begins after the last row's `seq`.

        Args:
            record: only this record's.
            actor: only this person's, by pseudonym.
            type_name: only those of this type, by its short name.
            from_time: only those that happened at this time or later.
            to_time: only those that happened before this time.
            after_seq: only those after this position.
            last_seq: none after this position.
            limit: most rows; the caller bounds it.
        """
        wanted = {
            "after_seq": after_seq,
            "last_seq": last_seq,
            "record": record,
            "actor": actor,
            "type_name": type_name,
            "from_time": from_time,
            "to_time": to_time,
        }
        rows = self._narrowed(self.SELECT_ACCESSES, wanted, limit)
        return [AccessRow(*row) for row in rows]

    SELECT_SEQS = "SELECT seq FROM {view_access_history} WHERE "

    def select_access_seqs(self, *, limit: int, **wanted: Any) -> list[int]:
        """Give only the positions of accesses; what narrows is as in `select_accesses`."""
        return [seq for (seq,) in self._narrowed(self.SELECT_SEQS, wanted, limit)]

    def _narrowed(self, text: str, wanted: dict[str, Any], limit: int) -> list[tuple[Any, ...]]:
        given = {_TESTS[name]: value for name, value in wanted.items() if value is not None}
        query = text + " AND ".join(given) + " ORDER BY seq LIMIT %s"
        return self.select(query, [*given.values(), limit])

    SELECT_ENTRIES = "SELECT seq, leaf, entry FROM {entries} WHERE seq = ANY(%s) ORDER BY seq"

    def select_entries(self, seqs: Sequence[int]) -> list[tuple[int, bytes, bytes]]:
        """Give position, leaf and bytes of entries; those that the log lacks are left out."""
        rows = self.select(self.SELECT_ENTRIES, (list(seqs),))
        return [(seq, leaf, entry) for seq, leaf, entry in rows]

    # Emptying a table gives it another file, so the number tells one filling from another.
    SELECT_FILLING = "SELECT relfilenode::bigint FROM pg_class WHERE oid = to_regclass(%s)"

    def select_filling(self, view: str) -> int:
        """Give a number that changes whenever a view is emptied, to be filled again."""
        name = Identifier(self._schema, f"view_{view}").as_string()
        return int(self.select(self.SELECT_FILLING, (name,))[0][0])

    SELECT_POSITION = """
SELECT coalesce(max(t.notification_id), 0), (SELECT seq FROM {head})
FROM {tracking} t WHERE application_name = %s"""

    def select_positions(self) -> list[ViewPosition]:
        """Give how far each view has come, and how far behind the log's head that is."""
        found = []
        for view in VIEWS:
            tracking = Identifier(self._schema, f"view_{view}_tracking")
            rows = self.select(self.SELECT_POSITION, (LedgerLog.name,), tracking=tracking)
            position, head = rows[0]
            found.append(ViewPosition(view, position, max(head - position, 0)))
        return found

    def select(
        self, text: str, params: Sequence[Any], **names: Identifier
    ) -> list[tuple[Any, ...]]:
        """Run a query that names tables in braces, and give its rows.

        Raises:
            Unavailable: the views can't be read.
        """
        query = SQL(text).format(**self._names, **names)
        with self._connection() as connection:
            cursor = connection.cursor(row_factory=tuple_row, binary=True)
            return cursor.execute(query, params, prepare=True).fetchall()

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            with self._datastore.get_connection() as connection:
                yield connection
        except (PersistenceError, psycopg.Error) as error:
            raise Unavailable("the views can't be read") from error
