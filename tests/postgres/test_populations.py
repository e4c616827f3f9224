"""Events that count those whom they can't name stand in their source's own stream."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest

from ledger.core.entry import ledger_stream
from ledger.errors import Conflict, Malformed
from ledger.events.taxonomy import TYPES, smallest_content
from tests.fixtures.ledgers import (
    ORIGIN,
    Place,
    an_emitter,
    an_event,
    assert_ledger_sound,
    record,
)

if TYPE_CHECKING:
    from ledger.service import Ledger

COUNTED = sorted(name for name, known in TYPES.items() if "population.count" in known.members)


def counted(**changes: Any) -> dict[str, Any]:
    population = {"count": 3_000_000, "digest": "made of names", "query": "SELECT * FROM people"}
    data = {"actor": {"id": "e0117"}, "fields": ["phone"], "population": population}
    return {**an_event(subject=None, data=data), **changes}


def entry_at(ledger: Ledger, seq: int) -> dict[str, Any]:
    (row,) = ledger.entries(seq, seq, 1)
    found: dict[str, Any] = json.loads(row.entry)
    return found


def test_a_population_stands_in_its_sources_own_stream(place: Place, ledger: Ledger):
    receipt = record(ledger, counted(source="crm/web"))
    entry = entry_at(ledger, receipt["seq"])
    expected = uuid5(NAMESPACE_URL, f"{ORIGIN}#source:crm/web")
    assert UUID(entry["stream"]) == UUID(receipt["record"]) == expected
    assert ledger_stream(ORIGIN, "source:crm/web") == expected
    assert (entry["stream_kind"], entry["version"]) == ("ledger", 1)
    assert entry["event"]["data"]["population"] == {"count": 3_000_000}
    assert list(entry["sealed"]) == ["data.population.digest", "data.population.query"]
    assert assert_ledger_sound(place) == 2


def test_all_types_of_one_source_share_its_stream_and_sources_share_none(
    place: Place, ledger: Ledger
):
    sent = [
        counted(),
        counted(type="record.exported"),
        counted(source="crm"),
        counted(source="crm/batch"),
        an_event(),
    ]
    receipts = record(ledger, *sent)["receipts"]
    streams = [receipt["record"] for receipt in receipts]
    assert streams[0] == streams[1] == streams[2]
    assert len(set(streams)) == 3
    assert [receipt["version"] for receipt in receipts] == [1, 2, 3, 1, 1]
    assert assert_ledger_sound(place) == 6


@pytest.mark.parametrize("name", COUNTED)
def test_every_type_that_counts_may_come_without_subject(ledger: Ledger, name: str):
    content = {**smallest_content(TYPES[name]), "population": {"count": 7}}
    receipt = record(ledger, counted(type=name, data=content))
    assert UUID(receipt["record"]) == ledger_stream(ORIGIN, "source:crm")


@pytest.mark.parametrize(
    "population", [None, {}, {"query": "SELECT 1"}, 7, [{"count": 1}], {"Count": 1}]
)
def test_without_a_count_a_subject_is_needed(place: Place, ledger: Ledger, population: Any):
    sent = counted()
    sent["data"]["population"] = population
    with pytest.raises(Malformed, match=r"data\.population\.count") as refusal:
        record(ledger, sent)
    assert refusal.value.pointer == "/subject"
    assert assert_ledger_sound(place) == 1


@pytest.mark.parametrize("count", [-1, 1.5, "many", None, True, 2**53])
def test_a_count_is_a_number(ledger: Ledger, count: Any):
    sent = counted()
    sent["data"]["population"]["count"] = count
    with pytest.raises(Malformed) as refusal:
        record(ledger, sent)
    assert refusal.value.pointer == "/data/population/count"


def test_a_type_that_can_not_count_needs_its_subject(ledger: Ledger):
    sent = counted(type="consent.given", data={**counted()["data"], "purposes": ["marketing"]})
    with pytest.raises(Malformed) as refusal:
        record(ledger, sent)
    assert refusal.value.pointer == "/subject"
    assert "population" not in refusal.value.detail


def test_with_a_subject_a_count_belongs_to_that_record(ledger: Ledger):
    receipt = record(ledger, counted(subject="crm:C-1"))
    assert UUID(receipt["record"]) == ledger.find_record("crm:C-1")


def test_a_repeat_is_known_and_another_query_under_its_id_is_a_conflict(
    place: Place, ledger: Ledger
):
    sent = counted()
    first = record(ledger, sent)
    place.close(ledger)
    again = place.open()
    assert {**record(again, sent), "checkpoint": ""} == {
        **first,
        "checkpoint": "",
        "repeated": True,
    }
    other = json.loads(json.dumps(sent))
    other["data"]["population"]["query"] = "SELECT 1"
    with pytest.raises(Conflict):
        record(again, other)
    assert assert_ledger_sound(place) == 2


def test_a_second_process_finds_the_sources_stream_and_its_key(place: Place, ledger: Ledger):
    other = place.open()
    for number in range(4):
        record((ledger, other)[number % 2], counted(), an_event(subject=f"crm:{number}"))
    assert assert_ledger_sound(place) == 9


def test_more_sources_than_are_remembered_stay_apart(place: Place, ledger: Ledger):
    emitter = an_emitter(sources=("crm",))
    sent = [counted(source=f"crm/{number}") for number in range(5_000)]
    receipts = record(ledger, *sent, emitter=emitter)["receipts"]
    assert len({receipt["record"] for receipt in receipts}) == 5_000
    again = record(ledger, *(counted(source=f"crm/{n}") for n in (0, 4_999)), emitter=emitter)
    assert [receipt["version"] for receipt in again["receipts"]] == [2, 2]
    assert assert_ledger_sound(place) == 5_003
