from __future__ import annotations

import json
import time
from collections import defaultdict

from tests.faults.recording_process import Recording, recording
from tests.faults.standing import assert_covered_or_pending, assert_each_stands_once, seqs_by_id
from tests.fixtures.ledgers import Place, an_event, assert_ledger_sound, record


def signers(processes: list[Recording]) -> list[Recording]:
    return [process for process in processes if process.ask("signs")["signs"]]


def test_three_processes_on_one_ledger_make_one_log(place: Place):
    shared = [an_event(subject=f"crm:C-{n % 11}") for n in range(150)]
    grants = [{"actor": {"id": "e0117"}, "grantee": f"e{n}", "role": "clerk"} for n in range(20)]
    with recording(place, 3) as processes:
        for number, process in enumerate(processes):
            own = [an_event(subject=f"crm:C-{n % 11}") for n in range(150)]
            own += [
                an_event(type="access.granted", id=f"g-{number}-{n}", subject=None, data=data)
                for n, data in enumerate(grants)
            ]
            turned = shared[number * 50 :] + shared[: number * 50]
            process.tell("ingest " + json.dumps([*own[:75], *turned, *own[75:]]))
        receipts = [r for process in processes for r in process.answers_until_done()]
        assert len(signers(processes)) == 1
    assert not [r for r in receipts if "failed" in r]
    assert len(receipts) == 3 * 320
    assert_each_stands_once(place, receipts)
    assert_covered_or_pending(receipts)
    assert sum("checkpoint_pending" in r for r in receipts) < len(receipts) // 10
    records = defaultdict(set)
    for receipt in receipts:
        records[receipt["subject"]].add(receipt["record"])
    assert len(records) == 12  # and the grants have a stream of their own
    assert {len(found) for found in records.values()} == {1}
    fresh = [r["id"] for r in receipts if not r["repeated"]]
    assert len(fresh) == len(set(fresh)) == len(seqs_by_id(place)) == 660
    ledger = place.open()
    assert ledger.recorder.stopped is None
    assert assert_ledger_sound(place) == 661


def test_when_the_signer_is_killed_another_signs_and_nothing_is_signed_twice(place: Place):
    with recording(place, 3) as processes:
        left = list(processes)
        sizes = [0]
        while left:
            (signer,) = signers(left)
            for process in left:
                receipt = process.ask("ingest " + json.dumps([an_event()]))
                assert process.answer() == {"done": True}
                assert receipt["size"] >= receipt["seq"] > sizes[-1]
                sizes.append(receipt["seq"])
            signer.kill()
            left.remove(signer)
            until = time.monotonic() + 5
            while left and not signers(left):
                assert time.monotonic() < until
    ledger = place.open()
    assert ledger.recorder.stopped is None
    assert record(ledger, an_event())["seq"] == sizes[-1] + 1 == 8
    assert_ledger_sound(place)


def test_a_process_that_is_killed_while_others_record_costs_them_nothing(place: Place):
    with recording(place, 3) as processes:
        for process in processes:
            process.tell("load 4")
        receipts = [process.answer() for _ in range(60) for process in processes]
        for process in processes:
            receipts += process.kill()
    assert not [r for r in receipts if "failed" in r]
    assert_covered_or_pending(receipts)
    assert_each_stands_once(place, receipts)
    place.open()
    assert_ledger_sound(place)


def test_processes_that_open_a_new_ledger_at_once_write_one_first_entry(place: Place):
    with recording(place, 3):
        pass
    assert assert_ledger_sound(place) == 1
