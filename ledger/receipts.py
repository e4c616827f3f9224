"""Write what a sender gets for events that are recorded (README.md, "Receipts")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.drafts import Draft
    from ledger.sequencing import Placed
    from ledger.submission import Recorded


def write_receipt(
    events: Sequence[Sequence[Draft]], recorded: Recorded, *, many: bool, pending: str
) -> tuple[int, bytes]:
    """Give the HTTP status and the receipt as JSON.

    Args:
        events: the drafts of each event, in the order they were sent.
        recorded: where their entries stand.
        many: whether an array was sent.
        pending: where to fetch a checkpoint that is still to come.
    """
    placed_events = list(zip(events, recorded.events, strict=True))
    receipts = [event_receipt(drafts, placed) for drafts, placed in placed_events]
    document: dict[str, Any] = {"receipts": receipts} if many else receipts[0]
    document["checkpoint"] = recorded.checkpoint
    if recorded.checkpoint is None:
        document["checkpoint_pending"] = pending
    fresh = any(not placed[0].repeated for placed in recorded.events)
    return 201 if fresh else 200, msgspec.json.encode(document)


def event_receipt(drafts: Sequence[Draft], placed: Sequence[Placed]) -> dict[str, Any]:
    """Give one event's receipt, without the checkpoint that covers it."""
    entries = [
        {
            "record": str(each.stream),
            "seq": each.seq,
            "leaf": each.leaf.hex(),
            "version": each.version,
            "recorded": each.recorded,
        }
        for each in placed
    ]
    document: dict[str, Any] = {"id": drafts[0].event_id.decode()}
    if len(entries) == 1:
        document.update(entries[0])
    else:
        document["entries"] = entries
    document["incomplete"] = drafts[0].incomplete
    document["repeated"] = placed[0].repeated
    return document
