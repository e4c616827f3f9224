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

    def __init__(self, recorder: LedgerRecorder, signer: CheckpointSigner, verifier: Verifier) -> None:
        self._recorder = recorder
        self._signer = signer
        self._verifier = verifier
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._signs = False
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
        """Store the newest checkpoint and leave the signer's place to others."""
        self._to_sign.put(None)
        if self._signing.is_alive():
            self._signing.join()
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(psycopg.Error):
            if self._signs and self._connection is not None:
                self._store(self._connection)
        if self._connection is not None:
            self._connection.close()

    def notarise(self, size: int, root: bytes, settle: Settle) -> None:
        """Answer a recorded group with a checkpoint that covers it, now or soon.

        Where this process signs, a thread of its own makes the memory durable and
        signs, so that the writer goes on with the next group meanwhile.
        """
        if self._signs:
            self._to_sign.put(_Recorded(size, root, settle))
            return
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
        note = None
        try:
            note = self._sign(newest.size, newest.root)
        except (ReadOnly, OSError) as error:
            self._recorder.stop_recording(str(error))
        for group in groups:
            group.settle(note)

    # -- the notary's thread ---------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._tick(TICK_S)
            except (psycopg.Error, PersistenceError, LedgerError, OSError) as error:
                _LOG.warning("notary: %s", type(error).__name__)
                self._lose_connection()
                self._expire()
                self._closing.wait(0.2)

    def _tick(self, wait_s: float) -> None:
        connection = self._connect()
        asked = any(True for _ in connection.notifies(timeout=wait_s, stop_after=1))
        if self._recorder.committed.is_set():
            self._recorder.committed.clear()
            self._notify(connection, self._recorder.channel_name)
        if not self._signs and not self._take_place(connection):
            self._follow(connection)
            return
        if asked or time.monotonic() - self._stored_at > STORE_EVERY_S:
            if self._recorder.stopped is None:
                self._sign_head()
            self._store(connection)

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            params = dict(self._recorder.datastore.pool.kwargs or {})  # type: ignore[arg-type]
            params["row_factory"] = tuple_row
            self._connection = psycopg.connect(**params, autocommit=True, connect_timeout=5)
            self._connection.execute(SQL("LISTEN {}").format(Identifier(self._channel)))
        return self._connection

    def _lose_connection(self) -> None:
        self._signs = False  # the advisory lock went with the connection
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
        """Become the signer if nobody is, having checked the log against the memory."""
        row = connection.execute(
            "SELECT pg_try_advisory_lock(%s)", (self._lock_number(),)
        ).fetchone()
        if row is None or not row[0]:
            return False
        self._check_memory()
        self._signs = True
        self._stored_at = float("-inf")
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if self._recorder.stopped is None:
            self._sign_head()
        for item in waiting:
            item.settle(self._newest[1] if self._newest else None)
        return True

    def _check_memory(self) -> None:
        """Stop recording where the database is behind, or beside, what was signed.

        An old copy of the database, or a failover that lost commits, shows here:
        going on would sign numbers twice.
        """
        size, _ = self._recorder.refresh()
        remembered = self._signer.remembered
        if remembered is None:
            if size > 0:
                self._recorder.stop_recording(
                    f"signer's memory: expected one that knows this log of {size} entries, found "
                    "an empty one; put the file back that belongs to this ledger"
                )
            return
        if size < remembered.size:
            self._recorder.stop_recording(
                f"the database is behind its signer's memory: size {remembered.size} was signed, "
                f"found {size} entries; restore the newer database"
            )
        elif root_at(remembered.size, self._recorder.read_tree) != remembered.root:
            self._recorder.stop_recording(
                f"the database contradicts its signer's memory at size {remembered.size}: "
                "another root was signed"
            )

    def _sign_head(self) -> None:
        size, root = self._recorder.refresh()
        if size:
            self._sign(size, root)

    def _sign(self, size: int, root: bytes) -> str:
        note = self._signer.sign(size, root)
        if self._newest is None or self._newest[0] < size:
            self._newest = (size, note)
        return note

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
        if self._waiting:
            self._notify(connection, self._channel)
        table = Identifier(self._recorder.datastore.schema, "checkpoints")
        row = connection.execute(
            SQL("SELECT note FROM {} ORDER BY size DESC LIMIT 1").format(table)
        ).fetchone()
        if row is not None and (self._newest is None or row[0] != self._newest[1]):
            checkpoint = open_checkpoint(row[0], self._verifier, self._recorder.origin)
            self._newest = (checkpoint.size, row[0])
        self._expire()

    def _expire(self) -> None:
        """Answer who is covered, and who has waited long enough."""
        covered = self._newest[0] if self._newest else -1
        now = time.monotonic()
        with self._lock:
            ready = [w for w in self._waiting if w.size <= covered or w.until <= now]
            self._waiting = [w for w in self._waiting if w not in ready]
        for item in ready:
            fits = self._newest is not None and item.size <= covered
            item.settle(self._newest[1] if fits and self._newest else None)
