"""The one place where the shell meets the projections of a ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ledger.control import LedgerRow


class Standing(NamedTuple):
    """How far a view has come."""

    name: str
    position: int
    """Number of the last entry it folded."""
    failed: bool
    """Whether it stands still because of an entry it could not fold."""


class Views:
    """The views of one ledger: their runners, and what is asked of them."""

    def __init__(self, row: LedgerRow, dsn: str) -> None:
        self._row = row
        self._dsn = dsn

    def start(self) -> None:
        """Begin to fold."""

    def close(self) -> None:
        """Stop folding."""

    def standing(self) -> list[Standing]:
        """Tell how far each view has come."""
        return []
