from __future__ import annotations

import gzip
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from api.encodings import CODINGS, FIRST_PIECE_BYTES, PIECE_BYTES, expand, zstd

if TYPE_CHECKING:
    from collections.abc import Callable

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
NOISE = random.Random(7).randbytes(3 * PIECE_BYTES)
SIZES = [0, 1, 255, 65_535, 65_536, 65_537, 131_072, PIECE_BYTES, 2 * PIECE_BYTES + 1]


@pytest.mark.parametrize("coding", COMPRESS)
@pytest.mark.parametrize("size", SIZES)
def test_what_was_compressed_comes_back_in_pieces_of_a_bound(coding: str, size: int):
    for content in (bytes(size), NOISE[:size], (b"abc" * size)[:size]):
        pieces = list(expand(COMPRESS[coding](content), coding))
        assert b"".join(pieces) == content
        assert all(len(piece) <= FIRST_PIECE_BYTES for piece in pieces[:1])
        assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)


@pytest.mark.parametrize("coding", COMPRESS)
def test_nothing_is_expanded_before_it_is_asked_for(coding: str):
    pieces = expand(COMPRESS[coding](bytes(100 * PIECE_BYTES)), coding)
    assert len(next(pieces)) <= FIRST_PIECE_BYTES
    assert len(next(pieces)) <= PIECE_BYTES


@pytest.mark.parametrize("coding", COMPRESS)
@given(content=st.binary(max_size=300), cut=st.integers(0, 400))
@settings(max_examples=50)
def test_every_stream_cut_short_is_refused(coding: str, content: bytes, cut: int):
    whole = COMPRESS[coding](content)
    if cut < len(whole):
        with pytest.raises(HTTPException) as refusal:
            list(expand(whole[:cut], coding))
        assert refusal.value.status_code == 400


@pytest.mark.parametrize("coding", CODINGS)
@given(content=st.binary(max_size=400))
@settings(max_examples=100)
def test_any_bytes_are_expanded_or_refused(coding: str, content: bytes):
    with suppress(HTTPException):
        assert all(list(expand(content, coding)))


@pytest.mark.parametrize("coding", COMPRESS)
@pytest.mark.parametrize("size", [0, 100, 65_536, 200_000])
def test_whatever_stands_after_the_stream_is_refused(coding: str, size: int):
    whole = COMPRESS[coding](NOISE[:size])
    skippable = b"\x50\x2a\x4d\x18\x00\x00\x00\x00"
    for more in (b"\0", b"\n", whole, skippable, NOISE[:100_000]):
        with pytest.raises(HTTPException):
            list(expand(whole + more, coding))


@pytest.mark.parametrize("coding", COMPRESS)
def test_flipping_any_bit_of_a_checked_stream_never_gives_other_bytes(coding: str):
    content = b'{"id":"a","type":"record.accessed"}' * 3
    checked = {zstd.CompressionParameter.checksum_flag: 1}
    whole = gzip.compress(content) if coding == "gzip" else zstd.compress(content, options=checked)
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = b"".join(expand(bytes(flipped), coding))
        except HTTPException:
            continue
        assert found == content  # a bit that says nothing about the content: time, system


def test_the_details_of_a_refusal_hold_nothing_of_the_body():
    with pytest.raises(HTTPException) as refusal:
        list(expand(b"zhang wei 13800138000", "gzip"))
    assert "zhang" not in refusal.value.detail
