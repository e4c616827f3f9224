"""Anchoring: what is due, what is kept, what is recorded, and what never waits."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from ledger.anchors import anchoring as anchoring_module
from ledger.anchors.sink import Due, SinkFailed
from ledger.core.checkpoint import open_checkpoint
from tests.fixtures.anchors import QUICK, Told, anchoring_of, directory_of
from tests.fixtures.ledgers import Place, an_event, assert_ledger_sound, record
from tests.postgres.test_notary import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.anchors.directory import DirectorySink
    from ledger.service import Ledger


@pytest.fixture
def sink(ledger: Ledger, tmp_path: Path) -> DirectorySink:
    return directory_of(ledger, tmp_path / "anchors" / "test")


def files(sink: DirectorySink) -> list[str]:
    return sorted(path.name for path in sink.directory.glob("*"))


def events(ledger: Ledger, first: int = 1) -> list[dict[str, Any]]:
    rows = ledger.entries(first, 2**40, 1_000)
    return [{"seq": row.seq, **json.loads(row.entry)["event"]} for row in rows]


def told(ledger: Ledger, type_name: str = "anchored") -> list[dict[str, Any]]:
    return [e["data"] for e in events(ledger) if e["type"] == f"ledger.ledger.{type_name}.v1"]


def fail(code: str = "refused", **options: Any) -> Any:
    def act(_due: Due) -> None:
        raise SinkFailed(code, "as a test wants", **options)

    return act


# -- what is due -----------------------------------------------------------------------------


def test_each_anchored_checkpoint_is_a_file_an_entry_and_evidence(
    place: Place, ledger: Ledger, sink: DirectorySink
):
    anchoring = anchoring_of(place, ledger, sink)
    assert anchoring.turn()
    record(ledger, an_event())
    assert anchoring.turn()
    assert files(sink) == [f"{size:020d}.checkpoint" for size in (1, 3)]
    path = sink.directory / files(sink)[1]
    text = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    checkpoint = open_checkpoint(text, ledger.signer.verifier, ledger.origin)
    (found,) = ledger.anchors.evidence("directory")
    assert found.evidence == (
        f"{hashlib.sha256(text.encode()).hexdigest()}  {path.name}\n".encode()
    )
    assert (found.size, found.root, found.note) == (3, checkpoint.root, text)
    assert told(ledger)[1] == {
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "anchor": "file",
        "anchor_name": "directory",
        "proof_sha256": hashlib.sha256(found.evidence).hexdigest(),
    }
    assert events(ledger)[-1]["seq"] == found.seq == 4
    assert assert_ledger_sound(place) == 4


def test_an_anchored_checkpoint_is_kept_in_the_database_too(
    place: Place, ledger: Ledger, sink: DirectorySink
):
    anchoring = anchoring_of(place, ledger, sink)
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
    place: Place, ledger: Ledger, sink: DirectorySink
):
    failing = Told("failing")
    failing.act = fail()
    anchoring = anchoring_of(place, ledger, sink, failing)
    for _ in range(6):
        anchoring.turn()
    failing.act = lambda _due: None
    for _ in range(6):
        anchoring.turn()
    kinds = [e["type"].split(".")[2] for e in events(ledger)]
    assert kinds == ["opened", "anchored", "operated", "anchored", "operated"]
    assert not anchoring.turn()
    record(ledger, an_event())
    assert anchoring.turn()
    assert assert_ledger_sound(place) == 8


def test_another_operation_is_news(place: Place, ledger: Ledger, sink: DirectorySink):
    anchoring = anchoring_of(place, ledger, sink)
    assert anchoring.turn()
    ledger.append_own("ledger.operated", {"operation": "backup"})
    assert anchoring.turn()


def test_sinks_that_are_asked_in_one_round_get_the_same_checkpoint(place: Place, ledger: Ledger):
    sinks = [Told(name) for name in ("one", "two", "three")]
    anchoring = anchoring_of(place, ledger, *sinks, interval_s=3600)
    for count in (1, 3):
        record(ledger, *[an_event() for _ in range(count)])
        assert anchoring.turn()
        anchoring._keepers[0]._rounds._chosen_s = float("-inf")  # an hour later
    for index in range(2):
        assert len({sink.asked[index].note for sink in sinks}) == 1
    assert sinks[0].asked[0].size < sinks[0].asked[1].size


def test_a_sink_that_was_away_gets_the_newest_only(place: Place, ledger: Ledger):
    sink = Told()
    sink.act = fail()
    anchoring = anchoring_of(place, ledger, sink)
    for _ in range(3):
        record(ledger, an_event())
        anchoring.turn()
    sink.act = lambda _due: None
    record(ledger, an_event())
    assert anchoring.turn()
    assert [row.size for row in ledger.anchors.newest()] == [sink.asked[-1].size]
    assert sink.asked[-1].size >= 5


def test_only_who_signs_anchors(place: Place, ledger: Ledger, sink: DirectorySink):
    record(ledger, an_event())
    other = place.open()
    assert not anchoring_of(place, other, sink).turn()
    assert not sink.directory.exists()
    assert anchoring_of(place, ledger, sink).turn()


def test_who_does_not_sign_knows_how_the_sinks_stand(
    place: Place, ledger: Ledger, sink: DirectorySink
):
    other = place.open()
    looking = anchoring_of(place, other, sink)
    assert anchoring_of(place, ledger, sink).turn()
    assert not looking.turn()
    (standing,) = looking.standing()
    assert standing.size == 1
    assert standing.anchored is not None


# -- the directory ---------------------------------------------------------------------------


def test_a_draft_that_a_crash_left_is_harmless(place: Place, ledger: Ledger, sink: DirectorySink):
    sink.directory.mkdir(parents=True)
    (sink.directory / f"{1:020d}.draft").write_text("half of a che")
    (sink.directory / "notes.checkpoint").write_text("not ours")
    assert anchoring_of(place, ledger, sink).turn()
    assert files(sink) == [f"{1:020d}.checkpoint", "notes.checkpoint"]


def test_a_file_that_is_no_checkpoint_is_replaced(
    place: Place, ledger: Ledger, sink: DirectorySink
):
    sink.directory.mkdir(parents=True)
    (sink.directory / f"{1:020d}.checkpoint").write_bytes(b"\xff torn")
    assert anchoring_of(place, ledger, sink).turn()
    assert ledger.recorder.stopped is None


# -- failures --------------------------------------------------------------------------------


def test_a_sink_that_fails_delays_nothing_and_is_tried_again(
    place: Place, ledger: Ledger, sink: DirectorySink
):
    sink.directory.parent.mkdir()
    sink.directory.write_text("a file stands where the directory should")
    anchoring = anchoring_of(place, ledger, sink, interval_s=0.01)
    anchoring.start()
    eventually(lambda: anchoring.standing()[0].failing)
    for _ in range(3):
        assert record(ledger, an_event())["checkpoint"] is not None
    sink.directory.unlink()
    eventually(lambda: not anchoring.standing()[0].failing and files(sink))
    anchoring.close()
    assert files(sink)
    assert_ledger_sound(place)


def test_failing_is_told_once_when_it_begins_and_once_when_it_ends(place: Place, ledger: Ledger):
    sink = Told("hook")
    sink.act = fail("unreachable")
    anchoring = anchoring_of(place, ledger, sink)
    for tries in range(1, 8):
        record(ledger, an_event())
        anchoring.turn()
        assert len(told(ledger, "operated")) == (1 if tries >= 3 else 0)
    sink.act = fail("timeout")
    anchoring.turn()
    assert ledger.anchors.failing()[0].reason == "timeout"
    sink.act = lambda _due: None
    for _ in range(3):
        record(ledger, an_event())
        assert anchoring.turn()
    assert told(ledger, "operated") == [
        {"operation": "anchor_failed", "detail": {"sink": "hook", "reason": "unreachable"}},
        {"operation": "anchor_recovered", "detail": {"sink": "hook"}},
    ]
    assert ledger.anchors.failing() == []


def test_a_failure_that_passes_soon_is_not_told(place: Place, ledger: Ledger):
    sink = Told()
    sink.act = fail()
    anchoring = anchoring_of(place, ledger, sink)
    anchoring.turn()
    anchoring.turn()
    sink.act = lambda _due: None
    assert anchoring.turn()
    assert told(ledger, "operated") == []
    assert ledger.anchors.failing() == []


def test_a_failure_that_lasts_is_told_however_seldom_it_is_tried(place: Place, ledger: Ledger):
    sink = Told()
    sink.act = fail()
    anchoring = anchoring_of(place, ledger, sink, pace=replace(QUICK, failing_s=0.05))
    anchoring.turn()
    time.sleep(0.06)
    anchoring.turn()
    assert len(told(ledger, "operated")) == 1


def test_a_second_failure_is_told_again(place: Place, ledger: Ledger):
    sink = Told()
    anchoring = anchoring_of(place, ledger, sink)
    for _ in range(2):
        sink.act = fail()
        for _ in range(3):
            record(ledger, an_event())
            anchoring.turn()
        sink.act = lambda _due: None
        assert anchoring.turn()
    operations = [data["operation"] for data in told(ledger, "operated")]
    assert operations == ["anchor_failed", "anchor_recovered"] * 2


def test_a_failure_outlives_the_process_and_so_does_its_entry(place: Place, ledger: Ledger):
    sink = Told()
    sink.act = fail()
    anchoring = anchoring_of(place, ledger, sink)
    for _ in range(3):
        anchoring.turn()
    place.close(ledger)
    again = place.open()
    anchoring = anchoring_of(place, again, sink)
    for _ in range(5):
        anchoring.turn()
    assert len(told(again, "operated")) == 1
    sink.act = lambda _due: None
    assert anchoring.turn()
    assert [d["operation"] for d in told(again, "operated")] == [
        "anchor_failed",
        "anchor_recovered",
    ]


def test_a_sink_that_says_never_again_is_asked_no_more_and_told_at_once(
    place: Place, ledger: Ledger
):
    sink = Told()
    sink.act = fail("gone", final=True)
    anchoring = anchoring_of(place, ledger, sink)
    for _ in range(4):
        record(ledger, an_event())
        anchoring.turn()
    assert len(sink.asked) == 1
    assert told(ledger, "operated")[0]["detail"]["reason"] == "gone"
    assert anchoring.standing()[0].given_up


def test_a_fault_of_this_program_in_a_sink_is_a_failure_like_others(
    place: Place, ledger: Ledger, caplog: pytest.LogCaptureFixture
):
    sink, sound = Told("faulty"), Told("sound")

    def act(_due: Due) -> None:
        raise ZeroDivisionError("words with a secret")

    sink.act = act
    assert anchoring_of(place, ledger, sink, sound).turn()
    assert ledger.anchors.failing()[0].reason == "fault"
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


def test_waiting_grows_has_an_end_and_is_never_the_same_twice():
    waits = [[QUICK.wait_s(failures, 0) for _ in range(50)] for failures in (1, 2, 40)]
    assert 0.005 <= min(waits[0]) < max(waits[0]) <= 0.01
    assert 0.01 <= min(waits[1]) < max(waits[1]) <= 0.02
    assert max(waits[2]) <= 0.05
    assert QUICK.wait_s(1, 120) == 120
    assert QUICK.wait_s(1, 10**9) == 3_600


# -- what never waits ------------------------------------------------------------------------


def test_a_sink_that_hangs_delays_neither_recording_nor_other_sinks(place: Place, ledger: Ledger):
    hanging, sound = Told("hanging"), Told("sound")
    free = threading.Event()
    hanging.act = lambda _due: free.wait(30)
    anchoring = anchoring_of(place, ledger, hanging, sound, interval_s=0.01)
    anchoring.start()
    eventually(lambda: hanging.asked)
    for count in range(2, 5):
        started = time.monotonic()
        assert record(ledger, an_event())["checkpoint"] is not None
        assert time.monotonic() - started < 2
        eventually(lambda count=count: len(sound.asked) >= count)
    assert len(hanging.asked) == 1
    free.set()
    anchoring.close()
    assert hanging.closed.is_set()
    assert sound.closed.is_set()


def test_a_sink_that_hangs_is_told_of_as_one_that_fails(
    place: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(anchoring_module, "WATCH_S", 0.02)
    hanging = Told("hanging")
    free = threading.Event()
    hanging.act = lambda _due: free.wait(30)
    pace = replace(QUICK, hanging_s=0.1)
    anchoring = anchoring_of(place, ledger, hanging, interval_s=0.01, pace=pace)
    anchoring.start()
    eventually(lambda: told(ledger, "operated"))
    eventually(lambda: anchoring.standing()[0].failing)
    time.sleep(0.1)
    assert told(ledger, "operated") == [
        {"operation": "anchor_failed", "detail": {"sink": "hanging", "reason": "hanging"}}
    ]
    free.set()
    eventually(lambda: len(told(ledger, "operated")) == 2)
    eventually(lambda: not anchoring.standing()[0].failing)
    anchoring.close()


def test_closing_waits_for_a_sink_that_hangs_no_longer_than_is_stated(
    place: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(anchoring_module, "CLOSE_S", 0.3)
    hanging, sound = Told("hanging"), Told("sound")
    free = threading.Event()
    hanging.act = lambda _due: free.wait(30)
    anchoring = anchoring_of(place, ledger, hanging, sound, interval_s=0.05)
    anchoring.start()
    eventually(lambda: hanging.asked)
    started = time.monotonic()
    anchoring.close()
    assert 0.25 < time.monotonic() - started < 2
    assert sound.closed.is_set()
    place.close(ledger)
    free.set()  # it comes back to a ledger that is closed
    eventually(hanging.closed.is_set)
    assert len(hanging.asked) == 1


def test_closing_anchors_what_is_due(place: Place, tmp_path: Path):
    settings = replace(place.settings, anchor_dir=tmp_path / "anchors", anchor_interval_s=3600.0)
    patient = replace(place, settings=settings, opened=[])
    ledger = patient.open()
    record(ledger, an_event())
    patient.close(ledger)
    kept = [path.name for path in (tmp_path / "anchors" / "test").iterdir()]
    assert kept == [f"{2:020d}.checkpoint"]
    again = patient.open()
    assert assert_ledger_sound(patient) == 3
    patient.close(again)


def test_closing_does_not_ask_a_sink_that_fails(place: Place, ledger: Ledger):
    sink = Told()
    sink.act = fail(retry_after_s=3_600)
    anchoring = anchoring_of(place, ledger, sink, interval_s=0.01)
    anchoring.start()
    eventually(lambda: anchoring.standing()[0].failing)
    record(ledger, an_event())
    started = time.monotonic()
    anchoring.close()
    assert time.monotonic() - started < 2
    assert len(sink.asked) == 1


def test_a_second_directory_gets_its_own_files_and_the_start_says_where_all_go(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    (place.settings.home / "anchors.toml").write_text(
        f'[[sink]]\nname = "copy"\nkind = "directory"\npath = "{tmp_path / "far"}"\n'
    )
    settings = replace(place.settings, anchor_interval_s=3600.0)
    patient = replace(place, settings=settings, opened=[])
    patient.close(patient.open())
    assert [path.name for path in (tmp_path / "far" / "test").iterdir()] == [f"{1:020d}.checkpoint"]
    said = [line for line in caplog.messages if "checkpoints go to" in line]
    assert said == [
        "test: checkpoints go to directory (file at this machine) every 3600 s",
        "test: checkpoints go to copy (file at this machine) every 3600 s",
    ]


# -- the tables ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE anchors SET evidence = 'x'",
        "UPDATE anchors SET seq = 1",
        "UPDATE anchors SET seq = NULL",
        "DELETE FROM anchors",
        "TRUNCATE anchors",
    ],
)
def test_evidence_is_not_changed_by_accident(
    place: Place, ledger: Ledger, sink: DirectorySink, statement: str
):
    assert anchoring_of(place, ledger, sink).turn()
    with place.connect() as connection, pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute(statement)  # type: ignore[arg-type]


def test_an_entry_tells_of_the_evidence_that_is_stored_not_of_a_later_answer(
    place: Place, ledger: Ledger
):
    """A commit whose answer was lost: the sink is asked again and answers otherwise."""
    sink = Told("hook")
    anchoring = anchoring_of(place, ledger, sink)
    size, note = ledger.checkpoint()
    root = open_checkpoint(note, ledger.signer.verifier, ledger.origin).root
    first = sink.anchor(Due(size, root, note))
    ledger.anchors.keep("hook", "webhook", Due(size, root, note), first)
    ledger.anchors.keep("hook", "webhook", Due(size, root, note), first._replace(evidence=b"2"))
    anchoring.turn()
    assert told(ledger)[0]["proof_sha256"] == hashlib.sha256(first.evidence).hexdigest()
    assert ledger.anchors.evidence("hook")[0].seq == 2
