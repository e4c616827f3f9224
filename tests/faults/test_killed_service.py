from __future__ import annotations

from tests.faults.recording_process import recording
from tests.faults.standing import assert_covered_or_pending, assert_each_stands_once, seqs_by_id
from tests.fixtures.ledgers import Place, an_event, assert_ledger_sound, record


def test_a_service_killed_in_mid_load_has_lost_nothing_it_acknowledged(place: Place):
    for at_least in (40, 400):
        with recording(place) as (service,):
            service.tell("load 8")
            receipts = [service.answer() for _ in range(at_least)]
            receipts += service.kill()
        assert not [r for r in receipts if "failed" in r]
        assert_covered_or_pending(receipts)
        assert_each_stands_once(place, receipts)
        ledger = place.open()
        assert ledger.recorder.stopped is None
        size = assert_ledger_sound(place)
        assert size >= len(receipts)
        again = record(ledger, an_event())
        assert again["seq"] == size + 1
        place.close(ledger)
    assert all(len(seqs) == 1 for seqs in seqs_by_id(place).values())


def test_who_repeats_what_a_killed_service_never_answered_gets_one_entry(place: Place):
    events = [an_event(subject=f"crm:C-{n % 5}") for n in range(200)]
    with recording(place) as (service,):
        import json

        service.tell("ingest " + json.dumps(events))
        service.answer()
        answered = service.kill()
    ledger = place.open()
    before = seqs_by_id(place)
    for start in range(0, len(events), 50):
        batch = events[start : start + 50]
        for event, receipt in zip(batch, record(ledger, *batch)["receipts"], strict=True):
            assert receipt["repeated"] == (event["id"] in before)
    assert_each_stands_once(place, [a for a in answered if "done" not in a])
    assert {len(seqs) for seqs in seqs_by_id(place).values()} == {1}
    assert assert_ledger_sound(place) == len(events) + 1
