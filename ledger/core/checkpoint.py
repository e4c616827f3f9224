"""Checkpoints: what a log commits to when it signs, as the text of a signed note.

Source: C2SP tlog-checkpoint. The text is ``origin LF size LF base64(root) LF``, and extension
lines may follow; ours has none, others' are kept so that the signed text stays whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ledger.core.note import (
    SignatureType,
    decode_base64,
    encode_base64,
    open_note,
    require_text,
    sign_note,
)
from ledger.core.tiles import MAX_TREE_SIZE, require_hashes
from ledger.errors import Malformed, Misconfigured, TamperDetected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.core.note import Signer, Verifier

_DECIMAL = re.compile("0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A tree's size and root, under the name of the log that states them.

    Raises:
        Malformed: a value can't stand in a checkpoint.
    """

    origin: str
    """Name of the log, one line; it tells this log from all others."""
    size: int
    """Number of leaves, 0 … 2**63 - 1."""
    root: bytes
    """Root hash of the tree of that size, 32 bytes."""
    extensions: tuple[str, ...] = ()
    """Further lines, none of them empty, without line feeds; opaque."""

    def __post_init__(self) -> None:
        require_text("checkpoint", self.origin + "".join(self.extensions) + "\n")
        lines = (self.origin, *self.extensions)
        if not all(lines) or any("\n" in line for line in lines):
            raise Malformed("checkpoint: expected an origin and extensions of one line each")
        if not 0 <= self.size <= MAX_TREE_SIZE:
            raise Malformed(f"checkpoint: expected a size from 0 to {MAX_TREE_SIZE}")
        require_hashes("checkpoint", (self.root,))

    def text(self) -> str:
        """Write the note's text (tlog-checkpoint, "Note text")."""
        lines = (self.origin, str(self.size), encode_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


def parse_decimal(what: str, digits: str) -> int:
    """Read an ASCII decimal without superfluous zeros, 0 … 2**63 - 1.

    Raises:
        Malformed: it is spelled in another way, or too large.
    """
    if not _DECIMAL.fullmatch(digits) or (number := int(digits)) > MAX_TREE_SIZE:
        raise Malformed(f"{what}: expected a decimal from 0 to {MAX_TREE_SIZE}, no leading zeros")
    return number


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a note's text; only the one spelling of each checkpoint passes.

    Nothing is known of who wrote it: `open_checkpoint` checks that too.

    Raises:
        Malformed: the text isn't a checkpoint's.
    """
    require_text("checkpoint", text)
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < 3:
        raise Malformed("checkpoint: expected lines for origin, size and root")
    return Checkpoint(
        origin=lines[0],
        size=parse_decimal("checkpoint size", lines[1]),
        root=decode_base64("checkpoint root", lines[2]),
        extensions=tuple(lines[3:]),
    )


def sign_checkpoint(
    checkpoint: Checkpoint, signers: Sequence[Signer], *, time_s: int | None = None
) -> str:
    """Write the signed note of a checkpoint; several signers make a change of keys.

    Whether the checkpoint agrees with all that was signed before is for the caller to know.

    Raises:
        Misconfigured: a log's key isn't named as the origin (so it may belong to another
            ledger), or `sign_note` says so.
    """
    for signer in signers:
        by = signer.verifier
        if by.kind is SignatureType.ED25519 and by.name != checkpoint.origin:
            raise Misconfigured(f"signing for {checkpoint.origin}: the key is named {by.name}")
    return sign_note(checkpoint.text(), signers, time_s=time_s)


def open_checkpoint(note_text: str, verifier: Verifier, origin: str) -> Checkpoint:
    """Read a signed checkpoint of the log `origin`, once `verifier`'s signature is good.

    Raises:
        Malformed: the note, or the checkpoint in it, isn't well formed.
        TamperDetected: the signature is bad, or the checkpoint is another log's.
        CannotVerify: the key hasn't signed the note.
    """
    checkpoint = parse_checkpoint(open_note(note_text, [verifier]).text)
    if checkpoint.origin != origin:
        raise TamperDetected(f"checkpoint: expected one of {origin}, found another log's")
    return checkpoint
