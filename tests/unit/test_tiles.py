"""Tile paths, widths and bundles against C2SP tlog-tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.tiles import (
    MAX_ENTRY_BYTES,
    MAX_TILE_INDEX,
    Tile,
    decode_entries,
    decode_tile,
    encode_entries,
    encode_tile,
    parse_tile_path,
    tile_path,
    tile_width,
)
from ledger.errors import Malformed, TooLarge

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    ("level", "index", "width", "path"),
    [
        (0, 0, 256, "tile/0/000"),
        (0, 999, 256, "tile/0/999"),
        (0, 1000, 256, "tile/0/x001/000"),
        (0, 1234067, 256, "tile/0/x001/x234/067"),
        (1, 0, 1, "tile/1/000.p/1"),
        (63, 1234067, 255, "tile/63/x001/x234/067.p/255"),
        (None, 1000000, 256, "tile/entries/x001/x000/000"),
        (None, 7, 42, "tile/entries/007.p/42"),
    ],
)
def test_paths_are_those_of_the_specification(level: int | None, index: int, width: int, path: str):
    assert tile_path(level, index, width) == path
    assert parse_tile_path(path) == Tile(level=level, index=index, width=width)


@given(
    level=st.none() | st.integers(0, 63),
    index=st.integers(0, MAX_TILE_INDEX),
    width=st.integers(1, 256),
)
def test_every_tile_comes_back_from_its_path(level: int | None, index: int, width: int):
    tile = Tile(level=level, index=index, width=width)
    assert parse_tile_path(tile.path()) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/000\n",
        "tile/00/000",
        "tile/01/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/Entries/000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000",
        "tile/0/x000/001",
        "tile/0/x000/x001/000",
        "tile/0/001/001",
        "tile/0/X001/001",
        "tile/0/\u0661\u0662\u0663",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/../../etc/passwd",
        "tile/0/x001/x234/067.p/8/../9",
        "tile/0/x999/x999/x999/x999/x999/999",
        "tile/0/x001/x001/x001/x001/x001/x001/x001/001",
    ],
)
def test_a_path_in_another_spelling_is_refused(path: str):
    with pytest.raises(Malformed):
        parse_tile_path(path)


@pytest.mark.parametrize(
    ("level", "index", "width"),
    [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, MAX_TILE_INDEX + 1, 1), (0, 0, 0), (0, 0, 257)],
)
def test_no_path_is_written_for_a_tile_that_cant_be(level: int, index: int, width: int):
    with pytest.raises(Malformed):
        tile_path(level, index, width)


@pytest.mark.parametrize(
    ("size", "level", "full_tiles", "last_width"),
    [
        (70_000, 0, 273, 112),
        (70_000, None, 273, 112),
        (70_000, 1, 1, 17),
        (70_000, 2, 0, 1),
        (70_000, 3, 0, 0),
        (256, 0, 1, 0),
        (256, 1, 0, 1),
        (0, 0, 0, 0),
    ],
)
def test_a_trees_tiles_are_as_wide_as_in_the_specifications_examples(
    size: int, level: int | None, full_tiles: int, last_width: int
):
    widths = [tile_width(level, index, size) for index in range(full_tiles + 3)]
    assert widths == [256] * full_tiles + [last_width, 0, 0]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_a_bundle_gives_back_its_entries(entries: list[bytes]):
    assert decode_entries(encode_entries(entries), len(entries)) == entries


def test_a_bundles_lengths_are_two_big_endian_bytes():
    assert encode_entries([b"ab", b"", b"c" * 258]) == b"\0\2ab\0\0\1\2" + b"c" * 258


def test_the_longest_entry_fits_and_one_byte_more_doesnt():
    longest = bytes(MAX_ENTRY_BYTES)
    assert decode_entries(encode_entries([longest]), 1) == [longest]
    with pytest.raises(TooLarge):
        encode_entries([longest + b"\0"])


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=4), st.data())
def test_a_bundle_cut_short_or_followed_by_more_is_refused(
    entries: list[bytes], data: st.DataObject
):
    bundle = encode_entries(entries)
    cut = data.draw(st.integers(0, len(bundle) - 1))
    for changed in (bundle[:cut], bundle + b"\0", bundle + b"\0\0"):
        with pytest.raises(Malformed):
            decode_entries(changed, len(entries))


@pytest.mark.parametrize("entries", [[], [b""] * 257])
def test_a_bundle_has_1_to_256_entries(entries: Sequence[bytes]):
    with pytest.raises(Malformed):
        encode_entries(entries)
    with pytest.raises(Malformed):
        decode_entries(b"\0\0" * len(entries), len(entries))


@pytest.mark.parametrize("width", [1, 2, 255, 256])
def test_a_tile_gives_back_its_hashes(width: int):
    hashes = [number.to_bytes(32) for number in range(width)]
    tile_bytes = encode_tile(hashes)
    assert len(tile_bytes) == 32 * width
    assert decode_tile(tile_bytes, width) == hashes
    for changed in (tile_bytes[:-1], tile_bytes + b"\0", tile_bytes[32:]):
        with pytest.raises(Malformed):
            decode_tile(changed, width)


@pytest.mark.parametrize("hashes", [[], [bytes(31)], [bytes(32), bytes(33)], [bytes(32)] * 257])
def test_no_tile_is_written_of_other_things_than_1_to_256_hashes(hashes: Sequence[bytes]):
    with pytest.raises(Malformed):
        encode_tile(hashes)
