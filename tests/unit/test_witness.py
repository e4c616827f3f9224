"""A witness against every request that a log or anybody else can make."""

from __future__ import annotations

import json
import logging
import sqlite3
import stat
import threading
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from ledger.core.checkpoint import open_checkpoint, parse_checkpoint
from ledger.core.merkle import EMPTY_ROOT, check_consistency
from ledger.core.note import (
    SignatureType,
    decode_base64,
    open_note,
    parse_verifier,
    signature_line,
    split_note,
)
from ledger.errors import LedgerError, Malformed, Misconfigured, Unavailable
from ledger.witness.evidence import MAX_UNPROVED
from ledger.witness.place import make_place, open_place
from ledger.witness.protocol import SIZE_TYPE, parse_add_checkpoint, read_cosignatures
from ledger.witness.store import WitnessStore
from ledger.witness.witness import Witness
from tests.fixtures.witnesses import WITNESS, Here, SmallLog, make_here

if TYPE_CHECKING:
    from pathlib import Path


def evidence_files(here: Here) -> list[str]:
    return sorted(path.name for path in (here.directory / "evidence").glob("*"))


def send(here: Here, body: bytes) -> tuple[int, str]:
    answer = here.witness.add_checkpoint(body)
    assert (answer.media_type == SIZE_TYPE) == (answer.status == 409)
    return answer.status, answer.body


def cosign(here: Here, log: SmallLog, old: int, size: int) -> str:
    status, line = send(here, log.request(old, size))
    assert status == 200, line
    text = log.checkpoint(size).text()
    (found,) = read_cosignatures(text, line.encode(), [here.witness.verifier])
    assert found.time_s == int(here.clock.now)
    return line


# -- every status --------------------------------------------------------------


def test_a_log_that_grows_is_cosigned_at_every_size(here: Here, log: SmallLog):
    before = 0
    for size in [*range(20), 255, 256, 257, 300]:
        cosign(here, log, before, size)
        before = size
    assert evidence_files(here) == []


def test_what_is_not_a_request_is_answered_400(here: Here, log: SmallLog):
    assert send(here, b"")[0] == 400
    assert send(here, log.request(3, 7).replace(b"old 3", b"old 03"))[0] == 400
    assert send(here, b"\xff" * 100)[0] == 400


def test_an_old_size_above_the_checkpoints_is_answered_400(here: Here, log: SmallLog):
    cosign(here, log, 0, 5)
    assert send(here, log.request(6, 5))[0] == 400
    assert send(here, log.request(5, 4))[0] == 400


def test_a_log_that_is_not_watched_is_answered_404(here: Here):
    assert send(here, SmallLog(origin="log.example/other").request(0, 5))[0] == 404


def test_another_key_in_the_logs_name_is_answered_403(here: Here, log: SmallLog):
    assert send(here, SmallLog(seed=bytes([1]) * 32).request(0, 5))[0] == 403
    assert here.witness.newest_note("0" * 64) is None
    cosign(here, log, 0, 5)


def test_a_bad_signature_by_the_trusted_key_is_answered_403(here: Here, log: SmallLog):
    line = split_line(log.note(6))
    mixed = log.checkpoint(5).text() + "\n" + line
    assert send(here, log.request(0, 5, note=mixed))[0] == 403
    both = log.note(5) + line
    assert send(here, log.request(0, 5, note=both))[0] == 403, "one good beside one bad"


def split_line(note: str) -> str:
    return note.rpartition("\n\n")[2]


def test_signatures_by_unknown_keys_are_passed_over_and_not_kept(here: Here, log: SmallLog):
    strangers = [SmallLog(seed=bytes([n]) * 32) for n in range(1, 17)]
    note = log.checkpoint(5).text() + "\n"
    note += "".join(split_line(one.note(5)) for one in strangers) + split_line(log.note(5))
    assert send(here, log.request(0, 5, note=note))[0] == 200
    kept = here.witness.newest_note(origin_hash(log))
    assert kept is not None
    assert len(split_note(kept)[1]) == 2


def origin_hash(log: SmallLog) -> str:
    return sha256(log.origin.encode()).hexdigest()


@pytest.mark.parametrize("old", [0, 1, 4, 6, 7])
def test_an_old_size_that_is_not_the_newest_is_answered_409_with_the_size(
    here: Here, log: SmallLog, old: int
):
    cosign(here, log, 0, 5)
    assert send(here, log.request(old, 7)) == (409, "5\n")
    assert evidence_files(here) == []


def test_an_old_size_where_nothing_was_cosigned_is_answered_409_with_0(here: Here, log: SmallLog):
    assert send(here, log.request(3, 7)) == (409, "0\n")


def test_a_proof_from_nothing_is_answered_422(here: Here, log: SmallLog):
    assert send(here, log.request(0, 5, proof=[bytes(32)]))[0] == 422
    assert evidence_files(here) == []


def test_an_empty_tree_with_a_root_of_its_own_is_answered_422(here: Here, log: SmallLog):
    assert send(here, log.request(0, 0, note=log.note(0, bytes(32))))[0] == 422
    cosign(here, log, 0, 0)
    assert parse_checkpoint(split_note(log.note(0))[0]).root == EMPTY_ROOT


def test_a_proof_where_the_sizes_are_equal_is_answered_422(here: Here, log: SmallLog):
    cosign(here, log, 0, 5)
    assert send(here, log.request(5, 5, proof=[bytes(32)]))[0] == 422
    assert evidence_files(here) == []


@pytest.mark.parametrize(("old", "size"), [(3, 7), (4, 7), (6, 8), (1, 2), (5, 300)])
def test_every_changed_proof_is_answered_422(here: Here, log: SmallLog, old: int, size: int):
    cosign(here, log, 0, old)
    proof = list(parse_add_checkpoint(log.request(old, size)).proof)
    for bad in changed(proof):
        assert send(here, log.request(old, size, proof=bad))[0] == 422
    cosign(here, log, old, size)


def changed(proof: list[bytes]) -> list[list[bytes]]:
    flipped = [
        [*proof[:at], bytes([proof[at][0] ^ 1]) + proof[at][1:], *proof[at + 1 :]]
        for at in range(len(proof))
    ]
    return [*flipped, proof[:-1], [*proof, bytes(32)], [bytes(32), *proof]]


def test_the_same_checkpoint_again_is_cosigned_again(here: Here, log: SmallLog):
    first = cosign(here, log, 0, 5)
    here.clock.now += 3600
    assert cosign(here, log, 5, 5) != first
    kept = here.witness.newest_note(origin_hash(log))
    assert kept is not None
    (ours,) = open_note(kept, [here.witness.verifier]).signatures
    assert ours.time_s == int(here.clock.now)


def test_a_clock_that_went_back_cosigns_nothing_until_it_is_there_again(here: Here, log: SmallLog):
    cosign(here, log, 0, 5)
    here.clock.now -= 1
    assert send(here, log.request(5, 7))[0] == 503
    assert send(here, log.request(0, 7)) == (409, "5\n")
    here.clock.now += 1
    cosign(here, log, 5, 7)


def test_the_newest_checkpoint_is_given_with_the_logs_and_the_witnesss_signature(
    here: Here, log: SmallLog
):
    assert here.witness.newest_note(origin_hash(log)) is None
    cosign(here, log, 0, 5)
    line = cosign(here, log, 5, 9)
    assert here.witness.newest_note(origin_hash(log)) == log.note(9) + line


def test_logs_are_kept_apart(tmp_path: Path):
    one, other = SmallLog(), SmallLog(origin="log.example/other", salt=b"x")
    here = make_here(tmp_path / "w", one, other)
    cosign(here, one, 0, 9)
    cosign(here, other, 0, 4)
    cosign(here, one, 9, 10)
    cosign(here, other, 4, 12)
    here.close()


def test_a_second_key_of_a_log_is_trusted_beside_the_first(here: Here, log: SmallLog):
    newer = SmallLog(seed=bytes([9]) * 32)
    cosign(here, log, 0, 5)
    assert send(here, newer.request(5, 7))[0] == 403
    here.witness.watch(newer.vkey)
    assert send(here, newer.request(5, 7))[0] == 200
    cosign(here, log, 7, 8)


def test_only_a_logs_key_is_watched(here: Here):
    with pytest.raises(Misconfigured, match="type 01"):
        here.witness.watch(here.vkey)
    with pytest.raises(Malformed):
        here.witness.watch("log.example/test+00000000+AQAA")


def test_a_key_with_another_name_is_watched_for_the_origin_given(here: Here):
    odd = SmallLog(origin="log.example/other")
    here.witness.watch(SmallLog().vkey, origin=odd.origin)
    note = odd.checkpoint(5).text() + "\n"
    note += signature_line(odd.checkpoint(5).text(), SmallLog().signer)
    assert send(here, odd.request(0, 5, note=note))[0] == 200


# -- contradictions ------------------------------------------------------------


@pytest.mark.parametrize("old", [0, 3, 5])
def test_two_roots_of_one_size_are_kept_whatever_the_old_size(
    here: Here, log: SmallLog, old: int, caplog: pytest.LogCaptureFixture
):
    cosign(here, log, 0, 5)
    forked = SmallLog(salt=b"forged", fork=2)
    status, _ = send(here, forked.request(old, 5))
    assert status == (422 if old == 5 else 409)
    (name,) = evidence_files(here)
    document = json.loads((here.directory / "evidence" / name).read_text())
    assert document["doubt"] == "same-size"
    held = open_checkpoint(document["held"], log.signer.verifier, log.origin)
    shown = open_checkpoint(document["shown"], log.signer.verifier, log.origin)
    assert held.size == shown.size == 5
    assert held.root != shown.root
    assert "SIGNED TWO TREES" in caplog.text
    assert cosign(here, log, 5, 6)


def test_two_roots_of_an_older_size_are_noticed_too(here: Here, log: SmallLog):
    cosign(here, log, 0, 5)
    cosign(here, log, 5, 9)
    assert send(here, SmallLog(salt=b"forged").request(0, 5)) == (409, "9\n")
    (name,) = evidence_files(here)
    assert name.startswith("same-size-")
    document = json.loads((here.directory / "evidence" / name).read_text())
    assert document["held_size"] == 5


@pytest.mark.parametrize("held", [3, 5, 6, 7, 100, 255, 257])
def test_a_fork_is_proved_by_its_own_proof(here: Here, log: SmallLog, held: int):
    """Whoever has the log's key can check the evidence: two signatures and one proof."""
    cosign(here, log, 0, held)
    forked = SmallLog(salt=b"forged", fork=1)
    assert send(here, forked.request(held, 300))[0] == 422
    (name,) = evidence_files(here)
    document = json.loads((here.directory / "evidence" / name).read_text())
    assert document["doubt"] == "fork"
    shown = open_checkpoint(document["shown"], log.signer.verifier, log.origin)
    kept = open_checkpoint(document["held"], log.signer.verifier, log.origin)
    proof = [decode_base64("proof", line) for line in document["proof"]]
    other = forked.checkpoint(held).root
    check_consistency(document["old_size"], shown.size, other, shown.root, proof)
    assert kept.root != other


def test_a_fork_after_a_single_peak_cannot_be_told_from_a_bad_proof(here: Here, log: SmallLog):
    cosign(here, log, 0, 8)
    assert send(here, SmallLog(salt=b"forged", fork=1).request(8, 12))[0] == 422
    (name,) = evidence_files(here)
    assert name.startswith("unproved-")
    assert send(here, SmallLog(salt=b"forged", fork=1).request(8, 8))[0] == 422
    assert [name.partition("-")[0] for name in evidence_files(here)] == ["same", "unproved"]


def test_a_bad_proof_by_anybody_is_not_called_a_fork(here: Here, log: SmallLog):
    cosign(here, log, 0, 5)
    assert send(here, log.request(5, 9, proof=[bytes(32)] * 4))[0] == 422
    assert all(name.startswith("unproved-") for name in evidence_files(here))


def test_the_same_contradiction_again_is_kept_once(here: Here, log: SmallLog):
    cosign(here, log, 0, 5)
    for _ in range(3):
        send(here, SmallLog(salt=b"forged").request(5, 5))
    assert len(evidence_files(here)) == 1


def test_what_proves_nothing_can_not_fill_the_disk(here: Here, log: SmallLog):
    cosign(here, log, 0, 4)
    directory = here.directory / "evidence"
    directory.mkdir()
    for number in range(MAX_UNPROVED):
        (directory / f"unproved-{number}.json").touch()
    assert send(here, log.request(4, 9, proof=[bytes(32)]))[0] == 422
    assert len(evidence_files(here)) == MAX_UNPROVED
    send(here, SmallLog(salt=b"forged").request(4, 4))
    assert len(evidence_files(here)) == MAX_UNPROVED + 1


def test_evidence_that_can_not_be_written_is_said_and_changes_no_answer(
    here: Here, log: SmallLog, caplog: pytest.LogCaptureFixture
):
    cosign(here, log, 0, 5)
    (here.directory / "evidence").write_text("a file stands where the directory should")
    assert send(here, SmallLog(salt=b"forged").request(5, 5))[0] == 422
    assert "NOT kept" in caplog.text


# -- its memory ----------------------------------------------------------------


def test_it_knows_after_a_restart_what_it_has_cosigned(here: Here, log: SmallLog):
    cosign(here, log, 0, 5)
    again = here.again()
    assert send(again, SmallLog(salt=b"forged").request(0, 7)) == (409, "5\n")
    cosign(again, log, 5, 7)
    again.close()


def test_one_of_many_at_once_wins_for_each_old_size(here: Here):
    """Each of many forks asks from the same size; one is cosigned, the others are refused."""
    logs = [SmallLog(salt=b"%d" % n) for n in range(8)]
    bodies = [[one.request(size, size + 1) for size in range(6)] for one in logs]
    for size in range(6):
        assert at_once(here, [body[size] for body in bodies]).count(200) == 1
    with sqlite3.connect(here.directory / "witness.db") as state:
        rows = state.execute("SELECT size, count(DISTINCT root) FROM cosigned GROUP BY 1")
        assert all(count == 1 for _, count in rows)
    state.close()


def test_many_at_once_for_one_honest_log_lose_and_repeat_nothing(here: Here, log: SmallLog):
    log.grow(40)
    for size in range(0, 40, 8):
        answers = at_once(here, [log.request(size, size + ahead) for ahead in range(1, 9)])
        assert sorted(set(answers)) == [200, 409]
        assert answers.count(200) == 1
        status, told = send(here, log.request(size + 8, size + 8))
        if status == 409:
            cosign(here, log, int(told), size + 8)
    assert evidence_files(here) == []


def at_once(here: Here, bodies: list[bytes]) -> list[int]:
    gate = threading.Barrier(len(bodies))
    answers: list[int] = []

    def run(body: bytes) -> None:
        gate.wait()
        answers.append(here.witness.add_checkpoint(body).status)

    threads = [threading.Thread(target=run, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == len(bodies)
    return answers


def test_a_state_that_can_not_be_kept_gives_no_cosignature(
    here: Here, log: SmallLog, monkeypatch: pytest.MonkeyPatch
):
    cosign(here, log, 0, 5)

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(WitnessStore, "keep", fail)
    with pytest.raises(Unavailable, match="full"):
        here.witness.add_checkpoint(log.request(5, 7))
    monkeypatch.undo()
    cosign(here, log, 5, 7)


def test_the_state_itself_refuses_a_second_root_and_forgetting(here: Here, log: SmallLog):
    cosign(here, log, 0, 5)
    state = sqlite3.connect(here.directory / "witness.db")
    for change in (
        "UPDATE cosigned SET root = zeroblob(32)",
        "UPDATE cosigned SET size = 4",
        "DELETE FROM cosigned",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            state.execute(change)
    state.close()


class Killed(BaseException):
    """The end of the process, at a chosen line."""


@pytest.mark.parametrize("moment", ["before the state is kept", "before it is durable", "after"])
def test_killed_at_any_moment_it_never_cosigns_two_roots_for_one_size(
    here: Here, log: SmallLog, moment: str, monkeypatch: pytest.MonkeyPatch
):
    cosign(here, log, 0, 5)
    keep = WitnessStore.keep

    def die(store: WitnessStore, *arguments: object) -> None:
        if moment == "before it is durable":
            keep(store, *arguments)  # type: ignore[arg-type]
        raise Killed

    if moment == "after":
        assert send(here, log.request(5, 7))[0] == 200  # and the answer is lost
    else:
        monkeypatch.setattr(WitnessStore, "keep", die)
        with pytest.raises(Killed):
            here.witness.add_checkpoint(log.request(5, 7))
        monkeypatch.undo()
    again = here.again()
    forged = SmallLog(salt=b"forged", fork=6)
    status, _ = send(again, forged.request(5, 7))
    if moment == "after":
        assert status == 409
        assert send(again, forged.request(7, 7))[0] == 422
    else:
        assert status == 200, "nobody has the other cosignature, so this log is as good"
    again.close()


# -- its directory -------------------------------------------------------------


def test_a_new_witness_has_a_key_of_its_own_that_only_its_owner_reads(tmp_path: Path):
    keys = {make_place(tmp_path / f"w{n}", WITNESS).verifier for n in range(3)}
    assert len(keys) == 3
    for one in keys:
        assert one.kind is SignatureType.COSIGNATURE
        assert parse_verifier(one.verifier_key()) == one
    for path in (tmp_path / "w0").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.suffix == ".db"
    assert stat.S_IMODE((tmp_path / "w0").stat().st_mode) == 0o700
    assert not list(tmp_path.glob(".*"))


def test_a_witness_is_never_made_over_another(here: Here):
    with pytest.raises(Misconfigured, match="expected none"):
        make_place(here.directory, WITNESS)


def test_what_a_killed_init_left_does_not_stand_in_the_way(tmp_path: Path):
    (tmp_path / ".w.draft").mkdir()
    (tmp_path / ".w.draft" / "key.json").write_text("{")
    make_place(tmp_path / "w", WITNESS)
    open_place(tmp_path / "w")[1].close()


def test_a_name_that_can_not_be_a_keys_is_refused(tmp_path: Path):
    for name in ("", "two words", "a+b", "line\nfeed"):
        with pytest.raises(Malformed):
            make_place(tmp_path / "w", name)
    assert not (tmp_path / "w").exists()


def test_a_witness_that_lost_its_state_does_not_go_on(here: Here):
    here.close()
    (here.directory / "witness.db").unlink()
    with pytest.raises(Misconfigured, match="lost its state"):
        open_place(here.directory)
    assert not (here.directory / "witness.db").exists()


def test_a_state_of_another_key_is_refused(tmp_path: Path):
    for name in ("one", "two"):
        make_place(tmp_path / name, WITNESS)
    (tmp_path / "one" / "witness.db").replace(tmp_path / "two" / "witness.db")
    with pytest.raises(Misconfigured, match="another key"):
        open_place(tmp_path / "two")


def test_a_key_that_others_can_read_is_refused(here: Here):
    here.close()
    (here.directory / "key.json").chmod(0o640)
    with pytest.raises(Misconfigured, match="0600"):
        open_place(here.directory)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format":"custody-ledger/witness-key/v0"}'])
def test_a_key_file_that_is_none_is_refused(here: Here, text: str):
    here.close()
    (here.directory / "key.json").write_text(text)
    with pytest.raises(Misconfigured):
        open_place(here.directory)


def test_a_state_that_is_no_database_is_said_in_words(here: Here):
    here.close()
    for path in here.directory.glob("witness.db*"):
        path.write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerError):
        open_place(here.directory)


def test_a_damaged_state_cosigns_nothing(tmp_path: Path, log: SmallLog):
    here = make_here(tmp_path / "w", log)
    cosign(here, log, 0, 5)
    here.close()
    path = here.directory / "witness.db"
    raw = bytearray(path.read_bytes())
    raw[4096:] = bytes(len(raw) - 4096)
    path.write_bytes(bytes(raw))
    with suppress(LedgerError):
        damaged = here.again()
        with pytest.raises(Unavailable):
            damaged.witness.add_checkpoint(log.request(0, 5))
        damaged.close()


def test_the_clock_is_asked_when_the_turn_has_begun(tmp_path: Path, log: SmallLog):
    """Else one that waited for its turn would cosign at a time before the one it waited for."""
    here = make_here(tmp_path / "w", log)
    turns: list[bool] = []
    signer, store, evidence = open_place(here.directory)

    def clock() -> float:
        turns.append(store._connection.in_transaction)
        return 1_700_000_000

    assert Witness(signer, store, evidence, clock).add_checkpoint(log.request(0, 5)).status == 200
    assert turns == [True]
    store.close()
    here.close()


def test_an_ordinary_day_writes_no_log_line(
    here: Here, log: SmallLog, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    cosign(here, log, 0, 5)
    send(here, b"junk")
    assert caplog.records == []
