"""The HTTP server of `custody witness serve`: anybody may reach it, so everything is bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

    from ledger.witness.asgi import WitnessApp

CONNECTIONS = 256
"""Connections past which requests are answered 503."""
REQUEST_TIMEOUT_S = 15.0
"""How long a request may take to arrive, its headers included."""
MAX_HEADER_BYTES = 16_384
"""Most bytes of a request's line and headers."""
GRACE_S = 10
"""How long requests may take to finish once the witness is told to stop."""


class TimedProtocol(HttpToolsProtocol):
    """The server's protocol, which waits for headers for ever and takes any number of them."""

    _timer: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give a new connection so long to ask for something."""
        super().connection_made(transport)
        self._restart()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Give a further request as long."""
        super().on_message_begin()
        self._header_bytes = 0
        self._restart()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the URL."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_message_complete(self) -> None:
        """A whole request is there: the answer takes as long as it takes."""
        self._stop()
        super().on_message_complete()

    def _count(self, size_bytes: int) -> None:
        self._header_bytes += size_bytes
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("headers are past their limit")  # the parser makes it a 400

    def _restart(self) -> None:
        self._stop()
        self._timer = self.loop.call_later(REQUEST_TIMEOUT_S, self.transport.close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def server_config(app: WitnessApp, **options: Any) -> uvicorn.Config:
    """Give the server's settings; they are the same in tests."""
    return uvicorn.Config(
        app,
        http=TimedProtocol,
        ws="none",
        lifespan="off",
        access_log=False,  # it would hold addresses
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE_S,
        **options,
    )
