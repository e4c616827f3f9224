"""Keep receipts: the answers line by line, and what reconciling asks of them.

A kept receipt names its subject by a digest under the outbox's own secret, so that receipts
can be kept for years without holding whom they are about.
"""

from __future__ import annotations

import json
import os
import zlib
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from ledger.client.receipts import Entry, Receipt
from ledger.core.checkpoint import parse_checkpoint
from ledger.core.note import split_note
from ledger.errors import TamperDetected

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from ledger.client.database import Database
    from ledger.client.outbox import Settled, Waiting
    from ledger.core.checkpoint import Checkpoint

_PAGE = 1_000
_FRESH = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


class Kept(NamedTuple):
    """One entry that a receipt names."""

    seq: int
    """Position in the ledger."""
    leaf: bytes
    """Leaf hash."""
    record: UUID
    """The record's UUID."""
    id: str
    """The event's id."""


class Archive:
    """The receipts of an outbox."""

    def __init__(self, database: Database, most_events: int | None) -> None:
        self._database = database
        self._most_events = most_events
        self.newest: Checkpoint | None = None
        note = database.meta("checkpoint")
        if note is not None:
            self.newest = parse_checkpoint(split_note(note)[0])

    def keep(self, connection: sqlite3.Connection, settled: Settled) -> None:
        """Within a transaction, keep an answer and its receipts; drop the oldest past the limit.

        Raises:
            TamperDetected: an entry's place had another leaf in an earlier receipt.
        """
        if settled.line is None or not settled.recorded:
            return
        newest = max(each.number for each, _ in settled.recorded)
        line = zlib.compress(settled.line, 6)
        connection.execute("INSERT INTO answers (newest, line) VALUES (?, ?)", (newest, line))
        rows = [
            row for waiting, receipt in settled.recorded for row in self._rows(waiting, receipt)
        ]
        self._compare(connection, [(row[3], row[4]) for row in rows])
        connection.executemany("INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        if settled.checkpoint is not None:
            connection.execute(
                "INSERT OR REPLACE INTO meta VALUES ('checkpoint', ?)", (settled.checkpoint,)
            )
        if self._most_events is not None:
            oldest = newest - self._most_events
            connection.execute("DELETE FROM answers WHERE newest <= ?", (oldest,))
            connection.execute("DELETE FROM receipts WHERE number <= ?", (oldest,))

    def _rows(self, waiting: Waiting, receipt: Receipt) -> Iterator[tuple[object, ...]]:
        event = json.loads(waiting.body)
        subjects = event.get("subjects") or [event.get("subject")]
        for part, entry in enumerate(receipt.entries):
            named = isinstance(subjects[part], str)
            yield (
                waiting.number,
                part,
                receipt.id,
                entry.seq,
                entry.leaf,
                entry.record.bytes,
                entry.version,
                self._database.digest(subjects[part]) if named else None,
                json.dumps([entry.recorded, receipt.repeated, receipt.incomplete]),
            )

    @staticmethod
    def _compare(connection: sqlite3.Connection, places: list[tuple[object, object]]) -> None:
        for seq, leaf in places:
            query = "SELECT leaf FROM receipts WHERE seq = ? AND leaf <> ?"
            if connection.execute(query, (seq, leaf)).fetchone():
                raise TamperDetected(f"entry {seq} has another leaf in an earlier receipt")

    def find(self, number: int) -> Receipt | None:
        """Give the receipt of an event by its place in the outbox, if it is kept."""
        query = (
            "SELECT id, seq, leaf, record, version, receipt FROM receipts WHERE number = ? "
            "ORDER BY part"
        )
        rows = self._database.rows(query, number)
        if not rows:
            return None
        _, repeated, incomplete = json.loads(rows[0][5])
        entries = tuple(
            Entry(
                record=UUID(bytes=record),
                seq=seq,
                leaf=leaf,
                version=version,
                recorded=json.loads(text)[0],
            )
            for _, seq, leaf, record, version, text in rows
        )
        return Receipt(
            id=rows[0][0], entries=entries, incomplete=tuple(incomplete), repeated=repeated
        )

    def split_subjects(self) -> list[tuple[list[UUID], list[int]]]:
        """Give the records, and the entries, of each subject that has more than one record."""
        found = []
        for (subject,) in self._database.rows(
            "SELECT subject FROM receipts WHERE subject IS NOT NULL "
            "GROUP BY subject HAVING count(DISTINCT record) > 1"
        ):
            rows = self._database.rows(
                "SELECT record, seq FROM receipts WHERE subject = ? ORDER BY seq", subject
            )
            records = list(dict.fromkeys(UUID(bytes=record) for record, _ in rows))
            found.append((records, [seq for _, seq in rows]))
        return found

    def entries(self) -> Iterator[Kept]:
        """Give every kept entry once, by position."""
        after = 0
        query = (
            "SELECT seq, leaf, record, min(id) FROM receipts WHERE seq > ? "
            "GROUP BY seq ORDER BY seq LIMIT ?"
        )
        while rows := self._database.rows(query, after, _PAGE):
            for seq, leaf, record, event_id in rows:
                yield Kept(seq, leaf, UUID(bytes=record), event_id)
            after = rows[-1][0]

    def keep_evidence(self, reason: str, line: bytes) -> None:
        """Keep an answer that the pinned key doesn't vouch for; at most ten, the newest.

        Raises:
            Unavailable: the file can't be written.
        """
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO evidence (reason, line) VALUES (?, ?)", (reason, zlib.compress(line))
            )
            connection.execute(
                "DELETE FROM evidence WHERE number <= (SELECT max(number) - 10 FROM evidence)"
            )

    def evidence(self) -> list[tuple[str, bytes]]:
        """Give those answers, each with the reason."""
        rows = self._database.rows("SELECT reason, line FROM evidence ORDER BY number")
        return [(reason, zlib.decompress(line)) for reason, line in rows]

    def export(self, path: Path) -> int:
        """Write the kept answers to a file, one a line, as `custody verify --receipts` reads them.

        Returns:
            How many lines there are.

        Raises:
            OSError: the file can't be written; what was there before stays.
            Unavailable: the outbox can't be read.
        """
        draft = path.with_name(f".{path.name}.draft")
        lines, after = 0, 0
        try:
            with os.fdopen(os.open(draft, _FRESH, 0o600), "wb") as file:
                query = (
                    "SELECT number, line FROM answers WHERE number > ? ORDER BY number LIMIT 100"
                )
                while rows := self._database.rows(query, after):
                    file.writelines(zlib.decompress(line) + b"\n" for _, line in rows)
                    lines += len(rows)
                    after = rows[-1][0]
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        return lines
