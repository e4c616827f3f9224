"""Bind a bundle's entries to its checkpoint: the last one of them, or each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.core.multiproof import walk_proof
from ledger.core.proof import LogProof
from ledger.errors import CannotVerify, TamperDetected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ledger.service import Ledger
    from projections.exports.envelope import AsOf

LAST = "last.tlog-proof"
EACH = "entries.proof"
PIECE_HASHES = 4_096
"""Hashes written at once: there can be millions."""


def prove_last(ledger: Ledger, seq: int, as_of: AsOf) -> bytes:
    """Give the proof of an entry; one that fails where the log has lost what it needs."""
    try:
        hashes = tuple(ledger.inclusion_proof(seq, as_of.seq))
    except CannotVerify:
        hashes = ()
    return LogProof(index=seq - 1, hashes=hashes, checkpoint_note=as_of.note).text().encode()


def prove_each(
    write: Callable[[bytes], object], ledger: Ledger, seqs: Iterable[int], as_of: AsOf
) -> None:
    """Write the proof of all of these entries (FORMAT.md 7.7).

    It is cut off, and so fails, where the log has lost what it needs.
    """
    piece: list[bytes] = []
    try:
        for step in walk_proof((seq - 1 for seq in seqs), as_of.seq, ledger.recorder.read_tree):
            piece.append(step)
            if len(piece) == PIECE_HASHES:
                write(b"".join(piece))
                piece.clear()
    except (CannotVerify, TamperDetected):
        return
    finally:
        write(b"".join(piece))
