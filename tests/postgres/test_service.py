from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from ledger.bodies import MAX_ENTRIES
from ledger.core.checkpoint import open_checkpoint
from ledger.core.merkle import check_inclusion
from ledger.errors import Malformed, Misconfigured, TooLarge, Unavailable
from ledger.keys.keyring import make_keyring, save_keyring
from ledger.service import Ledger
from tests.fixtures.ledgers import (
    Place,
    an_emitter,
    an_event,
    assert_ledger_sound,
    record,
)

if TYPE_CHECKING:
    from pathlib import Path


def ingest(ledger: Ledger, body: bytes) -> tuple[int, Any]:
    status, receipt = asyncio.run(ledger.ingest(body, an_emitter()))
    return status, json.loads(receipt)


def test_a_receipt_tells_where_the_entry_stands_and_what_was_missing(ledger: Ledger):
    sent = an_event()
    status, receipt = ingest(ledger, json.dumps(sent).encode())
    (row,) = ledger.entries(2, 2, 1)
    entry = json.loads(row.entry)
    assert status == 201
    assert receipt["id"] == sent["id"]
    assert receipt["record"] == entry["stream"] == str(ledger.find_record("crm:C-10023"))
    assert (receipt["seq"], receipt["version"], receipt["leaf"]) == (2, 1, row.leaf.hex())
    assert receipt["recorded"] == entry["recorded"]
    assert receipt["incomplete"] == [
        "/data/reason_ref",
        "/data/grant_ref",
        "/data/masked",
        "/source",
        "/time",
    ]
    assert receipt["repeated"] is False


def test_one_event_is_answered_with_one_receipt_and_an_array_with_an_array(
    place: Place, ledger: Ledger
):
    one, two = an_event(), an_event()
    status, receipt = ingest(ledger, json.dumps([one]).encode())
    assert status == 201
    assert [r["id"] for r in receipt["receipts"]] == [one["id"]]
    status, receipt = ingest(ledger, json.dumps([one, two], indent=2).encode())
    assert (status, [r["seq"] for r in receipt["receipts"]]) == (201, [2, 3])
    status, receipt = ingest(ledger, b"\n" + json.dumps([two, one]).encode())
    assert (status, [r["seq"] for r in receipt["receipts"]]) == (200, [3, 2])
    assert ingest(ledger, b"[]")[0] == 200
    assert assert_ledger_sound(place) == 3


@pytest.mark.parametrize(
    "second", [b'{"id":"b"}', b'{"id":"b","id":"b"}', b"7", b"[]", b'{"id":"b","type":"nothing"}']
)
def test_one_malformed_event_keeps_its_whole_request_out(
    place: Place, ledger: Ledger, second: bytes
):
    body = b"[" + json.dumps(an_event()).encode() + b"," + second + b"]"
    with pytest.raises(Malformed) as refusal:
        ingest(ledger, body)
    assert refusal.value.pointer.startswith("/1")
    assert assert_ledger_sound(place) == 1
    assert ledger.recorder.queued == 0


@pytest.mark.parametrize("body", [b"[", b"[1 2]", b'[{"id":1},]', b"[" * 100_000, b"", b" \n"])
def test_what_is_no_request_is_refused(place: Place, ledger: Ledger, body: bytes):
    with pytest.raises(Malformed):
        ingest(ledger, body)
    assert assert_ledger_sound(place) == 1


def test_an_id_twice_in_one_request_is_refused_and_names_both_places(place: Place, ledger: Ledger):
    sent = an_event()
    with pytest.raises(Malformed, match="/1 too") as refusal:
        record(ledger, an_event(), sent, an_event(), sent)
    assert refusal.value.pointer == "/3/id"
    other_source = {**sent, "source": "crm/web"}
    assert len(record(ledger, sent, other_source)["receipts"]) == 2
    assert assert_ledger_sound(place) == 3


def test_a_request_makes_so_many_entries_and_no_more(place: Place, ledger: Ledger):
    subjects = [f"crm:{n}" for n in range(1_000)]
    full = [
        an_event(subject=None, subjects=[f"{s}-{n}" for s in subjects])
        for n in range(MAX_ENTRIES // 1_000)
    ]
    with pytest.raises(TooLarge) as refusal:
        ledger.admit_body(json.dumps([*full, an_event()]).encode(), an_emitter())
    assert refusal.value.pointer == f"/{len(full)}"
    many, events = ledger.admit_body(json.dumps(full).encode(), an_emitter())
    assert many
    assert sum(map(len, events)) == MAX_ENTRIES
    with pytest.raises(TooLarge):
        ledger.admit_body(b"[" + b"0," * MAX_ENTRIES + b"0]", an_emitter())
    receipts = record(ledger, *full[:2])["receipts"]
    assert [len(r["entries"]) for r in receipts] == [1_000, 1_000]
    assert assert_ledger_sound(place) == 2_001


def test_an_entry_is_proved_to_be_in_the_tree_that_its_receipt_is_signed_for(
    place: Place, ledger: Ledger
):
    receipts = record(ledger, *(an_event(subject=f"crm:{n % 9}") for n in range(300)))
    checkpoint = open_checkpoint(receipts["checkpoint"], ledger.signer.verifier, ledger.origin)
    assert checkpoint.size == 301
    for seq in (1, 2, 255, 256, 257, 300, 301):
        (row,) = ledger.entries(seq, seq, 1)
        proof = ledger.inclusion_proof(seq, checkpoint.size)
        check_inclusion(row.leaf, seq - 1, checkpoint.size, proof, checkpoint.root)
    assert_ledger_sound(place)


def test_reading_gives_pages_in_order(ledger: Ledger):
    receipts = record(ledger, *(an_event(subject=f"crm:{n % 2}") for n in range(10)))["receipts"]
    assert [row.seq for row in ledger.entries(3, 8, 4)] == [3, 4, 5, 6]
    stream = UUID(receipts[0]["record"])
    assert [row.seq for row in ledger.stream_entries(stream, 0, 3)] == [2, 4, 6]
    assert [row.seq for row in ledger.stream_entries(stream, 3, 9)] == [8, 10]
    assert ledger.find_record("crm:never") is None
    assert ledger.find_staff("never") is None


def test_the_first_entry_tells_origin_and_key(ledger: Ledger):
    (row,) = ledger.entries(1, 1, 1)
    event = json.loads(row.entry)["event"]
    assert event["type"] == "ledger.ledger.opened.v1"
    assert event["data"] == {
        "origin": ledger.origin,
        "keys": [ledger.keyring.verifier_key()],
        "format": 0,
    }


def test_opening_again_adds_nothing(place: Place, ledger: Ledger):
    for _ in range(2):
        place.close(ledger)
        ledger = place.open()
    assert assert_ledger_sound(place) == 1


def test_keys_of_another_ledger_open_none(place: Place, tmp_path: Path):
    settings = replace(place.settings, home=tmp_path / "other")
    save_keyring(settings.keys_dir / "test.json", make_keyring("custody.local/other"))
    with pytest.raises(Misconfigured, match="expected origin"):
        Ledger(place.row, settings, place.dsn)


def test_a_closed_ledger_takes_nothing(place: Place, ledger: Ledger):
    place.close(ledger)
    with pytest.raises(Unavailable):
        record(ledger, an_event())


def test_callers_in_many_loops_and_threads_each_get_their_own_answer(place: Place, ledger: Ledger):
    async def several() -> list[tuple[str, str]]:
        events = [an_event(subject=f"crm:{n}") for n in range(20)]
        bodies = [json.dumps(event).encode() for event in events]
        answers = await asyncio.gather(*(ledger.ingest(body, an_emitter()) for body in bodies))
        receipts = [json.loads(receipt) for _, receipt in answers]
        return [(e["id"], r["id"]) for e, r in zip(events, receipts, strict=True)]

    with ThreadPoolExecutor(4) as threads:
        answered = list(threads.map(lambda _: asyncio.run(several()), range(4)))
    assert all(sent == received for pairs in answered for sent, received in pairs)
    assert assert_ledger_sound(place) == 81
