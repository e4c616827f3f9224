"""An auditor's own key: made, kept in a file, and used to sign what they found.

The file has the one line that Go's `sumdb/note` writes for a signer:
``PRIVATE+KEY+<name>+<hex key id>+<base64 of 0x01 ‖ seed>``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.core.note import SignatureType, Signer, decode_base64, encode_base64
from ledger.errors import Malformed, Misconfigured

if TYPE_CHECKING:
    from pathlib import Path

_START = "PRIVATE+KEY+"


def make_key(name: str, path: Path) -> Signer:
    """Draw a key and write it to a new file that only its owner can read.

    Raises:
        Misconfigured: the file is there already.
        Malformed: the name can't be a key's.
    """
    private = Ed25519PrivateKey.generate()
    signer = Signer.from_private_key(name, private)
    typed = encode_base64(bytes([SignatureType.ED25519]) + private.private_bytes_raw())
    line = f"{_START}{name}+{signer.verifier.key_id.hex()}+{typed}\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise Misconfigured(f"{path}: expected no file; a key is never overwritten") from None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return signer


def load_key(path: Path) -> Signer:
    """Read a key that `make_key`, or another program of this format, wrote.

    Raises:
        Misconfigured: the file holds no such key, or others can read it.
    """
    if path.stat().st_mode & 0o077:
        raise Misconfigured(f"{path}: expected a key that only its owner can read (chmod 600)")
    try:
        start, end, rest = path.read_text(encoding="utf-8").partition(_START)
        name, stated, encoded = rest.removesuffix("\n").split("+", 2)
        typed = decode_base64("private key", encoded)
        private = Ed25519PrivateKey.from_private_bytes(typed[1:])
        signer = Signer.from_private_key(name, private)
    except (ValueError, Malformed):
        # Without the cause: its words could repeat a part of the key.
        raise Misconfigured(f"{path}: expected a line PRIVATE+KEY+name+id+base64") from None
    known = end and not start and typed[0] == SignatureType.ED25519
    if not known or signer.verifier.key_id.hex() != stated:
        raise Misconfigured(f"{path}: expected an Ed25519 key with the id of its name and key")
    return signer
