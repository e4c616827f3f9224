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
from itertools import repeat
from typing import TYPE_CHECKING, Any, cast

import psycopg
from eventsourcing.persistence import InfrastructureFactory, PersistenceError
from psycopg.rows import dict_row

from ledger.application import LedgerLog, log_environment
from ledger.errors import ProjectionStopped, Unavailable
from projections.catalogue import views_named
from projections.folding import AWAY, fold_up_to_fault, without_cycle_collection
from projections.recorded import read_notifications
from projections.runner import BatchProjectionRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from eventsourcing.utils import EnvType

    from projections.recorded import ReadBatch, RecordedEvent
    from projections.view import View

REBUILD_BATCH = 20_000
"""Entries folded in one transaction: the more, the fewer times a busy record is written."""
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
            log = stack.enter_context(LedgerLog(env))
            writers = [stack.enter_context(_locked(dsn, view)) for view in views]
            for writer in writers:
                writer.clear()
            stack.enter_context(without_cycle_collection())
            entries = _replay(writers, log, on_progress)
    except (*AWAY, PersistenceError) as error:
        raise Unavailable("the database went away; the views hold what they had") from error
    return Rebuilt(
        views=tuple(view.name for view in views),
        entries=entries,
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """Writes one view, holding its lock."""

    view: View
    """The view."""
    connection: psycopg.Connection[Any]
    """The connection whose session holds the lock."""

    def clear(self) -> None:
        with self.connection.transaction():
            self.view.clear(self.connection)

    def fold(self, events: Sequence[RecordedEvent]) -> int:
        with self.connection.transaction():
            return self.view.advance(self.connection.cursor(), events)

    def fold_up_to_fault(self, events: Sequence[RecordedEvent]) -> None:
        if events:
            fold_up_to_fault(self.view.name, self.fold, events)


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
def _locked(dsn: str, view: View) -> Iterator[_Writer]:
    """Hold a view's lock, in a session that ends with the block, however it ends."""
    with psycopg.connect(
        dsn, autocommit=True, connect_timeout=5, row_factory=dict_row
    ) as connection:
        connection.execute(f"SET lock_timeout = {LOCK_WAIT_MS}")
        connection.execute("SET synchronous_commit TO off")
        try:
            connection.execute(LOCK, (view.lock_key,))
        except psycopg.errors.LockNotAvailable:
            raise Unavailable(
                f"view {view.name} is being rebuilt by somebody else", retry_after_s=60
            ) from None
        yield _Writer(view=view, connection=connection)


def _replay(writers: Sequence[_Writer], log: LedgerLog, on_progress: Callable[[int], None]) -> int:
    """Fold the log up to its head into emptied views, reading each entry once for all."""
    position = 0
    with ThreadPoolExecutor(len(writers), thread_name_prefix="rebuild") as pool:
        for batch in _read_ahead(log, log.recorder.max_notification_id() or 0):
            # Taking the results raises what a thread raised, after the others are done.
            list(pool.map(_Writer.fold_up_to_fault, writers, repeat(batch.events)))
            position = batch.events[-1].seq if batch.events else position
            if batch.broken_seq is not None:
                raise ProjectionStopped(writers[0].view.name, batch.broken_seq, batch.reason)
            on_progress(position)
    return position


def _read_ahead(log: LedgerLog, head: int) -> Iterator[ReadBatch]:
    """Read the log up to `head` in batches, one while the one before is folded."""

    def read(first: int) -> ReadBatch:
        return read_notifications(log.recorder.select_notifications(first, REBUILD_BATCH, head))

    with ThreadPoolExecutor(1, thread_name_prefix="read-log") as pool:
        ahead = pool.submit(read, 1)
        while (batch := ahead.result()).events or batch.broken_seq is not None:
            if batch.broken_seq is None:
                ahead = pool.submit(read, batch.events[-1].seq + 1)
            yield batch
