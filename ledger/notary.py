"""See that every recorded group gets a checkpoint, whichever process signs.

One process per ledger signs: the one that holds the advisory lock. It signs for
all. The others wait for its next checkpoint within a bound; past it their
receipts say that the checkpoint is still to come.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from eventsourcing.persistence import PersistenceError
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from ledger.core.checkpoint import open_checkpoint
from ledger.core.merkle import root_at
from ledger.errors import LedgerError, ReadOnly

if TYPE_CHECKING:
    from ledger.core.note import Verifier
    from ledger.recorder import LedgerRecorder, Settle
    from ledger.signing import CheckpointSigner

_LOG = logging.getLogger("ledger.notary")

WAIT_FOR_SIGNER_S = 2.0
"""How long a process that doesn't sign holds an answer back for a checkpoint."""
TICK_S = 0.02
STORE_EVERY_S = 1.0
KEEP_EVERY_S = 3600.0


class _Waiting(NamedTuple):
    size: int
    until: float
    settle: Settle


class _Recorded(NamedTuple):
    size: int
    root: bytes
    settle: Settle


class Notary:
    """Signs, or waits for who signs; keeps the newest checkpoint where others find it."""

    def __init__(
        self, recorder: LedgerRecorder, signer: CheckpointSigner, verifier: Verifier
    ) -> None:
        self._recorder = recorder
        self._signer = signer
        self._verifier = verifier
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._signs = False
        self._agrees = False
        self._forbidden: str | None = None
        self._place = threading.RLock()
        self._newest: tuple[int, str] | None = None
        self._stored_size = -1
        self._stored_at = self._kept_at = float("-inf")
        self._to_sign: queue.SimpleQueue[_Recorded | None] = queue.SimpleQueue()
        self._signing = threading.Thread(
            target=self._run_signing, name="ledger-signing", daemon=True
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger-notary", daemon=True)

    @property
    def signs(self) -> bool:
        """Whether this process is the one that signs."""
        return self._signs

    @property
    def newest(self) -> tuple[int, str] | None:
        """Size and note of the newest checkpoint known here."""
        return self._newest

    def start(self) -> None:
        """Take the signer's place if it is free, check the log against the memory, go on.

        A log that the memory contradicts stops recording; this does not raise.
        """
        with suppress(psycopg.Error, PersistenceError, LedgerError):
            self._tick(0)
        self._signing.start()
        self._thread.start()

    def close(self) -> None:
        """Answer who waits, store the newest checkpoint, leave the signer's place to others."""
        self._to_sign.put(None)
        if self._signing.is_alive():
            self._signing.join()
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._expire(float("inf"))
        with suppress(psycopg.Error):
            if self._signs and self._connection is not None:
                self._store(self._connection)
        self._lose_connection()

    def stop_signing(self, reason: str) -> None:
        """Sign nothing from now on, and record nothing."""
        with self._place:
            self._forbidden = reason
        self._recorder.stop_recording(reason)

    def notarise(self, size: int, root: bytes, settle: Settle) -> None:
        """Answer a recorded group with a checkpoint that covers it, now or soon.

        Where this process signs, a thread of its own makes the memory durable and
        signs, so that the writer goes on with the next group meanwhile.
        """
        if self._signs:
            self._to_sign.put(_Recorded(size, root, settle))
        else:
            self._wait(size, settle)

    def _wait(self, size: int, settle: Settle) -> None:
        with self._lock:
            self._waiting.append(_Waiting(size, time.monotonic() + WAIT_FOR_SIGNER_S, settle))

    # -- the signing thread ----------------------------------------------------

    def _run_signing(self) -> None:
        while (first := self._to_sign.get()) is not None:
            groups = [first]
            while not self._to_sign.empty():
                following = self._to_sign.get()
                if following is None:
                    self._to_sign.put(None)
                    break
                groups.append(following)
            self._sign_groups(groups)

    def _sign_groups(self, groups: list[_Recorded]) -> None:
        """Sign the newest of several groups: its checkpoint covers them all."""
        newest = max(groups, key=lambda group: group.size)
        answer = self._sign(newest.size, newest.root)
        for group in groups:
            if answer is None:  # the place was lost meanwhile
                self._wait(group.size, group.settle)
            else:
                group.settle(answer)

    def _sign(self, size: int, root: bytes) -> str | ReadOnly | None:
        """Give a checkpoint that covers a tree, or why there can be none; None for no signer.

        Where the memory can't be kept the entries stand, but nobody is told that they were
        recorded: no acknowledged entry is without a signature. Who repeats them later is
        answered from the log.
        """
        with self._place:
            if not self._signs:
                return None
            if self._newest is not None and self._newest[0] >= size:
                return self._newest[1]  # the other thread came first, with a larger tree
            if self._forbidden is not None:
                return ReadOnly(f"recorded, but not signed: {self._forbidden}", retry_after_s=300)
            try:
                self._newest = (size, self._signer.sign(size, root))
            except (ReadOnly, OSError) as error:
                self._recorder.stop_recording(f"no checkpoint could be signed: {error}")
                return ReadOnly(
                    "recorded, but no checkpoint could be signed for it; repeat it later",
                    retry_after_s=300,
                )
            return self._newest[1]

    # -- the notary's thread ---------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set() or self._waiting:
            try:
                self._tick(TICK_S)
            except (psycopg.Error, PersistenceError, LedgerError, OSError) as error:
                _LOG.warning("notary: %s", type(error).__name__)
                self._lose_connection()
                self._expire(time.monotonic())
                time.sleep(0.2)

    def _tick(self, wait_s: float) -> None:
        connection = self._connect()
        asked = any(True for _ in connection.notifies(timeout=wait_s, stop_after=1))
        if self._recorder.committed.is_set():
            self._recorder.committed.clear()
            self._notify(connection, self._recorder.channel_name)
        if not self._signs and not self._take_place(connection):
            self._follow(connection)
        elif asked or time.monotonic() - self._stored_at > STORE_EVERY_S:
            if self._recorder.stopped is None:
                self._sign_head()
            self._store(connection)
        self._expire(time.monotonic())

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            params = dict(self._recorder.datastore.pool.kwargs or {})  # type: ignore[arg-type]
            params["row_factory"] = tuple_row
            params = {"connect_timeout": 5, **params, "autocommit": True}
            self._connection = psycopg.connect(**params)
            self._agrees = False
            self._connection.execute(SQL("LISTEN {}").format(Identifier(self._channel)))
        return self._connection

    def _lose_connection(self) -> None:
        with self._place:
            self._signer.leave_place()
            self._signs = False  # the advisory lock goes with the connection
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
        self._connection = None

    @property
    def _channel(self) -> str:
        return f"{self._recorder.datastore.schema}_unsigned"

    def _lock_number(self) -> int:
        name = f"custody-ledger signer {self._recorder.origin}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)

    def _take_place(self, connection: psycopg.Connection[Any]) -> bool:
        """Become the signer if nobody is, having checked the log against the memory.

        The database's lock makes one signer of all processes on it; the lock on the memory
        makes one of those on copies of the database, and waits for a signer that has lost
        its connection without knowing yet.
        """
        lock = (self._lock_number(),)
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", lock).fetchone()
        if row is None or not row[0]:
            return False
        if not self._signer.take_place():
            connection.execute("SELECT pg_advisory_unlock(%s)", lock)
            return False
        self._agrees = self._check_memory(alone=True)
        with suppress(LedgerError):  # whatever stands in that table must not keep us from signing
            self._read_newest(connection)
        self._stored_at = float("-inf")
        self._signs = True
        return True

    def _check_memory(self, *, alone: bool) -> bool:
        """Stop recording where the database is behind, or beside, what was signed.

        An old copy of the database, or a failover that lost commits, shows here: going on
        would give numbers twice. A process that doesn't sign looks as well, since it records;
        an empty memory tells only the one that does: the signer may be on another machine.
        """
        remembered = self._signer.recall()  # first: the log only grows
        size, _ = self._recorder.refresh()
        if remembered is None:
            if alone and size == 0:
                self._begin()
            elif alone:
                self._recorder.stop_recording(
                    f"signer's memory: expected one that knows this log of {size} entries, found "
                    "an empty one; put the file back that belongs to this ledger"
                )
        elif size < remembered.size:
            self._recorder.stop_recording(
                f"the database is behind its signer's memory: size {remembered.size} was signed, "
                f"found {size} entries; restore the newer database"
            )
        elif root_at(remembered.size, self._recorder.read_tree) != remembered.root:
            self._recorder.stop_recording(
                f"the database contradicts its signer's memory at size {remembered.size}: "
                "another root was signed"
            )
        return self._recorder.stopped is None

    def _begin(self) -> None:
        try:
            self._signer.begin()
        except OSError as error:
            self._recorder.stop_recording(f"signer's memory: {error.strerror}")

    def _sign_head(self) -> None:
        size, root = self._recorder.refresh()
        if size:
            self._sign(size, root)

    def _store(self, connection: psycopg.Connection[Any]) -> None:
        """Keep the newest checkpoint, and one an hour; drop what it replaces."""
        now = time.monotonic()
        self._stored_at = now
        if self._newest is None or self._newest[0] == self._stored_size:
            return
        keep = now - self._kept_at >= KEEP_EVERY_S
        size, note = self._newest
        table = Identifier(self._recorder.datastore.schema, "checkpoints")
        connection.execute(
            SQL(
                "WITH replaced AS (DELETE FROM {0} WHERE NOT kept AND size < %s) "
                "INSERT INTO {0} (size, note, kept) VALUES (%s, %s, %s) "
                "ON CONFLICT (size) DO NOTHING"
            ).format(table),
            (size, size, note, keep),
        )
        self._stored_size = size
        self._kept_at = now if keep else self._kept_at
        self._notify(connection, f"{self._recorder.datastore.schema}_signed")

    @staticmethod
    def _notify(connection: psycopg.Connection[Any], channel: str) -> None:
        connection.execute(SQL("NOTIFY {}").format(Identifier(channel)))

    # -- while another process signs -------------------------------------------

    def _follow(self, connection: psycopg.Connection[Any]) -> None:
        if not self._agrees and self._recorder.stopped is None:
            self._agrees = self._check_memory(alone=False)
        if self._waiting:
            self._notify(connection, self._channel)
        self._read_newest(connection)

    def _read_newest(self, connection: psycopg.Connection[Any]) -> None:
        table = Identifier(self._recorder.datastore.schema, "checkpoints")
        row = connection.execute(
            SQL("SELECT note FROM {} ORDER BY size DESC LIMIT 1").format(table)
        ).fetchone()
        if row is not None and (self._newest is None or row[0] != self._newest[1]):
            checkpoint = open_checkpoint(row[0], self._verifier, self._recorder.origin)
            if self._newest is None or self._newest[0] < checkpoint.size:
                self._newest = (checkpoint.size, row[0])

    def _expire(self, now: float) -> None:
        """Answer who is covered, and who has waited long enough."""
        covered, note = self._newest or (-1, None)
        with self._lock:
            waiting = [w for w in self._waiting if w.size <= covered or w.until <= now]
            self._waiting = [w for w in self._waiting if w.size > covered and w.until > now]
        for item in waiting:
            item.settle(note if item.size <= covered else None)
