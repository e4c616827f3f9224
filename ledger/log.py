"""Read the log through the event-sourcing library's recorder interface.

Nothing here writes entries; `ledger.appending` is the only module that does.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import psycopg
from eventsourcing.persistence import (
    InterfaceError,
    Notification,
    OperationalError,
    PersistenceError,
    StoredEvent,
    Subscription,
)
from eventsourcing.postgres import (
    PostgresApplicationRecorder,
    PostgresDatastore,
    PostgresSubscription,
)
from eventsourcing.utils import retry
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composed, Identifier

from ledger.core.entry import unwrap_state

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

POLL_S = 1.0
"""Readers look again after this long, notified or not: a wake-up can be lost."""

BATCH = 2_000
"""Entries that a subscription reads at once."""

GATHER_S = 0.02
"""How long a reader lets entries gather once it has read all there were."""

BUSY = 20
BUSY_GATHER_S = 0.25
"""The same where the last reading gave many: small batches would cost the writer, who shares
the processors, more than a quarter of a second is worth to anybody who looks at a view."""

_RETRIED = retry((InterfaceError, OperationalError), max_attempts=10, wait=0.2)
_KIND = b',"stream_kind":"'


def state_of(entry: bytes, topic: str) -> bytes:
    """Give what the library stored: an aggregate's state, else the entry itself.

    The ledger's members stand before all that an emitter wrote, so the first
    `stream_kind` is the ledger's (FORMAT.md 1.3).
    """
    if entry.startswith(b"aggregate", entry.index(_KIND) + len(_KIND)):
        return unwrap_state(entry, topic)
    return entry


class LogReader(PostgresApplicationRecorder):
    """Gives entries as stored events and notifications; writes nothing."""

    whole_entries = False
    """True gives aggregates' entries whole as well, as projections want them."""

    def __init__(self, datastore: PostgresDatastore, *, events_table_name: str = "entries") -> None:
        super().__init__(datastore, events_table_name=events_table_name)
        self.sql_create_statements = []
        self.channel_name = f"{datastore.schema}_entries"
        self.table = Identifier(datastore.schema, "entries")

    def create_table(self) -> None:
        """Leave tables to the numbered migrations."""

    def sql(self, text: str) -> Composed:
        """Give a query with `{table}` replaced by the table's full name."""
        names = {
            name: Identifier(self.datastore.schema, name)
            for name in (
                "entries",
                "head",
                "stream_heads",
                "accepted",
                "tree_nodes",
                "checkpoints",
                "boxes",
                "identities",
                "keys",
            )
        }
        return SQL(cast("Any", text)).format(**names)

    @_RETRIED
    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Give a stream's events by version."""
        statement = self.sql(
            "SELECT version, topic, entry FROM {entries} WHERE stream = %s"
            " AND version > %s AND version <= %s ORDER BY version"
        )
        statement += SQL(" DESC LIMIT %s" if desc else " ASC LIMIT %s")
        bounds = (-1 if gt is None else gt, 2**62 if lte is None else lte)
        with self.datastore.get_connection() as conn:
            cursor = conn.cursor(row_factory=tuple_row, binary=True)
            rows = cursor.execute(statement, (originator_id, *bounds, limit), prepare=True)
            return [
                StoredEvent(originator_id, version, topic, self._state(entry, topic))
                for version, topic, entry in rows
            ]

    @_RETRIED
    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Give entries by position, optionally of some topics only."""
        statement = self.sql(
            "SELECT seq, stream, version, topic, entry FROM {entries} WHERE seq >= %s AND seq <= %s"
        )
        first = 1 if start is None else start + (not inclusive_of_start)
        params: list[Any] = [first, 2**62 if stop is None else stop]
        if topics:
            statement += SQL(" AND topic = ANY(%s)")
            params.append(list(topics))
        statement += SQL(" ORDER BY seq LIMIT %s")
        params.append(limit)
        with self.datastore.get_connection() as conn:
            cursor = conn.cursor(row_factory=tuple_row, binary=True)
            rows = cursor.execute(statement, params, prepare=True).fetchall()
        return [
            Notification(stream, version, topic, self._state(entry, topic), id=seq)
            for seq, stream, version, topic, entry in rows
        ]

    @_RETRIED
    def max_notification_id(self) -> int | None:
        """Give the head's position; None while the log is empty."""
        with self.datastore.get_connection() as conn:
            cursor = conn.cursor(row_factory=tuple_row)
            row = cursor.execute(self.sql("SELECT max(seq) FROM {entries}")).fetchone()
        return None if row is None else row[0]

    def _state(self, entry: bytes, topic: str) -> bytes:
        return entry if self.whole_entries else state_of(entry, topic)

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[Any]:
        """Give entries after a position as they come, without end."""
        return LogSubscription(recorder=self, gt=gt, topics=topics)


class WholeLogReader(LogReader):
    """Gives every entry whole: what projections fold."""

    whole_entries = True


class LogSubscription(PostgresSubscription):
    """A subscription that survives lost wake-ups and lost connections.

    The stock one waits without a timeout, so that a notification sent before LISTEN
    was in force is lost, and ends for good when its listening connection is killed.
    """

    # The base class sets 500 and starts its thread at once: only a property holds.
    _select_limit = property(lambda _: BATCH, lambda _, __: None)

    def next_batch(self) -> list[Notification]:
        """Give all that has been read already, waiting for at least one entry.

        Raises:
            StopIteration: the subscription was stopped.
        """
        first = next(self)
        rest = self._notifications[self._notifications_index :]
        self._notifications_index = len(self._notifications)
        return [first, *rest]

    def _loop_on_pull(self) -> None:
        while not self._has_been_stopped:
            before = self._last_notification_id or 0
            try:
                self._pull()
            except PersistenceError:
                time.sleep(POLL_S)
                continue
            except BaseException as error:  # noqa: BLE001 - handed to whoever iterates
                self._thread_error = self._thread_error or error
                self.stop()
                return
            if self._has_been_notified.wait(POLL_S) and not self._has_been_stopped:
                busy = (self._last_notification_id or 0) - before > BUSY
                time.sleep(BUSY_GATHER_S if busy else GATHER_S)

    def _listen(self) -> None:
        while not self._has_been_stopped:
            try:
                self._listen_once()
            except (PersistenceError, psycopg.Error):
                time.sleep(POLL_S)

    def _listen_once(self) -> None:
        with self._recorder.datastore.get_connection() as conn:
            conn.execute(SQL("LISTEN {}").format(Identifier(self._recorder.channel_name)))
            while not self._has_been_stopped:
                for _ in conn.notifies(timeout=0.1, stop_after=1):
                    self._has_been_notified.set()
