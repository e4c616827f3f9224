"""Certificates of a timestamp are put in order; what isn't a timestamp is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.anchors.der import sort_certificates


def element(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 + len(length)]) + length + content


STATUS = element(0x30, element(0x02, b"\0"))
KIND = element(0x06, b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02")


def response(*certificates: bytes) -> bytes:
    """Give the frame of a timestamp response."""
    signed = element(
        0x30,
        element(0x02, b"\x03"),
        element(0x31),
        element(0x30, b"\x05\0"),
        element(0xA0, *certificates),
        element(0x31, element(0x30)),
    )
    return element(0x30, STATUS, element(0x30, KIND, element(0xA0, signed)))


certificates = st.lists(
    st.binary(max_size=300).map(lambda content: element(0x30, content)), min_size=1, max_size=6
)


@given(certificates)
def test_they_come_in_the_order_of_their_bytes_and_none_is_lost(found: list[bytes]):
    assert sort_certificates(response(*found)) == response(*sorted(found))


def test_a_refusal_without_a_token_stays_as_it_is():
    refusal = element(0x30, STATUS)
    assert sort_certificates(refusal) == refusal


def test_a_token_without_certificates_stays_as_it_is():
    signed = element(0x30, element(0x02, b"\x03"), element(0x31), element(0x30), element(0x31))
    token = element(0x30, STATUS, element(0x30, KIND, element(0xA0, signed)))
    assert sort_certificates(token) == token


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x30",
        b"\x30\x05\x02\x01\x00",
        b"\x30\x80\0\0",
        b"\x30\x84\0\0\0\0",
        element(0x30, STATUS) + b"\0\0",
        element(0x30, STATUS, element(0x30)),
    ],
)
def test_what_has_no_sound_lengths_is_refused(raw: bytes):
    with pytest.raises(ValueError, match="expected"):
        sort_certificates(raw)


@given(st.binary(max_size=400))
def test_any_bytes_are_sorted_or_refused(raw: bytes):
    with suppress(ValueError):
        assert len(sort_certificates(raw)) == len(raw)


@given(certificates, st.data())
def test_a_cut_response_is_refused(found: list[bytes], data: st.DataObject):
    whole = response(*found)
    end = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError, match="expected"):
        sort_certificates(whole[:end])
