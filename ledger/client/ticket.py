"""What `emit` gives back: a way to wait until an event is stored, or recorded."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ledger.errors import NotFound, Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Generator

    from ledger.client.core import Core
    from ledger.client.receipts import Receipt


class Ticket:
    """One emitted event. It needn't be kept: the event is stored and sent all the same."""

    __slots__ = ("_core", "id", "number")

    def __init__(self, core: Core, number: int, event_id: str) -> None:
        self._core = core
        self.number = number
        """Place in the outbox."""
        self.id = event_id
        """The event's id."""

    @property
    def stored(self) -> bool:
        """Whether a kill or a power cut can't take the event any more, as `wait_stored` has it."""
        if self._core.engine.durable:
            return self._core.engine.stored >= self.number
        return self._is_recorded()

    def wait_stored(self, timeout_s: float | None = None) -> None:
        """Wait until the event is in the outbox's file, flushed to the disk.

        Without a file nothing is stored but in the ledger, so that this waits for its receipt.

        Raises:
            Unavailable: it isn't stored in time, or can't be for now; it goes on being tried.
            Refused, TamperDetected: without a file, as `wait_recorded`.
        """
        if self._core.engine.durable:
            self._core.engine.wait_stored(self.number, timeout_s)
        else:
            self.wait_recorded(timeout_s)

    def wait_recorded(self, timeout_s: float | None = None) -> Receipt:
        """Wait for the ledger's receipt.

        Raises:
            Refused: the ledger refused this event.
            NotFound: the receipt isn't kept any more, or the refused event was discarded.
            TamperDetected: an answer wasn't vouched for by the pinned key; sending has stopped.
            Unavailable: not in time, or the client is closed.
        """
        core, deadline = self._core, None if timeout_s is None else time.monotonic() + timeout_s
        core.sender.hurry(self.number)
        while True:
            seen = core.engine.generation
            if self._is_recorded():
                return self._receipt()
            if core.sender.tampered is not None:
                raise core.sender.tampered
            if core.engine.closed or not core.engine.wait_change(seen, deadline):
                raise Unavailable("the ledger hasn't acknowledged the event in time")

    def __await__(self) -> Generator[None, None, None]:
        """Wait until it is stored, as `until_stored` does without a limit of time."""
        return self.until_stored().__await__()

    async def until_stored(self, timeout_s: float | None = None) -> None:
        """Wait as `wait_stored` does, without blocking the event loop."""
        engine = self._core.engine
        if not engine.durable:
            await asyncio.to_thread(self.wait_recorded, timeout_s)
            return
        loop = asyncio.get_running_loop()
        decided = loop.create_future()

        def tell() -> None:
            # The loop may be gone, or nobody waits any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, decided)

        engine.when_decided(self.number, tell)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(decided, timeout_s)
        finally:
            engine.forget(tell)
        engine.require_stored(self.number)

    def _is_recorded(self) -> bool:
        engine = self._core.engine
        return engine.stored >= self.number and not engine.outbox.is_waiting(self.number)

    def _receipt(self) -> Receipt:
        receipt = self._core.engine.archive.find(self.number)
        if receipt is not None:
            return receipt
        refused = self._core.engine.refusals.find(self.number)
        if refused is None:
            raise NotFound("expected an event whose receipt is still kept")
        problem = refused.problem
        raise Refused(
            f"the ledger refused the event with HTTP {refused.status}: "
            f"{problem.get('detail', 'it gave no reason')}",
            pointer=str(problem.get("pointer", "")),
        )


def _settle(decided: asyncio.Future[None]) -> None:
    if not decided.done():
        decided.set_result(None)
