"""Put the certificates of a timestamp into the order that DER wants.

Source: RFC 3161 2.4.2, RFC 5652 5.1, X.690 10.3 and 11.6. `SignedData.certificates` is a
SET, whose elements DER sorts. Authorities that run openssl send it in the order of the chain,
and the library that reads tokens refuses that. No signature covers the set: sorting it
changes nothing that counts, and what is kept as evidence stays as it came.
"""

from __future__ import annotations

from typing import NamedTuple

_CERTIFICATES = 0xA0
_LONG, _MOST_LENGTH_BYTES = 0x80, 3


class Element(NamedTuple):
    """Where an element stands: its tag, first byte, first byte of content, first after it."""

    tag: int
    start: int
    content: int
    end: int


def sort_certificates(raw: bytes) -> bytes:
    """Give a timestamp response with its certificates in order; as it was if it has none.

    Raises:
        ValueError: it is not built as a timestamp response.
    """
    (whole, *rest) = _elements(raw, 0, len(raw))
    if rest:
        raise ValueError("expected one element, found more")
    parts = _elements(raw, whole.content, whole.end)
    if len(parts) < 2:
        return raw  # a refusal: there is no token
    *_, wrapped = _elements(raw, parts[1].content, parts[1].end)
    signed, *_ = _elements(raw, wrapped.content, wrapped.end)
    for part in _elements(raw, signed.content, signed.end)[3:]:
        if part.tag == _CERTIFICATES:
            found = _elements(raw, part.content, part.end)
            ordered = sorted(raw[each.start : each.end] for each in found)
            return raw[: part.content] + b"".join(ordered) + raw[part.end :]
    return raw


def _elements(raw: bytes, at: int, end: int) -> list[Element]:
    """Give the elements that fill a stretch of bytes."""
    found = []
    while at < end:
        element = _element(raw, at, end)
        found.append(element)
        at = element.end
    if not found:
        raise ValueError("expected an element, found none")
    return found


def _element(raw: bytes, at: int, end: int) -> Element:
    """Read tag and length; tags above 30 and lengths above 16 MiB don't occur here."""
    try:
        tag, length, content = raw[at], raw[at + 1], at + 2
    except IndexError:
        raise ValueError("expected tag and length") from None
    if length >= _LONG:
        count = length - _LONG
        if not 1 <= count <= _MOST_LENGTH_BYTES:
            raise ValueError("expected a definite length")
        length = int.from_bytes(raw[content : content + count])
        content += count
    if content + length > end:
        raise ValueError("expected an element within its bounds")
    return Element(tag, at, content, content + length)
