"""Follow the head of the log: one connection, the tree's right edge, and when to stop.

Other writers move the head as well. Whoever catches up reads what they entered from the
last entry seen onwards, and sees on the way that this entry is still the same: a log that
was put back to an older state, or altered, is noticed before anything is added to it.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import tuple_row

from ledger.core.merkle import RightEdge
from ledger.errors import ReadOnly, Unavailable
from ledger.sequencing import Head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger.known import Known
    from ledger.log import LogReader
    from ledger.sequencing import Group

_LOG = logging.getLogger("ledger.following")

_LIVELY: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""A server that vanishes without a word is noticed within half a minute, not after hours."""


class HeadFollower:
    """Knows the log's head and tree as they stood at the last look.

    `head`, `edge` and `current` belong to whoever holds `lock`.
    """

    def __init__(self, log: LogReader, known: Known) -> None:
        self.lock = threading.RLock()
        self.head: Head | None = None
        self.edge = RightEdge()
        self.current = False
        self.stopped: ReadOnly | None = None
        self._log = log
        self._known = known
        self._connection: psycopg.Connection[Any] | None = None

    # -- connection ------------------------------------------------------------

    def connect(self) -> psycopg.Connection[Any]:
        """Give the connection, a new one where there is none.

        Raises:
            psycopg.Error: there can be none now.
        """
        if self._connection is None or self._connection.closed:
            params = dict(self._log.datastore.pool.kwargs or {})  # type: ignore[arg-type]
            params["row_factory"] = tuple_row
            connection = psycopg.connect(**{**_LIVELY, **params, "autocommit": True})
            connection.execute("SET statement_timeout = '30s'")
            setting = connection.execute("SHOW synchronous_commit").fetchone()
            if setting is not None and setting[0] == "off":
                connection.execute("SET synchronous_commit = on")  # acknowledged means durable
            self._connection = connection
            self.current = False
        return self._connection

    def disconnect(self) -> None:
        """Let the connection go; whoever needs it again makes a new one."""
        with self.lock:
            if self._connection is not None:
                with suppress(psycopg.Error):
                    self._connection.close()
            self._connection = None
            self.current = False

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        with self.lock:
            try:
                yield self.connect()
            except psycopg.Error as error:
                self.disconnect()
                raise Unavailable("the database can't be reached") from error

    # -- the tree --------------------------------------------------------------

    def refresh(self) -> tuple[int, bytes]:
        """Catch up with other writers; give size and root of the tree as it stands.

        Raises:
            ReadOnly: the log no longer holds what this process saw in it.
            Unavailable: the database can't be reached.
        """
        with self._connected() as connection:
            self.catch_up(connection)
            return self.edge.size, self.edge.root()

    def read_tree(self, level: int, first: int, count: int) -> list[bytes]:
        """Give stored hashes of the tree: leaves at level 0, else nodes (FORMAT.md 3.3).

        Raises:
            Unavailable: the database can't be reached.
        """
        with self._connected() as connection:
            return self._select_hashes(connection, level, first, count)

    def _select_hashes(
        self, connection: psycopg.Connection[Any], level: int, first: int, count: int
    ) -> list[bytes]:
        if level == 0:
            query = "SELECT leaf FROM {entries} WHERE seq > %s AND seq <= %s ORDER BY seq"
            bounds: tuple[int, ...] = (first, first + count)
        else:
            query = (
                "SELECT hash FROM {tree_nodes} WHERE idx >= %s AND idx < %s AND level = %s"
                " ORDER BY idx"
            )
            bounds = (first, first + count, level)
        cursor = connection.cursor(binary=True)
        return [row[0] for row in cursor.execute(self._log.sql(query), bounds, prepare=True)]

    # -- the head --------------------------------------------------------------

    def advance(self, group: Group, edge: RightEdge) -> None:
        """Move on to the head of a group that stands, unless a later one was seen already."""
        if self.head is not None and self.head.seq < group.seq:
            self.head = group.head
            self.edge = edge
            self._known.heads.remember(group.heads)

    def catch_up(self, connection: psycopg.Connection[Any]) -> None:
        """Follow the head to where other writers have moved it.

        Raises:
            ReadOnly: the log no longer holds what this process saw in it.
            psycopg.Error: it could not be read.
        """
        row = connection.execute(self._log.sql("SELECT seq, leaf, recorded FROM {head}")).fetchone()
        if row is None:
            raise self.stop("the head's row is missing")
        head = Head(*row)
        if self.head is None:
            self.edge = RightEdge.load(
                head.seq, lambda *wanted: self._select_hashes(connection, *wanted)
            )
        elif head != self.head:
            self._follow(connection, self.head, head)
        self.head = head
        self.current = True

    def _follow(self, connection: psycopg.Connection[Any], seen: Head, head: Head) -> None:
        rows = self._select_entered(connection, max(seen.seq, 1), head.seq)
        if seen.seq:
            if not rows or rows[0][0] != seen.seq or rows[0][3] != seen.leaf:
                raise self.stop(f"entry {seen.seq} is not the one this process recorded or saw")
            rows = rows[1:]
        if [r[0] for r in rows] != list(range(seen.seq + 1, head.seq + 1)):
            raise self.stop(f"entries after {seen.seq} are missing below the head {head.seq}")
        # A copy: the writer may be handing the old edge's size and root to the notary just now,
        # and a size with another size's root must never be signed.
        edge = self.edge.copy()
        edge.extend([leaf for *_, leaf in rows])
        self.edge = edge
        heads = {stream: (version, leaf.hex().encode()) for _, stream, version, leaf in rows}
        self._known.heads.remember(heads)

    def _select_entered(
        self, connection: psycopg.Connection[Any], first: int, last: int
    ) -> list[tuple[Any, ...]]:
        query = self._log.sql(
            "SELECT seq, stream, version, leaf FROM {entries}"
            " WHERE seq >= %s AND seq <= %s ORDER BY seq"
        )
        return connection.cursor(binary=True).execute(query, (first, last)).fetchall()

    # -- stopping --------------------------------------------------------------

    def stop(self, reason: str) -> ReadOnly:
        """Refuse everything from now on; give the error that says why."""
        self.stopped = ReadOnly(reason, retry_after_s=300)
        _LOG.critical("recording stopped: %s", reason)
        return self.stopped

    def check_not_stopped(self) -> None:
        """Go on only while nothing speaks against it.

        Raises:
            ReadOnly: recording has stopped until people decide.
        """
        # A new one each time: one that is raised again and again collects every raiser's frames.
        if self.stopped is not None:
            raise ReadOnly(self.stopped.detail, retry_after_s=self.stopped.retry_after_s)
