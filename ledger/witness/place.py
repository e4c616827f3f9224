"""A witness's directory: its key, its state, its evidence.

The directory is made whole under another name and then moved to its own, so that a witness
is there or not; a key without its state could not be told from one that has lost it.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import shutil
import stat
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.core.note import SignatureType, Signer
from ledger.errors import Misconfigured
from ledger.witness.evidence import EvidenceDirectory
from ledger.witness.store import WitnessStore

if TYPE_CHECKING:
    from pathlib import Path

_KEY_FORMAT = "custody-ledger/witness-key/v0"
_KEY_FILE = "key.json"
_STATE_FILE = "witness.db"


def make_place(directory: Path, name: str) -> Signer:
    """Make a new witness with a key of its own.

    Raises:
        Misconfigured: something stands there already.
        Malformed: the name can't be a key's.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Misconfigured(f"witness's directory {directory}: expected none, or an empty one")
    seed = os.urandom(32)
    signer = _signer(name, seed)
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = directory.with_name(f".{directory.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    WitnessStore.create(draft / _STATE_FILE, signer.verifier.verifier_key())
    _write_key(draft / _KEY_FILE, name, seed)
    _flush_directory(draft)
    draft.replace(directory)
    _flush_directory(directory.parent)
    return signer


def open_place(directory: Path) -> tuple[Signer, WitnessStore, EvidenceDirectory]:
    """Open a witness: key, state and evidence, which belong together.

    Raises:
        Misconfigured: one is absent, open to others, or another witness's.
    """
    signer = _load_key(directory / _KEY_FILE)
    store = WitnessStore(directory / _STATE_FILE)
    if store.verifier_key != signer.verifier.verifier_key():
        store.close()
        raise Misconfigured(
            f"witness's directory {directory}: the state belongs to another key than {_KEY_FILE}"
        )
    return signer, store, EvidenceDirectory(directory / "evidence")


def _signer(name: str, seed: bytes) -> Signer:
    private_key = Ed25519PrivateKey.from_private_bytes(seed)
    return Signer.from_private_key(name, private_key, SignatureType.COSIGNATURE)


def _write_key(path: Path, name: str, seed: bytes) -> None:
    document = {
        "format": _KEY_FORMAT,
        "name": name,
        "private_key": base64.b64encode(seed).decode(),
    }
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _load_key(path: Path) -> Signer:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"witness's key {path}: {error.strerror}") from None
    if mode & 0o077:
        raise Misconfigured(f"witness's key {path}: expected mode 0600, found {mode:04o}")
    try:
        document = json.loads(text)
        if document["format"] != _KEY_FORMAT:
            raise Misconfigured(f"witness's key {path}: expected format {_KEY_FORMAT}")
        seed = binascii.a2b_base64(document["private_key"], strict_mode=True)
        return _signer(str(document["name"]), seed)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Misconfigured(f"witness's key {path}: expected a key file of this program") from None


def _flush_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
