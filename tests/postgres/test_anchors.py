from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ledger.anchors import Anchoring, FileSink
from ledger.core.checkpoint import open_checkpoint
from tests.fixtures.ledgers import Place, an_event, assert_ledger_sound, record
from tests.postgres.test_notary import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.service import Ledger


@pytest.fixture
def sink(tmp_path: Path) -> FileSink:
    return FileSink(tmp_path / "anchors" / "test")


def files(sink: FileSink) -> list[str]:
    return sorted(path.name for path in sink.directory.glob("*"))


def last_event(ledger: Ledger, seq: int) -> dict[str, Any]:
    (row,) = ledger.entries(seq, seq, 1)
    found: dict[str, Any] = json.loads(row.entry)["event"]
    return found


def test_each_anchored_checkpoint_is_a_file_and_an_entry(
    place: Place, ledger: Ledger, sink: FileSink
):
    anchoring = Anchoring(ledger, sink, 0)
    assert anchoring.turn()
    record(ledger, an_event())
    assert anchoring.turn()
    assert files(sink) == [f"{size:020d}.checkpoint" for size in (1, 3)]
    text = (sink.directory / files(sink)[1]).read_text()
    checkpoint = open_checkpoint(text, ledger.signer.verifier, ledger.origin)
    told = last_event(ledger, 4)
    assert told["type"] == "ledger.ledger.anchored.v1"
    assert told["data"]["size"] == checkpoint.size == 3
    assert told["data"]["root"] == checkpoint.root.hex()
    assert told["data"]["proof_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert assert_ledger_sound(place) == 4


def test_an_anchored_checkpoint_is_kept_in_the_database_too(
    place: Place, ledger: Ledger, sink: FileSink
):
    anchoring = Anchoring(ledger, sink, 0)
    for _ in range(3):
        record(ledger, an_event())
        assert anchoring.turn()
    place.close(ledger)
    with place.connect() as connection:
        kept = connection.execute("SELECT size FROM checkpoints WHERE kept").fetchall()
    assert {2, 4, 6} <= {size for (size,) in kept}
    place.open()
    assert_ledger_sound(place)


def test_what_only_tells_of_anchoring_makes_no_checkpoint_due(
    place: Place, ledger: Ledger, sink: FileSink
):
    anchoring = Anchoring(ledger, sink, 0)
    assert anchoring.turn()
    for _ in range(3):
        assert not anchoring.turn()
    assert not anchoring.failed
    assert assert_ledger_sound(place) == 2
    record(ledger, an_event())
    assert anchoring.turn()
    assert assert_ledger_sound(place) == 4


def test_a_sink_that_fails_delays_nothing_and_is_tried_again(
    place: Place, ledger: Ledger, sink: FileSink
):
    sink.directory.parent.mkdir()
    sink.directory.write_text("a file stands where the directory should")
    anchoring = Anchoring(ledger, sink, 0.01)
    anchoring.start()
    eventually(lambda: anchoring.failed)
    for _ in range(3):
        assert record(ledger, an_event())["checkpoint"] is not None
    sink.directory.unlink()
    eventually(lambda: not anchoring.failed and files(sink))
    anchoring.close()
    assert files(sink)
    assert assert_ledger_sound(place) == 5


def test_closing_anchors_what_is_due(place: Place, sink: FileSink):
    settings = replace(place.settings, anchor_dir=sink.directory.parent, anchor_interval_s=3600.0)
    patient = replace(place, settings=settings, opened=[])
    ledger = patient.open()
    record(ledger, an_event())
    patient.close(ledger)
    assert files(sink) == [f"{2:020d}.checkpoint"]
    again = patient.open()
    assert assert_ledger_sound(patient) == 3
    patient.close(again)


def test_only_who_signs_anchors(place: Place, ledger: Ledger, sink: FileSink):
    record(ledger, an_event())
    other = place.open()
    assert not Anchoring(other, sink, 0).turn()
    assert files(sink) == []
    assert Anchoring(ledger, sink, 0).turn()


def test_a_draft_that_a_crash_left_counts_for_nothing(ledger: Ledger, sink: FileSink):
    sink.directory.mkdir(parents=True)
    (sink.directory / f"{99:020d}.draft").write_text("half of a che")
    (sink.directory / "notes.checkpoint").write_text("not ours")
    assert sink.newest_size() == 0
    assert Anchoring(ledger, sink, 0).turn()
    assert sink.newest_size() == 1
