"""Prove many entries at once: what a bundle of chosen entries is bound to its root with.

Source: FORMAT.md 7.7. A proof has the hashes of those subtrees that hold no chosen entry, in
depth-first order, the left one first. One path for each entry would repeat most of them.

Notation as in `ledger.core.merkle`: a subtree is the leaves ``lo … hi - 1``. Chosen indices
are kept sorted, so a subtree's are a slice of them, and whether it holds none of them, or
only them, is told by the slice's ends: neither is descended into.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

from ledger.core.merkle import EMPTY_ROOT, node_hash
from ledger.core.tiles import TILE_HEIGHT, TILE_WIDTH, read_row, require_hashes
from ledger.errors import Malformed, TamperDetected

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ledger.core.tiles import ReadHashes


def prove_entries(indices: Iterable[int], size: int, read: ReadHashes) -> list[bytes]:
    """Build the proof of the leaves `indices` in the tree of `size` leaves (FORMAT.md 7.7).

    Raises:
        Malformed, CannotVerify, TamperDetected: as `walk_proof` says.
    """
    return list(walk_proof(indices, size, read))


def walk_proof(indices: Iterable[int], size: int, read: ReadHashes) -> Iterator[bytes]:
    """Give a proof's hashes one after the other; each tile row is read at most once.

    Memory is 8 bytes for each index, and one row of 256 hashes for each level.

    Args:
        indices: leaf indices, ascending, each once.
        size: number of leaves.
        read: gives stored hashes of the tree.

    Raises:
        Malformed: the indices aren't ascending, or not below `size`.
        CannotVerify: a hash that the tree of this size needs isn't stored.
        TamperDetected: a stored hash isn't 32 bytes long.
    """
    chosen = _ascending(indices, size)
    if not size:
        yield EMPTY_ROOT
        return
    tree = _TreeFromTheLeft(size, read)
    waiting = [(0, size, 0, len(chosen))]
    while waiting:
        lo, hi, start, end = waiting.pop()
        if start == end:
            yield tree.subtree(lo, hi)
        elif end - start < hi - lo:
            split = lo + _split(hi - lo)
            middle = bisect_left(chosen, split, start, end)
            waiting.append((split, hi, middle, end))
            waiting.append((lo, split, start, middle))


def check_entries(
    leaves: Mapping[int, bytes], size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that the tree of `size` leaves under `root` has all these leaves, by their index.

    Raises:
        Malformed: a hash isn't 32 bytes long.
        TamperDetected: the proof doesn't lead from the leaves to the root, or is too long.
    """
    require_hashes("proof of entries", (*proof, root))
    require_hashes("leaves of a proof", leaves.values())
    try:
        chosen = _ascending(sorted(leaves), size)
    except Malformed as error:
        raise TamperDetected(f"proof of entries: a leaf is outside a tree of {size}") from error
    climb = _Climb(leaves, chosen, proof)
    computed = climb.subtree(0, size, 0, len(chosen))
    if climb.used != len(proof):
        raise TamperDetected(
            f"proof of entries: these entries take {climb.used} hashes, found {len(proof)}"
        )
    if computed != root:
        raise TamperDetected(
            f"proof of {len(chosen)} entries: expected root {root.hex()} at size {size}, "
            f"computed {computed.hex()}"
        )


def _ascending(indices: Iterable[int], size: int) -> array[int]:
    try:
        chosen = array("q", indices)
    except OverflowError:
        raise Malformed("proof of entries: an index is out of range") from None
    # Compared pairwise without making objects of a second list.
    if any(chosen[at] >= chosen[at + 1] for at in range(len(chosen) - 1)):
        raise Malformed("proof of entries: expected ascending indices, each once")
    if chosen and not 0 <= chosen[0] <= chosen[-1] < size:
        raise Malformed(f"proof of entries: expected indices from 0 to below {size}")
    return chosen


def _split(count: int) -> int:
    """Find the largest power of two smaller than `count` (k in RFC 6962 §2.1); count > 1."""
    return 1 << ((count - 1).bit_length() - 1)


def _join(hashes: Sequence[bytes]) -> bytes:
    """Hash a row of neighbouring nodes into the one above: ``MTH`` of RFC 6962 §2.1.

    Level by level, a last node without neighbour rising as it is: for a tree that begins at
    a multiple of its own capacity that is the same as splitting from the top.
    """
    row = list(hashes)
    while len(row) > 1:
        rest = row[-1:] if len(row) & 1 else []
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)] + rest
    return row[0]


class _TreeFromTheLeft:
    """Subtrees behind `read`, asked for from left to right: so one row of a level is enough."""

    def __init__(self, size: int, read: ReadHashes) -> None:
        self._size = size
        self._read = read
        self._rows: dict[int, tuple[int, Sequence[bytes]]] = {}

    def subtree(self, lo: int, hi: int) -> bytes:
        """Compute ``MTH(D[lo:hi])`` for a subtree that splitting leads to, all in stored rows."""
        count = hi - lo
        if count & (count - 1):
            split = lo + _split(count)
            left = self.subtree(lo, split)
            return node_hash(left, self.subtree(split, hi))
        # Splitting at powers of two leaves `lo` a multiple of `count`: a complete node.
        level, height_in_tile = divmod(count.bit_length() - 1, TILE_HEIGHT)
        tile, offset = divmod(lo >> (TILE_HEIGHT * level), TILE_WIDTH)
        return _join(self._row(level, tile)[offset : offset + (1 << height_in_tile)])

    def _row(self, level: int, tile: int) -> Sequence[bytes]:
        kept = self._rows.get(level)
        if kept is None or kept[0] != tile:
            kept = self._rows[level] = (tile, read_row(self._read, level, tile, self._size))
        return kept[1]


class _Climb:
    """The way from leaves and proof to the root."""

    def __init__(
        self, leaves: Mapping[int, bytes], chosen: array[int], proof: Sequence[bytes]
    ) -> None:
        self._leaves = leaves
        self._chosen = chosen
        self._proof = proof
        self.used = 0
        """How many hashes of the proof were taken."""

    def subtree(self, lo: int, hi: int, start: int, end: int) -> bytes:
        """Give the hash of a subtree whose leaves are the chosen ones from `start` to `end`."""
        if start == end:
            return self._next()
        if end - start == hi - lo:
            return _join([self._leaves[index] for index in self._chosen[start:end]])
        split = lo + _split(hi - lo)
        middle = bisect_left(self._chosen, split, start, end)
        left = self.subtree(lo, split, start, middle)
        return node_hash(left, self.subtree(split, hi, middle, end))

    def _next(self) -> bytes:
        if self.used == len(self._proof):
            raise TamperDetected(f"proof of entries: it ends after {self.used} hashes")
        self.used += 1
        return self._proof[self.used - 1]
