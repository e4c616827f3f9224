"""The one core of both clients: a bounded buffer, and a writer that commits in groups.

`emit` hands an event over in memory and returns; the writer's thread stores all that was
handed over meanwhile in one transaction, flushed to the disk once. An event is *stored*
from then on. A caller that must not go on before that waits on its ticket.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from ledger.client.archive import Archive
from ledger.client.buffer import Bell, Buffer
from ledger.client.database import Database
from ledger.client.health import Trouble
from ledger.client.outbox import Outbox, OutboxFull
from ledger.client.refusals import Refusals
from ledger.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledger.client.composing import Composed
    from ledger.client.health import Place
    from ledger.client.limits import Limits
    from ledger.client.outbox import Numbered

_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.05, 1.0


class Engine:
    """Buffer, writer and outbox. Its lock is never held while the outbox's is taken."""

    def __init__(self, place: Place, limits: Limits) -> None:
        """Open the outbox.

        Raises:
            Misconfigured: the outbox is somebody else's.
            Unavailable: it can't be opened.
        """
        self.limits = limits
        self.durable = place.path is not None
        self.database = Database(place)
        self.outbox = Outbox(self.database, limits.outbox_bytes)
        self.refusals = Refusals(self.outbox)
        self.archive = Archive(self.database, limits.receipts_kept)
        self.trouble: Trouble | None = None
        self.number = self.stored = self.outbox.last_number
        self.generation = 0
        self.closing = self.closed = self.forked = False
        self._lock = threading.Lock()
        self._bell = Bell()
        self._changed = threading.Condition(self._lock)
        self._buffer = Buffer(limits)
        self._idle = self._abandoned = False
        self._callbacks: list[tuple[int, Callable[[], object]]] = []
        self._after_store: Callable[[], None] = _nothing
        self._writer = threading.Thread(target=self._write, name="ledger-writer", daemon=True)
        _engines.add(self)

    def start(self, after_store: Callable[[], None]) -> None:
        """Begin to write; `after_store` is called after each commit."""
        self._after_store = after_store
        self._writer.start()

    @property
    def buffered(self) -> int:
        """How many events aren't stored yet."""
        return len(self._buffer)

    # -- the caller's side -----------------------------------------------------

    def offer(self, event: Composed, wait_s: float) -> int:
        """Take an event into the buffer, within a time; give its place in the outbox.

        Raises:
            Misconfigured: the process was forked since.
            Unavailable: the buffer stayed full, or the client is closed. The event isn't taken.
        """
        if self.forked:
            # Neither threads nor locks came along, and two processes would number alike.
            raise Misconfigured("this client was made before a fork: make one in each process")
        size_bytes = event.size_bytes
        with self._lock:
            has_room = self._buffer.has_room(size_bytes)
            if not has_room:
                self._changed.wait_for(
                    lambda: self.closing or self._buffer.has_room(size_bytes), timeout=wait_s
                )
                has_room = self._buffer.has_room(size_bytes)
            if self.closing:
                raise Unavailable("the client is closed")
            if not has_room:
                raise Unavailable(
                    f"{len(self._buffer)} events wait to be stored, and more is not allowed"
                    + ("" if self.trouble is None else f": {self.trouble.detail}")
                )
            self.number += 1
            self._buffer.append(self.number, event, size_bytes)
            if self._idle:
                self._idle = False
                self._bell.ring()
            return self.number

    def wait_stored(self, number: int, timeout_s: float | None) -> None:
        """Wait until an event is stored.

        Raises:
            Unavailable: it isn't, yet; it stays in memory and goes on being tried.
        """
        with self._lock:
            self._changed.wait_for(lambda: self._is_decided(number), timeout=timeout_s)
            self._require_stored(number)

    def when_decided(self, number: int, callback: Callable[[], object]) -> None:
        """Call back, from any thread, once an event is stored or can't be for now."""
        with self._lock:
            decided = self._is_decided(number)
            if not decided:
                self._callbacks.append((number, callback))
        if decided:
            callback()

    def forget(self, callback: Callable[[], object]) -> None:
        """Call back no more."""
        with self._lock:
            self._callbacks = [each for each in self._callbacks if each[1] is not callback]

    def require_stored(self, number: int) -> None:
        """Check that an event is stored; raises as `wait_stored` does."""
        with self._lock:
            self._require_stored(number)

    def _is_decided(self, number: int) -> bool:
        return self.stored >= number or self.trouble is not None or self._abandoned

    def _require_stored(self, number: int) -> None:
        if self.stored < number:
            reason = "" if self.trouble is None else f": {self.trouble.detail}"
            raise Unavailable(f"the event isn't stored yet{reason}")

    def wait_change(self, seen: int, deadline: float | None) -> bool:
        """Wait until anything was stored or settled since generation `seen`; False: too late."""
        with self._lock:
            rest_s = None if deadline is None else deadline - time.monotonic()
            return self._changed.wait_for(
                lambda: self.generation != seen or self._abandoned, timeout=rest_s
            )

    def settled(self) -> None:
        """Say that events left the outbox, or that none will."""
        with self._lock:
            self.generation += 1
            self._bell.ring()
            self._changed.notify_all()

    # -- the writer's side -----------------------------------------------------

    def _write(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while taken := self._take():
            trouble = self._store(taken)
            called = self._note(taken, trouble)
            for callback in called:
                callback()
            if trouble is None:
                self._after_store()
                pause_s = _FIRST_PAUSE_S
                continue
            # Room in the outbox, or the end, cuts the pause short.
            self._bell.wait(pause_s)
            pause_s = min(_MOST_PAUSE_S, pause_s * 2)

    def _take(self) -> list[Numbered]:
        """Wait for events; give the oldest, which stay in the buffer until they are stored."""
        while True:
            with self._lock:
                if self._abandoned or (self.closing and not self._buffer):
                    return []
                if self._buffer:
                    return self._buffer.group()
                self._idle = True
            self._bell.wait()

    def _store(self, taken: list[Numbered]) -> Trouble | None:
        try:
            self.outbox.store(taken)
        except OutboxFull as error:
            return Trouble(code="outbox-full", detail=str(error))
        except Unavailable as error:
            return Trouble(code="outbox", detail=str(error))
        except Exception as error:  # noqa: BLE001 - a writer that died would lose events
            return Trouble(code="fault", detail=f"storing failed: {type(error).__name__}")
        return None

    def _note(self, taken: list[Numbered], trouble: Trouble | None) -> list[Callable[[], object]]:
        """Take what is stored out of the buffer; give whom to call back."""
        with self._lock:
            self.trouble = trouble
            if trouble is None:
                self._buffer.drop(len(taken))
                self.stored = taken[-1].number
            self.generation += 1
            called = [call for number, call in self._callbacks if self._is_decided(number)]
            if called:
                self._callbacks = [
                    each for each in self._callbacks if not self._is_decided(each[0])
                ]
            self._changed.notify_all()
            return called

    # -- the end ---------------------------------------------------------------

    def finish(self, timeout_s: float) -> int:
        """Take no more, store what was taken, end the writer; give how many couldn't be stored."""
        with self._lock:
            self.closing = True
            self._bell.ring()
            self._changed.notify_all()
        if self._writer.is_alive():
            self._writer.join(timeout_s)
        with self._lock:
            self._abandoned = True
            self._bell.ring()
            self._changed.notify_all()
            self.generation += 1
        if self._writer.is_alive():
            self._writer.join(timeout_s)
        self.closed = True
        return len(self._buffer)


def _nothing() -> None:
    """Do nothing."""


def _mark_forked() -> None:
    for engine in _engines:
        engine.forked = True


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
os.register_at_fork(after_in_child=_mark_forked)
