"""A ledger and its witnesses: what is kept of them, how many it takes, and when they stop it."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from ledger.checks.witnesses import check_witnesses
from ledger.config import read_settings
from ledger.core.checkpoint import open_checkpoint, parse_checkpoint
from ledger.core.note import open_note, parse_verifier, split_note
from ledger.errors import Misconfigured, ReadOnly
from ledger.keys.keyring import load_keyring
from ledger.witness.decision import Doubt
from ledger.witness.evidence import EvidenceDirectory
from tests.fixtures.ledgers import ORIGIN, Place, an_event, assert_ledger_sound, record
from tests.fixtures.postgres import create_database
from tests.postgres.test_notary import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ledger.postgres.embedded import EmbeddedPostgres
    from ledger.service import Ledger
    from tests.fixtures.witnesses import Served, ServeWitness

DOWN = "http://127.0.0.1:9"
"""Nothing listens there."""


def name_witnesses(place: Place, *witnesses: tuple[str, str], quorum: int | None = None) -> None:
    """Write the file of sinks: name w0, w1 … with URL and key."""
    text = "".join(
        f'[[sink]]\nkind = "witness"\nname = "w{n}"\nurl = "{url}"\nkeys = ["{key}"]\n'
        for n, (url, key) in enumerate(witnesses)
    )
    if quorum is not None:
        text += f"[witnesses]\nquorum = {quorum}\n"
    (place.settings.home / "anchors.toml").write_text(text)


@pytest.fixture
def three(serve_witness: ServeWitness, place: Place, tmp_path: Path) -> list[Served]:
    """Three witnesses that watch the ledger, which doesn't know them yet."""
    key = load_keyring(place.settings.keys_dir / f"{place.row.name}.json").verifier_key()
    served = [serve_witness(tmp_path / f"w{n}", f"witness.example/w{n}") for n in range(3)]
    for one in served:
        one.here.witness.watch(key)
    return served


def kept_note(ledger: Ledger, size: int) -> str:
    rows = ledger.anchors.evidence(size=size)
    notes = {row.note for row in rows}
    assert len(notes) == 1
    (note,) = notes
    assert note is not None
    return note


def test_the_cosignatures_of_all_witnesses_join_one_note_that_is_kept(
    place: Place, three: list[Served]
):
    name_witnesses(place, *((w.url, w.vkey) for w in three), quorum=2)
    ledger = place.open()
    for _ in range(3):
        record(ledger, an_event())
        assert ledger.anchoring.turn()
        witnessed = ledger.anchoring.witnessed()
        assert witnessed is not None
        assert witnessed[:3] == (2, 3, 3)
        assert not witnessed.failing
        note = kept_note(ledger, witnessed.size)
        keys = [parse_verifier(w.vkey) for w in three]
        assert {s.verifier for s in open_note(note, keys).signatures} == set(keys)
        opened = open_checkpoint(note, ledger.signer.verifier, ledger.origin)
        assert opened.size == witnessed.size
    assert_ledger_sound(place)
    place.close(ledger)
    again = place.open()
    assert record(again, an_event())["checkpoint"] is not None
    assert again.anchoring.turn()
    assert_ledger_sound(place)


def test_with_one_of_three_down_two_are_a_quorum(place: Place, three: list[Served]):
    down = (DOWN, three[2].vkey)
    name_witnesses(place, *((w.url, w.vkey) for w in three[:2]), down, quorum=2)
    ledger = place.open()
    record(ledger, an_event())
    assert ledger.anchoring.turn()
    witnessed = ledger.anchoring.witnessed()
    assert witnessed is not None
    assert (witnessed.working, witnessed.failing) == (2, False)
    assert witnessed.size > 0
    standing = {one.sink: one for one in ledger.anchoring.standing()}
    assert standing["w2"].failing is not None
    assert standing["w2"].failing.reason == "unreachable"
    assert standing["w2"].size == 0


def test_one_down_and_one_with_another_key_are_no_quorum_until_one_is_back(
    place: Place, three: list[Served]
):
    liar = (three[1].url, three[2].vkey)
    name_witnesses(place, (three[0].url, three[0].vkey), liar, (DOWN, three[1].vkey), quorum=2)
    ledger = place.open()
    record(ledger, an_event())
    assert ledger.anchoring.turn()
    witnessed = ledger.anchoring.witnessed()
    assert witnessed is not None
    assert (witnessed.working, witnessed.size, witnessed.failing) == (1, 0, True)
    assert record(ledger, an_event())["checkpoint"] is not None, "nobody waits for witnesses"
    place.close(ledger)
    name_witnesses(place, *((w.url, w.vkey) for w in three), quorum=2)
    again = place.open()
    record(again, an_event())
    assert again.anchoring.turn()
    witnessed = again.anchoring.witnessed()
    assert witnessed is not None
    assert not witnessed.failing
    assert witnessed.size > 0


def test_one_key_under_two_names_is_not_two_witnesses(place: Place, three: list[Served]):
    name_witnesses(place, *[(three[0].url, three[0].vkey)] * 2, quorum=2)
    with pytest.raises(Misconfigured, match="same key"):
        place.open()


def test_a_quorum_of_more_than_are_named_is_refused(place: Place, three: list[Served]):
    name_witnesses(place, (three[0].url, three[0].vkey), quorum=2)
    with pytest.raises(Misconfigured, match="quorum"):
        place.open()


def test_a_witness_follows_a_ledger_by_itself(place: Place, three: list[Served]):
    name_witnesses(place, (three[0].url, three[0].vkey))
    environment = {"LEDGER_HOME": str(place.settings.home), "LEDGER_ANCHOR_INTERVAL_S": "0.1"}
    quick = replace(place, settings=read_settings(environment), opened=[])
    ledger = quick.open()
    record(ledger, an_event())
    size, _ = ledger.checkpoint()
    eventually(lambda: held_by(three[0]) >= size)
    quick.close(ledger)


def held_by(witness: Served, origin: str = ORIGIN) -> int:
    note = witness.here.witness.newest_note(hashlib.sha256(origin.encode()).hexdigest())
    return 0 if note is None else parse_checkpoint(split_note(note)[0]).size


def test_the_doctor_counts_witnesses(place: Place, three: list[Served]):
    name_witnesses(place, *((w.url, w.vkey) for w in three[:2]), (DOWN, three[2].vkey), quorum=2)
    ledger = place.open()
    (finding,) = check_witnesses(ledger)
    assert (finding.level, finding.check) == ("warn", "witnesses")
    record(ledger, an_event())
    ledger.anchoring.turn()
    (finding,) = check_witnesses(ledger)
    assert finding.level == "ok"
    assert finding.detail.startswith("2 of 3 work, 2 are needed")
    three[0].here.close()
    record(ledger, an_event())
    ledger.anchoring.turn()
    (finding,) = check_witnesses(ledger)
    assert finding.level == "bad"
    place.close(ledger)
    name_witnesses(place)
    assert list(check_witnesses(place.open())) == []


# -- the database and the signer's memory are both put back ----------------------------------------


@pytest.fixture
def restored(place: Place, three: list[Served], cluster: EmbeddedPostgres) -> Iterator[Place]:
    """An older copy of database and memory; the witness has seen the tree go on from there."""
    name_witnesses(place, (three[0].url, three[0].vkey))
    ledger = place.open()
    record(ledger, an_event(), an_event())
    ledger.anchoring.turn()
    place.close(ledger)
    memory = memory_of(place)
    old_memory = memory.read_bytes()
    dbname = str(conninfo_to_dict(place.dsn)["dbname"])
    made = replace(place, dsn=create_database(cluster, template=dbname), opened=[])
    ledger = place.open()
    record(ledger, *[an_event() for _ in range(4)])
    assert ledger.anchoring.turn()
    place.close(ledger)
    shutil.copy(memory, memory.with_name("newer"))
    memory.write_bytes(old_memory)
    shutil.rmtree(place.settings.anchor_dir)  # it would tell as well
    yield made
    for ledger in made.opened:
        ledger.close()


def memory_of(place: Place) -> Path:
    return place.settings.memory_dir / f"{place.row.name}.memory"


def evidence_of(place: Place) -> list[dict[str, Any]]:
    directory = place.settings.evidence_dir / place.row.name
    return [json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))]


@pytest.mark.parametrize("more", [1, 3, 9])
def test_going_on_from_an_old_copy_is_refused_by_the_witness_and_stops_the_ledger(
    restored: Place, three: list[Served], more: int
):
    """Nothing at home can tell: database and memory agree. The witness has seen more."""
    ledger = restored.open()
    assert record(ledger, *[an_event() for _ in range(more)])["checkpoint"] is not None
    ledger.anchoring.turn()
    with pytest.raises(ReadOnly, match="split view"):
        record(ledger, an_event())
    with pytest.raises(ReadOnly):
        ledger.append_own("ledger.operated", {"operation": "restore"})
    (evidence,) = evidence_of(restored)
    assert evidence["proved"]
    verifier = ledger.signer.verifier
    ours = open_checkpoint(evidence["ours"], verifier, ledger.origin)
    theirs = open_checkpoint(evidence["theirs"], verifier, ledger.origin)
    assert theirs.size == held_by(three[0])
    assert ours.root != theirs.root
    opened = open_note(evidence["theirs"], [parse_verifier(three[0].vkey)])
    assert opened.text == theirs.text()
    assert ledger.anchoring.split_views()


def test_it_stays_read_only_over_restarts_until_people_move_the_evidence_away(restored: Place):
    ledger = restored.open()
    record(ledger, an_event())
    ledger.anchoring.turn()
    size, _ = ledger.checkpoint()
    restored.close(ledger)
    for _ in range(2):
        again = restored.open()
        with pytest.raises(ReadOnly, match="split view"):
            record(again, an_event())
        assert len(again.entries(1, 9, 9)) > 3, "reading goes on"
        assert again.checkpoint()[0] == size, "nothing more is signed"
        restored.close(again)
    directory = restored.settings.evidence_dir / restored.row.name
    shutil.move(directory, restored.settings.home / "handed-over")
    after = restored.open()
    assert record(after, an_event())["checkpoint"] is not None
    after.anchoring.turn()
    with pytest.raises(ReadOnly):
        record(after, an_event())


def test_the_witness_goes_on_with_the_true_ledger_and_keeps_what_it_saw(
    place: Place, restored: Place, three: list[Served]
):
    newer = (place.settings.memory_dir / "newer").read_bytes()
    forged = restored.open()
    record(forged, *[an_event() for _ in range(9)])
    forged.anchoring.turn()
    restored.close(forged)
    kept = EvidenceDirectory(three[0].here.directory / "evidence").read()
    assert [one.doubt for one in kept] == [Doubt.FORK], "both notes are signed by the same key"
    shutil.rmtree(restored.settings.evidence_dir)
    memory_of(place).write_bytes(newer)
    ledger = place.open()
    before = held_by(three[0])
    assert record(ledger, an_event())["checkpoint"] is not None
    assert ledger.anchoring.turn()
    assert held_by(three[0]) > before
    assert_ledger_sound(place)
