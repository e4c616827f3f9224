"""The tree against RFC 6962's recursive definitions, and against changed evidence."""

from __future__ import annotations

import random
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from ledger.core.merkle import (
    EMPTY_ROOT,
    RightEdge,
    TileNode,
    check_consistency,
    check_inclusion,
    leaf_hash,
    node_hash,
    prove_consistency,
    prove_inclusion,
    root_at,
    root_before,
)
from ledger.errors import CannotVerify, Malformed, TamperDetected
from ledger.row_cache import NodeCache

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SMALL = 70
MIDDLE = 300
AROUND_TILES = (255, 256, 257, 511, 512, 513, 65535, 65536, 65537)
LARGEST = max(AROUND_TILES)

CT_ENTRIES = tuple(
    bytes.fromhex(entry)
    for entry in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
)
CT_ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def synthetic_leaf(index: int) -> bytes:
    return index.to_bytes(32)


LEAVES = [synthetic_leaf(index) for index in range(LARGEST)]


def split(size: int) -> int:
    k = 1
    while 2 * k < size:
        k *= 2
    return k


@cache
def naive_root(lo: int, hi: int) -> bytes:
    """MTH(D[lo:hi]) of the synthetic leaves, word for word from RFC 6962 section 2.1."""
    if hi - lo == 1:
        return synthetic_leaf(lo)
    middle = lo + split(hi - lo)
    return sha256(b"\x01" + naive_root(lo, middle) + naive_root(middle, hi)).digest()


def naive_path(m: int, lo: int, hi: int) -> list[bytes]:
    """PATH(m, D[lo:hi]), RFC 6962 section 2.1.1."""
    if hi - lo == 1:
        return []
    k = split(hi - lo)
    if m < k:
        return [*naive_path(m, lo, lo + k), naive_root(lo + k, hi)]
    return [*naive_path(m - k, lo + k, hi), naive_root(lo, lo + k)]


def naive_subproof(m: int, lo: int, hi: int, *, whole: bool) -> list[bytes]:
    """SUBPROOF(m, D[lo:hi], b), RFC 6962 section 2.1.2."""
    if m == hi - lo:
        return [] if whole else [naive_root(lo, hi)]
    k = split(hi - lo)
    if m <= k:
        return [*naive_subproof(m, lo, lo + k, whole=whole), naive_root(lo + k, hi)]
    return [*naive_subproof(m - k, lo + k, hi, whole=False), naive_root(lo, lo + k)]


class StoredHashes:
    """What the database would hold for the synthetic leaves; refuses reads off the tiles."""

    def __init__(self, size: int) -> None:
        self.levels: dict[int, list[bytes]] = {0: LEAVES[:size]}
        for level in range(1, 4):
            span = 256**level
            self.levels[level] = [naive_root(i * span, (i + 1) * span) for i in range(size // span)]
        self.reads: list[tuple[int, int, int]] = []

    def __call__(self, level: int, first: int, count: int, /) -> Sequence[bytes]:
        assert first % 256 == 0
        assert 1 <= count <= 256
        self.reads.append((level, first, count))
        return self.levels[level][first : first + count]


@pytest.fixture(scope="module")
def stored() -> StoredHashes:
    return StoredHashes(LARGEST)


def with_flipped_bits(hashes: Sequence[bytes]) -> Iterator[list[bytes]]:
    for place, original in enumerate(hashes):
        for bit in range(8 * len(original)):
            flipped = (int.from_bytes(original) ^ 1 << bit).to_bytes(len(original))
            yield [*hashes[:place], flipped, *hashes[place + 1 :]]


def test_leaf_and_node_hashes_have_their_own_domains():
    assert leaf_hash(b"entry") == sha256(b"\x00entry").digest()
    assert node_hash(b"l" * 32, b"r" * 32) == sha256(b"\x01" + b"l" * 32 + b"r" * 32).digest()


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_certificate_transparency_reference_leaves(size: int):
    def mth(entries: Sequence[bytes]) -> bytes:
        if not entries:
            return sha256(b"").digest()
        if len(entries) == 1:
            return sha256(b"\x00" + entries[0]).digest()
        k = split(len(entries))
        return sha256(b"\x01" + mth(entries[:k]) + mth(entries[k:])).digest()

    edge = RightEdge()
    edge.extend([leaf_hash(entry) for entry in CT_ENTRIES[:size]])
    assert edge.root().hex() == CT_ROOTS[size]
    assert mth(CT_ENTRIES[:size]).hex() == CT_ROOTS[size]


def test_extending_in_any_two_parts_gives_the_naive_root():
    for size in range(1, SMALL + 1):
        for first_part in range(size + 1):
            edge = RightEdge()
            edge.extend(LEAVES[:first_part])
            edge.extend(LEAVES[first_part:size])
            assert (edge.size, edge.root()) == (size, naive_root(0, size))


@pytest.mark.parametrize("batch", [1, 7, 255, 256, 257, 1000, LARGEST])
def test_extending_gives_each_node_to_store_once_and_in_order(batch: int):
    size = min(LARGEST, 2000) if batch == 1 else LARGEST
    edge, completed = RightEdge(), []
    for first in range(0, size, batch):
        completed += edge.extend(LEAVES[first : min(size, first + batch)])
    for level in (1, 2):
        span = 256**level
        assert [node for node in completed if node.level == level] == [
            TileNode(level=level, index=i, hash=naive_root(i * span, (i + 1) * span))
            for i in range(size // span)
        ]
    assert {node.level for node in completed} <= {1, 2}
    assert edge.root() == naive_root(0, size)


def test_a_copy_grows_without_its_original():
    edge = RightEdge()
    edge.extend(LEAVES[:3])
    grown = edge.copy()
    grown.extend(LEAVES[3:5])
    assert (edge.size, edge.root()) == (3, naive_root(0, 3))
    assert (grown.size, grown.root()) == (5, naive_root(0, 5))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_leaf_hash_of_another_length_is_refused_and_nothing_is_appended(length: int):
    edge = RightEdge()
    edge.extend(LEAVES[:3])
    with pytest.raises(Malformed):
        edge.extend([*LEAVES[3:6], bytes(length)])
    assert (edge.size, edge.root()) == (3, naive_root(0, 3))


@pytest.mark.parametrize(
    ("size", "peaks"), [(-1, []), (0, [bytes(32)]), (3, [bytes(32)]), (1, [bytes(31)])]
)
def test_an_edge_whose_peaks_contradict_its_size_is_refused(size: int, peaks: list[bytes]):
    with pytest.raises(Malformed):
        RightEdge(size=size, peaks=peaks)


@pytest.mark.parametrize("size", [*range(SMALL + 1), *AROUND_TILES])
def test_an_edge_loaded_at_any_size_grows_like_one_never_stored(size: int, stored: StoredHashes):
    stored.reads.clear()
    loaded = RightEdge.load(size, stored)
    assert all(count <= 255 for _level, _first, count in stored.reads)
    assert len({level for level, _first, _count in stored.reads}) == len(stored.reads)
    never_stored = RightEdge()
    never_stored.extend(LEAVES[:size])
    assert loaded == never_stored
    assert root_at(size, stored) == (naive_root(0, size) if size else EMPTY_ROOT)
    assert loaded.extend(LEAVES[:300]) == never_stored.extend(LEAVES[:300])
    assert loaded == never_stored


def test_a_missing_stored_hash_leaves_the_verdict_open():
    def one_short(level: int, first: int, count: int, /) -> Sequence[bytes]:
        return StoredHashes(300)(level, first, count)[:-1]

    for attempt in (root_at, RightEdge.load):
        with pytest.raises(CannotVerify):
            attempt(300, one_short)
    with pytest.raises(CannotVerify):
        prove_inclusion(0, 300, one_short)
    with pytest.raises(CannotVerify):
        prove_consistency(5, 300, one_short)


def test_a_stored_hash_of_another_length_is_tampering():
    def cut(_level: int, _first: int, count: int, /) -> Sequence[bytes]:
        return [bytes(32)] * (count - 1) + [bytes(31)]

    with pytest.raises(TamperDetected):
        root_at(5, cut)


def test_inclusion_is_proved_and_checked_for_every_leaf_of_every_small_tree(
    stored: StoredHashes,
):
    for size in range(1, SMALL + 1):
        for index in range(size):
            proof = prove_inclusion(index, size, stored)
            assert proof == naive_path(index, 0, size)
            check_inclusion(LEAVES[index], index, size, proof, naive_root(0, size))


def test_consistency_is_proved_and_checked_for_every_pair_of_small_trees(stored: StoredHashes):
    for new in range(1, SMALL + 1):
        for old in range(1, new + 1):
            proof = prove_consistency(old, new, stored)
            assert proof == naive_subproof(old, 0, new, whole=True)
            check_consistency(old, new, naive_root(0, old), naive_root(0, new), proof)


def test_a_consistency_proof_shows_the_old_root_unless_that_is_a_single_peak(stored: StoredHashes):
    for new in range(1, SMALL + 1):
        for old in range(new + 1):
            proof = prove_consistency(old, new, stored)
            root = naive_root(0, new)
            if not 0 < old < new or old.bit_count() == 1:
                with pytest.raises(CannotVerify):
                    root_before(old, new, root, proof)
                continue
            assert root_before(old, new, root, proof) == naive_root(0, old)
            with pytest.raises(TamperDetected):
                root_before(old, new, naive_root(0, old), proof)
            with pytest.raises(TamperDetected):
                root_before(old, new, root, [*proof, bytes(32)])


def test_every_proof_of_every_tree_to_300_is_accepted():
    for size in range(SMALL + 1, MIDDLE + 1):
        root = naive_root(0, size)
        for index in range(size):
            check_inclusion(LEAVES[index], index, size, naive_path(index, 0, size), root)
            if index:
                proof = naive_subproof(index, 0, size, whole=True)
                check_consistency(index, size, naive_root(0, index), root, proof)


def test_the_proofs_of_trees_to_300_are_the_naive_ones(stored: StoredHashes):
    for size in range(SMALL + 1, MIDDLE + 1):
        # All of them around a full tile; else one in 23, beginning elsewhere in each tree.
        step = 1 if 255 <= size <= 257 else 23
        for index in range(size % step, size, step):
            assert prove_inclusion(index, size, stored) == naive_path(index, 0, size)
            if index:
                proof = naive_subproof(index, 0, size, whole=True)
                assert prove_consistency(index, size, stored) == proof


@pytest.mark.parametrize("size", AROUND_TILES)
def test_proofs_across_tiles_are_the_naive_ones(size: int, stored: StoredHashes):
    root = naive_root(0, size)
    some = random.Random(size).sample(range(1, size), 40)
    for index in {0, 1, 254, 255, 256, 510, 511, size // 2, size - 2, size - 1, *some}:
        if index < size:
            proof = prove_inclusion(index, size, stored)
            assert proof == naive_path(index, 0, size)
            check_inclusion(LEAVES[index], index, size, proof, root)
    for old in {1, 2, 255, 256, 257, 511, 512, size // 2, size - 1, size, *some}:
        if old <= size:
            proof = prove_consistency(old, size, stored)
            assert proof == naive_subproof(old, 0, size, whole=True)
            check_consistency(old, size, naive_root(0, old), root, proof)


def test_proofs_are_the_same_from_nodes_that_were_kept(stored: StoredHashes):
    kept = NodeCache()
    chance = random.Random(3)
    for size in (*AROUND_TILES, 300, 1_000, LARGEST - 1):
        for index in chance.sample(range(1, size), 30):
            assert prove_inclusion(index, size, stored, kept) == naive_path(index, 0, size)
            proof = naive_subproof(index, 0, size, whole=True)
            assert prove_consistency(index, size, stored, kept) == proof


def test_a_proof_reads_each_row_once_and_at_most_two_a_level(stored: StoredHashes):
    stored.reads.clear()
    prove_inclusion(1234, LARGEST, stored)
    assert len(set(stored.reads)) == len(stored.reads) <= 2 * 3


@pytest.mark.parametrize("new", [0, 1, 7])
def test_every_tree_is_consistent_with_the_empty_one_by_an_empty_proof(new: int):
    root = naive_root(0, new) if new else EMPTY_ROOT
    assert prove_consistency(0, new, StoredHashes(7)) == []
    check_consistency(0, new, EMPTY_ROOT, root, [])
    with pytest.raises(TamperDetected):
        check_consistency(0, new, EMPTY_ROOT, root, [bytes(32)])
    with pytest.raises(TamperDetected):
        check_consistency(0, new, bytes(32), root, [])


def test_no_root_but_the_empty_one_belongs_to_size_zero():
    with pytest.raises(TamperDetected):
        check_consistency(0, 0, bytes(32), bytes(32), [])
    with pytest.raises(TamperDetected):
        check_consistency(0, 0, EMPTY_ROOT, bytes(32), [])


def test_the_same_size_with_another_root_is_a_split_view():
    with pytest.raises(TamperDetected, match="same tree"):
        check_consistency(5, 5, naive_root(0, 5), naive_root(1, 6), [])
    with pytest.raises(TamperDetected):
        check_consistency(5, 5, naive_root(0, 5), naive_root(0, 5), [bytes(32)])


def test_a_shrunken_tree_is_tampering():
    with pytest.raises(TamperDetected, match="can't become"):
        check_consistency(6, 5, naive_root(0, 6), naive_root(0, 5), [])


@pytest.mark.parametrize(
    ("index", "size"),
    [
        *((index, size) for size in range(1, 11) for index in range(size)),
        *((index, 256) for index in (0, 100, 255)),
        *((index, 257) for index in (0, 255, 256)),
        *((index, 300) for index in (0, 256, 299)),
        *((index, 65_536) for index in (0, 54_321, 65_535)),
        *((index, 65_537) for index in (0, 54_321, 65_536)),
    ],
)
def test_every_flipped_bit_of_an_inclusion_proof_is_noticed(
    index: int, size: int, stored: StoredHashes
):
    proof = prove_inclusion(index, size, stored)
    for leaf, root, *hashes in with_flipped_bits([LEAVES[index], naive_root(0, size), *proof]):
        with pytest.raises(TamperDetected):
            check_inclusion(leaf, index, size, hashes, root)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *((old, new) for new in range(1, 11) for old in range(1, new + 1)),
        *((old, 256) for old in (1, 100, 128, 255)),
        *((old, 257) for old in (1, 255, 256)),
        *((old, 300) for old in (1, 256, 257, 299)),
        *((old, 65_536) for old in (1, 54_321, 65_535)),
        *((old, 65_537) for old in (1, 54_321, 65_535, 65_536)),
    ],
)
def test_every_flipped_bit_of_a_consistency_proof_is_noticed(
    old: int, new: int, stored: StoredHashes
):
    proof = prove_consistency(old, new, stored)
    for old_root, new_root, *hashes in with_flipped_bits(
        [naive_root(0, old), naive_root(0, new), *proof]
    ):
        with pytest.raises(TamperDetected):
            check_consistency(old, new, old_root, new_root, hashes)


def test_proofs_with_a_hash_left_out_added_or_moved_are_noticed(stored: StoredHashes):
    size = 21
    root = naive_root(0, size)
    for number in range(1, size):
        path = prove_inclusion(number, size, stored)
        for changed in (path[:-1], path[1:], [*path, path[-1]], [root, *path], path[::-1]):
            if changed != path:
                with pytest.raises(TamperDetected):
                    check_inclusion(LEAVES[number], number, size, changed, root)
        proof = prove_consistency(number, size, stored)
        for changed in (proof[:-1], proof[1:], [*proof, proof[-1]], [root, *proof]):
            with pytest.raises(TamperDetected):
                check_consistency(number, size, naive_root(0, number), root, changed)


def test_a_proof_doesnt_serve_another_leaf_of_the_tree(stored: StoredHashes):
    size = 11
    for index in range(size):
        proof = prove_inclusion(index, size, stored)
        for other in {*range(-1, size + 2)} - {index}:
            with pytest.raises(TamperDetected):
                check_inclusion(LEAVES[index], other, size, proof, naive_root(0, size))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
@pytest.mark.parametrize("place", range(4))
def test_evidence_of_another_length_than_a_hash_doesnt_parse(
    length: int, place: int, stored: StoredHashes
):
    odd = bytes(length)
    inclusion = [LEAVES[2], naive_root(0, 5), *prove_inclusion(2, 5, stored)]
    inclusion[place] = odd
    leaf, root, *hashes = inclusion
    with pytest.raises(Malformed):
        check_inclusion(leaf, 2, 5, hashes, root)
    consistency = [naive_root(0, 3), naive_root(0, 5), *prove_consistency(3, 5, stored)]
    consistency[place] = odd
    old_root, new_root, *hashes = consistency
    with pytest.raises(Malformed):
        check_consistency(3, 5, old_root, new_root, hashes)


def test_an_empty_hash_as_both_root_and_leaf_proves_nothing():
    with pytest.raises(Malformed):
        check_inclusion(b"", 0, 1, [], b"")
    with pytest.raises(Malformed):
        check_consistency(1, 1, b"", b"", [])


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0)])
def test_no_proof_is_built_for_a_leaf_outside_the_tree(index: int, size: int):
    with pytest.raises(Malformed):
        prove_inclusion(index, size, StoredHashes(5))


@pytest.mark.parametrize(("old", "new"), [(-1, 5), (6, 5)])
def test_no_proof_is_built_for_a_tree_that_shrinks(old: int, new: int):
    with pytest.raises(Malformed):
        prove_consistency(old, new, StoredHashes(6))


def test_no_edge_is_loaded_for_a_negative_size():
    with pytest.raises(Malformed):
        RightEdge.load(-1, StoredHashes(0))
