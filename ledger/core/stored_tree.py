"""Nodes of a tree whose rows are stored: what proofs are put together from.

Notation as in `ledger.core.merkle`. Folding rows into nodes is nearly all of what a proof
costs; whoever makes many proofs of one growing tree may keep the nodes. A complete node never
changes, so it serves every size that has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ledger.core.hashes import fold, node_hash, split
from ledger.core.tiles import TILE_HEIGHT, TILE_WIDTH, read_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.core.tiles import ReadHashes

WORTH_KEEPING = 4
"""Heights above a stored row from which on a node takes longer to fold than to find."""


class KeptNodes(Protocol):
    """Keeps complete nodes by height and index; may forget any of them."""

    def get(self, height: int, index: int, /) -> bytes | None:
        """Give a node's hash; None where it isn't kept."""
        ...

    def keep(self, height: int, index: int, node: bytes, /) -> None:
        """Keep a node's hash."""
        ...


class StoredTree:
    """A tree of `size` leaves behind `read`; reads each row it needs once."""

    def __init__(self, size: int, read: ReadHashes, kept: KeptNodes | None = None) -> None:
        self._size = size
        self._read = read
        self._kept = kept
        self._rows: dict[tuple[int, int], Sequence[bytes]] = {}

    def subtree(self, lo: int, hi: int) -> bytes:
        """Compute ``MTH(D[lo:hi])`` for a subtree that splitting by RFC 6962 §2.1 leads to."""
        count = hi - lo
        if count & (count - 1) == 0:
            # Splitting at powers of two leaves `lo` a multiple of `count`: a complete node.
            return self._node(count.bit_length() - 1, lo // count)
        middle = lo + split(count)
        return node_hash(self.subtree(lo, middle), self.subtree(middle, hi))

    def _node(self, height: int, index: int) -> bytes:
        if self._kept is None or height % TILE_HEIGHT < WORTH_KEEPING:
            return self._folded(height, index)
        node = self._kept.get(height, index)
        if node is None:
            node = self._folded(height, index)
            self._kept.keep(height, index, node)
        return node

    def _folded(self, height: int, index: int) -> bytes:
        level, height_in_tile = divmod(height, TILE_HEIGHT)
        tile, offset = divmod(index << height_in_tile, TILE_WIDTH)
        return fold(self._row(level, tile)[offset : offset + (1 << height_in_tile)])

    def _row(self, level: int, tile: int) -> Sequence[bytes]:
        if (level, tile) not in self._rows:
            self._rows[level, tile] = read_row(self._read, level, tile, self._size)
        return self._rows[level, tile]
