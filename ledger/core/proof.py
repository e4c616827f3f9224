"""Proofs in a file: that an entry is in a log, for checking with nothing but a public key.

Source: C2SP tlog-proof, file extension ``.tlog-proof``, media type ``text/plain``::

    c2sp.org/tlog-proof@v1
    extra <base64>                      (only if there is any; nothing vouches for it)
    index <decimal>
    <base64 of a hash>                  (each hash, from the leaf's sibling upwards)
                                        (an empty line)
    <the signed checkpoint, verbatim>
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ledger.core.checkpoint import open_checkpoint, parse_checkpoint, parse_decimal
from ledger.core.merkle import check_inclusion
from ledger.core.note import decode_base64, encode_base64, split_note
from ledger.core.tiles import MAX_TREE_SIZE, require_hashes
from ledger.errors import Malformed

if TYPE_CHECKING:
    from ledger.core.note import Verifier

HEADER = "c2sp.org/tlog-proof@v1"
MAX_HASHES = 63
"""Height of the largest tree that a checkpoint can state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProof:
    """The statement that leaf number `index` is under a checkpoint; not checked.

    Raises:
        Malformed: a value can't stand in a proof.
    """

    index: int
    """Index of the leaf, from 0: an entry's sequence number minus 1."""
    hashes: tuple[bytes, ...]
    """Inclusion proof, from the leaf's sibling to the root's child, 32 bytes each."""
    checkpoint_note: str
    """The signed checkpoint, as the log published it."""
    extra: bytes = b""
    """Anything else; not covered by any signature, so never to be trusted."""

    def __post_init__(self) -> None:
        if not 0 <= self.index <= MAX_TREE_SIZE:
            raise Malformed(f"proof: expected an index from 0 to {MAX_TREE_SIZE}")
        if len(self.hashes) > MAX_HASHES:
            raise Malformed(f"proof: expected at most {MAX_HASHES} hashes")
        require_hashes("proof", self.hashes)
        parse_checkpoint(split_note(self.checkpoint_note)[0])

    def text(self) -> str:
        """Write the proof as a file's text (tlog-proof, "Format")."""
        extra = [f"extra {encode_base64(self.extra)}"] if self.extra else []
        hashes = map(encode_base64, self.hashes)
        lines = [HEADER, *extra, f"index {self.index}", *hashes, "", self.checkpoint_note]
        return "\n".join(lines)


def parse_proof(text: str) -> LogProof:
    """Read a proof's text; only the one spelling of each proof passes.

    Raises:
        Malformed: it isn't a proof, or the checkpoint in it isn't well formed.
    """
    head, separator, checkpoint_note = text.partition("\n\n")
    header, *lines = head.split("\n")
    if header != HEADER or not separator:
        raise Malformed(f"proof: expected {HEADER}, and a checkpoint after an empty line")
    extra = b""
    if lines and lines[0].startswith("extra "):
        extra = decode_base64("proof's extra line", lines.pop(0).removeprefix("extra "))
        if not extra:
            raise Malformed("proof: expected no extra line where there is nothing extra")
    if not lines or not lines[0].startswith("index "):
        raise Malformed("proof: expected an index line")
    return LogProof(
        index=parse_decimal("proof's index line", lines[0].removeprefix("index ")),
        hashes=tuple(decode_base64("proof's hash line", line) for line in lines[1:]),
        checkpoint_note=checkpoint_note,
        extra=extra,
    )


def check_proof(proof_text: str, leaf: bytes, verifier: Verifier, origin: str) -> None:
    """Check that the log `origin`, by the key `verifier`, has committed to a leaf hash.

    The steps of tlog-proof, "Verifying a tlog proof", but for witnesses' cosignatures: hash
    the entry into `leaf` (the caller), open the checkpoint, check inclusion under its root.
    Afterwards `index` and `checkpoint_note` of `parse_proof` can be relied on, `extra` not.

    Raises:
        Malformed: the proof isn't well formed, or `leaf` isn't 32 bytes long.
        TamperDetected: the signature, the origin or the inclusion proof is wrong.
        CannotVerify: the key hasn't signed the checkpoint.
    """
    proof = parse_proof(proof_text)
    checkpoint = open_checkpoint(proof.checkpoint_note, verifier, origin)
    check_inclusion(leaf, proof.index, checkpoint.size, proof.hashes, checkpoint.root)
