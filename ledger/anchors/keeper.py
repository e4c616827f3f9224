"""Bring checkpoints to one sink, in a thread of its own, for as long as it takes.

Whatever the sink does, nothing else waits for it: it can hang, fail or lie, and only its
own evidence is late.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - a field's type
from typing import TYPE_CHECKING, NamedTuple

from ledger.anchors.sink import SinkFailed, SplitView
from ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledger.anchors.entries import AnchorEntries
    from ledger.anchors.rounds import Rounds
    from ledger.anchors.settings import Placed
    from ledger.anchors.sink import Anchored, Due
    from ledger.anchors.store import AnchorStore, FailingRow

_LOG = logging.getLogger("ledger.anchors")

HANGING = "hanging"
"""Code of a sink that neither answers nor fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a sink that fails is tried again, and when the log tells of it."""

    first_wait_s: float = 1.0
    """Wait after the first failure; each further one doubles it."""
    longest_wait_s: float = 900.0
    """Longest wait of our own; a sink may ask for up to an hour."""
    tries: int = 3
    """Failures after which an entry tells of them."""
    failing_s: float = 300.0
    """Seconds after which an entry tells of them, however few they were."""
    hanging_s: float = 300.0
    """Seconds after which a sink that neither answers nor fails counts as failing."""

    def wait_s(self, failures: int, asked_s: float) -> float:
        """Give how long to wait: doubled each time, and never two sinks in step."""
        ours = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(failures - 1, 30))
        jittered = ours * random.uniform(0.5, 1.0)  # noqa: S311 - only spreads the load
        return max(jittered, min(asked_s, 3_600.0))


class Standing(NamedTuple):
    """How a sink stands, as this process knows it."""

    sink: str
    """Its name."""
    kind: str
    """Code of the vocabulary `anchor_kind`."""
    shown: str | None
    """Scheme and host; None for a place on this machine."""
    size: int
    """Entries that its newest checkpoint covers; 0 for none."""
    anchored: datetime | None
    """When it got that one."""
    failing: FailingRow | None
    """Since when it fails, and why; None while it works."""
    given_up: bool
    """Whether it is not tried again before the service is started again."""


class SinkKeeper:
    """Keeps one sink up to date with one ledger."""

    def __init__(
        self,
        placed: Placed,
        rounds: Rounds,
        store: AnchorStore,
        entries: AnchorEntries,
        *,
        pace: Pace,
        may_anchor: Callable[[], bool],
        on_split_view: Callable[[Placed, Due, SplitView], None],
    ) -> None:
        self._placed = placed
        self._sink = placed.sink
        self._rounds = rounds
        self._store = store
        self._entries = entries
        self._pace = pace
        self._may_anchor = may_anchor
        self._on_split_view = on_split_view
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"anchor-{self._sink.name}", daemon=True
        )
        self._left_behind = False
        self._answer: tuple[Due, Anchored] | None = None
        self._failures = 0
        self._failing_s = 0.0
        self._asked_s: float | None = None
        self._wait_s = placed.interval_s
        self.standing = Standing(
            self._sink.name, self._sink.kind, placed.shown, 0, None, None, given_up=False
        )

    @property
    def failing(self) -> bool:
        """Whether the newest try failed."""
        return self.standing.failing is not None

    def start(self) -> None:
        """Begin to follow the ledger."""
        self._thread.start()

    def stop(self) -> None:
        """Anchor what is due if the sink works, then end; `join` waits for it."""
        self._stopping.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; tell whether it has come. A thread that hangs is left behind."""
        if self._thread.ident is None:
            self._sink.close()
            return True
        self._thread.join(timeout_s)
        self._left_behind = self._thread.is_alive()
        return not self._left_behind

    def _run(self) -> None:
        while not self._stopping.wait(self._wait_s):
            self._turn_safely()
        if not self.failing and not self._left_behind:
            self._turn_safely(at_once=True)
        self._sink.close()

    def _turn_safely(self, *, at_once: bool = False) -> None:
        try:
            self.turn(at_once=at_once)
        except Exception as error:  # noqa: BLE001 - the next turn may fare better
            _say_fault(self._sink.name, error)

    def watch(self) -> None:
        """Record that the sink hangs, if it does; from another thread, since its own can't.

        Raises:
            Unavailable: it could not be recorded; the next look does it.
        """
        asked_s = self._asked_s
        if asked_s is None or time.monotonic() - asked_s < self._pace.hanging_s:
            return
        row = self._store.fails(self._sink.name, self._sink.kind, HANGING)
        if row.seq is None:
            self._store.failure_told(row.sink, self._entries.failed(row))
            _LOG.warning("sink %s hangs", self._sink.name)
        if self._asked_s == asked_s:
            self.standing = self.standing._replace(failing=row)

    # -- one turn --------------------------------------------------------------

    def turn(self, *, at_once: bool = False) -> bool:
        """Anchor what is due and record that it is; tell whether something was anchored.

        What goes wrong is remembered, not raised: there is always a next turn.
        """
        self._wait_s = self._placed.interval_s
        try:
            self._look()
            if not self._may_anchor() or self.standing.given_up:
                return False
            self._tell_what_stands()
            self._tell_of_failure()
            self._tell_of_recovery()
            return self._anchor(at_once=at_once)
        except (LedgerError, OSError) as error:
            # The ledger's own trouble: nothing that the sink could help.
            self._wait_s = min(self._placed.interval_s, self._pace.wait_s(3, 0))
            _LOG.warning("anchoring to %s waits: %s", self._sink.name, type(error).__name__)
            return False

    def _look(self) -> None:
        """See what the database knows of this sink: other processes may have anchored."""
        name = self._sink.name
        newest = next((row for row in self._store.newest() if row.sink == name), None)
        failing = next((row for row in self._store.failing() if row.sink == name), None)
        self.standing = self.standing._replace(
            size=newest.size if newest else 0,
            anchored=newest.anchored if newest else None,
            failing=failing,
        )

    def _anchor(self, *, at_once: bool) -> bool:
        if self._answer is None:
            due = self._rounds.due(self.standing.size, at_once=at_once)
            if due is None:
                return False
            try:
                self._answer = due, self._ask(due)
            except SinkFailed as error:
                self._failed(error)
                return False
            except SplitView as error:
                self._on_split_view(self._placed, due, error)
                return False
        # An answer is kept until it is stored: what the sink has done need not be asked twice.
        self._store.keep(self._sink.name, self._sink.kind, *self._answer)
        self._answer = None
        self._failures = 0
        self._tell_what_stands()
        self._look()
        self._tell_of_recovery()
        return True

    def _ask(self, due: Due) -> Anchored:
        self._asked_s = time.monotonic()
        try:
            return self._sink.anchor(due)
        except (SinkFailed, SplitView):
            raise
        except Exception as error:
            _say_fault(self._sink.name, error)
            raise SinkFailed("fault", type(error).__name__) from error
        finally:
            self._asked_s = None

    def _tell_what_stands(self) -> None:
        """Record an entry for each evidence that has none; the id keeps it from being two."""
        for row in self._store.untold(self._sink.name):
            self._store.told(row.sink, row.size, self._entries.anchored(row))

    # -- failures --------------------------------------------------------------

    def _failed(self, error: SinkFailed) -> None:
        now = time.monotonic()
        self._failing_s = now if self._failures == 0 else self._failing_s
        self._failures += 1
        self._wait_s = self._pace.wait_s(self._failures, error.retry_after_s)
        level = logging.WARNING if self._failures == 1 or error.final else logging.DEBUG
        _LOG.log(level, "sink %s: %s: %s", self._sink.name, error.code, error)
        self.standing = self.standing._replace(given_up=error.final)
        row = self._store.fails(self._sink.name, self._sink.kind, error.code)
        self.standing = self.standing._replace(failing=row)
        self._tell_of_failure()

    def _tell_of_failure(self) -> None:
        """Record a failure that lasts, once. One that an earlier process left untold is told.

        That process may have been killed between recording it and remembering that it did.
        """
        row = self.standing.failing
        if row is None or row.seq is not None:
            return
        long = time.monotonic() - self._failing_s >= self._pace.failing_s
        inherited = self._failures == 0
        if inherited or long or self._failures >= self._pace.tries or self.standing.given_up:
            self._store.failure_told(row.sink, self._entries.failed(row))
            self._look()

    def _tell_of_recovery(self) -> None:
        """End a failure that is older than the newest evidence."""
        row, anchored = self.standing.failing, self.standing.anchored
        if row is None or anchored is None or anchored < row.since:
            return
        if row.seq is not None:
            self._entries.recovered(row)
        self._store.recovered(row.sink)
        self.standing = self.standing._replace(failing=None)
        _LOG.info("sink %s works again", row.sink)


def _say_fault(sink: str, error: Exception) -> None:
    """Say where a fault of this program is, but not its words: they may be somebody's answer."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    _LOG.error(
        "sink %s: a fault of this program: %s at %s:%s",
        sink,
        type(error).__name__,
        place.filename,
        place.lineno,
    )
