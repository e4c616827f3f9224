"""Report on oneself from time to time: `source.reported`, so that silence is noticed.

It says how many events were stored since the report before, and up to which `sequence`: the
outbox fills that in when it stores the report (`Outbox.store`). Itself it has no number: a
report that is lost leaves no gap, and an event that is lost before a report arrives does.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ledger.client.composing import compose, now
from ledger.errors import Unavailable

if TYPE_CHECKING:
    from ledger.client.engine import Engine

TYPE = "source.reported"
_FIRST_S = 60.0


class Heartbeat:
    """Emits the reports of one outbox's sources; called by the sender while the ledger answers."""

    def __init__(self, engine: Engine, source: str, every_s: float | None) -> None:
        self._engine, self._source, self._every_s = engine, source, every_s
        # A process that never lives for the whole interval reports too.
        self._next_s = time.monotonic() + min(_FIRST_S, every_s or _FIRST_S)
        self._ids: set[str] = set()

    def __call__(self) -> float | None:
        """Report if it is time; give in how many seconds it is time again, None for never."""
        if self._every_s is None:
            return None
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + self._every_s
            self._ids.clear()
            self.report()
        return max(0.01, self._next_s - time.monotonic())

    def report(self) -> None:
        """Emit a report for each source that numbers events here."""
        for source in {self._source: 0, **self._engine.outbox.sequences()}:
            data = {"actor": {"id": source, "kind": "service"}, "until": now()}
            event = compose({"type": TYPE, "data": data}, source, report=True)
            self._ids.add(event.id)
            # Where there is no room for a report, there is none for what it reports on.
            with suppress(Unavailable):
                self._engine.offer(event, 0.0)

    def refused(self, event_id: str) -> None:
        """Report no more if the ledger refuses it: this credential may not."""
        if event_id in self._ids:
            self._every_s = None
