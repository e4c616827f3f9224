"""Proofs of many entries against brute force, and against every way to spoil them."""

from __future__ import annotations

import hashlib
import random
import re
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.merkle import RightEdge
from ledger.core.multiproof import check_entries, prove_entries, walk_proof
from ledger.core.tiles import TILE_WIDTH
from ledger.errors import CannotVerify, Malformed, TamperDetected

FORMAT = Path(__file__).resolve().parents[2] / "ledger" / "FORMAT.md"
LEAVES = [hashlib.sha256(b"leaf %d" % index).digest() for index in range(1_200)]


def brute_root(leaves: list[bytes]) -> bytes:
    """Hash a tree as RFC 6962 2.1 writes it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    left, right = brute_root(leaves[:split]), brute_root(leaves[split:])
    return hashlib.sha256(b"\1" + left + right).digest()


def brute_proof(lo: int, hi: int, chosen: set[int]) -> list[bytes]:
    """Write the proof down as FORMAT.md 7.7 says it."""
    if not chosen & set(range(lo, hi)):
        return [brute_root(LEAVES[lo:hi])]
    if hi - lo == 1:
        return []
    split = 1
    while split * 2 < hi - lo:
        split *= 2
    return brute_proof(lo, lo + split, chosen) + brute_proof(lo + split, hi, chosen)


class Stored:
    """A tree's stored rows, which counts how often each is read."""

    def __init__(self, leaves: list[bytes]) -> None:
        edge = RightEdge()
        nodes = edge.extend(leaves)
        self.root = edge.root()
        self.levels = {0: leaves}
        for node in nodes:
            self.levels.setdefault(node.level, []).append(node.hash)
        self.reads: list[tuple[int, int]] = []

    def read(self, level: int, first: int, count: int) -> list[bytes]:
        self.reads.append((level, first))
        return self.levels[level][first : first + count]


def proved(chosen: list[int], size: int) -> tuple[dict[int, bytes], list[bytes], bytes]:
    stored = Stored(LEAVES[:size])
    proof = prove_entries(chosen, size, stored.read)
    assert len(stored.reads) == len(set(stored.reads)), "a row was read twice"
    return {index: LEAVES[index] for index in chosen}, proof, stored.root


@pytest.mark.parametrize("size", range(10))
def test_every_subset_of_a_small_tree_is_proved_as_the_format_writes_it(size: int) -> None:
    for bits in range(1 << size):
        chosen = [index for index in range(size) if bits >> index & 1]
        leaves, proof, root = proved(chosen, size)
        assert root == brute_root(LEAVES[:size])
        assert proof == (brute_proof(0, size, set(chosen)) if size else [root])
        check_entries(leaves, size, proof, root)


@pytest.mark.parametrize("size", range(10, 41))
def test_every_single_entry_every_run_and_some_pairs_are_proved(size: int) -> None:
    draw = random.Random(size)
    pairs = draw.sample(list(combinations(range(size), 2)), 20)
    runs = [range(draw.randrange(size), size) for _ in range(5)]
    holes = [[i for i in range(size) if i != hole] for hole in (0, size // 2, size - 1)]
    for chosen in [*([i] for i in range(size)), *map(list, pairs), *map(list, runs), *holes]:
        leaves, proof, root = proved(chosen, size)
        assert proof == brute_proof(0, size, set(chosen))
        check_entries(leaves, size, proof, root)


@pytest.mark.parametrize("size", [255, 256, 257, 511, 512, 513, 1_000, 1_200])
def test_trees_of_several_tiles_are_proved_from_their_stored_rows(size: int) -> None:
    draw = random.Random(size)
    for count in (0, 1, 2, 17, size // 3, size - 1, size):
        chosen = sorted(draw.sample(range(size), count))
        leaves, proof, root = proved(chosen, size)
        assert proof == brute_proof(0, size, set(chosen))
        check_entries(leaves, size, proof, root)


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 70_000])
def test_trees_of_three_levels_are_proved(size: int) -> None:
    leaves = [hashlib.sha256(b"%d" % index).digest() for index in range(size)]
    stored = Stored(leaves)
    for chosen in (
        [0],
        [size - 1],
        list(range(size)),
        list(range(300, 66_000 if size > 66_000 else 65_000)),
        sorted(random.Random(1).sample(range(size), 999)),
    ):
        stored.reads.clear()
        proof = prove_entries(chosen, size, stored.read)
        assert len(stored.reads) == len(set(stored.reads))
        check_entries({index: leaves[index] for index in chosen}, size, proof, stored.root)


def test_a_dense_range_reads_only_the_rows_at_its_ends() -> None:
    size = 70_000
    stored = Stored([hashlib.sha256(b"%d" % index).digest() for index in range(size)])
    proof = prove_entries(range(1_000, 69_000), size, stored.read)
    assert len(stored.reads) < 8
    assert len(proof) < 40


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_any_subset_of_any_tree_is_proved(tree: tuple[int, set[int]]) -> None:
    size, chosen = tree
    leaves, proof, root = proved(sorted(chosen), size)
    assert proof == brute_proof(0, size, chosen)
    check_entries(leaves, size, proof, root)


@pytest.mark.parametrize(("size", "chosen"), [(3, [1]), (7, [0, 6]), (13, [2, 3, 9]), (40, [5])])
def test_each_flipped_bit_of_leaf_proof_or_root_is_noticed(size: int, chosen: list[int]) -> None:
    leaves, proof, root = proved(chosen, size)
    for index, leaf in leaves.items():
        for spoiled in flips(leaf):
            with pytest.raises(TamperDetected):
                check_entries({**leaves, index: spoiled}, size, proof, root)
    for at, step in enumerate(proof):
        for spoiled in flips(step):
            with pytest.raises(TamperDetected):
                check_entries(leaves, size, [*proof[:at], spoiled, *proof[at + 1 :]], root)
    for spoiled in flips(root):
        with pytest.raises(TamperDetected):
            check_entries(leaves, size, proof, spoiled)


def flips(value: bytes) -> list[bytes]:
    number = int.from_bytes(value)
    return [(number ^ (1 << bit)).to_bytes(len(value)) for bit in range(8 * len(value))]


@pytest.mark.parametrize("size", [1, 2, 3, 8, 21, 40])
def test_a_hash_too_few_too_many_or_swapped_is_noticed(size: int) -> None:
    chosen = list(range(0, size, 3))
    leaves, proof, root = proved(chosen, size)
    for at in range(len(proof)):
        with pytest.raises(TamperDetected):
            check_entries(leaves, size, proof[:at] + proof[at + 1 :], root)
    for at in range(len(proof) + 1):
        with pytest.raises(TamperDetected):
            check_entries(leaves, size, [*proof[:at], bytes(32), *proof[at:]], root)
    for at in range(len(proof) - 1):
        swapped = [*proof[:at], proof[at + 1], proof[at], *proof[at + 2 :]]
        with pytest.raises(TamperDetected):
            check_entries(leaves, size, swapped, root)


@pytest.mark.parametrize("size", [2, 9, 33])
def test_an_entry_left_out_added_or_moved_is_noticed(size: int) -> None:
    chosen = [0, size // 2]
    leaves, proof, root = proved(chosen, size)
    for index in chosen:
        without = {i: leaf for i, leaf in leaves.items() if i != index}
        with pytest.raises(TamperDetected):
            check_entries(without, size, proof, root)
    if size > 2:
        with pytest.raises(TamperDetected):
            check_entries({**leaves, size - 1: LEAVES[size - 1]}, size, proof, root)
        with pytest.raises(TamperDetected):
            check_entries({0: leaves[0], size // 2 - 1: leaves[size // 2]}, size, proof, root)


def test_a_tree_of_another_shape_is_noticed() -> None:
    # Sizes that differ only within one opaque hash have the same shape: which of them it is,
    # the signed checkpoint says.
    leaves, proof, root = proved([3, 4], 11)
    for size in (5, 8, 17, 2**40):
        with pytest.raises(TamperDetected):
            check_entries(leaves, size, proof, root)


def test_an_entry_outside_the_tree_is_noticed() -> None:
    leaves, proof, root = proved([3], 4)
    for index in (-1, 4, 2**63):
        with pytest.raises(TamperDetected):
            check_entries({**leaves, index: LEAVES[0]}, 4, proof, root)


def test_hashes_of_other_lengths_are_refused() -> None:
    leaves, proof, root = proved([3], 4)
    for wrong in (b"", bytes(31), bytes(33), bytes(64)):
        with pytest.raises(Malformed):
            check_entries(leaves, 4, [wrong, *proof[1:]], root)
        with pytest.raises(Malformed):
            check_entries({3: wrong}, 4, proof, root)
        with pytest.raises(Malformed):
            check_entries(leaves, 4, proof, wrong)


@pytest.mark.parametrize("indices", [[1, 0], [2, 2], [-1], [5], [0, 2**63]])
def test_indices_that_no_tree_has_in_this_order_are_refused(indices: list[int]) -> None:
    with pytest.raises(Malformed):
        prove_entries(indices, 5, Stored(LEAVES[:5]).read)


def test_rows_that_are_not_stored_make_no_proof() -> None:
    with pytest.raises(CannotVerify):
        prove_entries([1], 300, Stored(LEAVES[:100]).read)


def test_hashes_come_one_by_one_without_reading_ahead() -> None:
    stored = Stored(LEAVES)
    walk = walk_proof([0, 1_100], 1_200, stored.read)
    next(walk)
    assert stored.reads == [(0, 0)]
    assert len(list(walk)) == len(brute_proof(0, 1_200, {0, 1_100})) - 1
    assert max(first for _, first in stored.reads) >= 4 * TILE_WIDTH


def test_the_example_in_the_format_document_recomputes() -> None:
    text = FORMAT.read_text(encoding="utf-8")
    block = text.split("Leaf hashes:\n\n```\n")[1].split("\n```")[0]
    one, two, three = (bytes.fromhex(line) for line in block.split("\n"))
    told = text.split("\n7.7.")[1].split("\n7.8.")[0]
    lines = f"2 {two.hex()}\n3 {three.hex()}\n"
    hashes = re.findall(r"`([0-9a-f]{64})`", told)
    pair = hashlib.sha256(b"\1" + one + two).digest()
    root = hashlib.sha256(b"\1" + pair + three).digest()
    assert hashes == [hashlib.sha256(lines.encode()).hexdigest(), pair.hex(), root.hex()]
    check_entries({1: two, 2: three}, 3, [one], root)
    check_entries({2: three}, 3, [pair], root)
    check_entries({}, 3, [root], root)
