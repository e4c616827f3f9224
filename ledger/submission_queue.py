"""Hold what callers hand in until the writer takes it, in order and bounded."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from ledger.errors import Unavailable
from ledger.submission import deliver

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from ledger.errors import LedgerError
    from ledger.submission import Submission


class SubmissionQueue:
    """Takes submissions from many threads and event loops, for one writer.

    `queued` counts the entries of all that was put and isn't done yet.
    """

    def __init__(self) -> None:
        self.queued = 0
        self._ready: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._gathered: dict[asyncio.AbstractEventLoop, list[Submission]] = {}
        self._deferred: list[Submission] = []
        self._counting = threading.Lock()
        self._closed = False

    # -- callers ---------------------------------------------------------------

    def put(self, submission: Submission, *, max_queued: int) -> None:
        """Add a submission.

        Raises:
            Unavailable: more entries than `max_queued` wait already, or the queue is closed.
        """
        with self._counting:  # so that nothing is put behind the mark that ends the queue
            if self._closed or self.queued > max_queued:
                raise Unavailable("too many events are waiting to be recorded")
            self.queued += submission.size
            if submission.loop is None:
                self._ready.put(submission)
            else:
                self._gather(submission, submission.loop)

    def close(self) -> None:
        """Take nothing more; the writer still gets what is ready, then None."""
        with self._counting:
            self._closed = True
            self._ready.put(None)

    def _gather(self, submission: Submission, loop: asyncio.AbstractEventLoop) -> None:
        """Hold a submission until the event loop has served all who are ready.

        They then go to the writer together. One at a time, the first would be taken alone
        and the others would wait for its commit: many small groups, each with its own.
        """
        gathered = self._gathered.setdefault(loop, [])
        gathered.append(submission)
        if len(gathered) == 1:
            loop.call_soon_threadsafe(self._hand_over, loop)

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._counting:
            gathered = self._gathered.pop(loop, [])
            if not self._closed:
                for submission in gathered:
                    self._ready.put(submission)
                return
        refuse(gathered, Unavailable("the ledger was closed"))

    # -- the writer ------------------------------------------------------------

    def take(self, *, max_group: int) -> list[Submission] | None:
        """Wait for a submission, and take what else is ready; None once closed and empty.

        What was deferred comes first. Nothing is added once there are `max_group` entries.
        """
        taken, self._deferred = self._deferred, []
        if not taken:
            first = self._ready.get()
            if first is None:
                return None
            taken = [first]
        size = sum(s.size for s in taken)
        while size < max_group and not self._ready.empty():
            following = self._ready.get()
            if following is None:
                self._ready.put(None)
                break
            taken.append(following)
            size += following.size
        return taken

    def defer(self, submissions: Sequence[Submission]) -> None:
        """Give submissions back, to be taken first next time."""
        self._deferred.extend(submissions)

    def done(self, size: int) -> None:
        """Count entries that were taken as no longer waiting, but for those deferred."""
        with self._counting:
            self.queued -= size - sum(s.size for s in self._deferred)


def refuse(submissions: Sequence[Submission], error: LedgerError) -> None:
    """Answer with an error all who have no answer yet."""
    for submission in submissions:
        if submission.outcome is None:
            submission.outcome = error
    deliver(submissions)
