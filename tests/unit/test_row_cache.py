from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from ledger.row_cache import NodeCache, RowCache


def row(index: int, width: int) -> bytes:
    return random.Random(index).randbytes(32 * 256)[: 32 * width]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 256), st.integers(1, 256)),
        max_size=50,
    )
)
def test_a_kept_row_answers_for_every_prefix_and_for_nothing_longer(
    looks: list[tuple[int, int, int]],
):
    cache, longest = RowCache(), dict.fromkeys(range(4), 0)
    for index, kept, asked in looks:
        cache.keep(0, index, row(index, kept))
        longest[index] = max(longest[index], kept)
        found = cache.get(0, index, asked)
        assert found == (row(index, asked) if asked <= longest[index] else None)
        assert cache.get(1, index, 1) is None


def test_no_more_is_kept_than_fits_and_the_least_used_goes_first():
    cache = RowCache(max_bytes=10 * (8192 + 256))
    for index in range(10):
        cache.keep(0, index, row(index, 256))
    assert cache.get(0, 0, 256) is not None
    for index in range(10, 19):
        cache.keep(0, index, row(index, 256))
        assert cache.size_bytes <= 10 * (8192 + 256)
    assert cache.get(0, 0, 256) is not None
    assert [index for index in range(1, 19) if cache.get(0, index, 1)] == list(range(10, 19))


def test_a_row_that_grows_is_counted_once():
    cache = RowCache()
    for width in range(1, 257):
        cache.keep(0, 7, row(7, width))
    assert cache.size_bytes == 8192 + 256


def test_no_more_nodes_are_kept_than_fit_and_the_least_used_goes_first():
    cache = NodeCache(max_nodes=3)
    for index in range(3):
        cache.keep(7, index, bytes([index]) * 32)
    assert cache.get(7, 0) == bytes(32)
    cache.keep(7, 3, bytes(32))
    assert [index for index in range(4) if cache.get(7, index)] == [0, 2, 3]
    assert cache.get(6, 0) is None
