"""The local key file of one ledger: signing, lookup and epoch keys (mode 0600)."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.core.note import Signer
from ledger.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KEYRING_FORMAT = "custody-ledger/keyring/v0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """Every secret of one ledger. Never logged, never sent anywhere."""

    origin: str
    """The ledger these keys belong to."""
    signing: bytes
    """32-byte seed of the Ed25519 key that signs checkpoints."""
    lookup: bytes
    """32-byte key that turns subjects and names of staff into look-ups."""
    epochs: Mapping[int, bytes]
    """Key-encryption keys by epoch; the highest is current."""

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Keyring(origin={self.origin!r}, epochs={sorted(self.epochs)})"

    @property
    def epoch(self) -> int:
        """The epoch that new keys are wrapped under."""
        return max(self.epochs)

    @property
    def accept_key(self) -> bytes:
        """The key of the table of accepted (source, id) pairs (FORMAT.md 4.8)."""
        return hmac.digest(self.lookup, b"accepted", "sha256")

    def signer(self) -> Signer:
        """Give the signer of checkpoints; its key is named as the origin."""
        key = Ed25519PrivateKey.from_private_bytes(self.signing)
        return Signer.from_private_key(self.origin, key)

    def verifier_key(self) -> str:
        """Give the public verifier key (FORMAT.md 5.2) that auditors pin."""
        return self.signer().verifier.verifier_key()


def make_keyring(origin: str) -> Keyring:
    """Draw fresh keys for a new ledger from the operating system."""
    return Keyring(
        origin=origin, signing=os.urandom(32), lookup=os.urandom(32), epochs={1: os.urandom(32)}
    )


def save_keyring(path: Path, keyring: Keyring) -> None:
    """Write a new key file, durable before this returns; never over an old one.

    Raises:
        Misconfigured: a file stands there already.
    """
    document = {
        "format": KEYRING_FORMAT,
        "origin": keyring.origin,
        "signing_key": _encode(keyring.signing),
        "lookup_key": _encode(keyring.lookup),
        "epochs": {str(n): _encode(key) for n, key in keyring.epochs.items()},
    }
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Misconfigured(f"key file {path}: expected none, found one") from None
    with os.fdopen(handle, "w") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load_keyring(path: Path) -> Keyring:
    """Read a key file that only its owner can read.

    Raises:
        Misconfigured: it is absent, readable by others, or not a key file.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"key file {path}: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise Misconfigured(f"key file {path}: expected mode 0600, found {stat.S_IMODE(mode):04o}")
    try:
        document = json.loads(text)
        if document["format"] != KEYRING_FORMAT:
            raise Misconfigured(f"key file {path}: expected format {KEYRING_FORMAT}")
        epochs = {int(n): _decode(key) for n, key in document["epochs"].items()}
        if not epochs or not isinstance(document["origin"], str):
            raise TypeError  # noqa: TRY301 - one refusal for whatever is wrong inside
        return Keyring(
            origin=document["origin"],
            signing=_decode(document["signing_key"]),
            lookup=_decode(document["lookup_key"]),
            epochs=epochs,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Misconfigured(f"key file {path}: expected a key file of this program") from None


def _encode(secret: bytes) -> str:
    return base64.b64encode(secret).decode()


def _decode(text: str) -> bytes:
    secret = binascii.a2b_base64(text, strict_mode=True)
    if len(secret) != 32:
        raise ValueError
    return secret
