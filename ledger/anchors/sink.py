"""What a place outside must do to take checkpoints, and what it is told.

A sink does one thing: it takes a signed checkpoint and gives evidence that it has it.
When to try, how often to repeat, what is kept and what is recorded is
`ledger.anchors.anchoring`'s business, the same for every sink.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from ledger.errors import SinkFailed, SplitView

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledger.core.note import Verifier

__all__ = ["Anchored", "Due", "Sink", "SinkFailed", "SplitView", "Target"]


class Due(NamedTuple):
    """A signed checkpoint that is to be anchored."""

    size: int
    """Entries that it covers."""
    root: bytes
    """The tree's root, 32 bytes."""
    note: str
    """The C2SP signed note."""


class Anchored(NamedTuple):
    """What a sink gave back."""

    evidence: bytes
    """Bytes that show it to somebody who doesn't trust us; kept in the table `anchors`."""
    media_type: str
    """What those bytes are."""
    lines: str = ""
    """Signature lines that join those of the checkpoint's note where it is kept."""


class Target(NamedTuple):
    """The ledger that a sink works for."""

    ledger: str
    """Its local name."""
    origin: str
    """Its name everywhere, the checkpoints' origin."""
    verifier: Verifier
    """Checks its checkpoints."""
    read_tree: Callable[[int, int, int], list[bytes]]
    """Gives stored hashes of its tree by level, first and count, for proofs."""


class Sink(Protocol):
    """A place outside. Only one thread ever calls it.

    Made by `make_KIND(table: SinkTable, target: Target) -> Sink`, which takes what it
    needs from one table of the settings (`ledger.anchors.settings`).
    """

    @property
    def name(self) -> str:
        """Its name in the settings: `[a-z][a-z0-9-]{0,31}`, unique."""

    @property
    def kind(self) -> str:
        """A code of the vocabulary `anchor_kind`."""

    def anchor(self, due: Due) -> Anchored:
        """Bring a checkpoint there; the same one may come again after a crash.

        Raises:
            SinkFailed: it isn't there, or nobody knows whether it is.
            SplitView: it contradicts what is there already.
        """

    def close(self) -> None:
        """Let go of connections; called by the thread that called `anchor`, at its end."""
