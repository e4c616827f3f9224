"""The two hashes of the tree, and folding rows of them (RFC 6962 §2.1)."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EMPTY_ROOT = sha256(b"").digest()
"""Root of the tree without leaves (RFC 6962 §2.1)."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry's stored bytes into its leaf: ``SHA-256(0x00 ‖ entry)``, RFC 6962 §2.1."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two children into their parent: ``SHA-256(0x01 ‖ left ‖ right)``, RFC 6962 §2.1."""
    return sha256(b"\x01" + left + right).digest()


def parents(row: Iterable[bytes]) -> list[bytes]:
    """Hash neighbours pairwise, one level up; the row has an even number of nodes."""
    # This loop is nearly all of what appending costs, so node_hash is written out here.
    digest_of, pairs = sha256, iter(row)
    return [
        digest_of(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)
    ]


def fold(row: Sequence[bytes]) -> bytes:
    """Hash a row of 2**h neighbouring nodes into the one node above them all."""
    while len(row) > 1:
        row = parents(row)
    return row[0]


def split(size: int) -> int:
    """Find the largest power of two smaller than `size` (k in RFC 6962 §2.1); size > 1."""
    return 1 << ((size - 1).bit_length() - 1)
