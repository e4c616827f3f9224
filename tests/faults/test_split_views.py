"""Somebody outside holds another history: the proof is kept, and nothing goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ledger.anchors import anchoring as anchoring_module
from ledger.anchors.sink import Due, SplitView
from ledger.core.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from ledger.errors import ReadOnly, Unavailable
from tests.fixtures.anchors import Told, anchoring_of, directory_of
from tests.fixtures.ledgers import Place, an_event, assert_ledger_sound, record
from tests.postgres.test_notary import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.service import Ledger


class Contradicting(Told):
    """A sink that holds another checkpoint."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__("other-view")
        self.ledger = ledger
        self.stopped_when_asked: list[object] = []
        self.act = self.contradict

    def contradict(self, due: Due) -> None:
        self.stopped_when_asked.append(self.ledger.recorder.stopped)
        raise SplitView("another root", evidence={"ours": due.note, "theirs": "a note"})


def evidence(place: Place) -> list[Path]:
    return sorted((place.settings.evidence_dir / place.row.name).glob("*"))


def test_the_proof_is_kept_and_recording_and_signing_stop(place: Place, ledger: Ledger):
    record(ledger, an_event())
    signed = ledger.checkpoint()
    sink = Contradicting(ledger)
    anchoring = anchoring_of(place, ledger, sink)
    assert not anchoring.turn()
    (path,) = evidence(place)
    assert path.name == "split-view-2-other-view.json"
    assert path.stat().st_mode & 0o777 == 0o600
    proof = json.loads(path.read_text())
    assert proof["format"] == "custody-ledger/split-view/v0"
    assert (proof["origin"], proof["size"], proof["ours"]) == (ledger.origin, *signed)
    with pytest.raises(ReadOnly, match="split view"):
        record(ledger, an_event())
    assert ledger.notary._sign(3, bytes(32)).__class__ is ReadOnly
    assert ledger.checkpoint() == signed
    assert anchoring.split_views() == [path.name]
    assert not anchoring.turn()
    assert len(sink.asked) == 1  # who contradicts us is not asked again and again
    assert assert_ledger_sound(place) == 2


def test_no_other_sink_gets_a_checkpoint_afterwards(place: Place, ledger: Ledger):
    sound = Told("sound")
    assert not anchoring_of(place, ledger, Contradicting(ledger), sound).turn()
    assert sound.asked == []


def test_a_ledger_does_not_record_again_before_people_have_moved_the_proof_away(
    place: Place, ledger: Ledger, tmp_path: Path
):
    anchoring_of(place, ledger, Contradicting(ledger)).turn()
    place.close(ledger)
    for _ in range(2):
        again = place.open()
        with pytest.raises(ReadOnly, match="split view"):
            record(again, an_event())
        assert again.recorder.stopped is not None
        place.close(again)
    (path,) = evidence(place)
    path.rename(tmp_path / path.name)
    decided = place.open()
    assert record(decided, an_event())["checkpoint"] is not None
    assert_ledger_sound(place)


def test_a_proof_that_was_half_written_stops_the_ledger_as_well(place: Place):
    directory = place.settings.evidence_dir / place.row.name
    directory.mkdir(parents=True)
    (directory / "split-view-7-witness.draft").write_text('{"half')
    ledger = place.open()
    with pytest.raises(ReadOnly):
        record(ledger, an_event())


def test_another_file_there_stops_nothing(place: Place):
    directory = place.settings.evidence_dir / place.row.name
    directory.mkdir(parents=True)
    (directory / "letter-to-the-auditors.txt").write_text("…")
    assert record(place.open(), an_event())["checkpoint"] is not None


def test_another_process_on_this_machine_stops_too(place: Place, ledger: Ledger):
    other = place.open()
    looking = anchoring_of(place, other, Told())
    anchoring_of(place, ledger, Contradicting(ledger)).turn()
    assert record(other, an_event())  # it records, and is signed for by nobody
    looking.turn()
    with pytest.raises(ReadOnly):
        record(other, an_event())


def test_the_proof_is_durable_before_anything_else_happens(
    place: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    seen: list[bool] = []
    stop = ledger.notary.stop_signing

    def stop_signing(reason: str) -> None:
        seen.append(len(evidence(place)) == 1)
        stop(reason)

    monkeypatch.setattr(ledger.notary, "stop_signing", stop_signing)
    anchoring_of(place, ledger, Contradicting(ledger)).turn()
    assert seen == [True]


def test_a_proof_that_can_not_be_written_stops_the_ledger_and_is_written_later(
    place: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(anchoring_module, "TRY_TO_KEEP_S", 0.01)
    place.settings.evidence_dir.write_text("a file stands where the directory should")
    anchoring = anchoring_of(place, ledger, Contradicting(ledger), interval_s=0.01)
    anchoring.start()
    eventually(lambda: ledger.recorder.stopped is not None)
    assert anchoring.split_views()
    assert "can't be written" in caplog.text
    place.settings.evidence_dir.unlink()
    eventually(lambda: evidence(place))
    eventually(lambda: anchoring.split_views() == ["split-view-1-other-view.json"])
    anchoring.close()


def test_an_entry_recorded_while_the_proof_came_is_not_acknowledged(ledger: Ledger):
    ledger.notary.stop_signing("split view")
    ledger.recorder.stopped = None  # it was in the writer's hands already
    with pytest.raises(Unavailable, match="not signed"):
        record(ledger, an_event())


def test_a_directory_that_holds_another_tree_of_this_size_is_a_split_view(
    place: Place, ledger: Ledger, tmp_path: Path
):
    """Somebody who has the key rewrote the log; the directory was out of reach."""
    sink = directory_of(ledger, tmp_path / "anchors")
    record(ledger, an_event())
    size, note = ledger.checkpoint()
    point = Checkpoint(origin=ledger.origin, size=size, root=bytes(32))
    other = sign_checkpoint(point, [ledger.signer])
    sink.directory.mkdir()
    (sink.directory / f"{size:020d}.checkpoint").write_text(other)
    assert not anchoring_of(place, ledger, sink).turn()
    (path,) = evidence(place)
    proof = json.loads(path.read_text())
    roots = {
        open_checkpoint(proof[side], ledger.signer.verifier, ledger.origin).root
        for side in ("ours", "theirs")
    }
    assert len(roots) == 2
    assert proof["ours"] == note
    assert (sink.directory / f"{size:020d}.checkpoint").read_text() == other


def test_starting_with_anchors_turned_off_heeds_the_proof_too(place: Place, ledger: Ledger):
    anchoring_of(place, ledger, Contradicting(ledger)).turn()
    quiet = replace(place, opened=[], settings=replace(place.settings, anchor_interval_s=0))
    again = quiet.open()
    assert again.recorder.stopped is not None
    quiet.close(again)
