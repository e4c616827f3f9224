"""What a log and a witness say to each other, as bytes (C2SP tlog-witness, "add-checkpoint").

The request is ``old N``, the hashes of a consistency proof, an empty line, and a signed
checkpoint; the answer is signature lines. Both ends of the wire are written here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ledger.core.checkpoint import Checkpoint, parse_checkpoint, parse_decimal
from ledger.core.note import SignatureLine, decode_base64, encode_base64, open_note, split_note
from ledger.core.tiles import MAX_TREE_SIZE, require_hashes
from ledger.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ledger.core.note import Verifier

SIZE_TYPE = "text/x.tlog.size"
"""Media type of an answer 409, whose body is the size that the witness holds."""
MAX_PROOF_HASHES = 63
"""Most hashes of a consistency proof: the height of the largest tree."""
MAX_REQUEST_BYTES = 256 * 1024
"""Longest request taken: 63 hashes and some 70 of the largest signatures known today."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCheckpoint:
    """A log's wish to have a checkpoint cosigned; nothing in it is checked but its form.

    Raises:
        Malformed: a value can't stand in a request.
    """

    old_size: int
    """Size of the tree that the proof starts from: what the witness cosigned last."""
    proof: tuple[bytes, ...]
    """Consistency proof from that size to the checkpoint's (RFC 6962 §2.1.2), 32 bytes each."""
    note: str
    """The signed checkpoint."""

    def __post_init__(self) -> None:
        if not 0 <= self.old_size <= MAX_TREE_SIZE:
            raise Malformed(f"add-checkpoint: expected an old size from 0 to {MAX_TREE_SIZE}")
        if len(self.proof) > MAX_PROOF_HASHES:
            raise Malformed(f"add-checkpoint: expected at most {MAX_PROOF_HASHES} hashes")
        require_hashes("add-checkpoint", self.proof)
        _ = self.checkpoint

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint that the note states; whether anybody signed it is not known here."""
        return parse_checkpoint(split_note(self.note)[0])

    def body(self) -> bytes:
        """Write the request's body."""
        lines = [f"old {self.old_size}", *map(encode_base64, self.proof), "", self.note]
        return "\n".join(lines).encode()


def parse_add_checkpoint(body: bytes) -> AddCheckpoint:
    """Read a request's body; only the one spelling of each request passes.

    Raises:
        Malformed: it isn't a request, or the note in it isn't a checkpoint's.
    """
    try:
        head, separator, note = body.decode().partition("\n\n")
    except UnicodeDecodeError as error:
        raise Malformed("add-checkpoint: expected UTF-8") from error
    old, *hashes = head.split("\n")
    if not separator or not old.startswith("old "):
        raise Malformed("add-checkpoint: expected an old size, and a checkpoint after a proof")
    if len(hashes) > MAX_PROOF_HASHES:
        raise Malformed(f"add-checkpoint: expected at most {MAX_PROOF_HASHES} hashes")
    return AddCheckpoint(
        old_size=parse_decimal("add-checkpoint's old size", old.removeprefix("old ")),
        proof=tuple(decode_base64("add-checkpoint's proof", line) for line in hashes),
        note=note,
    )


def parse_size(body: bytes) -> int:
    """Read the size that an answer 409 names.

    Raises:
        Malformed: it isn't one decimal and a line feed.
    """
    try:
        line = body.decode("ascii")
    except UnicodeDecodeError as error:
        raise Malformed("witness's size: expected ASCII") from error
    if not line.endswith("\n"):
        raise Malformed("witness's size: expected a line feed at its end")
    return parse_decimal("witness's size", line.removesuffix("\n"))


def write_line(line: SignatureLine) -> str:
    """Write a signature line again, line feed included; there is only one way to."""
    return f"\u2014 {line.name} {encode_base64(line.key_id + line.signature)}\n"


def lines_by(note: str, verifiers: Collection[Verifier]) -> list[str]:
    """Give the signature lines of a note that name one of some keys, one for each key.

    The note must have been opened with these keys: nothing is checked here.
    """
    wanted = {(by.name, by.key_id) for by in verifiers}
    found: dict[tuple[str, bytes], str] = {}
    for line in split_note(note)[1]:
        if (line.name, line.key_id) in wanted:
            found.setdefault((line.name, line.key_id), write_line(line))
    return list(found.values())


def log_note(note: str, origin: str) -> str:
    """Give a checkpoint's note as its log signed it, before anybody cosigned it.

    A log's keys are named as its origin; what bears another name was added later. Hashes and
    timestamps of a note that were taken then are of these bytes.

    Raises:
        Malformed: it isn't a note.
    """
    text, lines = split_note(note)
    return f"{text}\n{''.join(write_line(line) for line in lines if line.name == origin)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosignature:
    """A witness's good signature on a checkpoint, with the line that carries it."""

    verifier: Verifier
    """The witness's key that made it."""
    time_s: int
    """POSIX seconds at which the witness says it cosigned."""
    line: str
    """The note's line, line feed included."""


def read_cosignatures(text: str, answer: bytes, verifiers: Sequence[Verifier]) -> list[Cosignature]:
    """Read the signature lines that a witness answered with, and check those by its keys.

    Lines by other keys are passed over (tlog-witness: clients must ignore them).

    Raises:
        Malformed: the answer isn't signature lines.
        TamperDetected: a line that names one of the keys isn't by that key for this text.
        CannotVerify: no line is by one of the keys.
    """
    try:
        note = f"{text}\n{answer.decode()}"
    except UnicodeDecodeError as error:
        raise Malformed("witness's answer: expected UTF-8") from error
    if "\n\n" in note[len(text) + 1 :]:
        raise Malformed("witness's answer: expected signature lines only")
    signatures = open_note(note, verifiers).signatures
    return [
        Cosignature(
            verifier=good.verifier,
            time_s=good.time_s or 0,
            line=lines_by(note, [good.verifier])[0],
        )
        for good in signatures
    ]
