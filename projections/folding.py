"""Fold a batch, and where one entry spoils it, all before that entry and nothing after."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from eventsourcing import persistence

from ledger.errors import LedgerError, ProjectionStopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from projections.recorded import RecordedEvent

AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    persistence.OperationalError,
    persistence.InterfaceError,
)
"""Errors of a database that went away, or that is out of what it needs: try again later."""


def fold_up_to_fault(
    view: str,
    fold: Callable[[Sequence[RecordedEvent]], int | None],
    events: Sequence[RecordedEvent],
) -> int | None:
    """Fold a batch; give what `fold` gives, the position afterwards.

    A batch that fails is halved until the entry at fault stands alone. What precedes it
    is folded as if it had come alone.

    Args:
        view: the view's name, for the error.
        fold: folds consecutive entries in one transaction, all or nothing.
        events: the batch, not empty.

    Raises:
        ProjectionStopped: an entry can't be folded; everything before it was.
    """
    try:
        return fold(events)
    except AWAY:
        raise
    except Exception as error:
        if len(events) == 1:
            raise ProjectionStopped(view, events[0].seq, describe(error)) from error
    middle = len(events) // 2
    position = fold_up_to_fault(view, fold, events[:middle])
    if position is None or position < events[middle - 1].seq:
        return position
    return fold_up_to_fault(view, fold, events[middle:])


def describe(error: BaseException) -> str:
    """Say what went wrong without repeating any value; only our own words are quoted."""
    name = type(error).__name__
    if isinstance(error, LedgerError):
        return f"{name}: {error}"
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    if isinstance(cause, psycopg.Error) and cause.sqlstate:
        return f"{name} (SQLSTATE {cause.sqlstate})"
    return name


@contextmanager
def without_cycle_collection() -> Iterator[None]:
    """Hold off the search for cycles while many small objects are made; entries have none.

    It would look through all of them again and again, for half of the time. Blocks in
    several threads may overlap: whoever found it enabled enables it again.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
