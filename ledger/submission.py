"""What callers hand to the writer, and how the answer gets back to them."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eventsourcing.persistence import StoredEvent

    from ledger.drafts import Draft
    from ledger.sequencing import Placed


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The answer to a submission that stands in the log."""

    events: Sequence[Sequence[Placed]]
    """Where each event's entries stand, in the order they were handed in."""
    stored: Sequence[int]
    """Positions of an aggregate's stored events."""
    checkpoint: str | None
    """Signed checkpoint that covers all of it; None where it is still to come."""


@dataclass(slots=True, kw_only=True, eq=False)
class Submission:
    """Events that stand together or not at all."""

    events: Sequence[Sequence[Draft]] = ()
    """Each event's drafts, one for each subject."""
    first: int | None = None
    """Index of the first event in its request, told in refusals; None where it came alone."""
    stored: Sequence[StoredEvent] = ()
    """Events of aggregates, through the library's interface."""
    future: asyncio.Future[Recorded] | Future[Recorded]
    """Where the answer goes."""
    loop: asyncio.AbstractEventLoop | None = None
    """The event loop that waits, if one does."""
    keys: list[bytes] = field(default_factory=list)
    """Accept keys of the events, in order; filled by the writer."""
    outcome: Recorded | BaseException | None = None
    """The answer, once the writer knows it."""

    @property
    def size(self) -> int:
        """How many entries this makes at most."""
        return sum(map(len, self.events)) + len(self.stored)


def deliver(submissions: Iterable[Submission]) -> None:
    """Hand answers to those who wait, waking each event loop once."""
    by_loop: dict[Any, list[Submission]] = {}
    for submission in submissions:
        by_loop.setdefault(submission.loop, []).append(submission)
    for loop, waiting in by_loop.items():
        if loop is None:
            _resolve(waiting)
        else:
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(_resolve, waiting)


def _resolve(waiting: list[Submission]) -> None:
    for submission in waiting:
        # A caller may go away at any moment; what stands stands.
        with suppress(InvalidStateError, asyncio.InvalidStateError):
            if isinstance(submission.outcome, BaseException):
                submission.future.set_exception(submission.outcome)
            elif submission.outcome is not None:
                submission.future.set_result(submission.outcome)
