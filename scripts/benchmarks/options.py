"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asked for."""

    quick: bool
    """Fewer and shorter rounds."""
    entries: int
    """Entries of the large ledger."""

    @property
    def rounds(self) -> int:
        """Pairs that a ratio is the median of."""
        return 3 if self.quick else 7

    @property
    def seconds(self) -> float:
        """How long one rate is taken."""
        return 1.0 if self.quick else 3.0
