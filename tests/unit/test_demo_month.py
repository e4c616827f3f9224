"""The invented month: the same for a seed, admitted whole, with every stage a service writes."""

from __future__ import annotations

import json
import os
import subprocess
import unicodedata
from pathlib import Path

import pytest

from ledger.admission import admit
from ledger.drafts import Draft, Emitter
from ledger.events.taxonomy import TYPES, Writer
from scripts.demo_ledger import people
from scripts.demo_ledger.company import CUSTOMERS, play
from scripts.demo_ledger.month import LAST_MOMENT, Event, closing_events

EMITTER = Emitter(
    credential="ck_aaaaaaaaaa",
    by=Writer.SERVICE,
    sources=("crm",),
    namespaces=("crm",),
    types=frozenset(),
)
SCRIPT = Path(__file__).parents[2] / "scripts" / "demo"
NOT_PLAYED = {"approval.requested", "approval.decided", "record.unlinked"}


def whole(seed: int) -> list[Event]:
    events = play(seed)
    seqs = {event["id"]: number for number, event in enumerate(events, 2)}
    return [*events, *closing_events(events, seqs, seed)]


def drafts(event: Event) -> list[Draft]:
    return admit(json.dumps(event, ensure_ascii=False).encode(), EMITTER, origin=b"ledger.test/d")


def clear(draft: Draft) -> str:
    """Give all that would stand in the entry."""
    return b"".join(each for each in draft.pieces if isinstance(each, bytes)).decode()


def test_a_seed_gives_the_same_month_and_another_seed_shares_nothing_with_it():
    assert whole(7) == whole(7)
    ids = [{event["id"] for event in whole(seed)} for seed in (7, 8)]
    assert not ids[0] & ids[1]
    subjects = [{event.get("subject") for event in whole(seed)} - {None} for seed in (7, 8)]
    assert not subjects[0] & subjects[1]


@pytest.mark.parametrize("seed", [0, 1, 7, 999_999])
def test_the_ledger_admits_the_whole_month_and_lacks_nothing(seed: int):
    events = whole(seed)
    assert 300 <= len(events) <= 1_500
    assert len({event["id"] for event in events}) == len(events)
    for event in events:
        for draft in drafts(event):
            assert draft.incomplete == (), event


def test_every_type_that_a_service_may_write_happens():
    own = {each.name for each in TYPES.values() if Writer.SERVICE in each.writers}
    assert {event["type"] for event in whole(1)} == own - NOT_PLAYED


def test_each_source_numbers_its_events_without_a_gap_and_reports_the_last():
    events = whole(3)
    by_source: dict[str, list[int]] = {}
    for event in events:
        if "sequence" in event["data"]:
            by_source.setdefault(event["source"], []).append(event["data"]["sequence"])
    for numbers in by_source.values():
        assert numbers == list(range(1, len(numbers) + 1))
    reported = {
        e["source"]: e["data"]["last_sequence"] for e in events if e["type"] == "source.reported"
    }
    assert reported == {source: len(numbers) for source, numbers in by_source.items()}


def test_it_all_happens_within_one_month_in_the_order_of_time():
    times = [event["time"] for event in play(5)]
    assert times == sorted(times)
    assert times[0].startswith("2025-11-0")
    assert times[-1] <= LAST_MOMENT.isoformat()


def test_no_name_or_note_stands_in_clear():
    secrets = [*people.CUSTOMERS, *people.NOTES, *people.STREETS, *people.FRONT, *people.CARE]
    for event in whole(2):
        for draft in drafts(event):
            assert not [each for each in secrets if each in clear(draft)]


def test_the_names_are_hard_on_software():
    letters = "".join(people.CUSTOMERS)
    assert len(people.CUSTOMERS) == CUSTOMERS == 40
    assert all(each in letters for each in "𠮷㛃䶮ǅø")
    assert sum(ord(each) > 0xFFFF for each in letters) >= 8
    assert any(unicodedata.bidirectional(each) in {"R", "AL"} for each in letters)


def test_the_script_is_executable_and_plain_shell():
    assert os.access(SCRIPT, os.X_OK)
    assert SCRIPT.read_text(encoding="utf-8").startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", SCRIPT], check=True)
