"""Events that the ledger refused for themselves: set aside until people decide."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from ledger.client.health import SetAside
from ledger.errors import NotFound

if TYPE_CHECKING:
    from ledger.client.composing import Composed
    from ledger.client.outbox import Outbox

_REFUSED = "SELECT number, id, status, problem, body FROM refused"
_NUMBERS = ("sequence", "count", "last_sequence")


class Refusals:
    """The refused events of an outbox. Nothing sends them again by itself."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._database = outbox.database

    def all(self) -> list[SetAside]:
        """Give the refused events, oldest first."""
        return list(map(_refused, self._database.rows(f"{_REFUSED} ORDER BY number")))

    def find(self, number: int) -> SetAside | None:
        """Give one of them."""
        row = self._database.row(f"{_REFUSED} WHERE number = ?", number)
        return None if row is None else _refused(row)

    def put_back(self, number: int, event: Composed | None) -> None:
        """Let a refused event be sent again, corrected or as it was, under its old numbers.

        Raises:
            NotFound: none of this number is set aside.
            Unavailable: the file can't be written.
        """
        with self._database.transaction() as connection:
            row = self._database.row(
                "SELECT id, entries, body FROM refused WHERE number = ?", number
            )
            if row is None:
                raise NotFound(f"expected the number of a refused event, found {number}")
            if event is not None:
                data = json.loads(row[2])["data"]
                numbers = {name: data[name] for name in _NUMBERS if name in data}
                text = json.dumps(numbers, separators=(",", ":"))[1:-1]
                row = (event.id, event.entries, event.body(text, self._database.instance))
            connection.execute("DELETE FROM refused WHERE number = ?", (number,))
            connection.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
                (number, row[0], row[1], time.time(), row[2]),
            )
        self._outbox.count()

    def discard(self, number: int) -> None:
        """Delete a refused event for good; its sequence stays a gap in the ledger.

        Raises:
            NotFound: none of this number is set aside.
            Unavailable: the file can't be written.
        """
        with self._database.transaction() as connection:
            gone = connection.execute("DELETE FROM refused WHERE number = ?", (number,))
            if not gone.rowcount:
                raise NotFound(f"expected the number of a refused event, found {number}")
        self._outbox.count()


def _refused(row: Any) -> SetAside:
    number, event_id, status, problem, body = row
    return SetAside(
        number=number, id=event_id, status=status, problem=json.loads(problem), event=body
    )
