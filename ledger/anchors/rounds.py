"""Decide which checkpoint is due: the same one for every sink that asks in time.

Sinks that are asked about one size give evidence that belongs together, such as several
witnesses' signatures under one note.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ledger.anchors.sink import Due
from ledger.core.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from ledger.service import Ledger


class Rounds:
    """Chooses a ledger's newest checkpoint, no more often than its interval says."""

    def __init__(self, ledger: Ledger, interval_s: float) -> None:
        self._ledger = ledger
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._chosen: Due | None = None
        self._chosen_s = float("-inf")

    def due(self, since: int, *, at_once: bool = False) -> Due | None:
        """Give the checkpoint that a sink should have next; None where it has all that counts.

        Args:
            since: size of the newest checkpoint that the sink has; 0 for none.
            at_once: whether news are due even before the interval is over.

        Raises:
            Unavailable: the database can't be reached, or nothing was signed yet.
        """
        with self._lock:
            over = time.monotonic() - self._chosen_s >= self._interval_s
            if over or at_once or self._chosen is None:
                self._choose(since if self._chosen is None else self._chosen.size)
            chosen = self._chosen
        return chosen if chosen is not None and chosen.size > since else None

    def _choose(self, since: int) -> None:
        """Take the newest checkpoint if something happened since that is worth one."""
        if not self._ledger.has_news(since):
            return
        size, note = self._ledger.checkpoint()
        if size <= since:
            return  # the news is another process's, and not signed for yet
        checkpoint = open_checkpoint(note, self._ledger.signer.verifier, self._ledger.origin)
        self._chosen = Due(size, checkpoint.root, note)
        self._chosen_s = time.monotonic()
