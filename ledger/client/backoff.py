"""Pauses between tries: they double, up to a bound, and are drawn at random below it.

Full jitter: many emitters that lost one ledger don't all come back in the same moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_RETRY_AFTER_S = 3_600.0
"""Longest wish of a server that is honoured; more would be silence on its word alone."""


class Backoff:
    """Counts failures in a row and says how long to wait after each."""

    def __init__(self, first_s: float, most_s: float, random: Callable[[], float]) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._random = random
        self.failures = 0

    def failed(self, retry_after_s: float | None = None) -> float:
        """Give the pause in seconds: never less than the server asked for."""
        bound_s = min(self._most_s, self._first_s * 2.0 ** min(self.failures, 60))
        self.failures += 1
        return min(retry_after_s or 0.0, MAX_RETRY_AFTER_S) + bound_s * self._random()

    def succeeded(self) -> None:
        """Begin anew."""
        self.failures = 0
