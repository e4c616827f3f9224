"""Follow the log with one view, in batches, on the event-sourcing library's runner."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.utils import Environment

from ledger.application import LedgerLog
from ledger.errors import ProjectionStopped
from projections.folding import fold_up_to_fault, without_cycle_collection
from projections.recorded import read_notifications
from projections.view import View

if TYPE_CHECKING:
    import weakref
    from collections.abc import Sequence
    from threading import Event
    from types import TracebackType

    from eventsourcing.persistence import Notification, Tracking
    from eventsourcing.projection import ApplicationSubscription
    from eventsourcing.utils import EnvType

    from ledger.log import LogSubscription
    from projections.recorded import RecordedEvent

FEW = 500
"""Entries in a batch from which on the view is catching up rather than following."""
RETRY_S = 0.2
"""How long to leave a view alone that somebody else is writing."""


class ViewProjection(Projection[View]):
    """Folds what the log gives into a view, and knows how far it has come."""

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self.position = view.position()
        self.paused = False

    def process_event(self, domain_event: Notification, tracking: Tracking) -> None:
        """Fold one entry alone; `follow` folds as many as there are."""
        del tracking
        self._fold_notifications([domain_event], None)

    def follow(self, log: LogSubscription, is_stopping: Event) -> None:
        """Fold what comes until stopped, or until the view's position was moved back.

        Raises:
            ProjectionStopped: an entry can't be folded; everything before it was.
        """
        while True:
            try:
                notifications = log.next_batch()
            except StopIteration:
                return
            if not self._fold_notifications(notifications, is_stopping):
                return

    def _fold_notifications(
        self, notifications: Sequence[Notification], is_stopping: Event | None
    ) -> bool:
        with without_cycle_collection() if len(notifications) > FEW else nullcontext():
            batch = read_notifications(notifications)
            if batch.events and not self._fold(batch.events, is_stopping):
                return False
        if batch.broken_seq is not None:
            raise ProjectionStopped(self.view.name, batch.broken_seq, batch.reason)
        return True

    def _fold(self, events: Sequence[RecordedEvent], is_stopping: Event | None) -> bool:
        """Fold a batch as soon as nobody else writes the view; False if it must be read anew."""
        try:
            while (position := fold_up_to_fault(self.view.name, self.view.record, events)) is None:
                self.paused = True
                if is_stopping is None or is_stopping.wait(RETRY_S):
                    return False
        except ProjectionStopped:
            self.position = self.view.position()
            raise
        self.paused = False
        self.position = position
        return position >= events[-1].seq


def projection_class(view_class: type[View]) -> type[ViewProjection]:
    """Give a view's projection; its name is what the library names the tracking table after."""
    name = f"{view_class.__name__}Projection"
    return type(name, (ViewProjection,), {"name": f"view_{view_class.name}"})


class BatchProjectionRunner(ProjectionRunner[LedgerLog, View]):
    """Runs one view; ends by itself where reading must begin again from the view's position."""

    projection: ViewProjection

    def __init__(self, view_class: type[View], env: EnvType) -> None:
        """Start to follow the log.

        Args:
            view_class: the view.
            env: what `ledger.application.log_environment` gave.
        """
        super().__init__(
            application_class=LedgerLog,
            projection_class=projection_class(view_class),
            view_class=view_class,
            env=env,
        )

    @staticmethod
    def _construct_env(name: str, env: EnvType | None = None) -> Environment:
        """Leave the process's environment out, as `LedgerLog` does."""
        return Environment(name, dict(env or {}))

    @staticmethod
    def _process_events_loop(
        subscription: ApplicationSubscription[Any],
        projection: Any,
        is_stopping: Event,
        runner: weakref.ReferenceType[Any],
    ) -> None:
        """Follow the log in batches, where the library takes one event at a time."""
        try:
            projection.follow(cast("LogSubscription", subscription.subscription), is_stopping)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the runner
            owner = runner()
            if owner is not None:
                owner._thread_error = error  # noqa: SLF001 - the library's own way
        finally:
            is_stopping.set()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Stop, wait for the threads, and close the view's connections as well."""
        try:
            super().__exit__(exc_type, exc_val, exc_tb)
        finally:
            self.view.datastore.close()
