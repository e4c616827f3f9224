"""Count witnesses: a checkpoint counts as witnessed once enough of them cosigned it.

One witness can be bribed, stolen or down. Each is a sink of its own, with its own failures;
what they give for the same checkpoint stands under one note.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ledger.anchors.witness import WitnessSink
from ledger.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from ledger.anchors.sink import Sink
    from ledger.anchors.store import AnchorStore

KIND = WitnessSink.kind


class Witnessed(NamedTuple):
    """How a ledger stands with all its witnesses together."""

    quorum: int
    """How many of them must have cosigned a checkpoint."""
    named: int
    """How many the settings name."""
    working: int
    """How many of those don't fail."""
    size: int
    """Entries covered by the newest checkpoint that a quorum cosigned; 0 for none."""
    reached: datetime | None
    """When the last that was needed cosigned it."""

    @property
    def failing(self) -> bool:
        """Whether too few of them work."""
        return self.working < self.quorum


def count_witnesses(quorum: int, sinks: Iterable[Sink], store: AnchorStore) -> Witnessed | None:
    """Say how a ledger's witnesses stand together; None for no witness, or no quorum of them.

    Raises:
        Unavailable: the database can't be reached.
    """
    names = [sink.name for sink in sinks if sink.kind == KIND]
    if not quorum or not names:
        return None
    failing = {row.sink for row in store.failing()}
    size, reached = store.newest_witnessed(names, quorum) or (0, None)
    return Witnessed(quorum, len(names), len(set(names) - failing), size, reached)


def require_own_keys(sinks: Iterable[Sink]) -> None:
    """Check that no key stands for two witnesses: one could make up a quorum alone.

    Raises:
        Misconfigured: one does.
    """
    owners: dict[bytes, str] = {}
    for sink in sinks:
        for verifier in sink.verifiers if isinstance(sink, WitnessSink) else ():
            owner = owners.setdefault(verifier.public_key, sink.name)
            if owner != sink.name:
                raise Misconfigured(f"witnesses {owner} and {sink.name} have the same key")
