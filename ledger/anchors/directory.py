"""A directory with one file for each anchored checkpoint, named by size.

On the same machine it is only as far away as its permissions: copy it elsewhere, or
let it be a place that another machine keeps.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from ledger.anchors.sink import Anchored, SinkFailed, SplitView
from ledger.core.checkpoint import open_checkpoint
from ledger.errors import LedgerError

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.anchors.sink import Due, Target
    from ledger.anchors.table import SinkTable

MEDIA_TYPE = "text/plain"
_FOR_ALL = 0o644
_MOST_BYTES = 65_536


class DirectorySink:
    """Keeps each checkpoint as a file; its evidence names the file and its digest."""

    kind = "file"

    def __init__(self, name: str, directory: Path, target: Target) -> None:
        self.name = name
        self.directory = directory
        self._target = target

    def anchor(self, due: Due) -> Anchored:
        """Write a checkpoint's file whole and durable, or not at all.

        Raises:
            SinkFailed: it can't be written.
            SplitView: the file is there already, signed by this ledger for another tree.
        """
        raw = due.note.encode()
        final = self.directory / f"{due.size:020d}.checkpoint"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._compare(final, due)
            _write(final, raw)
        except OSError as error:
            raise SinkFailed("disk", f"the directory can't be written: {error.strerror}") from None
        # As sha256sum prints it, so that `sha256sum --check` reads it.
        evidence = f"{hashlib.sha256(raw).hexdigest()}  {final.name}\n"
        return Anchored(evidence.encode(), MEDIA_TYPE)

    def _compare(self, final: Path, due: Due) -> None:
        """Look at what an earlier anchoring of this size left: it must be the same tree's."""
        try:
            with final.open("rb") as file:
                there = file.read(_MOST_BYTES).decode()
            kept = open_checkpoint(there, self._target.verifier, self._target.origin)
        except (FileNotFoundError, UnicodeDecodeError, LedgerError):
            return  # nothing, or nothing that this ledger signed
        if kept.size == due.size and kept.root != due.root:
            raise SplitView(
                f"a file holds another checkpoint of size {due.size}",
                evidence={"ours": due.note, "theirs": there, "file": str(final)},
            )

    def close(self) -> None:
        """Nothing is held open."""


def make_directory(table: SinkTable, target: Target) -> DirectorySink:
    """Make a directory sink beside the one that every ledger has: `path`."""
    return DirectorySink(table.text("name"), table.path("path") / target.ledger, target)


def _write(final: Path, raw: bytes) -> None:
    """Put a file in its place by renaming; what a crash leaves behind is a draft."""
    draft = final.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _FOR_ALL)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, _FOR_ALL)  # whoever copies it elsewhere may be somebody else
        file.write(raw)
        file.flush()
        os.fsync(handle)
    draft.replace(final)
    directory = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
