"""Merkle tree of the log: its growing right edge, its roots, and both kinds of proof.

Notation of RFC 6962 §2.1: ``MTH(D[lo:hi])`` is the hash of the subtree over the leaves
``lo … hi - 1``. A node of height h and index i is complete and covers the leaves
``i * 2**h … (i + 1) * 2**h - 1``. Only nodes whose height is a multiple of 8 are stored;
"tile level" L means height 8 L, so level 0 holds the leaf hashes themselves (C2SP
tlog-tiles, "Merkle Tree"). Every hash is 32 bytes of SHA-256, and that is checked wherever
one comes in: some published attack vectors use hashes of other lengths.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ledger.core.hashes import EMPTY_ROOT, fold, leaf_hash, node_hash, parents, split
from ledger.core.stored_tree import StoredTree
from ledger.core.tiles import TILE_HEIGHT, TILE_WIDTH, read_row, require_hashes
from ledger.errors import CannotVerify, Malformed, TamperDetected

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ledger.core.stored_tree import KeptNodes
    from ledger.core.tiles import ReadHashes

__all__ = [
    "EMPTY_ROOT",
    "RightEdge",
    "TileNode",
    "check_consistency",
    "check_inclusion",
    "leaf_hash",
    "node_hash",
    "prove_consistency",
    "prove_inclusion",
    "root_at",
    "root_before",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileNode:
    """A completed node that has to be stored, because a tile row contains it."""

    level: int
    """Tile level, 1 or more: the node's height divided by 8."""
    index: int
    """Position among the nodes of its level, from 0."""
    hash: bytes
    """The node's 32-byte hash."""


@dataclass(slots=True, kw_only=True)
class RightEdge:
    """The part of the tree that appending needs, and the only part kept in memory.

    Invariant: `peaks` has one hash for each bit set in `size`. `extend` changes both or
    neither; extend a copy and keep it after the commit, to be able to fall back.
    """

    size: int = 0
    """Number of leaves in the tree."""
    peaks: list[bytes] = field(default_factory=list)
    """Hashes of the maximal complete subtrees, largest (leftmost) first."""

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.peaks) != self.size.bit_count():
            raise Malformed("right edge: expected one peak for each bit set in the size")
        require_hashes("right edge", self.peaks)

    @classmethod
    def load(cls, size: int, read: ReadHashes) -> RightEdge:
        """Rebuild the edge of a tree of `size` leaves from at most 255 stored hashes a level.

        Raises:
            Malformed: the size is negative.
            CannotVerify, TamperDetected: as in `root_at`.
        """
        if size < 0:
            raise Malformed("tree: expected a size of 0 or more")
        peaks: list[bytes] = []
        top_level = (size.bit_length() - 1) // TILE_HEIGHT
        for level in range(top_level, -1, -1):
            last_tile, width = divmod(size >> (TILE_HEIGHT * level), TILE_WIDTH)
            if width:
                row = read_row(read, level, last_tile, size)
                peaks.extend(fold(part) for part in _maximal_parts(row))
        return cls(size=size, peaks=peaks)

    def copy(self) -> RightEdge:
        """Give an edge of the same tree that grows independently of this one."""
        return RightEdge(size=self.size, peaks=self.peaks.copy())

    def extend(self, leaves: Sequence[bytes]) -> list[TileNode]:
        """Append leaf hashes and give the completed nodes to store, lowest level first.

        Works a whole level at a time: before appending, the tree has ``size >> h`` complete
        nodes of height h, and if that number is odd the last of them is the peak that
        the level's first new node is paired with (RFC 6962 §2.1).

        Raises:
            Malformed: a leaf hash isn't 32 bytes long; the edge is then unchanged.
        """
        require_hashes("leaves to append", leaves)
        peaks, unpaired, completed = self.peaks.copy(), [], []
        row, height = list(leaves), 0
        while row:
            first = self.size >> height
            if height and height % TILE_HEIGHT == 0:
                completed += _tile_nodes(height // TILE_HEIGHT, first, row)
            if first & 1:
                row.insert(0, peaks.pop())
            if len(row) & 1:
                unpaired.append(row.pop())
            row, height = parents(row), height + 1
        self.size, self.peaks = self.size + len(leaves), peaks + unpaired[::-1]
        return completed

    def root(self) -> bytes:
        """Hash the peaks together from the right: ``MTH(D[0:size])``, RFC 6962 §2.1."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in self.peaks[-2::-1]:
            root = node_hash(peak, root)
        return root


def _tile_nodes(level: int, first: int, row: Sequence[bytes]) -> list[TileNode]:
    return [TileNode(level=level, index=first + i, hash=node) for i, node in enumerate(row)]


def _maximal_parts(row: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    """Cut a row into parts whose lengths are falling powers of two."""
    start = 0
    for height in range(len(row).bit_length() - 1, -1, -1):
        if len(row) >> height & 1:
            yield row[start : start + (1 << height)]
            start += 1 << height


def _descend(index: int, size: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Split the tree towards leaf `index`; give the bounds gone into and those left aside."""
    lo, hi = 0, size
    while hi - lo > 1:
        at = lo + split(hi - lo)
        within, aside = ((lo, at), (at, hi)) if index < at else ((at, hi), (lo, at))
        yield within, aside
        lo, hi = within


def root_at(size: int, read: ReadHashes) -> bytes:
    """Compute the root that the tree had at `size` leaves (RFC 6962 §2.1).

    Raises:
        CannotVerify: a hash that the tree of this size needs isn't stored.
        TamperDetected: a stored hash isn't 32 bytes long.
    """
    return RightEdge.load(size, read).root()


def prove_inclusion(
    index: int, size: int, read: ReadHashes, kept: KeptNodes | None = None
) -> list[bytes]:
    """Build ``PATH(index, D[0:size])``, from the leaf's sibling to the root's child.

    Source: RFC 6962 §2.1.1. Nodes that had to be folded are looked for, and put, in `kept`.

    Raises:
        Malformed: `index` isn't below `size`.
        CannotVerify, TamperDetected: as in `root_at`.
    """
    if not 0 <= index < size:
        raise Malformed("inclusion proof: expected an index from 0 to below the tree's size")
    tree = StoredTree(size, read, kept)
    return [tree.subtree(*aside) for _kept, aside in _descend(index, size)][::-1]


def check_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that `leaf` is leaf number `index` of the tree of `size` leaves under `root`.

    `leaf` is the leaf's hash. Closed form of the loop in RFC 9162 §2.1.3.2: the path has
    siblings on the sides that the bits of `index` tell, until it meets the tree's right
    border; from there on only left siblings exist.

    Raises:
        Malformed: a hash isn't 32 bytes long.
        TamperDetected: the proof doesn't lead from the leaf to the root.
    """
    require_hashes("inclusion proof", (leaf, root, *proof))
    if not 0 <= index < size:
        raise TamperDetected(f"inclusion proof: leaf {index} is outside a tree of {size} leaves")
    below_border = (index ^ (size - 1)).bit_length()
    _require_length("inclusion proof", proof, below_border + (index >> below_border).bit_count())
    computed = leaf
    for height, sibling in enumerate(proof):
        if height >= below_border or index >> height & 1:
            computed = node_hash(sibling, computed)
        else:
            computed = node_hash(computed, sibling)
    _require_root(f"inclusion of leaf {index}", size, computed, root)


def prove_consistency(
    old: int, new: int, read: ReadHashes, kept: KeptNodes | None = None
) -> list[bytes]:
    """Build ``PROOF(old, D[0:new])``; `read` must know the tree of `new` leaves.

    Source: RFC 6962 §2.1.2, which leaves old = 0 undefined: the proof is empty then. `kept`
    is as in `prove_inclusion`.

    Raises:
        Malformed: `old` isn't between 0 and `new`.
        CannotVerify, TamperDetected: as in `root_at`.
    """
    if not 0 <= old <= new:
        raise Malformed("consistency proof: expected an old size from 0 to the new size")
    if old in (0, new):
        return []
    tree, proof = StoredTree(new, read, kept), []
    for (_lo, hi), aside in _descend(old - 1, new):
        proof.append(tree.subtree(*aside))
        if hi == old:
            break
    smallest_peak_lo = old & (old - 1)
    if smallest_peak_lo:
        # An old tree of a single peak is that peak, whose hash the checker has already.
        proof.append(tree.subtree(smallest_peak_lo, old))
    return proof[::-1]


def check_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of `new` leaves starts with all `old` leaves, unchanged.

    Closed form of the loop in RFC 9162 §2.1.4.2. From the empty tree everything follows,
    so old = 0 takes an empty proof and says nothing about `new_root`.

    Raises:
        Malformed: a hash isn't 32 bytes long.
        TamperDetected: the sizes fall, or the proof doesn't lead to both roots.
    """
    require_hashes("consistency proof", (old_root, new_root, *proof))
    if not 0 <= old <= new:
        raise TamperDetected(f"consistency proof: a tree of {old} leaves can't become {new}")
    if old == 0:
        _require_root("the empty tree", old, EMPTY_ROOT, old_root)
    if old == new:
        _require_root("the same tree", old, new_root, old_root)
    if old in (0, new):
        _require_length("consistency proof", proof, 0)
    else:
        # An old tree of a single peak is that peak, whose hash the proof leaves out.
        peak = [old_root] if old.bit_count() == 1 else []
        old_computed, new_computed = _climb_to_both_roots(old, new, [*peak, *proof])
        _require_root("the old tree in a consistency proof", old, old_computed, old_root)
        _require_root("the new tree in a consistency proof", new, new_computed, new_root)


def root_before(old: int, new: int, new_root: bytes, proof: Sequence[bytes]) -> bytes:
    """Compute from a consistency proof which root at `old` leaves `new_root` commits to.

    Where another root is known for `old` leaves, the two can't be of one log. The proof
    leaves out an old tree that is a single peak.

    Raises:
        Malformed: a hash isn't 32 bytes long.
        CannotVerify: the proof doesn't show the old root.
        TamperDetected: the proof doesn't lead to the new root.
    """
    require_hashes("consistency proof", (new_root, *proof))
    if not 0 < old < new or old.bit_count() == 1:
        raise CannotVerify(f"consistency proof: one from {old} to {new} leaves shows no old root")
    old_computed, new_computed = _climb_to_both_roots(old, new, proof)
    _require_root("the new tree in a consistency proof", new, new_computed, new_root)
    return old_computed


def _climb_to_both_roots(old: int, new: int, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Start from the old tree's smallest peak, first in `proof`, and climb to both roots."""
    peak_height = (old & -old).bit_length() - 1
    peak_index = (old - 1) >> peak_height
    below_border = (peak_index ^ ((new - 1) >> peak_height)).bit_length()
    border = (peak_index >> below_border).bit_count()
    _require_length("consistency proof with its peak", proof, 1 + below_border + border)
    old_computed = new_computed = proof[0]
    for height, sibling in enumerate(proof[1:]):
        if height >= below_border or peak_index >> height & 1:
            old_computed = node_hash(sibling, old_computed)
            new_computed = node_hash(sibling, new_computed)
        else:
            new_computed = node_hash(new_computed, sibling)
    return old_computed, new_computed


def _require_length(what: str, proof: Sequence[bytes], expected: int) -> None:
    if len(proof) != expected:
        raise TamperDetected(f"{what}: these sizes take {expected} hashes, found {len(proof)}")


def _require_root(what: str, size: int, computed: bytes, root: bytes) -> None:
    if computed != root:
        raise TamperDetected(
            f"{what}: expected root {root.hex()} at size {size}, computed {computed.hex()}"
        )
