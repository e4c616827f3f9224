"""What a witness remembers: the logs it watches, and every checkpoint it has cosigned.

SQLite in a file of its own, durable before anything is answered. The primary key of
`cosigned` is the last word on the one promise that matters: never two roots for one size.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ledger.errors import Misconfigured, Unavailable
from ledger.witness.decision import Held

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_FORMAT = "custody-ledger/witness/v0"
_BUSY_S = 5.0
_SCHEMA = """
CREATE TABLE identity (format TEXT NOT NULL, verifier_key TEXT NOT NULL) STRICT;
CREATE TABLE log_keys (
    origin TEXT NOT NULL,
    verifier_key TEXT NOT NULL,
    PRIMARY KEY (origin, verifier_key)
) STRICT, WITHOUT ROWID;
CREATE TABLE cosigned (
    origin TEXT NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0),
    root BLOB NOT NULL CHECK (length(root) = 32),
    time_s INTEGER NOT NULL CHECK (time_s > 0),
    note TEXT NOT NULL,
    PRIMARY KEY (origin, size)
) STRICT;
CREATE TRIGGER cosigned_once BEFORE UPDATE ON cosigned
    WHEN NEW.origin <> OLD.origin OR NEW.size <> OLD.size OR NEW.root <> OLD.root
    BEGIN SELECT RAISE(ABORT, 'a checkpoint that was cosigned is never changed'); END;
CREATE TRIGGER cosigned_for_good BEFORE DELETE ON cosigned
    BEGIN SELECT RAISE(ABORT, 'a checkpoint that was cosigned is never forgotten'); END;
"""


class WitnessStore:
    """An open state; threads and processes take turns."""

    def __init__(self, path: Path) -> None:
        """Open a state that `create` made.

        Raises:
            Misconfigured: there is none: a witness that forgot must not go on.
        """
        self.path = path
        self._lock = threading.RLock()
        if not path.is_file():
            raise Misconfigured(
                f"witness's state {path}: expected a file, found none. A witness that has lost "
                "its state can be led to cosign another tree: restore the newest copy, or make "
                "a new witness with a new key"
            )
        self._connection = sqlite3.connect(
            path.as_uri() + "?mode=rw",
            uri=True,
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        with self._reading():
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA fullfsync = ON")
            found = self._connection.execute("SELECT format, verifier_key FROM identity")
            row = found.fetchone()
        if row is None or row[0] != _FORMAT:
            raise Misconfigured(f"witness's state {path}: expected format {_FORMAT}")
        self.verifier_key: str = row[1]

    @classmethod
    def create(cls, path: Path, verifier_key: str) -> None:
        """Make an empty state that belongs to one key."""
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            connection.execute("INSERT INTO identity VALUES (?, ?)", (_FORMAT, verifier_key))
        finally:
            connection.close()

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            self._connection.close()

    # -- reading ---------------------------------------------------------------

    def log_keys(self, origin: str) -> list[str]:
        """Give the verifier keys trusted for an origin; none for a log not watched."""
        rows = self._select(
            "SELECT verifier_key FROM log_keys WHERE origin = ? ORDER BY verifier_key", (origin,)
        )
        return [key for (key,) in rows]

    def origins(self) -> list[str]:
        """Give the logs watched, in order."""
        return [origin for (origin,) in self._select("SELECT DISTINCT origin FROM log_keys", ())]

    def newest(self, origin: str) -> Held | None:
        """Give the largest checkpoint cosigned for a log."""
        rows = self._select(
            "SELECT size, root, time_s, note FROM cosigned WHERE origin = ?"
            " ORDER BY size DESC LIMIT 1",
            (origin,),
        )
        return Held(*rows[0]) if rows else None

    def at_size(self, origin: str, size: int) -> Held | None:
        """Give the checkpoint cosigned at a size; None where none was."""
        rows = self._select(
            "SELECT size, root, time_s, note FROM cosigned WHERE origin = ? AND size = ?",
            (origin, size),
        )
        return Held(*rows[0]) if rows else None

    def count(self, origin: str) -> int:
        """Give how many checkpoints were cosigned for a log."""
        rows = self._select("SELECT count(*) FROM cosigned WHERE origin = ?", (origin,))
        return int(rows[0][0])

    # -- writing ---------------------------------------------------------------

    def watch(self, origin: str, verifier_key: str) -> None:
        """Trust a key for a log from now on; doing it twice changes nothing."""
        with self.turn():
            self._connection.execute(
                "INSERT INTO log_keys VALUES (?, ?) ON CONFLICT DO NOTHING", (origin, verifier_key)
            )

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the state alone, also against other processes; kept at the end, or not at all.

        Looking up the old size and storing the new one are one step only if no other request
        can come between: the write lock is taken before the first read.

        Raises:
            Unavailable: the state can't be read or kept; nothing was changed that was told of.
        """
        with self._reading():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def keep(self, origin: str, held: Held) -> None:
        """Store a cosigned checkpoint, within a turn; cosigned again, only its time is new."""
        self._connection.execute(
            "INSERT INTO cosigned VALUES (?, ?, ?, ?, ?) ON CONFLICT (origin, size)"
            " DO UPDATE SET root = excluded.root, time_s = excluded.time_s, note = excluded.note",
            (origin, held.size, held.root, held.time_s, held.note),
        )

    def _select(self, query: str, params: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._reading():
            return self._connection.execute(query, params).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise Unavailable(f"witness's state: {error}") from error
