"""Whatever way an event came in, the verifier finds its entry sound, boxes and all."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from api.cloudevents import join_event
from api.media import Sent
from ledger.bodies import Form
from ledger.declaring import declare_types
from ledger.errors import LedgerError, Unavailable
from ledger.ingest import Taken
from ledger.service import Ledger
from tests.fixtures.ledgers import Place, an_emitter, an_event, assert_ledger_sound, record
from tests.postgres.test_populations import counted
from tests.unit.test_custom_types import NAME, loaded

if TYPE_CHECKING:
    from ledger.ingest import Results

VERIFIER = Path(__file__).resolve().parents[2] / "scripts" / "verify_chain.py"


def each(ledger: Ledger, *events: dict[str, Any]) -> Results:
    body = b"\n".join(json.dumps(event).encode() for event in events)
    return asyncio.run(ledger.ingest_each(body, an_emitter(), Form.LINES))


def test_every_way_in_leaves_entries_that_verify(place: Place, tmp_path: Path):
    custom = loaded(tmp_path)
    ledger = Ledger(place.row, place.settings, place.dsn, custom=custom)
    place.opened.append(ledger)
    ledger.start()
    declare_types(ledger, custom.sha256)
    record(ledger, an_event(), counted(), counted(source="crm/web"))
    record(ledger, an_event(type=NAME, subject=None, data={"points": 7, "odd": "zhang"}))
    record(ledger, an_event(type="com.example.other.thing", data={"odd": {"a": [1, 2.50]}}))
    headers = [("specversion", "1.0"), ("id", "a"), ("type", NAME), ("traceparent", "00-%22a")]
    sent = Sent(
        form=Form.EVENT,
        media_type="application/json",
        attributes=tuple((b"ce-" + name.encode(), value.encode()) for name, value in headers),
    )
    binary = join_event(sent, b'{ "points": 8, "note": "in words" }')
    asyncio.run(ledger.ingest(binary, an_emitter(), sent.form))
    structured = {**an_event(), "specversion": "1.0", "time": None, "dataschema": "a:b"}
    asyncio.run(ledger.ingest(json.dumps([structured]).encode(), an_emitter(), Form.BATCH))
    each(ledger, an_event(), {"id": 1}, counted())
    entries = assert_ledger_sound(place)
    key = ledger.keyring.verifier_key()
    place.close(ledger)
    command = [sys.executable, str(VERIFIER), "--database", place.dsn, "--json", "--key", key]
    command += ["--schema", place.row.schema, "--evidence", str(tmp_path / "evidence.json")]
    command += ["--keyring", str(place.settings.keys_dir / "test.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    verdict = json.loads(done.stdout)
    assert verdict["findings"] == [], verdict["findings"]
    assert done.returncode in {0, 4}  # 4: no checkpoint was held outside
    assert entries == 11


def test_what_the_queue_has_no_room_for_is_told_item_by_item(
    place: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    sent = [an_event(subject=f"crm:{number}") for number in range(300)]
    with monkeypatch.context() as patch:
        patch.setattr("ledger.recorder.MAX_QUEUED", 100)
        first = each(ledger, *sent)
    stands = [isinstance(item, Taken) for item in first.items]
    assert 0 < sum(stands) < 300
    assert all(isinstance(i, Taken | Unavailable) for i in first.items)
    again = each(ledger, *sent)
    for stood, item in zip(stands, again.items, strict=True):
        assert isinstance(item, Taken)
        assert item.placed[0].repeated == stood
    assert assert_ledger_sound(place) == 301


def test_a_request_of_which_nothing_can_be_recorded_is_refused_as_a_whole(
    place: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr("ledger.recorder.MAX_QUEUED", -1)
        with pytest.raises(Unavailable):
            each(ledger, an_event(), {"id": 1})
    ledger.recorder.stop_recording("for a test")
    with pytest.raises(Unavailable):
        each(ledger, an_event())
    only_poison = each(ledger, {"id": 1})
    assert all(isinstance(item, LedgerError) for item in only_poison.items)
    assert only_poison.checkpoint is None
    assert assert_ledger_sound(place) == 1


def test_the_checkpoint_of_a_lenient_answer_covers_all_that_stands(place: Place, ledger: Ledger):
    found = each(ledger, *(an_event(subject=f"crm:{number % 7}") for number in range(5_000)))
    seqs = [item.placed[0].seq for item in found.items if isinstance(item, Taken)]
    assert seqs == list(range(2, 5_002))
    assert found.checkpoint is not None
    assert int(found.checkpoint.split("\n")[1]) >= 5_001
    assert assert_ledger_sound(place) == 5_001
