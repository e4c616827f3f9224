"""Tiles: the rows of 256 hashes that the tree is stored, served and read in.

Source: C2SP tlog-tiles. A tile of level L and index N holds the nodes of height 8 L from
number 256 N on; level 0 holds leaf hashes, and a bundle holds the entries beneath a tile of
level 0. A tile that the tree fills only in part is partial: 1 to 255 wide, its width part
of its path, and never hashed into the level above.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ledger.errors import CannotVerify, Malformed, TamperDetected, TooLarge

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

HASH_BYTES = 32
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
MAX_LEVEL = 63
MAX_TREE_SIZE = 2**63 - 1
"""Most leaves that any format here can count; PostgreSQL's bigint ends there too."""
MAX_TILE_INDEX = MAX_TREE_SIZE >> TILE_HEIGHT
MAX_ENTRY_BYTES = 65_535
"""Longest entry that a bundle's two-byte length can announce."""

_LENGTH_BYTES = 2
_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)"
    r"/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


class ReadHashes(Protocol):
    """Give `count` stored hashes of a tile level, from index `first` on, in order.

    `first` is always a multiple of 256 and `count` between 1 and 256: a whole tile's row,
    or as much of it as the tree in question fills.
    """

    def __call__(self, level: int, first: int, count: int, /) -> Sequence[bytes]:
        """Read one row."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """The name of a tile of hashes, or of a bundle of entries.

    Raises:
        Malformed: a number is outside its range.
    """

    level: int | None
    """Tile level 0 … 63; None names the bundle of entries instead."""
    index: int
    """Position among the tiles of its level, from 0."""
    width: int = TILE_WIDTH
    """Number of hashes or entries, 1 … 256; below 256 the tile is partial."""

    def __post_init__(self) -> None:
        if self.level is not None and not 0 <= self.level <= MAX_LEVEL:
            raise Malformed(f"tile: expected a level from 0 to {MAX_LEVEL}")
        if not 0 <= self.index <= MAX_TILE_INDEX:
            raise Malformed(f"tile: expected an index from 0 to {MAX_TILE_INDEX}")
        if not 1 <= self.width <= TILE_WIDTH:
            raise Malformed(f"tile: expected a width from 1 to {TILE_WIDTH}")

    def path(self) -> str:
        """Write the path below the log's prefix, such as ``tile/0/x001/x234/067.p/8``.

        Source: tlog-tiles, "Merkle Tree" and "Log entries".
        """
        index, groups = self.index, [f"{self.index % 1000:03d}"]
        while index := index // 1000:
            groups.insert(0, f"x{index % 1000:03d}")
        level = "entries" if self.level is None else self.level
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(groups)}{partial}"


def tile_path(level: int | None, index: int, width: int = TILE_WIDTH) -> str:
    """Write a tile's path below the log's prefix; level None names the bundle of entries.

    Raises:
        Malformed: a number is outside its range.
    """
    return Tile(level=level, index=index, width=width).path()


def parse_tile_path(path: str) -> Tile:
    """Read a path below the log's prefix; only the one spelling of each tile passes.

    Raises:
        Malformed: the path names no tile, or spells its numbers in another way.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise Malformed("tile path: expected tile/<level or entries>/<index>[.p/<width>]")
    tile = Tile(
        level=None if match["level"] == "entries" else int(match["level"]),
        index=int(match["index"].replace("/", "").replace("x", "")),
        width=int(match["width"] or TILE_WIDTH),
    )
    if tile.path() != path:
        raise Malformed("tile path: expected numbers without superfluous zeros or widths")
    return tile


def tile_width(level: int | None, index: int, size: int) -> int:
    """Count the hashes (or entries) that a tree of `size` leaves has in one tile.

    0 means that the tree has no such tile, 256 that it is full. A level's last tile is
    ``floor(size / 256**level) mod 256`` wide (tlog-tiles, "Partial Tiles").
    """
    nodes = size >> (TILE_HEIGHT * (level or 0))
    return max(0, min(TILE_WIDTH, nodes - index * TILE_WIDTH))


def require_hashes(what: str, hashes: Collection[bytes]) -> None:
    """Check that each hash is 32 bytes long.

    Raises:
        Malformed: one of them isn't; the message says where, by `what`.
    """
    if hashes and set(map(len, hashes)) != {HASH_BYTES}:
        raise Malformed(f"{what}: expected hashes of {HASH_BYTES} bytes, found another length")


def read_row(read: ReadHashes, level: int, index: int, size: int) -> Sequence[bytes]:
    """Read a tile's row as the tree of `size` leaves has it, and distrust what comes back.

    Raises:
        CannotVerify: some of the hashes aren't stored.
        TamperDetected: a stored hash isn't 32 bytes long.
    """
    width = tile_width(level, index, size)
    row = read(level, index * TILE_WIDTH, width)
    if len(row) != width:
        raise CannotVerify(
            f"tile {level}/{index} at size {size}: expected {width} hashes, found {len(row)}"
        )
    if set(map(len, row)) != {HASH_BYTES}:
        raise TamperDetected(f"tile {level}/{index}: a stored hash isn't {HASH_BYTES} bytes long")
    return row


def encode_tile(hashes: Sequence[bytes]) -> bytes:
    """Join a tile's hashes into the bytes served, 32 each (tlog-tiles, "Merkle Tree").

    Raises:
        Malformed: there are not 1 to 256 hashes, or one isn't 32 bytes long.
    """
    _require_width(len(hashes))
    require_hashes("tile", hashes)
    return b"".join(hashes)


def decode_tile(tile_bytes: bytes, width: int) -> list[bytes]:
    """Cut the bytes of a tile into its `width` hashes.

    Raises:
        Malformed: the bytes aren't exactly that many hashes.
    """
    _require_width(width)
    if len(tile_bytes) != width * HASH_BYTES:
        raise Malformed(f"tile: expected {width * HASH_BYTES} bytes, found {len(tile_bytes)}")
    return [tile_bytes[at : at + HASH_BYTES] for at in range(0, len(tile_bytes), HASH_BYTES)]


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """Join entries into a bundle: each after its length as two big-endian bytes.

    Source: tlog-tiles, "Log entries".

    Raises:
        Malformed: there are not 1 to 256 entries.
        TooLarge: an entry is longer than 65,535 bytes.
    """
    _require_width(len(entries))
    if max(map(len, entries)) > MAX_ENTRY_BYTES:
        raise TooLarge(f"entry bundle: expected entries of at most {MAX_ENTRY_BYTES} bytes")
    return b"".join(len(entry).to_bytes(_LENGTH_BYTES) + entry for entry in entries)


def decode_entries(bundle: bytes, width: int) -> list[bytes]:
    """Cut a bundle into its `width` entries.

    Raises:
        Malformed: the bytes aren't exactly that many entries.
    """
    _require_width(width)
    entries: list[bytes] = []
    at = 0
    for _ in range(width):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(bundle[at:start])
        # A cut-off length leaves `start` past the end, and `at` is never before it.
        if at > len(bundle):
            raise Malformed(f"entry bundle: expected {width} entries, ends in {len(entries) + 1}")
        entries.append(bundle[start:at])
    if at != len(bundle):
        raise Malformed(f"entry bundle: {len(bundle) - at} bytes follow the {width} entries")
    return entries


def _require_width(width: int) -> None:
    if not 1 <= width <= TILE_WIDTH:
        raise Malformed(f"tile or bundle: expected a width from 1 to {TILE_WIDTH}")
