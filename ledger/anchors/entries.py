"""Record what happened to checkpoints: anchored here, failing there, working again.

Each entry's id is made from what it tells of, so that a process that was killed between
recording and remembering it can do it again without doing it twice.
"""

from __future__ import annotations

import hashlib
from datetime import UTC
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from ledger.core.entry import format_time

if TYPE_CHECKING:
    from ledger.anchors.store import EvidenceRow, FailingRow
    from ledger.service import Ledger


class AnchorEntries:
    """Writes a ledger's entries about its own anchors."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def anchored(self, row: EvidenceRow) -> int:
        """Tell that a checkpoint is held outside; give the entry's position.

        Raises:
            Unavailable: it could not be recorded.
        """
        proof = hashlib.sha256(row.evidence).hexdigest()
        data = {
            "size": row.size,
            "root": row.root.hex(),
            "anchor": row.kind,
            "anchor_name": row.sink,
            "proof_sha256": proof,
        }
        return self._append("ledger.anchored", data, f"{row.sink} {row.size}")

    def failed(self, row: FailingRow) -> int:
        """Tell that a sink fails, and with which code; give the entry's position.

        Raises:
            Unavailable: it could not be recorded.
        """
        return self._operated("anchor_failed", row, {"reason": row.reason})

    def recovered(self, row: FailingRow) -> int:
        """Tell that a sink works again whose failure was told of; give the entry's position.

        Raises:
            Unavailable: it could not be recorded.
        """
        return self._operated("anchor_recovered", row, {})

    def _operated(self, operation: str, row: FailingRow, more: dict[str, Any]) -> int:
        data = {"operation": operation, "detail": {"sink": row.sink, **more}}
        since = format_time(row.since.astimezone(UTC)).decode()
        return self._append("ledger.operated", data, f"{operation} {row.sink} {since}")

    def _append(self, type_name: str, data: dict[str, Any], what: str) -> int:
        """Record an entry whose id says what it tells of; a second time it is the first one."""
        event_id = str(uuid5(NAMESPACE_URL, f"{self._ledger.origin}#{type_name} {what}"))
        return self._ledger.append_own(type_name, data, event_id=event_id).seq
