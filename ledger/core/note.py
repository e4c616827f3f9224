"""Signed notes: text that one or more keys have signed.

Source: C2SP signed-note, and tlog-cosignature for signatures of type 0x04. A note is
``text ‖ LF ‖ signature lines``, the text ending in LF, and a line is
``— <key name> base64(key id ‖ signature)`` after an em dash (U+2014). The text is worth
nothing before a signature by a key from elsewhere has been checked, so `open_note` is the
only way here to a text, except for `split_note`, which says what it hasn't checked.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger.errors import CannotVerify, Malformed, Misconfigured, TamperDetected

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_ID_BYTES = 4
SIGNATURE_BYTES = 64
TIME_BYTES = 8
MAX_TIME_S = 2**63 - 1
MAX_SIGNATURES = 100
"""Most signature lines that a note may bear; signed-note asks for at least 16."""

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_LINE = re.compile("\u2014 (?P<name>[^ ]+) (?P<blob>[A-Za-z0-9+/=]+)")
_KEY_ID = re.compile("[0-9a-f]{8}")


class SignatureType(IntEnum):
    """The signature types understood here, by their byte (signed-note, "Signature types")."""

    ED25519 = 0x01
    """Ed25519 over the note's text."""
    COSIGNATURE = 0x04
    """Ed25519 over a time and a checkpoint's text: ``cosignature/v1``."""


class Sign(Protocol):
    """Sign a message with a private key kept elsewhere; gives 64 bytes of Ed25519."""

    def __call__(self, message: bytes, /) -> bytes:
        """Sign one message."""
        ...


def decode_base64(what: str, encoded: str) -> bytes:
    """Decode standard Base64 (RFC 4648 §4), accepting only its one canonical spelling.

    Raises:
        Malformed: it is spelled in another way; the message says where, by `what`.
    """
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"{what}: expected standard Base64") from error
    if encode_base64(decoded) != encoded:
        raise Malformed(f"{what}: expected canonical Base64, unused bits zero")
    return decoded


def encode_base64(octets: bytes) -> str:
    """Encode as standard Base64 with padding (RFC 4648 §4)."""
    return base64.b64encode(octets).decode("ascii")


def require_text(what: str, text: str) -> None:
    """Check for valid UTF-8, LF as the only control character, and LF at the end.

    Source: signed-note, "Format". U+0085 or U+2028 are no line ends and pass.

    Raises:
        Malformed: one of these doesn't hold; the message says where, by `what`.
    """
    if not text.endswith("\n"):
        raise Malformed(f"{what}: expected text ending in a line feed")
    if _CONTROL.search(text):
        raise Malformed(f"{what}: expected no control characters but line feeds")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Malformed(f"{what}: expected valid UTF-8, found a lone surrogate") from error


def key_id(name: str, kind: SignatureType, public_key: bytes) -> bytes:
    """Compute ``SHA-256(name ‖ LF ‖ type ‖ public key)[:4]`` (signed-note, "Signatures")."""
    digest = sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()
    return digest[:KEY_ID_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """A public key, under the name by which notes cite it.

    Raises:
        Malformed: the name or the key's length isn't allowed.
    """

    name: str
    """Key name: no spaces and no ``+``; a log's key is named as its origin."""
    kind: SignatureType
    """What this key signs, and how."""
    public_key: bytes
    """Ed25519 public key, 32 bytes (RFC 8032)."""

    def __post_init__(self) -> None:
        require_text("key name", self.name + "\n")
        if not self.name or any(char.isspace() or char == "+" for char in self.name):
            raise Malformed("key name: expected characters other than spaces and plus")
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key)
        except ValueError as error:
            raise Malformed(f"public key of {self.name}: expected 32 bytes of Ed25519") from error

    @property
    def key_id(self) -> bytes:
        """Four bytes that, with the name, tell which key a signature claims to be by."""
        return key_id(self.name, self.kind, self.public_key)

    def verifier_key(self) -> str:
        """Write ``name+hex(key id)+base64(type ‖ public key)`` (signed-note, "Verifier keys")."""
        encoded = encode_base64(bytes([self.kind]) + self.public_key)
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    def check(self, text: str, signature: bytes) -> int | None:
        """Check a signature (without its key id) and give its time in POSIX seconds, if any.

        Raises:
            TamperDetected: this key did not make the signature for this text.
        """
        time_s, raw = None, signature
        if self.kind is SignatureType.COSIGNATURE:
            time_s, raw = int.from_bytes(signature[:TIME_BYTES]), signature[TIME_BYTES:]
        bad = f"signed note: {self.name} ({self.key_id.hex()}) did not sign this text"
        if len(raw) != SIGNATURE_BYTES or (time_s or 0) > MAX_TIME_S:
            raise TamperDetected(bad)
        try:
            public_key = Ed25519PublicKey.from_public_bytes(self.public_key)
            public_key.verify(raw, _signed_message(text, time_s))
        except InvalidSignature as error:
            raise TamperDetected(bad) from error
        return time_s


def parse_verifier(verifier_key: str) -> Verifier:
    """Read a verifier key; its Base64 may contain ``+``, so only the first two part it.

    Source: signed-note, "Verifier keys".

    Raises:
        Malformed: it doesn't parse, or its key id doesn't belong to its name and key.
        CannotVerify: its signature type isn't one of `SignatureType`.
    """
    parts = verifier_key.split("+", 2)
    if len(parts) != 3 or not _KEY_ID.fullmatch(parts[1]):
        raise Malformed("verifier key: expected name+8 hex digits+Base64")
    name, stated_id, encoded = parts
    typed_key = decode_base64("verifier key", encoded)
    if not typed_key:
        raise Malformed("verifier key: expected a type and a public key")
    try:
        kind = SignatureType(int.from_bytes(typed_key[:1]))
    except ValueError as error:
        raise CannotVerify(
            f"verifier key: type 0x{typed_key[:1].hex()} isn't known here"
        ) from error
    verifier = Verifier(name=name, kind=kind, public_key=typed_key[1:])
    if verifier.key_id.hex() != stated_id:
        raise Malformed("verifier key: expected the key id of this name and key, found another")
    return verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A private key at work, seen from outside: who it signs as, and a way to have it sign."""

    verifier: Verifier
    """Name, type and public key under which others check the signatures."""
    sign: Sign
    """Signs a message; a private key's own method, or a call to where the key is kept."""

    @classmethod
    def from_private_key(
        cls,
        name: str,
        private_key: Ed25519PrivateKey,
        kind: SignatureType = SignatureType.ED25519,
    ) -> Signer:
        """Sign with a private key held in memory.

        Raises:
            Malformed: the name isn't allowed.
        """
        public_key = private_key.public_key().public_bytes_raw()
        verifier = Verifier(name=name, kind=kind, public_key=public_key)
        return cls(verifier=verifier, sign=private_key.sign)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSignature:
    """One key's good signature on a note."""

    verifier: Verifier
    """The known key that made it."""
    time_s: int | None
    """POSIX seconds that a cosignature states and covers; None for other types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """An opened note: text that at least one known key has signed."""

    text: str
    """The signed text, with its last line feed."""
    signatures: tuple[VerifiedSignature, ...]
    """One for each known key that signed, in the note's order; never empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureLine:
    """A signature as the note states it, not checked."""

    name: str
    """Name of the key that it claims to be by."""
    key_id: bytes
    """Id of that key, 4 bytes."""
    signature: bytes
    """What follows the key id; its length depends on the type of key."""


def sign_note(text: str, signers: Sequence[Signer], *, time_s: int | None = None) -> str:
    """Write the note of a text, with one signature line for each signer.

    `time_s` (POSIX seconds) is what signers of type COSIGNATURE state, and only they.

    Raises:
        Malformed: the text can't be a note's text.
        Misconfigured: there is no signer, one gave no signature, or a cosigner has no time.
    """
    require_text("note text", text)
    if not 1 <= len(signers) <= MAX_SIGNATURES:
        raise Misconfigured(f"signing a note: expected 1 to {MAX_SIGNATURES} signers")
    return text + "\n" + "".join(signature_line(text, by, time_s=time_s) for by in signers)


def signature_line(text: str, signer: Signer, *, time_s: int | None = None) -> str:
    """Sign a text and write the line that goes under it, line feed included.

    Raises:
        Misconfigured: the signer gave no Ed25519 signature, or a cosigner has no time.
    """
    by, stated = signer.verifier, b""
    if by.kind is SignatureType.COSIGNATURE:
        if time_s is None or not 0 <= time_s <= MAX_TIME_S:
            raise Misconfigured(f"signing as {by.name}: a cosignature needs a time")
        stated = time_s.to_bytes(TIME_BYTES)
    signature = signer.sign(_signed_message(text, time_s if stated else None))
    if len(signature) != SIGNATURE_BYTES:
        raise Misconfigured(
            f"signing as {by.name}: expected {SIGNATURE_BYTES} bytes, found {len(signature)}"
        )
    return f"\u2014 {by.name} {encode_base64(by.key_id + stated + signature)}\n"


def split_note(note: str) -> tuple[str, list[SignatureLine]]:
    """Cut a note at its last empty line into text and signature lines, checking no signature.

    Source: signed-note, "Format".

    Raises:
        Malformed: the note isn't well formed, or bears more than `MAX_SIGNATURES` lines.
    """
    require_text("signed note", note)
    text, separator, lines = note.rpartition("\n\n")
    if not separator or not lines:
        raise Malformed("signed note: expected an empty line, then signature lines")
    if lines.count("\n") > MAX_SIGNATURES:
        raise Malformed(f"signed note: expected at most {MAX_SIGNATURES} signatures")
    return text + "\n", [_parse_line(line) for line in lines.removesuffix("\n").split("\n")]


def open_note(note: str, verifiers: Iterable[Verifier]) -> Note:
    """Give a note's text and who signed it, once every signature by a known key is good.

    Signatures by other keys are passed over, also when they share a known key's name or
    id, but not both (signed-note, "Signatures").

    Raises:
        Malformed: the note isn't well formed.
        TamperDetected: a signature that names a known key isn't by that key.
        CannotVerify: no known key signed.
        Misconfigured: two different known keys share name and id.
    """
    text, lines = split_note(note)
    known = _by_name_and_id(verifiers)
    signatures: dict[Verifier, VerifiedSignature] = {}
    for line in lines:
        verifier = known.get((line.name, line.key_id))
        if verifier is not None:
            time_s = verifier.check(text, line.signature)
            # A key counts once, however often it signed, or a quorum could be padded.
            signatures.setdefault(verifier, VerifiedSignature(verifier=verifier, time_s=time_s))
    if not signatures:
        raise CannotVerify(f"signed note: none of {len(lines)} signatures is by a known key")
    return Note(text=text, signatures=tuple(signatures.values()))


def _signed_message(text: str, time_s: int | None) -> bytes:
    """Give what Ed25519 signs (tlog-cosignature, "Ed25519 signed message", if there's a time)."""
    header = "" if time_s is None else f"cosignature/v1\ntime {time_s}\n"
    return (header + text).encode()


def _parse_line(line: str) -> SignatureLine:
    match = _LINE.fullmatch(line)
    if match is None or "+" in match["name"] or any(map(str.isspace, match["name"])):
        raise Malformed("signed note: expected a signature line: dash, key name, Base64")
    blob = decode_base64("signature line", match["blob"])
    if len(blob) <= KEY_ID_BYTES:
        raise Malformed("signature line: expected a key id and a signature")
    key, signature = blob[:KEY_ID_BYTES], blob[KEY_ID_BYTES:]
    return SignatureLine(name=match["name"], key_id=key, signature=signature)


def _by_name_and_id(verifiers: Iterable[Verifier]) -> dict[tuple[str, bytes], Verifier]:
    known: dict[tuple[str, bytes], Verifier] = {}
    for verifier in verifiers:
        if known.setdefault((verifier.name, verifier.key_id), verifier) != verifier:
            raise Misconfigured(f"two keys named {verifier.name} share one key id")
    return known
