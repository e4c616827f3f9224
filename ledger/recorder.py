"""The only writer of entries: gap-free, chained, one commit for many callers.

Order of events in one group, and what a crash at each point leaves behind:

1. read what isn't known (repeats, identities, stream heads)   nothing
2. build entries, chain, boxes, tree nodes in memory           nothing
3. one autocommitted statement: compare-and-set of the head,
   and all inserts that depend on it                           all of it, or nothing
4. the signer's memory, then the signature (`ledger.signing`)  entries stand, unsigned:
                                                               the next checkpoint covers them
5. answer                                                      the sender repeats, and is
                                                               answered from the log
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from eventsourcing import persistence
from psycopg.rows import tuple_row

from ledger.core.entry import format_time, ledger_stream
from ledger.core.merkle import RightEdge
from ledger.errors import Conflict, LedgerError, ReadOnly, Unavailable
from ledger.identities import Identity, IdentityRow, KeyRow, Wrapping
from ledger.known import Known
from ledger.log import LogReader
from ledger.sequencing import Group, Head, Placed, accept_key, same_as_recorded
from ledger.submission import Recorded, Submission, deliver

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from eventsourcing.persistence import StoredEvent
    from eventsourcing.postgres import PostgresDatastore

    from ledger.drafts import Draft
    from ledger.identities import Name
    from ledger.keys.keyring import Keyring

_LOG = logging.getLogger("ledger.recorder")

MAX_GROUP = 2_000
"""Entries after which a group takes no further submission."""
MAX_QUEUED = 50_000
"""Entries that may wait for the writer; past it callers are told to come back."""
GIVE_UP_S = 10.0
"""How long a group is tried while the database can't be reached."""

_LIVELY: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""A server that vanishes without a word is noticed within half a minute, not after hours."""

if TYPE_CHECKING:
    Settle = Callable[[str | LedgerError | None], None]
    """Takes the checkpoint, None where it is still to come, or why there can be none."""
    Notary = Callable[[int, bytes, Settle], None]


@dataclass(slots=True, kw_only=True, eq=False)
class _Attempt:
    """A group that was sent to the database."""

    group: Group
    edge: RightEdge
    answers: list[tuple[Submission, Recorded]]
    refused: list[tuple[Submission, Exception]]
    deferred: list[Submission]


@dataclass(slots=True, kw_only=True)
class _Found:
    """What one look at the database told of a group's submissions."""

    accepted: dict[bytes, int]
    identities: dict[Name, Identity]
    keys: dict[UUID, Identity]
    heads: dict[UUID, tuple[int, bytes | None]]


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
        self.head: Head | None = None
        self.stopped: ReadOnly | None = None
        self.queued = 0
        self._notary = notary
        self._on_group = on_group
        self._clock = clock
        self._wrapping = Wrapping(keyring)
        self._accept_key = keyring.accept_key
        self._edge = RightEdge()
        self._current = False
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._queue: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._gathered: dict[asyncio.AbstractEventLoop, list[Submission]] = {}
        self._deferred: list[Submission] = []
        self._writing = threading.RLock()
        self._counting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._statements: dict[tuple[bool, ...], Any] = {}
        self._ledger_streams: dict[str, UUID] = {}
        self.committed = threading.Event()

    # -- callers ---------------------------------------------------------------

    def submit(self, submission: Submission) -> None:
        """Queue a submission; its future is answered after the commit.

        Raises:
            ReadOnly: recording has stopped until people decide.
            Unavailable: too much is waiting already, or the recorder is closed.
        """
        self._check_not_stopped()
        with self._counting:  # so that nothing is put behind the mark that ends the queue
            if self._closed or self.queued > MAX_QUEUED:
                raise Unavailable("too many events are waiting to be recorded")
            self.queued += submission.size
            if submission.loop is None:
                self._queue.put(submission)
            else:
                self._gather(submission, submission.loop)
        self._start()

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
                    self._queue.put(submission)
                return
        self._fail(gathered, Unavailable("the ledger was closed"))

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
        with self._counting:
            self._closed = True
            self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
        self.disconnect()

    def disconnect(self) -> None:
        """Let the connection go; whoever needs it again makes a new one."""
        with self._writing:
            self._disconnect()

    # -- the writer's thread ---------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            with self._writing:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="ledger-writer", daemon=True
                    )
                    self._thread.start()

    def _run(self) -> None:
        while (submissions := self._take()) is not None:
            started = time.monotonic()
            size = sum(s.size for s in submissions)
            try:
                self._record(submissions)
            except BaseException as error:  # noqa: BLE001 - nobody must wait for ever
                _LOG.exception("recording failed")
                for submission in submissions:
                    submission.outcome = submission.outcome or Unavailable(type(error).__name__)
                deliver(submissions)
            with self._counting:
                self.queued -= size - sum(s.size for s in self._deferred)
            self._on_group(size, time.monotonic() - started)

    def _take(self) -> list[Submission] | None:
        taken, self._deferred = self._deferred, []
        if not taken:
            first = self._queue.get()
            if first is None:
                return None
            taken = [first]
        size = sum(s.size for s in taken)
        while size < MAX_GROUP and not self._queue.empty():
            following = self._queue.get()
            if following is None:
                self._queue.put(None)
                break
            taken.append(following)
            size += following.size
        return taken

    def _record(self, submissions: list[Submission]) -> None:
        """Record submissions together; on a conflict, halves apart."""
        try:
            with self._writing:
                attempt = self._append(submissions)
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            self._bisect(submissions, error)
            return
        except psycopg.Error as error:
            self._fail(submissions, Unavailable(f"database refused: {type(error).__name__}"))
            return
        except LedgerError as error:
            self._fail(submissions, error)
            return
        self._settle(submissions, attempt)

    def _bisect(self, submissions: list[Submission], error: psycopg.Error) -> None:
        if len(submissions) == 1:
            _LOG.error("one submission was refused by the database: %s", type(error).__name__)
            self._fail(submissions, Conflict("contradicts what is recorded"))
            return
        middle = len(submissions) // 2
        self._record(submissions[:middle])
        self._record(submissions[middle:])

    @staticmethod
    def _fail(submissions: Sequence[Submission], error: LedgerError) -> None:
        open_ = [s for s in submissions if s.outcome is None]
        for submission in open_:
            submission.outcome = error
        deliver(submissions)

    def _settle(self, submissions: list[Submission], attempt: _Attempt | None) -> None:
        """Answer: refusals at once, the rest when the notary has a checkpoint."""
        refused = [s for s in submissions if s.outcome is not None]
        deliver(refused)
        if attempt is None:
            return
        self._deferred.extend(attempt.deferred)
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

    def _append(self, submissions: list[Submission]) -> _Attempt | None:
        """Bring a group into the log, whatever happens to the connection meanwhile.

        An attempt whose answer was lost may or may not have been committed, and may
        be committed even later. It is kept, and looked for by (seq, leaf) after
        every reconnect and every lost compare-and-set, before anything is built again:
        comparing the head alone would miss it once another writer has moved on.
        """
        self._check_not_stopped()
        unanswered: list[_Attempt] = []
        give_up = time.monotonic() + GIVE_UP_S
        while True:
            attempt = None
            try:
                connection = self._connect()
                if not self._current:
                    self._catch_up(connection)
                    landed = self._landed(connection, unanswered)
                    if landed is not None:
                        return self._stands(landed)
                attempt = self._build(connection, submissions)
                if self._write(connection, attempt):
                    return self._stands(attempt)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                if attempt is not None and attempt.group.entries:
                    unanswered.append(attempt)
                self._disconnect()
                if time.monotonic() > give_up:
                    raise Unavailable("the database can't be reached") from error
                time.sleep(0.05)
            self._current = False
            if time.monotonic() > give_up:
                raise Unavailable("other writers were always first")
            time.sleep(random.uniform(0, 0.002))  # noqa: S311 - two losers should not meet again

    def _stands(self, attempt: _Attempt) -> _Attempt:
        """Remember what a group that stands has proved or made."""
        for submission, error in attempt.refused:
            submission.outcome = error
        group = attempt.group
        if group.entries and self.head is not None and self.head.seq < group.seq:
            self.head = group.head
            self._edge = attempt.edge
            self.known.heads.remember(group.heads)
        self.known.identities.remember(group.new_identities)
        self.known.keys.remember(group.new_keys)
        return replace(attempt, edge=self._edge)

    def _landed(
        self, connection: psycopg.Connection[Any], unanswered: list[_Attempt]
    ) -> _Attempt | None:
        query = self.sql("SELECT leaf FROM {entries} WHERE seq = %b")
        for attempt in unanswered:
            head = attempt.group.head
            row = connection.execute(query, (head.seq,)).fetchone()
            if row is not None and row[0] == head.leaf:
                return attempt
        return None

    def _build(
        self, connection: psycopg.Connection[Any], submissions: list[Submission]
    ) -> _Attempt:
        """Sort out repeats and conflicts by reading, then place the rest in memory."""
        found = self._find(connection, submissions)
        head = self.head or Head(0, bytes(32), "")
        recorded = max(format_time(self._clock()).decode(), head.recorded)
        group = Group(origin=self.origin.encode(), after=head, recorded=recorded, heads=found.heads)
        builder = _GroupBuilder(group, found, self._wrapping, self._stream_of)
        repeats = self._repeats(connection, submissions, found.accepted)
        attempt = _Attempt(group=group, edge=self._edge.copy(), answers=[], refused=[], deferred=[])
        placed_keys: set[bytes] = set()
        for submission in submissions:
            if submission.outcome is not None:
                continue
            if not placed_keys.isdisjoint(submission.keys):
                attempt.deferred.append(submission)  # repeats one of this group: next time
                continue
            try:
                attempt.answers.append((submission, builder.place(submission, repeats)))
                placed_keys.update(submission.keys)
            except (Conflict, persistence.IntegrityError) as error:
                attempt.refused.append((submission, error))  # holds if the group stands
        return attempt

    # -- reading ---------------------------------------------------------------

    def _find(self, connection: psycopg.Connection[Any], submissions: list[Submission]) -> _Found:
        """Look up repeats, and what of identities and streams isn't known."""
        for submission in submissions:
            if len(submission.keys) != len(submission.events):
                submission.keys = [accept_key(self._accept_key, d[0]) for d in submission.events]
        keys = [key for submission in submissions for key in submission.keys]
        known = self.known.identities
        names: set[Name] = set()
        for submission in submissions:
            for drafts in submission.events:
                names.update(drafts[0].others)
                names.update([draft.subject for draft in drafts if draft.subject is not None])
        identities = {name: known[name] for name in names if name in known}
        lookups = {self._wrapping.lookup(name): name for name in names if name not in known}
        accepted, rows = self._find_rows(connection, keys, list(lookups))
        streams = self._streams_of(submissions, identities)
        found = _Found(accepted=accepted, identities=identities, keys={}, heads={})
        self._find_streams(connection, found, streams, {lookups[r.lookup]: r for r in rows})
        return found

    def _find_rows(
        self, connection: psycopg.Connection[Any], keys: list[bytes], lookups: list[bytes]
    ) -> tuple[dict[bytes, int], list[IdentityRow]]:
        if not keys and not lookups:
            return {}, []
        query = self.sql(
            "SELECT key, seq, NULL FROM {accepted} WHERE key = ANY(%b::bytea[])"
            " UNION ALL SELECT lookup, epoch, wrapped FROM {identities}"
            " WHERE lookup = ANY(%b::bytea[])"
        )
        cursor = connection.cursor(binary=True)
        accepted: dict[bytes, int] = {}
        rows = []
        for key, number, wrapped in cursor.execute(query, (keys, lookups), prepare=True):
            if wrapped is None:
                accepted[key] = number
            else:
                rows.append(IdentityRow(key, number, wrapped))
        return accepted, rows

    def _streams_of(
        self, submissions: list[Submission], identities: dict[Name, Identity]
    ) -> set[UUID]:
        streams: set[UUID] = set()
        for submission in submissions:
            streams.update(UUID(str(e.originator_id)) for e in submission.stored)
            for drafts in submission.events:
                for draft in drafts:
                    if draft.subject is None:
                        streams.add(self._stream_of(draft))
                    elif draft.subject in identities:
                        streams.add(identities[draft.subject].id)
        return streams

    def _stream_of(self, draft: Draft) -> UUID:
        topic = draft.type.full
        if topic not in self._ledger_streams:
            self._ledger_streams[topic] = ledger_stream(self.origin, topic)
        return self._ledger_streams[topic]

    def _find_streams(
        self,
        connection: psycopg.Connection[Any],
        found: _Found,
        streams: set[UUID],
        rows: dict[Name, IdentityRow],
    ) -> None:
        """Complete `found` with heads and keys, from memory where it has them."""
        ids = {name: self._wrapping.open_identity(row) for name, row in rows.items()}
        heads, keys = self.known.heads, self.known.keys
        for stream in streams:
            if stream in heads:
                found.heads[stream] = heads[stream]
            if stream in keys:
                found.keys[stream] = keys[stream]
        # Other writers' entries tell of a stream's head, never of its key.
        keyed = streams.intersection(self._ledger_streams.values()).difference(keys)
        missing = [s for s in (*streams, *ids.values()) if s not in found.heads or s in keyed]
        if not missing:
            return
        query = self.sql(
            "SELECT id, NULL, NULL, epoch, wrapped, name_box FROM {keys} WHERE id = ANY(%b)"
            " UNION ALL SELECT stream, version, leaf, NULL, NULL, NULL FROM {stream_heads}"
            " WHERE stream = ANY(%b)"
        )
        found.heads.update(dict.fromkeys(missing, (0, None)))
        cursor = connection.cursor(binary=True)
        for row in cursor.execute(query, (missing, missing), prepare=True):
            stream, version, leaf, epoch, wrapped, name_box = row
            if wrapped is None:
                found.heads[stream] = (version, leaf.hex().encode())
            else:
                opened = self._wrapping.open_key(KeyRow(stream, epoch, wrapped, name_box))
                found.keys[stream] = opened
        keys.remember({s: found.keys[s] for s in keyed if s in found.keys})
        found.identities.update({n: found.keys[i] for n, i in ids.items() if i in found.keys})
        self.known.identities.remember(
            {n: found.keys[i] for n, i in ids.items() if i in found.keys}
        )

    def _repeats(
        self,
        connection: psycopg.Connection[Any],
        submissions: list[Submission],
        accepted: dict[bytes, int],
    ) -> dict[bytes, list[tuple[int, UUID, int, bytes, bytes]]]:
        """Read the entries of events that were accepted before, by accept key."""
        if not accepted:
            return {}
        wanted = {
            key: range(accepted[key], accepted[key] + len(drafts))
            for submission in submissions
            for key, drafts in zip(submission.keys, submission.events, strict=True)
            if key in accepted
        }
        query = self.sql(
            "SELECT seq, stream, version, leaf, entry FROM {entries} WHERE seq = ANY(%b)"
        )
        seqs = sorted({seq for span in wanted.values() for seq in span})
        cursor = connection.cursor(binary=True)
        rows = {row[0]: row for row in cursor.execute(query, (seqs,), prepare=True)}
        return {key: [rows[s] for s in span if s in rows] for key, span in wanted.items()}

    # -- writing ---------------------------------------------------------------

    def _write(self, connection: psycopg.Connection[Any], attempt: _Attempt) -> bool:
        """Move the head and insert everything in one autocommitted statement.

        This is what sequences entries. The UPDATE succeeds only while the head is still
        (seq, leaf) as this group was built upon; every insert reads FROM moved and so
        inserts nothing otherwise. Two writers meet on the row lock of the one head
        row: the second waits for the first's commit, finds the head moved (READ
        COMMITTED looks at the row again), and changes nothing. No lock is held across
        a round trip, since the transaction begins and ends inside the statement; a
        rollback leaves no hole, since numbers come from the head and not from a
        sequence. Success proves that no other writer came between, hence that every
        cached stream head and accepted id this group relied on was current.
        """
        group = attempt.group
        if not group.entries:
            return self._confirm(connection, attempt)
        nodes = attempt.edge.extend(group.leaves)
        head = group.head
        params: list[Any] = [*head, group.after.seq, group.after.leaf, group.after.seq]
        params += [group.streams, group.versions, group.topics, group.leaves, group.entries]
        last = {s: group.heads[s] for s in group.streams}
        params += [list(last), [v for v, _ in last.values()]]
        params.append([bytes.fromhex(leaf.decode()) for _, leaf in last.values() if leaf])
        optional = (
            (group.accepted_keys, group.accepted_seqs),
            (group.box_seqs, group.boxes),
            tuple(zip(*((n.level, n.index, n.hash) for n in nodes), strict=True)),
            tuple(zip(*group.identity_rows, strict=True)),
            tuple(zip(*((*row[:3], row[3] or b"") for row in group.key_rows), strict=True)),
        )
        used = tuple(bool(columns and columns[0]) for columns in optional)
        for columns, use in zip(optional, used, strict=True):
            params += [list(column) for column in columns] if use else []
        cursor = connection.cursor(binary=True)
        row = cursor.execute(self._statement(used), params, prepare=True).fetchone()
        return row is not None and row[0] == 1

    def _confirm(self, connection: psycopg.Connection[Any], attempt: _Attempt) -> bool:
        """Tell whether a group of repeats and refusals only is true of the log as it is now.

        Nothing is written that could prove it. A refusal rests on what is cached; a repeat
        may be of another writer's entry, which the tree must reach before it is answered.
        """
        self._catch_up(connection)
        return not attempt.refused or self.head == attempt.group.after

    def _statement(self, used: tuple[bool, ...]) -> Any:
        """Give the writing statement with the optional inserts that a group needs."""
        if used not in self._statements:
            chosen = "".join(text for text, use in zip(_OPTIONAL_INSERTS, used, strict=True) if use)
            self._statements[used] = self.sql(_MOVE_AND_INSERT % chosen)
        return self._statements[used]

    # -- connection ------------------------------------------------------------

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            params = dict(self.datastore.pool.kwargs or {})  # type: ignore[arg-type]
            params["row_factory"] = tuple_row
            connection = psycopg.connect(**{**_LIVELY, **params, "autocommit": True})
            connection.execute("SET statement_timeout = '30s'")
            setting = connection.execute("SHOW synchronous_commit").fetchone()
            if setting is not None and setting[0] == "off":
                connection.execute("SET synchronous_commit = on")  # acknowledged means durable
            self._connection = connection
            self._current = False
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
        self._connection = None
        self._current = False

    # -- following the head ----------------------------------------------------

    def refresh(self) -> tuple[int, bytes]:
        """Catch up with other writers; give size and root of the tree as it stands.

        Raises:
            ReadOnly: the log no longer holds what this process saw in it.
            Unavailable: the database can't be reached.
        """
        with self._writing:
            try:
                self._catch_up(self._connect())
            except psycopg.Error as error:
                self._disconnect()
                raise Unavailable("the database can't be reached") from error
            return self._edge.size, self._edge.root()

    def read_tree(self, level: int, first: int, count: int) -> list[bytes]:
        """Give stored hashes of the tree: leaves at level 0, else nodes (FORMAT.md 3.3).

        Raises:
            Unavailable: the database can't be reached.
        """
        with self._writing:
            try:
                return self._read_tree(self._connect(), level, first, count)
            except psycopg.Error as error:
                self._disconnect()
                raise Unavailable("the database can't be reached") from error

    def _read_tree(
        self, connection: psycopg.Connection[Any], level: int, first: int, count: int
    ) -> list[bytes]:
        if level == 0:
            query = "SELECT leaf FROM {entries} WHERE seq > %s AND seq <= %s ORDER BY seq"
            bounds: tuple[int, ...] = (first, first + count)
        else:
            query = (
                "SELECT hash FROM {tree_nodes} WHERE idx >= %s AND idx < %s AND level = %s"
                " ORDER BY idx"
            )
            bounds = (first, first + count, level)
        cursor = connection.cursor(binary=True)
        return [row[0] for row in cursor.execute(self.sql(query), bounds, prepare=True)]

    def _catch_up(self, connection: psycopg.Connection[Any]) -> None:
        """Follow the head to where other writers have moved it."""
        row = connection.execute(self.sql("SELECT seq, leaf, recorded FROM {head}")).fetchone()
        if row is None:
            raise self._stop("the head's row is missing")
        head = Head(*row)
        if self.head is None:
            self._edge = RightEdge.load(
                head.seq, lambda *wanted: self._read_tree(connection, *wanted)
            )
        elif head != self.head:
            self._follow(connection, self.head, head)
        self.head = head
        self._current = True

    def _follow(self, connection: psycopg.Connection[Any], seen: Head, head: Head) -> None:
        query = self.sql(
            "SELECT seq, stream, version, leaf FROM {entries}"
            " WHERE seq >= %s AND seq <= %s ORDER BY seq"
        )
        cursor = connection.cursor(binary=True)
        first = max(seen.seq, 1)
        rows = cursor.execute(query, (first, head.seq)).fetchall()
        if seen.seq:
            if not rows or rows[0][0] != seen.seq or rows[0][3] != seen.leaf:
                raise self._stop(f"entry {seen.seq} is not the one this process recorded or saw")
            rows = rows[1:]
        if [r[0] for r in rows] != list(range(seen.seq + 1, head.seq + 1)):
            raise self._stop(f"entries after {seen.seq} are missing below the head {head.seq}")
        self._edge.extend([leaf for *_, leaf in rows])
        heads = {stream: (version, leaf.hex().encode()) for _, stream, version, leaf in rows}
        self.known.heads.remember(heads)

    def _stop(self, reason: str) -> ReadOnly:
        self.stopped = ReadOnly(reason, retry_after_s=300)
        _LOG.critical("recording stopped: %s", reason)
        return self.stopped

    def _check_not_stopped(self) -> None:
        # A new one each time: one that is raised again and again collects every raiser's frames.
        if self.stopped is not None:
            raise ReadOnly(self.stopped.detail, retry_after_s=self.stopped.retry_after_s)

    def stop_recording(self, reason: str) -> None:
        """Refuse everything from now on, and say why."""
        self._stop(reason)


class _GroupBuilder:
    """Places one submission after another into a group."""

    def __init__(
        self,
        group: Group,
        found: _Found,
        wrapping: Wrapping,
        stream_of: Callable[[Draft], UUID],
    ) -> None:
        self.group = group
        self.found = found
        self.wrapping = wrapping
        self.stream_of = stream_of

    def place(
        self,
        submission: Submission,
        repeats: dict[bytes, list[tuple[int, UUID, int, bytes, bytes]]],
    ) -> Recorded:
        """Place all of a submission, or raise before anything of it is placed."""
        pairs = list(zip(submission.keys, submission.events, strict=True))
        answers = {key: self._repeated(d, repeats[key]) for key, d in pairs if key in repeats}
        self._check_versions(submission.stored)
        for key, drafts in pairs:
            if key not in answers:
                self.group.accepted_keys.append(key)
                self.group.accepted_seqs.append(self.group.seq + 1)
                answers[key] = [self._draft(draft) for draft in drafts]
        stored = [self._stored(event) for event in submission.stored]
        events = [answers[key] for key in submission.keys]
        return Recorded(events=events, stored=stored, checkpoint=None)

    def _repeated(
        self, drafts: Sequence[Draft], rows: list[tuple[int, UUID, int, bytes, bytes]]
    ) -> list[Placed]:
        if len(rows) != len(drafts):
            raise _other()
        placed = []
        for draft, (seq, stream_id, version, leaf, entry) in zip(drafts, rows, strict=True):
            if not self._all_known(draft):
                raise _other()
            stream = self._stream(draft)
            if stream.id != stream_id or not same_as_recorded(
                draft,
                self.found.identities,
                stream,
                origin=self.group.origin,
                entry=entry,
                version=version,
            ):
                raise _other()
            start = entry.index(b',"recorded":"') + 13
            recorded = entry[start : start + 27].decode()
            placed.append(Placed(seq, leaf, stream_id, version, recorded, True))  # noqa: FBT003
        return placed

    def _draft(self, draft: Draft) -> Placed:
        identities = self.found.identities
        if draft.subject is not None and draft.subject not in identities:
            self._introduce(draft.subject)
        for name in draft.others:
            if name not in identities:
                self._introduce(name)
        return self.group.place_draft(draft, identities, self._stream(draft))

    def _introduce(self, name: Name) -> None:
        identity, row, key_row = self.wrapping.new(name)
        self.found.identities[name] = self.group.new_identities[name] = identity
        self.group.identity_rows.append(row)
        self.group.key_rows.append(key_row)
        self.group.heads[identity.id] = (0, None)

    def _all_known(self, draft: Draft) -> bool:
        known = self.found.identities
        return (draft.subject is None or draft.subject in known) and all(
            name in known for name in draft.others
        )

    def _stream(self, draft: Draft) -> Identity:
        if draft.subject is not None:
            return self.found.identities[draft.subject]
        stream_id = self.stream_of(draft)
        if stream_id not in self.found.keys:
            identity, row = self.wrapping.stream(stream_id)
            self.found.keys[stream_id] = self.group.new_keys[stream_id] = identity
            self.group.key_rows.append(row)
        return self.found.keys[stream_id]

    def _check_versions(self, stored: Sequence[StoredEvent]) -> None:
        """Refuse versions that aren't each stream's next: optimistic concurrency."""
        moved: dict[UUID, int] = {}
        for event in stored:
            stream = UUID(str(event.originator_id))
            version, before = self.group.heads[stream]
            last = moved.get(stream, version if before is not None else None)
            allowed = (0, 1) if last is None else (last + 1,)
            if event.originator_version not in allowed:
                raise persistence.IntegrityError(
                    f"stream {stream}: expected version {allowed[-1]}, "
                    f"found {event.originator_version}"
                )
            moved[stream] = event.originator_version

    def _stored(self, event: StoredEvent) -> int:
        stream = UUID(str(event.originator_id))
        identity = Identity(id=stream, text=str(stream).encode(), key=b"")
        return self.group.place_stored(event, identity).seq


def _other() -> Conflict:
    return Conflict(
        "another event was recorded with this source and id",
        hint="give every event an id of its own; repeat an event only unchanged",
    )


_MOVE_AND_INSERT = """
WITH moved AS (
    UPDATE {head} SET seq = %%b, leaf = %%b, recorded = %%b
    WHERE seq = %%b AND leaf = %%b RETURNING 1
), entered AS (
    INSERT INTO {entries} (seq, stream, version, topic, leaf, entry)
    SELECT %%b::bigint + u.n, u.stream, u.version, u.topic, u.leaf, u.entry
    FROM moved, unnest(%%b::uuid[], %%b::bigint[], %%b::text[], %%b::bytea[], %%b::bytea[])
        WITH ORDINALITY AS u (stream, version, topic, leaf, entry, n)
), followed AS (
    INSERT INTO {stream_heads} AS h (stream, version, leaf)
    SELECT u.* FROM moved, unnest(%%b::uuid[], %%b::bigint[], %%b::bytea[]) AS u
    ON CONFLICT (stream) DO UPDATE SET version = excluded.version, leaf = excluded.leaf
)%s
SELECT count(*) FROM moved
"""

_OPTIONAL_INSERTS = (
    """, known AS (
    INSERT INTO {accepted} (key, seq)
    SELECT u.* FROM moved, unnest(%b::bytea[], %b::bigint[]) AS u
)""",
    """, boxed AS (
    INSERT INTO {boxes} (seq, box)
    SELECT u.* FROM moved, unnest(%b::bigint[], %b::bytea[]) AS u
)""",
    """, grown AS (
    INSERT INTO {tree_nodes} (level, idx, hash)
    SELECT u.* FROM moved, unnest(%b::smallint[], %b::bigint[], %b::bytea[]) AS u
)""",
    """, named AS (
    INSERT INTO {identities} (lookup, epoch, wrapped)
    SELECT u.* FROM moved, unnest(%b::bytea[], %b::integer[], %b::bytea[]) AS u
)""",
    """, keyed AS (
    INSERT INTO {keys} (id, epoch, wrapped, name_box)
    SELECT u.id, u.epoch, u.wrapped, nullif(u.name_box, '')
    FROM moved, unnest(%b::uuid[], %b::integer[], %b::bytea[], %b::bytea[])
        AS u (id, epoch, wrapped, name_box)
)""",
)
