"""Events between being emitted and being acknowledged: numbered, stored, sent, settled.

Numbers: every event has a place in the outbox, in the order of emitting; most also get a
`sequence`, contiguous for each source under this outbox's instance. Both are written in the
transaction that stores the event, so that after a crash neither is missing nor used twice.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ledger.errors import Unavailable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from ledger.client.composing import Composed
    from ledger.client.database import Database
    from ledger.client.receipts import Receipt

_WAITING = "SELECT count(*), coalesce(sum(length(body)), 0) FROM events"
_ASIDE = "SELECT count(*), coalesce(sum(length(body)), 0) FROM refused"


class Numbered(NamedTuple):
    """An event with its place in the outbox."""

    number: int
    """1, 2, 3 … in the order of emitting."""
    event: Composed
    """What is to be stored."""


class Waiting(NamedTuple):
    """A stored event."""

    number: int
    """Its place in the outbox."""
    id: str
    """The event's id."""
    entries: int
    """How many entries it makes."""
    body: bytes
    """Its JSON, as it is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What an answer says of the events of one request."""

    recorded: Sequence[tuple[Waiting, Receipt]]
    """Acknowledged: they leave the outbox, their receipts stay."""
    refused: Sequence[tuple[Waiting, int, dict[str, Any]]]
    """Refused for themselves, with status and problem: set aside."""
    line: bytes | None
    """The answer as received, if it holds receipts."""
    checkpoint: str | None
    """Its checkpoint, if a pinned key vouches for it."""


class OutboxFull(Unavailable):
    """Say that the outbox's stated limit is reached."""


class Outbox:
    """The events that wait, and those set aside."""

    def __init__(self, database: Database, limit_bytes: int) -> None:
        self.database = database
        self._limit_bytes = limit_bytes
        self.waiting = self.refused = self.waiting_bytes = self.refused_bytes = 0
        self.count()
        database.reserve.take()

    def count(self) -> None:
        """Count anew what the file holds."""
        with self.database.lock:
            self.waiting, self.waiting_bytes = self.database.row(_WAITING)
            self.refused, self.refused_bytes = self.database.row(_ASIDE)

    @property
    def last_number(self) -> int:
        """The greatest number ever stored."""
        return int(self.database.row("SELECT value FROM counters WHERE name = 'number'")[0])

    def store(self, events: Sequence[Numbered]) -> None:
        """Store events in their order, durably; safe to repeat after an error.

        Raises:
            OutboxFull: they would be past the limit.
            Unavailable: they can't be written.
        """
        with self.database.lock:
            stored = self.last_number
            if stored >= events[0].number:
                # A commit before said that it failed, but it is on the disk.
                self.count()
                events = [each for each in events if each.number > stored]
            if not events:
                return
            size_bytes = sum(event.size_bytes for _, event in events)
            if self.waiting_bytes + self.refused_bytes + size_bytes > self._limit_bytes:
                raise OutboxFull(
                    f"the outbox holds {self.waiting + self.refused} events, "
                    "and with more would pass its limit of bytes"
                )
            self._require_reserve()
            with self.database.transaction() as connection:
                rows = self._number(connection, events)
                connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
            self.waiting += len(rows)
            self.waiting_bytes += sum(len(row[4]) for row in rows)

    def _require_reserve(self) -> None:
        """Check that there is room left to empty the outbox after this is stored."""
        while not self.database.reserve.take():
            if not self.database.fold():
                raise Unavailable("the outbox's disk is full")

    def oldest(self, most: int, most_bytes: int, most_entries: int) -> list[Waiting]:
        """Give the events to send next: at least one, if there is any."""
        with self.database.lock, self.database.errors():
            found: list[Waiting] = []
            size_bytes = entries = 0
            query = "SELECT number, id, entries, body FROM events ORDER BY number LIMIT ?"
            for row in self.database.rows(query, most):
                each = Waiting(*row)
                size_bytes += len(each.body) + 1
                entries += each.entries
                if found and (size_bytes > most_bytes or entries > most_entries):
                    break
                found.append(each)
            return found

    def oldest_time(self) -> float | None:
        """Give when the oldest waiting event was stored, in POSIX seconds."""
        row = self.database.row("SELECT stored FROM events ORDER BY number LIMIT 1")
        return None if row is None else float(row[0])

    def is_waiting(self, number: int) -> bool:
        """Tell whether an event that was stored is yet to be acknowledged or refused."""
        return self.database.row("SELECT 1 FROM events WHERE number = ?", number) is not None

    def waiting_up_to(self, number: int) -> int:
        """Count the stored events up to a number that are neither acknowledged nor refused."""
        found = self.database.row("SELECT count(*) FROM events WHERE number <= ?", number)
        return int(found[0])

    def take_out(self, connection: sqlite3.Connection, settled: Settled) -> None:
        """Within a transaction, take away what is acknowledged and set aside what is refused."""
        gone = [each for each, _ in settled.recorded] + [each for each, _, _ in settled.refused]
        connection.executemany(
            "DELETE FROM events WHERE number = ?", [(each.number,) for each in gone]
        )
        connection.executemany(
            "INSERT INTO refused VALUES (?, ?, ?, ?, ?, ?)",
            [
                (each.number, each.id, each.entries, status, json.dumps(problem), each.body)
                for each, status, problem in settled.refused
            ],
        )

    # -- numbers ---------------------------------------------------------------

    def sequences(self) -> dict[str, int]:
        """Give each source's last sequence."""
        query = "SELECT substr(name, 10), value FROM counters WHERE name LIKE 'sequence %'"
        return dict(self.database.rows(query))

    def _number(
        self, connection: sqlite3.Connection, events: Sequence[Numbered]
    ) -> list[tuple[int, str, int, float, bytes]]:
        """Within a transaction, give the events their sequences; give the rows to insert."""
        last = dict(self.database.rows("SELECT name, value FROM counters"))
        rows = []
        stored = time.time()
        for number, event in events:
            counter, reported = f"sequence {event.source}", f"reported {event.source}"
            sequence = last.setdefault(counter, 0)
            if event.report:
                count = sequence - last.get(reported, 0)
                last[reported] = sequence
                numbers = f'"count":{count},"last_sequence":{sequence}'
            else:
                last[counter] += 1
                numbers = f'"sequence":{sequence + 1}'
            body = event.body(numbers, self.database.instance)
            rows.append((number, event.id, event.entries, stored, body))
        last["number"] = events[-1].number
        connection.executemany(
            "INSERT INTO counters VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            last.items(),
        )
        return rows
