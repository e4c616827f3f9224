"""HTTP/1.1 with limits: of headers in bytes and in time, and of connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.problems import BAD_REQUEST, PROBLEM_JSON, TIMEOUT, UNAVAILABLE, render

if TYPE_CHECKING:
    import asyncio

    from starlette.types import Receive, Scope, Send
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from api.problems import Problem

MAX_HEADER_BYTES = 32_768
"""Most bytes of a request's line and headers."""
HEADERS_TIMEOUT_S = 20
"""How long a new connection may take to send its first headers."""
BODY_TIMEOUT_S = 65
"""How long a body may take, whoever reads it; longer than those who read one allow for it."""
MAX_CONNECTIONS = 800
"""Connections past which new requests are answered 503; below the usual limit of open files."""


class LimitedProtocol(HttpToolsProtocol):
    """The server's protocol, which has no such limits of its own."""

    _header_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._inside = self.app
        self.access_log = False  # it would hold paths and queries, whatever loggers there are

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give a new connection so long to ask for something."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEADERS_TIMEOUT_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; wait for the rest of a body, but not for ever.

        Whoever waits for the first byte of a body has nothing that could give up for it.
        """
        super().data_received(data)
        cycle = self.cycle
        if cycle is None or not cycle.more_body or cycle.response_complete:
            return
        if self._timer is None:
            self._timer = self.loop.call_later(BODY_TIMEOUT_S, self._give_up, cycle)

    def on_message_complete(self) -> None:
        """End a request's body."""
        self._stop_timer()
        super().on_message_complete()

    def on_message_begin(self) -> None:
        """Count a request's bytes from here."""
        self._header_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the URL."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the request."""
        self._stop_timer()
        self.app = busy if len(self.connections) > MAX_CONNECTIONS else self._inside
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the server's signature
        """Answer what is not HTTP, or has too much of headers, and end the connection."""
        self._end("400 Bad Request", BAD_REQUEST, "expected HTTP/1.1 within its limits")

    def _give_up(self, cycle: RequestResponseCycle) -> None:
        """Answer a body that did not arrive, unless an answer has begun; end the connection."""
        if cycle.response_started or cycle is not self.cycle:
            self.transport.close()
        else:
            self._end("408 Request Timeout", TIMEOUT, "expected the body to arrive sooner")

    def _end(self, status: str, problem: Problem, detail: str) -> None:
        body = bytes(render(problem, detail).body)
        head = f"HTTP/1.1 {status}\r\ncontent-type: {PROBLEM_JSON}\r\n"
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _count(self, size_bytes: int) -> None:
        self._header_bytes += size_bytes
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("headers are past their limit")  # the parser makes it a 400

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def busy(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer that there are too many connections, and end this one."""
    headers = {"Retry-After": "1", "Connection": "close"}
    await render(UNAVAILABLE, "too many connections", headers=headers)(scope, receive, send)
