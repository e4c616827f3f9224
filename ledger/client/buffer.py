"""What was emitted and isn't stored yet, in bounds; and the bell that wakes its writer.

Nothing here locks: the engine's lock is held around it.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from ledger.client.outbox import Numbered

if TYPE_CHECKING:
    from ledger.client.composing import Composed
    from ledger.client.limits import Limits

GROUP_BYTES = 512 * 1024
"""Most bytes of events that one transaction stores; a larger event goes alone."""


class Buffer:
    """Events in the order of emitting, which is that of storing."""

    def __init__(self, limits: Limits) -> None:
        self._most, self._most_bytes = limits.buffer_events, limits.buffer_bytes
        self._events: deque[Numbered] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def has_room(self, size_bytes: int) -> bool:
        """Tell whether an event can be taken; the first can, however large."""
        return not self._events or (
            len(self._events) < self._most and self._bytes + size_bytes <= self._most_bytes
        )

    def append(self, number: int, event: Composed, size_bytes: int) -> None:
        """Take an event."""
        self._events.append(Numbered(number, event))
        self._bytes += size_bytes

    def group(self) -> list[Numbered]:
        """Give the oldest events, for one transaction; they stay until `drop`."""
        group: list[Numbered] = []
        size_bytes = 0
        for each in self._events:
            size_bytes += each.event.size_bytes
            if group and size_bytes > GROUP_BYTES:
                break
            group.append(each)
        return group

    def drop(self, count: int) -> None:
        """Let the oldest go, since they are stored."""
        for _ in range(count):
            self._bytes -= self._events.popleft().event.size_bytes


class Bell:
    """Wakes one thread; a fifth of the time that `threading.Condition` takes to do so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the thread, or let its next wait end at once. Only one may ring at a time."""
        if self._lock.locked():
            self._lock.release()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until it rings; it can have rung for something that is done already."""
        self._lock.acquire(timeout=-1 if timeout_s is None else timeout_s)
