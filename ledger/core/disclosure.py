"""Commit to values, seal them in boxes, open them again (FORMAT.md section 4).

The construction follows SD-JWT (RFC 9901 section 4.2) with names beside digests:
an entry holds salted digests only, what they open to stands in a deletable box.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import struct
from binascii import b2a_base64
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.errors import CannotVerify, Malformed, TamperDetected

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NONCE_BYTES = 12
KEY_BYTES = 32

_URL = bytes.maketrans(b"+/", b"-_")
_TELLING = re.compile(r"[0-9]{8}")
_PLAIN_SEGMENT = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}|[0-9]{1,7}")


def base64url(raw: bytes) -> bytes:
    """Encode as base64url without padding (RFC 4648 section 5)."""
    return b2a_base64(raw, newline=False).translate(_URL).rstrip(b"=")


def length_prefixed(raw: bytes) -> bytes:
    """Give u32be length and bytes: joined pieces can't be cut in another place."""
    return struct.pack(">I", len(raw)) + raw


def context(ledger: bytes, source: bytes, event_id: bytes, part: int) -> bytes:
    """Name one entry's event for key derivation: ids are unique only per source."""
    return b"".join(
        (
            length_prefixed(ledger),
            length_prefixed(source),
            length_prefixed(event_id),
            struct.pack(">I", part),
        )
    )


@lru_cache(maxsize=4096)
def safe_name(path: str) -> bool:
    """Tell whether a value's path may stand in clear (FORMAT.md 4.1)."""
    return not _TELLING.search(path) and all(map(_PLAIN_SEGMENT.fullmatch, path.split(".")))


def commit(key: bytes, ctx: bytes, values: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Give (name in the entry, disclosure) for each (true name, value as compact JSON)."""
    event_key = hmac.digest(key, b"ledger/sd/v1/event" + ctx, "sha256")
    committed = []
    hidden = 0
    for name, value in values:
        encoded = name.encode()
        shown = name
        if not safe_name(name):
            hidden += 1
            shown = f"~{hidden}"
        salt = base64url(hmac.digest(event_key, b"salt\0" + encoded, "sha256")[:16])
        committed.append((shown, make_disclosure(salt, name, value)))
    return committed


def make_disclosure(salt: bytes, name: str, value: bytes) -> bytes:
    """Give base64url of `[salt,name,value]`, the value's tokens as sent."""
    return base64url(b'["%b",%b,%b]' % (salt, _quoted(name), value))


def digest(disclosure: bytes) -> bytes:
    """Give the digest that stands in the entry for a disclosure (43 characters)."""
    return base64url(hashlib.sha256(disclosure).digest())


def seal_box(
    key: bytes, ctx: bytes, aad: bytes, disclosures: Sequence[bytes], nonce: bytes
) -> bytes:
    """Encrypt an entry's disclosures, bound to ledger, stream and entry by `aad`."""
    cipher = AESGCM(_box_key(key, ctx))
    return nonce + cipher.encrypt(nonce, b"\n".join(disclosures), aad)


def open_box(key: bytes, ctx: bytes, aad: bytes, box: bytes) -> list[bytes]:
    """Decrypt a box into its disclosures.

    Raises:
        TamperDetected: the box is not the one made for this entry under this key.
    """
    try:
        opened = AESGCM(_box_key(key, ctx)).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], aad)
    except (InvalidTag, ValueError):
        raise TamperDetected("box: expected the one sealed for this entry, found another") from None
    return opened.split(b"\n")


def read_disclosure(disclosure: bytes) -> tuple[str, object]:
    """Give (name, value) of a disclosure.

    Raises:
        Malformed: it is not base64url of a JSON array of three.
    """
    try:
        padded = disclosure + b"=" * (-len(disclosure) % 4)
        salt, name, value = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError):
        raise Malformed("expected a disclosure: base64url of [salt, name, value]") from None
    if not isinstance(salt, str) or not isinstance(name, str):
        raise Malformed("expected a disclosure with a string as salt and as name")
    return name, value


def check_disclosures(sealed: Sequence[str], disclosures: Sequence[bytes]) -> None:
    """Check a box's disclosures against an entry's digests, in order.

    Raises:
        CannotVerify: their number differs.
        TamperDetected: one opens to another digest than the entry's.
    """
    if len(sealed) != len(disclosures):
        raise CannotVerify(f"disclosures: expected {len(sealed)}, found {len(disclosures)}")
    for expected, disclosure in zip(sealed, disclosures, strict=True):
        if not hmac.compare_digest(expected.encode(), digest(disclosure)):
            raise TamperDetected("disclosure: expected the entry's digest, found another")


def box_binding(ledger: bytes, stream: bytes, seq: int) -> bytes:
    """Give the associated data that ties a box to its entry (FORMAT.md 4.5)."""
    return length_prefixed(ledger) + stream + struct.pack(">Q", seq)


def staff_disclosure(key: bytes, name: str) -> bytes:
    """Give the disclosure that a member of staff's pseudonym commits to (FORMAT.md 4.7)."""
    salt = base64url(hmac.digest(key, b"ledger/sd/v1/staff", "sha256")[:16])
    return make_disclosure(salt, "staff", json.dumps(name, ensure_ascii=False).encode())


def pseudonym(disclosure: bytes) -> UUID:
    """Give the UUIDv8 (RFC 9562 section 5.8) bound to a staff disclosure."""
    raw = bytearray(hashlib.sha256(disclosure).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return UUID(bytes=bytes(raw))


def wrap(kek: bytes, binding: bytes, secret: bytes, nonce: bytes) -> bytes:
    """Wrap a secret under an epoch's key, bound to what it belongs to (FORMAT.md 4.6)."""
    return nonce + AESGCM(kek).encrypt(nonce, secret, binding)


def unwrap(kek: bytes, binding: bytes, wrapped: bytes) -> bytes:
    """Unwrap what `wrap` made.

    Raises:
        TamperDetected: another key, another owner, or changed bytes.
    """
    try:
        return AESGCM(kek).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], binding)
    except (InvalidTag, ValueError):
        raise TamperDetected("wrapped key: expected one of this owner and epoch") from None


@lru_cache(maxsize=4096)
def _quoted(name: str) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode()


def _box_key(key: bytes, ctx: bytes) -> bytes:
    return hmac.digest(key, b"ledger/sd/v1/box" + ctx, "sha256")
