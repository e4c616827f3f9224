"""Pack values as PostgreSQL's binary COPY wants them, each with its length before it.

By hand, since rows are many and their values few: codes, names of fields and pseudonyms
repeat, so most of a row comes ready from a cache.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from uuid import UUID

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""What stands before the first row."""
TRAILER: Final = b"\xff\xff"
"""What stands after the last row."""
NULL: Final = b"\xff\xff\xff\xff"

_int2 = Struct(">h").pack
_int4 = Struct(">i").pack
_int8 = Struct(">iq").pack
_array = Struct(">iiIii").pack
_OID_TEXT: Final = 25
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_BOOLEANS: Final = {None: NULL, False: b"\0\0\0\1\0", True: b"\0\0\0\1\1"}


def pack_row_start(columns: int) -> bytes:
    """Pack what stands before each row's values."""
    return _int2(columns)


def pack_int8(value: int) -> bytes:
    """Pack a bigint."""
    return _int8(8, value)


def pack_bytes(value: bytes) -> bytes:
    """Pack a bytea."""
    return _int4(len(value)) + value


def pack_moment(value: datetime) -> bytes:
    """Pack a timestamptz."""
    return _int8(8, (value - _EPOCH) // _MICROSECOND)


def pack_bool(value: object) -> bytes:
    """Pack a boolean; anything that is none counts as not said."""
    return _BOOLEANS[value if isinstance(value, bool) else None]


def pack_uuid(value: UUID | None) -> bytes:
    """Pack a UUID."""
    return NULL if value is None else b"\0\0\0\x10" + value.bytes


@lru_cache(maxsize=8192)
def pack_text(value: str | None) -> bytes:
    """Pack a text."""
    return NULL if value is None else pack_bytes(value.encode())


@lru_cache(maxsize=4096)
def pack_texts(values: tuple[str, ...]) -> bytes:
    """Pack an array of texts."""
    if not values:
        return pack_bytes(_array(0, 0, _OID_TEXT, 0, 0)[:12])
    items = b"".join(map(pack_text, values))
    return pack_bytes(_array(1, 0, _OID_TEXT, len(values), 1) + items)
