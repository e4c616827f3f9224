"""Following other writers, while this one hands its tree to the notary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fixtures.ledgers import an_event, record

if TYPE_CHECKING:
    from tests.fixtures.ledgers import Place


def test_an_edge_handed_out_keeps_its_size_and_root_while_others_write(place: Place):
    """A size with another size's root, signed once, would stop the ledger for good."""
    mine, other = place.open(), place.open()
    record(mine, an_event())
    edge = mine.recorder._following.edge
    before = edge.size, edge.root()
    record(other, an_event(), an_event())
    size, _ = mine.recorder.refresh()
    assert size == before[0] + 2
    assert (edge.size, edge.root()) == before
