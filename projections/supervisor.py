"""Keep every view of one ledger following its log, and know how each of them stands."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ledger.application import log_environment
from ledger.errors import LedgerError, ProjectionStopped, Unavailable
from projections.catalogue import VIEWS
from projections.folding import AWAY, describe
from projections.runner import BatchProjectionRunner

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from eventsourcing.utils import EnvType

    from projections.view import View

_LOG = logging.getLogger("projections.supervisor")

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0

Condition = Literal["starting", "running", "paused", "waiting", "failed", "stopped"]
"""paused: somebody else, such as a rebuild, writes the view; waiting: the database is away;
failed: an entry can't be folded, and only a new program or a person can change that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewStatus:
    """How one view stands."""

    view: str
    """The view's name."""
    condition: Condition
    """What its keeper is doing."""
    position: int
    """Position of the last entry that it is known to hold; 0 before the first."""
    failed_at: int | None
    """Position of the entry that it can't fold."""
    reason: str | None
    """Why it failed or waits: an error's class, and words without any value."""

    def lag(self, head: int) -> int:
        """Give how many entries of a log of `head` entries it doesn't hold yet."""
        return max(head - self.position, 0)


class ViewKeeper:
    """Runs one view; again after the database was away, never past an entry at fault."""

    def __init__(self, view_class: type[View], env: EnvType) -> None:
        self.view_class = view_class
        self._env = env
        self._stopping = threading.Event()
        self._runner: BatchProjectionRunner | None = None
        self._position = 0
        self._condition: Condition = "starting"
        self._failure: tuple[int | None, str] | None = None
        self._thread = threading.Thread(
            target=self._keep, name=f"view-{view_class.name}", daemon=True
        )

    def start(self) -> None:
        """Begin to follow the log, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End after the batch in hand; `join` waits for it."""
        self._stopping.set()
        runner = self._runner
        if runner is not None:
            runner.stop()

    def join(self) -> None:
        """Wait until the view is no longer written from here."""
        if self._thread.ident is not None:
            self._thread.join()

    def status(self) -> ViewStatus:
        """Say how the view stands, without asking the database."""
        runner = self._runner
        position, condition = self._position, self._condition
        if runner is not None:
            position = max(position, runner.projection.position)
            condition = "paused" if runner.projection.paused else "running"
        failed_at, reason = self._failure or (None, None)
        return ViewStatus(
            view=self.view_class.name,
            condition=condition,
            position=position,
            failed_at=failed_at,
            reason=reason,
        )

    def _keep(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._stopping.is_set():
            before = self._position
            try:
                self._run()
            except AWAY as error:
                self._condition, self._failure = "waiting", (None, describe(error))
                _LOG.warning("view %s waits: %s", self.view_class.name, describe(error))
            except Exception as error:  # noqa: BLE001 - it is told, never swallowed
                self._fail(error)
                return
            else:
                continue  # stopped, or the position was moved: read on from there
            wait_s = FIRST_WAIT_S if self._position > before else min(wait_s * 2, LONGEST_WAIT_S)
            self._stopping.wait(wait_s)
        self._condition = "stopped"

    def _run(self) -> None:
        with BatchProjectionRunner(self.view_class, self._env) as runner:
            self._position, self._failure = runner.projection.position, None
            self._runner = runner
            try:
                if not self._stopping.is_set():
                    runner.run_forever()
            finally:
                self._runner = None
                self._condition = "starting"
                self._position = runner.projection.position

    def _fail(self, error: Exception) -> None:
        failed_at = error.seq if isinstance(error, ProjectionStopped) else None
        reason = error.reason if isinstance(error, ProjectionStopped) else describe(error)
        self._failure = (failed_at, reason)
        self._condition = "failed"
        words = str(error) if isinstance(error, LedgerError) else reason
        _LOG.critical("view %s stopped: %s", self.view_class.name, words)


class ViewSupervisor:
    """All views of one ledger."""

    def __init__(
        self, dsn: str, schema: str, views: Iterable[type[View]] = tuple(VIEWS.values())
    ) -> None:
        """Prepare; `start` makes the views follow the log.

        Args:
            dsn: connection string of the ledger's database.
            schema: the ledger's schema, with `projections.schema.migrate_views` applied.
            views: which views.
        """
        env = log_environment(dsn, schema)
        self._keepers = [ViewKeeper(view, env) for view in views]

    def start(self) -> None:
        """Begin to follow the log."""
        for keeper in self._keepers:
            keeper.start()

    def stop(self) -> None:
        """End, and wait until nothing is written from here any more."""
        for keeper in self._keepers:
            keeper.stop()
        for keeper in self._keepers:
            keeper.join()

    def status(self) -> list[ViewStatus]:
        """Say how each view stands, without asking the database."""
        return [keeper.status() for keeper in self._keepers]

    def wait(self, seq: int, *, timeout_s: float) -> None:
        """Block until every view holds an entry: a reader may want to see what it wrote.

        Raises:
            Unavailable: the time has passed, or a view has failed.
        """
        deadline = time.monotonic() + timeout_s
        while any(status.position < seq for status in self.status()):
            if any(status.condition == "failed" for status in self.status()):
                raise Unavailable(f"a view failed before entry {seq}")
            if time.monotonic() > deadline:
                raise Unavailable(f"a view did not reach entry {seq} in {timeout_s} s")
            time.sleep(0.005)

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()
