"""The outbox's file: SQLite, one process at a time, every commit flushed to the disk.

WAL with `synchronous=FULL`: a commit that has returned survives a kill and a power cut, as far
as the disk keeps its word. What is deleted is overwritten (`secure_delete`), since events
hold personal values until they are sent; the file's mode is 0600. An exclusive lock on a
file beside it keeps a second process out: two writers would number two events alike.
"""

from __future__ import annotations

import hmac
import secrets
import sqlite3
import string
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ledger.client.lock import OutboxLock
from ledger.client.reserve import Reserve
from ledger.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger.client.health import Place

_APPLICATION_ID = 1129664322
_VERSION = 1
_LOG_PAGES = 128
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE events (number INTEGER PRIMARY KEY, id TEXT NOT NULL, entries INTEGER NOT NULL,
    stored REAL NOT NULL, body BLOB NOT NULL);
CREATE TABLE refused (number INTEGER PRIMARY KEY, id TEXT NOT NULL, entries INTEGER NOT NULL,
    status INTEGER NOT NULL, problem TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE answers (number INTEGER PRIMARY KEY, newest INTEGER NOT NULL, line BLOB NOT NULL);
CREATE TABLE receipts (number INTEGER, part INTEGER, id TEXT NOT NULL, seq INTEGER NOT NULL,
    leaf BLOB NOT NULL, record BLOB NOT NULL, version INTEGER NOT NULL, subject BLOB,
    receipt TEXT, PRIMARY KEY (number, part)) WITHOUT ROWID;
CREATE INDEX receipts_by_seq ON receipts (seq);
CREATE TABLE evidence (number INTEGER PRIMARY KEY, reason TEXT NOT NULL, line BLOB NOT NULL);
INSERT INTO counters VALUES ('number', 0);
PRAGMA application_id = 1129664322;
PRAGMA user_version = 1;
COMMIT;
"""


class Database:
    """An open outbox file, or one in memory. Its threads take turns by a lock."""

    def __init__(self, place: Place) -> None:
        """Open it, made anew where there is none.

        Raises:
            Misconfigured: another process or client has it, or it is another ledger's or
                instance's, or no outbox at all.
            Unavailable: it can't be made, read or written.
        """
        self.path = None if place.path is None else place.path.resolve()
        self._lock = threading.RLock()
        self._held = None if self.path is None else OutboxLock(self.path)
        self.reserve = Reserve(self.path)
        try:
            self._connection = self._connect()
            with self.errors():
                self._prepare()
            self.instance = self._belong(place)
            with self.lock, self.errors():
                self.secret = bytes.fromhex(self.meta("secret") or "")
        except BaseException:
            self.close()
            raise

    @property
    def lock(self) -> threading.RLock:
        """Held around everything that reads or writes several rows."""
        return self._lock

    def close(self) -> None:
        """Close the file and let others have it."""
        with self._lock:
            connection = getattr(self, "_connection", None)
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()
        if self._held is not None:
            self._held.release()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn SQLite's errors into ours; its words can't repeat a value, its codes are enough.

        Raises:
            Unavailable: the file can't be read or written.
        """
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorname", type(error).__name__)
            where = self.path or "in memory"
            raise Unavailable(f"outbox {where}: can't be read or written ({code})") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what the block does, flushed to the disk, or nothing of it.

        Raises:
            Unavailable: it could not be committed. A commit that reports an error may still
                be on the disk: whoever repeats it looks first.
        """
        with self._lock, self.errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk makes SQLite roll back by itself.
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, query: str, *arguments: object) -> list[Any]:
        """Give all rows of a query.

        Raises:
            Unavailable: the file can't be read.
        """
        with self._lock, self.errors():
            return self._connection.execute(query, arguments).fetchall()

    def row(self, query: str, *arguments: object) -> Any:
        """Give a query's first row, or None."""
        found = self.rows(query, *arguments)
        return found[0] if found else None

    def fold(self) -> bool:
        """Give some room back to the disk: free pages, and SQLite's log; give if there was any."""
        with self._lock, suppress(sqlite3.Error):
            free: int = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
            self._connection.execute(f"PRAGMA incremental_vacuum({_LOG_PAGES})").fetchall()
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return free > 0
        return False

    def meta(self, name: str) -> str | None:
        """Give a remembered text."""
        found = self.row("SELECT value FROM meta WHERE name = ?", name)
        return None if found is None else str(found[0])

    def digest(self, subject: str) -> bytes:
        """Give what stands for a subject in kept receipts: an HMAC under the outbox's secret."""
        return hmac.digest(self.secret, subject.encode(), "sha256")[:16]

    def _connect(self) -> sqlite3.Connection:
        with self.errors():
            return sqlite3.connect(
                ":memory:" if self.path is None else self.path,
                timeout=10.0,
                isolation_level=None,
                check_same_thread=False,
            )

    def _prepare(self) -> None:
        run = self._connection.execute
        try:
            version = run("PRAGMA user_version").fetchone()[0]
            kind = run("PRAGMA application_id").fetchone()[0]
            tables = run("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise Misconfigured(f"outbox {self.path}: expected an outbox's file") from error
        if tables and (kind, version) != (_APPLICATION_ID, _VERSION):
            raise Misconfigured(f"outbox {self.path}: expected an outbox of version {_VERSION}")
        run("PRAGMA auto_vacuum = INCREMENTAL")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA secure_delete = ON")
        run(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        run("PRAGMA journal_size_limit = 16777216")
        if not tables:
            self._connection.executescript(_SCHEMA)
            if self._held is not None:
                self._held.flush_directory()

    def _belong(self, place: Place) -> str:
        """Note what a new outbox is for; hold an old one to it; give its instance."""
        wanted = {"ledger": place.ledger, "instance": place.instance}
        with self.transaction() as connection:
            if self.meta("ledger") is None:
                drawn = "".join(secrets.choice(string.ascii_lowercase) for _ in range(10))
                new = {**wanted, "instance": place.instance or drawn}
                new["secret"] = secrets.token_hex(32)
                connection.executemany("INSERT INTO meta VALUES (?, ?)", new.items())
        for name, value in wanted.items():
            if value not in {None, self.meta(name)}:
                raise Misconfigured(f"outbox {self.path}: expected that of the {name} {value}")
        return self.meta("instance") or ""
