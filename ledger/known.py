"""What the writer remembers of the database, bounded.

Everything here was true at some head. A successful compare-and-set of that head
proves that it still is; a lost one means catching up first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from uuid import UUID

    from ledger.identities import Identity, Name

_K = TypeVar("_K")
_V = TypeVar("_V")

MAX_KNOWN = 50_000
"""Identities, stream heads and stream keys kept in memory, each."""


class Bounded(dict[_K, _V], Generic[_K, _V]):
    """A dictionary that forgets what it was given first."""

    def remember(self, items: dict[_K, _V]) -> None:
        """Take new values, dropping the oldest past the bound."""
        self.update(items)
        for key in list(self)[: len(self) - MAX_KNOWN] if len(self) > MAX_KNOWN else ():
            del self[key]


class Known:
    """Caches of the writing recorder."""

    def __init__(self) -> None:
        self.identities: Bounded[Name, Identity] = Bounded()
        self.keys: Bounded[UUID, Identity] = Bounded()
        self.heads: Bounded[UUID, tuple[int, bytes | None]] = Bounded()
