"""Empty views and fill them again from the log's first entry.

The views' locks are held from before they are emptied until they have caught up, so that
a running service's own runners leave them alone; those go on from the position they find
afterwards. A rebuild that is interrupted leaves a view that holds exactly the entries up to
its position; whoever runs next goes on from there.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import psycopg
from eventsourcing.persistence import InfrastructureFactory, PersistenceError
from psycopg.rows import dict_row

from ledger.application import LedgerLog, log_environment
from ledger.errors import ProjectionStopped, Unavailable
from ledger.log import BATCH
from projections.catalogue import views_named
from projections.folding import AWAY, fold_up_to_fault
from projections.recorded import read_notifications
from projections.runner import BatchProjectionRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from eventsourcing.persistence import Notification
    from eventsourcing.utils import EnvType

    from projections.recorded import RecordedEvent
    from projections.view import View

LOCK_WAIT_MS = 10_000
"""How long to wait for a runner to finish its batch; only another rebuild takes longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What a rebuild has done."""

    views: tuple[str, ...]
    """Names of the views."""
    entries: int
    """How many entries were folded into each of them."""
    seconds: float
    """How long it took."""

    @property
    def entries_per_second(self) -> float:
        """How many entries were folded into all of the views in a second."""
        return self.entries / self.seconds if self.seconds else 0.0


def rebuild(
    dsn: str,
    schema: str,
    names: Iterable[str] = (),
    *,
    on_progress: Callable[[int], None] = lambda _seq: None,
) -> Rebuilt:
    """Rebuild views from entry 1 to the head as it is now.

    Args:
        dsn: connection string of the ledger's database.
        schema: the ledger's schema.
        names: which views; all where none is named.
        on_progress: told the position after each batch.

    Raises:
        NotFound: a name is no view's.
        ProjectionStopped: an entry can't be folded; everything before it was.
        Unavailable: somebody else is rebuilding, or the database can't be reached.
    """
    classes = views_named(names)
    env = log_environment(dsn, schema)
    started = time.monotonic()
    try:
        with ExitStack() as stack:
            views = [stack.enter_context(_open_view(view, env)) for view in classes]
            connection = stack.enter_context(_locked(dsn, views))
            log = stack.enter_context(LedgerLog(env))
            with connection.transaction():
                for view in views:
                    view.clear(connection)
            entries = _replay(connection, views, log, on_progress)
    except (*AWAY, PersistenceError) as error:
        raise Unavailable("the database went away; the views hold what they had") from error
    return Rebuilt(
        views=tuple(view.name for view in views),
        entries=entries,
        seconds=time.monotonic() - started,
    )


@contextmanager
def _open_view(view_class: type[View], env: EnvType) -> Iterator[View]:
    name = f"view_{view_class.name}"
    environment = BatchProjectionRunner._construct_env(name, env)  # noqa: SLF001 - ours
    factory = InfrastructureFactory[Any].construct(environment)
    try:
        yield cast("View", factory.tracking_recorder(view_class))
    finally:
        factory.close()


LOCK = "SELECT pg_advisory_lock(%s)"


@contextmanager
def _locked(dsn: str, views: Sequence[View]) -> Iterator[psycopg.Connection[Any]]:
    """Give the connection that writes: its session holds every view's lock to the end.

    The locks end with the session, however it ends.
    """
    with psycopg.connect(
        dsn, autocommit=True, connect_timeout=5, row_factory=dict_row
    ) as connection:
        connection.execute(f"SET lock_timeout = {LOCK_WAIT_MS}")
        connection.execute("SET synchronous_commit TO off")
        try:
            for view in sorted(views, key=lambda view: view.lock_key):
                connection.execute(LOCK, (view.lock_key,))
        except psycopg.errors.LockNotAvailable:
            raise Unavailable(
                f"view {view.name} is being rebuilt by somebody else", retry_after_s=60
            ) from None
        yield connection


def _replay(
    connection: psycopg.Connection[Any],
    views: Sequence[View],
    log: LedgerLog,
    on_progress: Callable[[int], None],
) -> int:
    """Fold the log up to its head into emptied views, reading each entry once for all."""
    position = 0
    for notifications in _read_ahead(log, log.recorder.max_notification_id() or 0):
        batch = read_notifications(notifications)
        if batch.events:
            for view in views:
                fold_up_to_fault(view.name, _folding(connection, view), batch.events)
            position = batch.events[-1].seq
        if batch.broken_seq is not None:
            raise ProjectionStopped(views[0].name, batch.broken_seq, batch.reason)
        on_progress(position)
    return position


def _folding(
    connection: psycopg.Connection[Any], view: View
) -> Callable[[Sequence[RecordedEvent]], int]:
    def fold(events: Sequence[RecordedEvent]) -> int:
        with connection.transaction(), connection.cursor(binary=True) as cursor:
            return view.advance(cursor, events)

    return fold


def _read_ahead(log: LedgerLog, head: int) -> Iterator[Sequence[Notification]]:
    """Give the log up to `head` in batches, reading one while the one before is folded."""

    def read(first: int) -> Sequence[Notification]:
        return log.recorder.select_notifications(first, BATCH, head)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-log") as pool:
        ahead = pool.submit(read, 1)
        while notifications := ahead.result():
            ahead = pool.submit(read, notifications[-1].id + 1)
            yield notifications
