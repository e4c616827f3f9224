"""Read bodies within limits: of one body, of all bodies at once, and of time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.encodings import FIRST_PIECE_BYTES, expand
from ledger.errors import TooLarge, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request

MAX_SMALL_BODY_BYTES = 65_536
"""Most bytes of the body of a query."""
MAX_HELD_BYTES = 256 * 1024 * 1024
"""Most bytes that bodies of several pieces may hold together."""
BODY_TIMEOUT_S = 60.0
"""How long a body may take to arrive."""

_JSON = b"application/json"


class Piece(NamedTuple):
    """What arrived of a body at first."""

    body: bytes
    more: bool


def check_json(headers: list[tuple[bytes, bytes]], limit_bytes: int) -> None:
    """Refuse what is not JSON, or said to be too long, before any of it is read.

    Raises:
        HTTPException: 415, another media type or a compressed body.
        TooLarge: the announced length is past the limit.
    """
    for name, value in headers:
        if name == b"content-length" and int(value) > limit_bytes:
            raise too_large(limit_bytes)
        if name == b"content-type" and value != _JSON:
            _check_media_type(value)
        elif name == b"content-encoding" and value.lower() not in {b"", b"identity"}:
            raise HTTPException(
                415, "expected a body without compression", {"Accept-Encoding": "identity"}
            )


def _check_media_type(value: bytes) -> None:
    media_type, _, parameters = value.decode("latin-1").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    if media_type.strip() != "application/json" or charset not in {"", "charset=utf-8"}:
        raise HTTPException(
            415, "expected application/json in UTF-8", {"Accept": "application/json"}
        )


async def first_piece(request: Request, limit_bytes: int) -> Piece:
    """Give what has arrived of a body: mostly all of it.

    Raises:
        TooLarge: it is past the limit already.
        ClientDisconnect: there is nobody to answer.
    """
    message = await request.receive()
    if message["type"] != "http.request":
        raise ClientDisconnect
    body: bytes = message.get("body", b"")
    if len(body) > limit_bytes:
        raise too_large(limit_bytes)
    return Piece(body, message.get("more_body", False))


class Bodies:
    """Bodies that come in pieces, counted together so that memory has a bound."""

    def __init__(self) -> None:
        self.held_bytes = 0

    @asynccontextmanager
    async def whole(self, request: Request, first: Piece, limit_bytes: int) -> AsyncIterator[bytes]:
        """Read the rest; the bytes count as held until the caller is done with them.

        Raises:
            TooLarge: past the limit, whatever length was announced.
            Unavailable: other bodies hold all the memory there is for them.
            HTTPException: 408, it took too long.
        """
        pieces = [first.body]
        self.held_bytes += len(first.body)
        try:
            await self._read(request, first, pieces, limit_bytes)
            pieces[:] = [b"".join(pieces)]
            yield pieces[0]
        finally:
            self.held_bytes -= sum(map(len, pieces))

    async def _read(
        self, request: Request, first: Piece, pieces: list[bytes], limit_bytes: int
    ) -> None:
        size = len(first.body)
        more = first.more
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while more:
                    piece, more = await first_piece(request, limit_bytes)
                    pieces.append(piece)
                    self.held_bytes += len(piece)
                    size += len(piece)
                    if size > limit_bytes:
                        raise too_large(limit_bytes)
                    self._check_held()
        except TimeoutError:
            raise HTTPException(
                408, "expected the body to arrive sooner", {"Connection": "close"}
            ) from None

    @asynccontextmanager
    async def expanded(self, body: bytes, coding: str, limit_bytes: int) -> AsyncIterator[bytes]:
        """Expand a compressed body; what comes of it counts as held, beside the body itself.

        A small body's first piece is expanded at once, everything else beside the event loop.
        The window that a decompressor keeps is at most as large again as what it gave.

        Raises:
            TooLarge: it expands to more than the limit.
            Unavailable: other bodies hold all the memory there is for them.
            HTTPException: 400, it is not what its coding says.
        """
        pieces: list[bytes] = []
        try:
            await self._expand(expand(body, coding), body, pieces, limit_bytes)
            pieces[:] = [b"".join(pieces)]
            yield pieces[0]
        finally:
            self.held_bytes -= sum(map(len, pieces))

    async def _expand(
        self, source: Iterator[bytes], body: bytes, pieces: list[bytes], limit_bytes: int
    ) -> None:
        size = 0
        small = len(body) <= FIRST_PIECE_BYTES
        while piece := next(source, b"") if small else await asyncio.to_thread(next, source, b""):
            small = False
            pieces.append(piece)
            self.held_bytes += len(piece)
            size += len(piece)
            if size > limit_bytes:
                raise TooLarge(f"expected a body of at most {limit_bytes} bytes once expanded")
            self._check_held()

    def _check_held(self) -> None:
        if self.held_bytes > MAX_HELD_BYTES:
            raise Unavailable("other large bodies are being read")


async def small_body(request: Request, bodies: Bodies) -> bytes:
    """Give the body of a query.

    Raises:
        TooLarge: it is more than a query needs.
        HTTPException: 415, it is not JSON.
    """
    check_json(request.scope["headers"], MAX_SMALL_BODY_BYTES)
    first = await first_piece(request, MAX_SMALL_BODY_BYTES)
    if not first.more:
        return first.body
    async with bodies.whole(request, first, MAX_SMALL_BODY_BYTES) as body:
        return body


def too_large(limit_bytes: int) -> TooLarge:
    """Give the refusal of a body that is past a limit."""
    return TooLarge(f"expected a body of at most {limit_bytes} bytes")
