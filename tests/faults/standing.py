"""What stands in a log, by what senders know of it."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fixtures.ledgers import Place


def seqs_by_id(place: Place) -> dict[str, list[int]]:
    """Give the positions of every emitter's event, by its id."""
    found = defaultdict(list)
    with place.connect() as connection:
        for seq, raw in connection.execute("SELECT seq, entry FROM entries ORDER BY seq"):
            entry = json.loads(raw)
            if entry["emitter"]["by"] == "service":
                found[entry["event"]["id"]].append(seq)
    return dict(found)


def assert_each_stands_once(place: Place, receipts: list[dict[str, Any]]) -> None:
    """Check that every receipt tells the one position of its event."""
    standing = seqs_by_id(place)
    for receipt in receipts:
        assert standing[receipt["id"]] == [receipt["seq"]]


def assert_covered_or_pending(receipts: list[dict[str, Any]]) -> None:
    for receipt in receipts:
        if "checkpoint_pending" in receipt:
            assert "size" not in receipt
        else:
            assert receipt["size"] >= receipt["seq"]
