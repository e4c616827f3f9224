"""The only writer of entries: gap-free, chained, one commit for many callers.

Order of events in one group, and what a crash at each point leaves behind:

1. read what isn't known: repeats, identities, stream heads
   (`ledger.group_lookup`)                                     nothing
2. build entries, chain, boxes, tree nodes in memory
   (`ledger.group_builder`, `ledger.sequencing`)               nothing
3. one autocommitted statement: compare-and-set of the head,
   and all inserts that depend on it (`ledger.appending`)      all of it, or nothing
4. the signer's memory, then the signature (`ledger.signing`)  entries stand, unsigned:
                                                               the next checkpoint covers them
5. answer                                                      the sender repeats, and is
                                                               answered from the log
"""

from __future__ import annotations

import logging
import random
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from eventsourcing import persistence

from ledger.appending import Appender
from ledger.core.entry import format_time
from ledger.errors import Conflict, LedgerError, ReadOnly, Unavailable
from ledger.following import HeadFollower
from ledger.group_builder import Attempt, GroupBuilder
from ledger.group_lookup import GroupLookup
from ledger.identities import Wrapping
from ledger.known import Known
from ledger.log import LogReader
from ledger.sequencing import Group, Head
from ledger.submission import Recorded, Submission, deliver
from ledger.submission_queue import SubmissionQueue, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventsourcing.persistence import StoredEvent
    from eventsourcing.postgres import PostgresDatastore

    from ledger.keys.keyring import Keyring

_LOG = logging.getLogger("ledger.recorder")

MAX_GROUP = 2_000
"""Entries after which a group takes no further submission."""
MAX_QUEUED = 50_000
"""Entries that may wait for the writer; past it callers are told to come back."""
GIVE_UP_S = 10.0
"""How long a group is tried while the database can't be reached."""

if TYPE_CHECKING:
    Settle = Callable[[str | LedgerError | None], None]
    """Takes the checkpoint, None where it is still to come, or why there can be none."""
    Notary = Callable[[int, bytes, Settle], None]


def _answer_at_once(_size: int, _root: bytes, settle: Settle) -> None:
    settle(None)


class LedgerRecorder(LogReader):
    """Appends entries; hands each group's size and root to a notary before answering."""

    def __init__(
        self,
        datastore: PostgresDatastore,
        *,
        keyring: Keyring,
        events_table_name: str = "entries",
        notary: Notary = _answer_at_once,
        on_group: Callable[[int, float], None] = lambda _size, _seconds: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(datastore, events_table_name=events_table_name)
        self.origin = keyring.origin
        self.known = Known()
        self._notary = notary
        self._on_group = on_group
        self._clock = clock
        self._wrapping = Wrapping(keyring)
        self._following = HeadFollower(self, self.known)
        self._lookup = GroupLookup(self, self.known, keyring)
        self._appender = Appender(self)
        self._queue = SubmissionQueue()
        self._thread: threading.Thread | None = None
        self.committed = threading.Event()

    # -- callers ---------------------------------------------------------------

    def submit(self, submission: Submission) -> None:
        """Queue a submission; its future is answered after the commit.

        Raises:
            ReadOnly: recording has stopped until people decide.
            Unavailable: too much is waiting already, or the recorder is closed.
        """
        self._following.check_not_stopped()
        self._queue.put(submission, max_queued=MAX_QUEUED)
        self._start()

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int] | None:
        """Append an aggregate's events through the library's interface.

        Raises:
            persistence.IntegrityError: a version is not the stream's next.
        """
        if not stored_events:
            return None
        future: Future[Recorded] = Future()
        self.submit(Submission(stored=stored_events, future=future))
        try:
            return future.result().stored
        except Unavailable as error:
            raise persistence.OperationalError(str(error)) from error

    def close(self) -> None:
        """Record what was submitted, then stop the writer."""
        self._queue.close()
        if self._thread is not None:
            self._thread.join()
        self.disconnect()

    def disconnect(self) -> None:
        """Let the connection go; whoever needs it again makes a new one."""
        self._following.disconnect()

    @property
    def queued(self) -> int:
        """Entries that wait for the writer, or that it is at."""
        return self._queue.queued

    # -- the log and its head --------------------------------------------------

    @property
    def head(self) -> Head | None:
        """The log's last entry as this process knows it; None before the first look."""
        return self._following.head

    @property
    def stopped(self) -> ReadOnly | None:
        """Why nothing is recorded any more; None while it is."""
        return self._following.stopped

    @stopped.setter
    def stopped(self, reason: ReadOnly | None) -> None:
        self._following.stopped = reason

    def refresh(self) -> tuple[int, bytes]:
        """Catch up with other writers; give size and root of the tree as it stands.

        Raises:
            ReadOnly: the log no longer holds what this process saw in it.
            Unavailable: the database can't be reached.
        """
        return self._following.refresh()

    def read_tree(self, level: int, first: int, count: int) -> list[bytes]:
        """Give stored hashes of the tree: leaves at level 0, else nodes (FORMAT.md 3.3).

        Raises:
            Unavailable: the database can't be reached.
        """
        return self._following.read_tree(level, first, count)

    def stop_recording(self, reason: str) -> None:
        """Refuse everything from now on, and say why."""
        self._following.stop(reason)

    # -- the writer's thread ---------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            with self._following.lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="ledger-writer", daemon=True
                    )
                    self._thread.start()

    def _run(self) -> None:
        while (submissions := self._queue.take(max_group=MAX_GROUP)) is not None:
            started = time.monotonic()
            size = sum(s.size for s in submissions)
            try:
                self._record(submissions)
            except BaseException as error:  # noqa: BLE001 - nobody must wait for ever
                _LOG.exception("recording failed")
                for submission in submissions:
                    submission.outcome = submission.outcome or Unavailable(type(error).__name__)
                deliver(submissions)
            self._queue.done(size)
            self._on_group(size, time.monotonic() - started)

    def _record(self, submissions: list[Submission]) -> None:
        """Record submissions together; on a conflict, halves apart."""
        try:
            with self._following.lock:
                attempt = self._append(submissions)
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            self._bisect(submissions, error)
            return
        except psycopg.Error as error:
            refuse(submissions, Unavailable(f"database refused: {type(error).__name__}"))
            return
        except LedgerError as error:
            refuse(submissions, error)
            return
        self._settle(submissions, attempt)

    def _bisect(self, submissions: list[Submission], error: psycopg.Error) -> None:
        if len(submissions) == 1:
            _LOG.error("one submission was refused by the database: %s", type(error).__name__)
            refuse(submissions, Conflict("contradicts what is recorded"))
            return
        middle = len(submissions) // 2
        self._record(submissions[:middle])
        self._record(submissions[middle:])

    def _settle(self, submissions: list[Submission], attempt: Attempt) -> None:
        """Answer: refusals at once, the rest when the notary has a checkpoint."""
        deliver([s for s in submissions if s.outcome is not None])
        self._queue.defer(attempt.deferred)
        answers = [(s, a) for s, a in attempt.answers if s.outcome is None]

        def settle(checkpoint: str | LedgerError | None) -> None:
            for submission, answer in answers:
                if isinstance(checkpoint, LedgerError):
                    submission.outcome = checkpoint
                    continue
                submission.outcome = Recorded(
                    events=answer.events, stored=answer.stored, checkpoint=checkpoint
                )
            deliver([submission for submission, _ in answers])

        self._notary(attempt.edge.size, attempt.edge.root(), settle)
        self.committed.set()

    # -- one group -------------------------------------------------------------

    def _append(self, submissions: list[Submission]) -> Attempt:
        """Bring a group into the log, whatever happens to the connection meanwhile.

        An attempt whose answer was lost may or may not have been committed, and may
        be committed even later. It is kept, and looked for by (seq, leaf) after
        every reconnect and every lost compare-and-set, before anything is built again:
        comparing the head alone would miss it once another writer has moved on.
        """
        following = self._following
        following.check_not_stopped()
        unanswered: list[Attempt] = []
        give_up = time.monotonic() + GIVE_UP_S
        while True:
            attempt = None
            try:
                connection = following.connect()
                if not following.current:
                    following.catch_up(connection)
                    landed = self._appender.landed(connection, unanswered)
                    if landed is not None:
                        return self._stands(landed)
                attempt = self._build(connection, submissions)
                if self._holds(connection, attempt):
                    return self._stands(attempt)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                if attempt is not None and attempt.group.entries:
                    unanswered.append(attempt)
                following.disconnect()
                if time.monotonic() > give_up:
                    raise Unavailable("the database can't be reached") from error
                time.sleep(0.05)
            following.current = False
            if time.monotonic() > give_up:
                raise Unavailable("other writers were always first")
            time.sleep(random.uniform(0, 0.002))  # noqa: S311 - two losers should not meet again

    def _build(self, connection: psycopg.Connection[Any], submissions: list[Submission]) -> Attempt:
        """Look up what isn't known, then place everything in memory."""
        found = self._lookup.find(connection, submissions)
        head = self.head or Head(0, bytes(32), "")
        recorded = max(format_time(self._clock()).decode(), head.recorded)
        group = Group(origin=self.origin.encode(), after=head, recorded=recorded, heads=found.heads)
        builder = GroupBuilder(group, found, self._wrapping, self._lookup.stream_of)
        return builder.place_all(submissions, self._following.edge.copy())

    def _holds(self, connection: psycopg.Connection[Any], attempt: Attempt) -> bool:
        """Tell whether the log took a group, or agrees with one that adds nothing to it.

        Nothing is written that could prove a group of repeats and refusals only. A refusal
        rests on what is cached; a repeat may be of another writer's entry, which the tree
        must reach before it is answered.
        """
        if attempt.group.entries:
            return self._appender.append(connection, attempt)
        self._following.catch_up(connection)
        return not attempt.refused or self.head == attempt.group.after

    def _stands(self, attempt: Attempt) -> Attempt:
        """Remember what a group that stands has proved or made."""
        for submission, error in attempt.refused:
            submission.outcome = error
        group = attempt.group
        if group.entries:
            self._following.advance(group, attempt.edge)
        self.known.identities.remember(group.new_identities)
        self.known.keys.remember(group.new_keys)
        return replace(attempt, edge=self._following.edge)
