"""Put checkpoints where the database's owner can't reach them: a directory, to begin with.

What is anchored can be compared later (`custody verify --checkpoint`). A directory
on the same machine is only as far away as its permissions: copy it elsewhere.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from typing import TYPE_CHECKING

from ledger.core.checkpoint import open_checkpoint
from ledger.errors import LedgerError

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.service import Ledger

_LOG = logging.getLogger("ledger.anchors")

_OF_ANCHORING = ("ledger.ledger.anchored.v1", "ledger.ledger.verified.v1")
"""Entries that never make a checkpoint due by themselves: they would go on for ever."""


class FileSink:
    """A directory with one file for each anchored checkpoint, named by size."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def newest_size(self) -> int:
        """Give the size of the newest checkpoint kept here; 0 for none."""
        names = (path.stem for path in self.directory.glob("*.checkpoint"))
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def keep(self, size: int, note: str) -> None:
        """Write a checkpoint's file whole and durable, or not at all."""
        self.directory.mkdir(parents=True, exist_ok=True)
        final = self.directory / f"{size:020d}.checkpoint"
        draft = final.with_suffix(".draft")
        with draft.open("w", encoding="utf-8") as file:
            file.write(note)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(final)
        handle = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class Anchoring:
    """Anchors one ledger's checkpoints from time to time, and records that it did.

    A sink that fails delays nothing: it is tried again at the next turn.
    """

    def __init__(self, ledger: Ledger, sink: FileSink, interval_s: float) -> None:
        self._ledger = ledger
        self._sink = sink
        self._interval_s = interval_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger-anchors", daemon=True)
        self.failed = False

    def start(self) -> None:
        """Begin, unless anchoring is turned off."""
        if self._interval_s > 0:
            self._thread.start()

    def close(self) -> None:
        """Anchor what is due, and stop."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
            self.turn()

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            self.turn()

    def turn(self) -> bool:
        """Anchor the newest checkpoint if something happened since; tell whether it did."""
        try:
            done = self._ledger.notary.signs and self._anchor()
        except (OSError, LedgerError) as error:
            self.failed = True
            _LOG.warning("anchoring failed: %s", type(error).__name__)
            return False
        self.failed = False
        return done

    def _anchor(self) -> bool:
        since = self._sink.newest_size()
        if not self._ledger.has_news(since, _OF_ANCHORING):
            return False
        size, note = self._ledger.checkpoint()
        if size <= since:
            return False  # the news is another process's, and not signed for yet
        checkpoint = open_checkpoint(note, self._ledger.signer.verifier, self._ledger.origin)
        self._sink.keep(size, note)
        self._ledger.keep_checkpoint(size, note)
        data = {
            "size": size,
            "root": checkpoint.root.hex(),
            "anchor": "file",
            "proof_sha256": hashlib.sha256(note.encode()).hexdigest(),
        }
        self._ledger.append_own("ledger.anchored", data)
        return True
