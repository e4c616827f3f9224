"""Anchor one ledger's checkpoints at every place that its settings name.

Only the process that signs anchors; the others look on, to know how the sinks stand.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from typing import TYPE_CHECKING

from ledger.anchors.entries import AnchorEntries
from ledger.anchors.evidence import keep_split_view, split_views
from ledger.anchors.keeper import Pace, SinkKeeper
from ledger.anchors.quorum import KIND as WITNESS
from ledger.anchors.quorum import count_witnesses
from ledger.anchors.rounds import Rounds
from ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ledger.anchors.keeper import Standing
    from ledger.anchors.quorum import Witnessed
    from ledger.anchors.settings import Placed
    from ledger.anchors.sink import Due, SplitView
    from ledger.service import Ledger

_LOG = logging.getLogger("ledger.anchors")

CLOSE_S = 5.0
"""Longest that closing waits for all sinks together; who hangs then is left behind."""
WATCH_S = 10.0
"""How often somebody looks whether a sink hangs."""
TRY_TO_KEEP_S = 5.0
"""How often a proof that could not be made durable is written again."""


class Anchoring:
    """The sinks of one ledger, each followed by a thread of its own."""

    def __init__(
        self,
        ledger: Ledger,
        sinks: Sequence[Placed],
        *,
        interval_s: float,
        evidence_dir: Path,
        quorum: int = 0,
        pace: Pace | None = None,
    ) -> None:
        self.placed = tuple(sinks)
        """Every sink, as the settings want it."""
        self._ledger = ledger
        self._interval_s = interval_s
        self._evidence_dir = evidence_dir
        self._quorum = quorum
        self._closing = threading.Event()
        self._unkept = False
        self._watching = threading.Thread(target=self._watch, name="anchors-watch", daemon=True)
        rounds, entries = Rounds(ledger, interval_s), AnchorEntries(ledger)
        self._keepers = [
            SinkKeeper(
                placed,
                rounds,
                ledger.anchors,
                entries,
                pace=pace or Pace(),
                may_anchor=self._may_anchor,
                on_split_view=self._on_split_view,
            )
            for placed in sinks
        ]

    def start(self) -> None:
        """Begin, unless anchoring is turned off."""
        if self._interval_s <= 0:
            _LOG.warning("%s: checkpoints are anchored nowhere", self._ledger.name)
            return
        for placed, keeper in zip(self.placed, self._keepers, strict=True):
            where = placed.shown or "this machine"
            _LOG.info(
                "%s: checkpoints go to %s (%s at %s) every %g s",
                self._ledger.name,
                placed.sink.name,
                placed.sink.kind,
                where,
                placed.interval_s,
            )
            keeper.start()
        self._watching.start()

    def close(self) -> None:
        """Anchor what is due where that works, and stop within `CLOSE_S`."""
        self._closing.set()
        for keeper in self._keepers:
            keeper.stop()
        until = time.monotonic() + CLOSE_S
        for keeper in self._keepers:
            if not keeper.join(max(until - time.monotonic(), 0.0)):
                _LOG.warning("sink %s hangs; it is left behind", keeper.standing.sink)
        if self._watching.ident is not None:
            self._watching.join(max(until - time.monotonic(), 0.0))

    def _watch(self) -> None:
        while not self._closing.wait(WATCH_S):
            for keeper in self._keepers:
                try:
                    if self._ledger.recorder.stopped is None:
                        keeper.watch()
                except (LedgerError, OSError) as error:
                    _LOG.warning("watching sinks waits: %s", type(error).__name__)

    def turn(self) -> bool:
        """Look at every sink once, here and now; tell whether one was given a checkpoint."""
        return sum(keeper.turn() for keeper in self._keepers) > 0

    def standing(self) -> list[Standing]:
        """Say how each sink stands, without asking anybody."""
        return [keeper.standing for keeper in self._keepers]

    def witnessed(self) -> Witnessed | None:
        """Say how the witnesses stand together; None for no witness, or no quorum of them.

        Raises:
            Unavailable: the database can't be reached.
        """
        sinks = [placed.sink for placed in self.placed]
        return count_witnesses(self._quorum, sinks, self._ledger.anchors)

    def lacks_quorum(self) -> bool | None:
        """Tell whether too few witnesses work, without asking anybody; None for no quorum."""
        witnesses = [one for one in self.standing() if one.kind == WITNESS]
        if not self._quorum or not witnesses:
            return None
        return sum(one.failing is None for one in witnesses) < self._quorum

    # -- split views -----------------------------------------------------------

    def split_views(self) -> list[str]:
        """Give the names of the files that keep this ledger from recording."""
        try:
            found = split_views(self._evidence_dir, self._ledger.name)
        except OSError as error:
            return [f"(unknown: {error.strerror})"]
        return found or (["(not written yet)"] if self._unkept else [])

    def heed_split_views(self) -> None:
        """Stop recording and signing if a split view was found before, by whichever process."""
        found = split_views(self._evidence_dir, self._ledger.name)
        if found:
            self._stop(f"evidence of a split view: {self._evidence_dir / self._ledger.name}")

    def _may_anchor(self) -> bool:
        recorder, notary = self._ledger.recorder, self._ledger.notary
        if recorder.stopped is None:
            self.heed_split_views()
        return notary.signs and recorder.stopped is None

    def _on_split_view(self, placed: Placed, due: Due, found: SplitView) -> None:
        """Keep the proof, then stop: were it the other way round, a crash could lose it."""
        name = f"{due.size}-{placed.sink.name}"
        document = {
            "origin": self._ledger.origin,
            "sink": placed.sink.name,
            "kind": placed.sink.kind,
            "size": due.size,
            "detail": found.detail,
            **found.evidence,
        }
        kept = self._try_to_keep(name, document)
        self._unkept = not kept
        self._stop(f"split view: {placed.sink.name} contradicts our checkpoint {due.size}")
        while not kept and not self._closing.wait(TRY_TO_KEEP_S):
            kept = self._try_to_keep(name, document)
        self._unkept = not kept

    def _try_to_keep(self, name: str, document: dict[str, object]) -> bool:
        try:
            path = keep_split_view(self._evidence_dir, self._ledger.name, name, document)
        except OSError as error:
            digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
            _LOG.critical(
                "evidence of a split view can't be written (%s); it is held in memory, SHA-256 %s",
                error.strerror,
                digest,
            )
            return False
        _LOG.critical("split view: the evidence is in %s", path)
        return True

    def _stop(self, reason: str) -> None:
        self._ledger.notary.stop_signing(
            f"{reason}; nothing is recorded or signed until people have decided"
        )
