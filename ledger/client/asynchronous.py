"""The client for programs with an event loop; the same core, the same threads behind it."""

from __future__ import annotations

import asyncio
import time as clock
from typing import TYPE_CHECKING, Any, Self

from ledger.client.client import Opened, _one_key
from ledger.client.composing import build
from ledger.client.reconciling import Reconciliation, reconcile
from ledger.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType

    from ledger.client.ticket import Ticket

_LOOK_S = 0.01


class AsyncClient(Opened):
    """Emits events from coroutines; nothing here blocks the event loop."""

    async def emit(
        self,
        event_type: str,
        subject: str | None = None,
        *,
        actor: str | None = None,
        fields: Sequence[str] | None = None,
        subjects: Sequence[str] | None = None,
        event_id: str | None = None,
        time: str | datetime | None = None,
        durable: bool = False,
        **members: Any,
    ) -> Ticket:
        """Emit an event as `Client.emit` does; the ticket can be awaited until it is stored."""
        event = build(
            event_type,
            subject,
            actor=actor,
            fields=fields,
            subjects=subjects,
            event_id=event_id,
            time=time,
            **members,
        )
        return await self.emit_event(event, durable=durable)

    async def emit_event(self, event: Mapping[str, Any], *, durable: bool = False) -> Ticket:
        """Emit an event as a document, as `Client.emit_event` does."""
        ticket = await offer(self, event)
        if durable:
            await ticket.until_stored(self.core.limits.emit_timeout_s)
        return ticket

    async def flush(self, timeout_s: float | None = None) -> None:
        """Wait as `Client.flush` does."""
        await asyncio.to_thread(self.core.flush, timeout_s)

    async def reconcile(
        self, key: str | None = None, *, key_file: str | Path | None = None
    ) -> Reconciliation:
        """Ask the ledger as `Client.reconcile` does."""
        return await asyncio.to_thread(reconcile, self.core, _one_key(key, key_file))

    async def close(self, timeout_s: float = 5.0) -> None:
        """End as `Client.close` does."""
        await asyncio.to_thread(self.core.close, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


async def offer(client: Opened, event: Mapping[str, Any]) -> Ticket:
    """Emit through either client from a coroutine; waits for room by looking again.

    Raises:
        Malformed, TooLarge, Unavailable: as `Client.emit`.
    """
    deadline = clock.monotonic() + client.core.limits.emit_timeout_s
    while True:
        try:
            return client.core.emit(event, 0.0)
        except Unavailable:
            if client.core.engine.closing or clock.monotonic() > deadline:
                raise
        await asyncio.sleep(_LOOK_S)
