"""Each failure twice: the statement that sequences entries is lost unstored, and stored."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest
from eventsourcing.persistence import IntegrityError, StoredEvent
from psycopg.conninfo import make_conninfo

from ledger.errors import Unavailable
from tests.faults.standing import seqs_by_id
from tests.faults.wire import Fault, Wire, wire
from tests.fixtures.ledgers import Place, an_event, assert_ledger_sound, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ledger.service import Ledger

LOST: tuple[Fault, ...] = ("unsent", "unanswered")


@pytest.fixture
def road(place: Place, open_directory: Path) -> Iterator[Wire]:
    with psycopg.connect(place.dsn) as connection:
        info = connection.info
        server = f"{info.host}/.s.PGSQL.{info.port}"
    with wire(open_directory, server) as made:
        yield made


@pytest.fixture
def ledger(place: Place, road: Wire) -> Iterator[Ledger]:
    """A ledger whose connections take the road; entry 1 stands before anything is lost."""
    away = replace(place, dsn=make_conninfo(place.dsn, host=str(road.directory)), opened=[])
    yield away.open()
    for opened in away.opened:
        opened.close()


@pytest.fixture
def another(place: Place) -> Ledger:
    return place.open()


def the_one_entry(place: Place, event: dict[str, Any]) -> int:
    (seq,) = seqs_by_id(place)[event["id"]]
    assert_ledger_sound(place)
    return seq


@pytest.mark.parametrize("faults", [*product(LOST), *product(LOST, LOST)])
def test_a_lost_statement_neither_loses_nor_doubles_an_event(
    place: Place, road: Wire, ledger: Ledger, faults: tuple[Fault, ...]
):
    event = an_event()
    road.faults = list(faults)
    receipt = record(ledger, event)
    # Once it is stored nothing is sent again, so a second fault waits for another event.
    assert road.happened == (1 if faults[0] == "unanswered" else len(faults))
    assert the_one_entry(place, event) == receipt["seq"] == 2
    assert not receipt["repeated"]
    following = record(ledger, an_event())
    assert following["seq"] == 3
    assert following["version"] == 2
    assert_ledger_sound(place)


@pytest.mark.parametrize("fault", LOST)
def test_another_writer_may_move_the_head_while_an_answer_is_lost(
    place: Place, road: Wire, another: Ledger, ledger: Ledger, fault: Fault
):
    event = an_event()
    road.faults = [fault]
    road.meanwhile = lambda: [record(another, an_event()) for _ in range(3)]
    receipt = record(ledger, event)
    assert the_one_entry(place, event) == receipt["seq"] == (5 if fault == "unsent" else 2)
    assert not receipt["repeated"]
    assert receipt["version"] == (4 if fault == "unsent" else 1)
    assert record(ledger, an_event())["seq"] == 6
    assert assert_ledger_sound(place) == 6


@pytest.mark.parametrize("case", list(product(LOST, ("moved", "as it was"))))
def test_an_aggregate_saved_over_a_lost_answer_is_no_conflict(
    place: Place, road: Wire, another: Ledger, ledger: Ledger, case: tuple[Fault, str]
):
    fault, moved = case
    stream = uuid4()
    stored = [StoredEvent(stream, n, "topic", b'{"n":%d}' % n) for n in (1, 2)]
    road.faults = [fault]
    if moved == "moved":
        road.meanwhile = lambda: record(another, an_event())
    positions = ledger.recorder.insert_events(stored)
    assert positions == ([3, 4] if (moved, fault) == ("moved", "unsent") else [2, 3])
    assert list(ledger.recorder.select_events(stream)) == stored
    with pytest.raises(IntegrityError):
        ledger.recorder.insert_events(stored[1:])
    assert_ledger_sound(place)


def test_a_statement_that_arrives_late_finds_the_head_moved_and_does_nothing(
    place: Place, road: Wire, ledger: Ledger
):
    event = an_event()
    road.faults = ["held"]
    receipt = record(ledger, event)
    assert (receipt["seq"], receipt["repeated"]) == (2, False)
    record(ledger, an_event(subject="crm:C-2"))
    assert road.held.pop().deliver() == 0
    assert the_one_entry(place, event) == 2
    assert record(ledger, an_event())["seq"] == 4
    assert_ledger_sound(place)


def test_a_statement_that_arrives_just_before_its_second_try_is_recognised(
    place: Place, road: Wire, ledger: Ledger
):
    event = an_event()
    delivered = []
    road.faults = ["held"]
    road.before_writing = [lambda: None, lambda: delivered.append(road.held.pop().deliver())]
    receipt = record(ledger, event)
    assert delivered == [1]
    assert the_one_entry(place, event) == receipt["seq"] == 2
    assert not receipt["repeated"]
    assert record(ledger, an_event())["version"] == 2
    assert assert_ledger_sound(place) == 3


def test_a_late_statement_is_recognised_behind_other_writers_entries(
    place: Place, road: Wire, another: Ledger, ledger: Ledger
):
    event = an_event()
    stream = uuid4()

    def deliver() -> None:
        assert road.held.pop().deliver() == 1
        record(another, an_event())

    road.faults = ["held"]
    road.before_writing = [lambda: None, deliver]
    positions = ledger.recorder.insert_events([StoredEvent(stream, 1, "topic", b"{}")])
    assert positions == [2]
    assert record(ledger, event)["seq"] == 4
    assert the_one_entry(place, event) == 4


def test_an_event_that_landed_after_the_ledger_gave_up_is_answered_as_a_repeat(
    place: Place, road: Wire, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ledger.recorder.GIVE_UP_S", -1.0)
    event = an_event()
    road.faults = ["held"]
    with pytest.raises(Unavailable):
        record(ledger, event)
    monkeypatch.undo()
    assert road.held.pop().deliver() == 1
    receipt = record(ledger, event)
    assert (receipt["seq"], receipt["repeated"]) == (2, True)
    assert receipt["checkpoint"] is not None
    assert the_one_entry(place, event) == 2


def test_only_a_group_lost_as_a_whole_is_sent_again(place: Place, road: Wire, ledger: Ledger):
    events = [an_event(subject=f"crm:C-{n % 3}") for n in range(9)]
    known = record(ledger, events[0])
    road.faults = ["unanswered"]
    receipts = record(ledger, *events)["receipts"]
    assert [r["repeated"] for r in receipts] == [True] + [False] * 8
    assert [r["seq"] for r in receipts] == [known["seq"], *range(3, 11)]
    assert {UUID(r["record"]) for r in receipts} == {
        ledger.find_record(f"crm:C-{n}") for n in range(3)
    }
    assert assert_ledger_sound(place) == 10
