"""The witness over HTTP, as an ASGI application: two calls, and whether it is there.

It logs no addresses and needs no framework. Requests are bounded in length and in time.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from ledger.errors import Unavailable
from ledger.witness.protocol import MAX_REQUEST_BYTES
from ledger.witness.witness import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from ledger.witness.witness import Witness

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

BODY_TIMEOUT_S = 10.0
"""How long a request's body may take to arrive."""
_CHECKPOINT = re.compile(r"/(?P<origin_hash>[0-9a-f]{64})/checkpoint")


class _GoneError(Exception):
    """The sender has left; nobody waits for an answer."""


class WitnessApp:
    """Answers `add-checkpoint` and gives the newest checkpoint of a log."""

    def __init__(self, witness: Witness, *, body_timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._witness = witness
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        try:
            answer = await self._answer(scope["method"], scope["path"], receive)
        except _GoneError:
            return
        except Unavailable as error:
            answer = Answer(503, f"{error.detail}\n")
        await _send(answer, send, head_only=scope["method"] == "HEAD")

    async def _answer(self, method: str, path: str, receive: Receive) -> Answer:
        if path == "/add-checkpoint":
            if method != "POST":
                return Answer(405, "expected POST\n")
            return await self._add_checkpoint(receive)
        if method not in {"GET", "HEAD"}:
            return Answer(404, "nothing is here\n")
        if path == "/healthz":
            return Answer(200, "ok\n")
        match = _CHECKPOINT.fullmatch(path)
        if match is None:
            return Answer(404, "nothing is here\n")
        note = await asyncio.to_thread(self._witness.newest_note, match["origin_hash"])
        return Answer(404, "nothing was cosigned\n") if note is None else Answer(200, note)

    async def _add_checkpoint(self, receive: Receive) -> Answer:
        try:
            async with asyncio.timeout(self._body_timeout_s):
                body = await _read_body(receive)
        except TimeoutError:
            return Answer(408, "expected the body sooner\n")
        if body is None:
            return Answer(413, f"expected at most {MAX_REQUEST_BYTES} bytes\n")
        return await asyncio.to_thread(self._witness.add_checkpoint, body)


async def _read_body(receive: Receive) -> bytes | None:
    """Read a body; None as soon as it is too long."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        body += message.get("body", b"")
        if len(body) > MAX_REQUEST_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def _send(answer: Answer, send: Send, *, head_only: bool) -> None:
    body = answer.body.encode()
    headers = [
        (b"content-type", answer.media_type.encode("ascii")),
        (b"content-length", b"%d" % len(body)),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
    ]
    if answer.status == 503:
        headers.append((b"retry-after", b"5"))
    if answer.status in {408, 413}:
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    if answer.status == 405:
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head_only else body})
