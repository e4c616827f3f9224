"""Expand compressed bodies a piece at a time, so that a bomb is met before it goes off.

One gzip member or one zstd frame is a body, and nothing stands after it: of several, one
reader takes all and another the first only, and evidence must read alike everywhere.
"""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from starlette.exceptions import HTTPException

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["CODINGS", "expand", "zstd"]

FIRST_PIECE_BYTES = 65_536
"""Most bytes of the first piece; most bodies are no longer."""
PIECE_BYTES = 1_048_576
"""Most bytes of every other piece, and so the most that is expanded past a limit."""
MAX_WINDOW_LOG: Final = 23
"""zstd frames may look back 8 MiB, what every sender may rely on (RFC 9659 section 3)."""

_FED_BYTES = 65_536


class _Expanding(Protocol):
    """What both of the libraries' decompressors can do."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the other's manners: it keeps what it was fed too early."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)  # 31: a gzip header and trailer, no other
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        # A full piece may have more behind it that zlib has read already.
        self.needs_input = not self._inner.unconsumed_tail and len(piece) < max_length
        return piece


def _zstd() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
    )


CODINGS: Final[Mapping[str, Callable[[], _Expanding]]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,  # the same by another name (RFC 9110 section 8.4.1.3)
    "zstd": _zstd,
}
"""Content codings that are read."""


def expand(body: bytes, coding: str) -> Iterator[bytes]:
    """Give what a compressed body holds, a piece at a time; nothing is expanded beforehand.

    Raises:
        HTTPException: 400, it is not one whole stream of this coding and nothing else.
    """
    expanding = CODINGS[coding]()
    fed = 0
    size_bytes = FIRST_PIECE_BYTES
    while not expanding.eof:
        data = b""
        if expanding.needs_input:
            if fed >= len(body):
                _refuse(coding, "found its end too early")
            # Small helpings: what isn't read yet is copied at each step.
            data = body[fed : fed + _FED_BYTES]
            fed += len(data)
        try:
            piece = expanding.decompress(data, size_bytes)
        except (zlib.error, zstd.ZstdError):
            _refuse(coding, "found something else")
        if piece:
            size_bytes = PIECE_BYTES
            yield piece
    if expanding.unused_data or fed < len(body):
        _refuse(coding, "found more after it")


def _refuse(coding: str, found: str) -> NoReturn:
    raise HTTPException(400, f"expected a body that is one {coding} stream, {found}")
