"""Files that show what a log signed against what it had signed before.

Each holds both checkpoints with their signatures, and the proof that came along, so that
whoever has the log's key can check it without asking the witness.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ledger.core.note import encode_base64
from ledger.witness.decision import Doubt

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.witness.decision import Held
    from ledger.witness.protocol import AddCheckpoint

_FORMAT = "custody-ledger/witness-evidence/v0"
MAX_UNPROVED = 1_000
"""Most files without proof: anybody can make them of a log's checkpoints and bad proofs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One file of evidence, as the status lists it."""

    path: Path
    """Where it is."""
    doubt: Doubt
    """What it shows."""
    origin: str
    """The log."""
    size: int
    """Size of the checkpoint that was refused."""
    root: bytes
    """Root of that checkpoint, 32 bytes."""
    held_size: int
    """Size of the checkpoint that had been cosigned."""
    noticed: str
    """When, in UTC."""


class EvidenceDirectory:
    """The directory of evidence; a pair of checkpoints that comes again is one file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def keep(
        self, doubt: Doubt, request: AddCheckpoint, held: Held, *, shown: str, now_s: int
    ) -> Path | None:
        """Write what was shown beside what is held, durable before this returns.

        Args:
            doubt: what the two say together.
            request: what was sent.
            held: the checkpoint cosigned before.
            shown: the note sent, with the log's own signatures only.
            now_s: POSIX seconds.

        Returns:
            The new file; None where the pair is kept already, or is one too many without proof.
        """
        checkpoint = request.checkpoint
        log = hashlib.sha256(checkpoint.origin.encode()).hexdigest()[:16]
        pair = hashlib.sha256(b"%d %s %s" % (held.size, held.root, checkpoint.root)).hexdigest()
        path = self.directory / f"{doubt}-{log}-{checkpoint.size}-{pair[:16]}.json"
        if path.exists():
            return None
        if doubt is Doubt.UNPROVED and self._count_unproved() >= MAX_UNPROVED:
            return None
        document = {
            "format": _FORMAT,
            "doubt": doubt,
            "origin": checkpoint.origin,
            "noticed": datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
            "held_size": held.size,
            "held": held.note,
            "shown": shown,
            "old_size": request.old_size,
            "proof": [encode_base64(digest) for digest in request.proof],
        }
        _write_durably(path, json.dumps(document, ensure_ascii=False, indent=1) + "\n")
        return path

    def read(self) -> list[Evidence]:
        """Give all evidence, by name of file.

        Raises:
            ValueError: a file isn't evidence of this format.
        """
        return [_read(path) for path in sorted(self.directory.glob("*.json"))]

    def _count_unproved(self) -> int:
        return sum(1 for _ in self.directory.glob(f"{Doubt.UNPROVED}-*.json"))


def _read(path: Path) -> Evidence:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Evidence(
            path=path,
            doubt=Doubt(document["doubt"]),
            origin=str(document["origin"]),
            size=int(document["size"]),
            root=bytes.fromhex(document["root"]),
            held_size=int(document["held_size"]),
            noticed=str(document["noticed"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected evidence kept by this program") from error


def _write_durably(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
