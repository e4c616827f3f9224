"""What every view has in common: its lock, its position, and one transaction for both.

A view's rows and its position are written in the same transaction, under a lock of the
view's own. Whoever holds the lock reads the position first and folds only what comes after
it. So each entry is folded exactly once, however many processes run the same view, whenever
one is killed, and whether a rebuild has moved the position meanwhile.
"""

from __future__ import annotations

from abc import abstractmethod
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar

from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from psycopg.sql import SQL, Composed, Identifier

from ledger.application import LedgerLog
from ledger.errors import TamperDetected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection, Cursor

    from projections.recorded import RecordedEvent


class View(PostgresTrackingRecorder):
    """Answers one question; its table can be dropped and filled again from the log."""

    name: ClassVar[str]
    """What the question is called; its table is `view_` and this."""

    @abstractmethod
    def write(self, cursor: Cursor[Any], events: Sequence[RecordedEvent]) -> None:
        """Fold entries that follow directly on all that was folded before.

        Raises:
            TamperDetected: an entry contradicts what was folded before.
        """

    def create_table(self) -> None:
        """Leave tables to the numbered migrations."""

    def sql(self, text: str) -> Composed:
        """Fill in the names of the view's table and of the log's."""
        schema = self.datastore.schema
        return SQL(text).format(
            view=Identifier(schema, f"view_{self.name}"),
            tracking=Identifier(schema, self.tracking_table_name),
            entries=Identifier(schema, "entries"),
        )

    @property
    def lock_key(self) -> int:
        """The key of the advisory lock that belongs to whoever writes this view."""
        digest = sha256(f"custody ledger, view {self.datastore.schema}.{self.name}".encode())
        return int.from_bytes(digest.digest()[:8], "big", signed=True)

    def max_tracking_id(self, application_name: str) -> int | None:
        """Ask once: the library would try ten times, and could not be stopped meanwhile."""
        with self.datastore.get_connection() as connection, connection.cursor() as cursor:
            return self._max_tracking_id(application_name, cursor)

    def position(self) -> int:
        """Give the position of the last entry folded; 0 before the first."""
        return self.max_tracking_id(LedgerLog.name) or 0

    def record(self, events: Sequence[RecordedEvent]) -> int | None:
        """Fold consecutive entries in one transaction; give the position afterwards.

        None means that somebody else is writing this view. A position before the first
        of `events` means that it was moved back, and reading must begin again from there.

        Raises:
            TamperDetected: as `advance` says.
        """
        with self.datastore.transaction(commit=True) as cursor:
            # A crash may cost the view its last commits. They were rows and position
            # together, so those entries are folded again; the log isn't concerned.
            cursor.execute("SET LOCAL synchronous_commit TO off")
            if not self._take_lock(cursor):
                return None
            return self.advance(cursor, events)

    # Tried, not waited for: a wait would keep a snapshot open for as long as a rebuild takes,
    # and could not be stopped. The position is read in a statement of its own, after the lock
    # was granted: in the same one it would be as old as the statement's snapshot.
    TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%s) AS taken"

    def _take_lock(self, cursor: Cursor[Any]) -> bool:
        row = cursor.execute(self.TRY_LOCK, (self.lock_key,), prepare=True).fetchone()
        return row is not None and bool(row["taken"])

    def advance(self, cursor: Cursor[Any], events: Sequence[RecordedEvent]) -> int:
        """Fold what is new of consecutive entries, while holding the lock.

        Raises:
            TamperDetected: an entry contradicts what was folded before, or the log has none
                where one must be.
        """
        position = self._max_tracking_id(LedgerLog.name, cursor) or 0
        fresh = [event for event in events if event.seq > position]
        if not fresh:
            return position
        if fresh[0].seq != position + 1:
            self._check_entry_exists(cursor, position + 1)
            return position
        self.write(cursor, fresh)
        self._insert_tracking(cursor, Tracking(LedgerLog.name, fresh[-1].seq))
        return fresh[-1].seq

    SELECT_ENTRY_EXISTS = "SELECT EXISTS (SELECT FROM {entries} WHERE seq = %s) AS found"

    def _check_entry_exists(self, cursor: Cursor[Any], seq: int) -> None:
        """Tell a position that was moved back from a hole in the log."""
        row = cursor.execute(self.sql(self.SELECT_ENTRY_EXISTS), (seq,)).fetchone()
        if row is None or not row["found"]:
            raise TamperDetected(f"expected entry {seq} next, it is missing")

    TRUNCATE = "TRUNCATE {view}"
    DELETE_POSITION = "DELETE FROM {tracking} WHERE application_name = %s"

    def clear(self, connection: Connection[Any]) -> None:
        """Empty the view and forget its position, while holding the lock."""
        connection.execute(self.sql(self.TRUNCATE))
        connection.execute(self.sql(self.DELETE_POSITION), (LedgerLog.name,))
