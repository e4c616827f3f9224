"""The verifier goes on from what an earlier run found, or from a checkpoint that is held."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit import test_verify_chain_pure as made

if TYPE_CHECKING:
    from pathlib import Path

vc = made.vc
SIZE = 600


def a_state(folder: Path, **changes: Any) -> Any:
    given = {"reads": "database", "keys": made.trust(size=None).keys, "full": False}
    return vc.State(folder / "state", **{**given, **changes})


def begun(folder: Path, size: int = SIZE) -> made.MemoryLog:
    """Verify a log and leave the state of that."""
    log = made.sound(size)
    assert vc.verify_log(log, made.trust(size=size), a_state(folder)).code == 0
    return log


def grow(log: made.MemoryLog, number: int) -> made.MemoryLog:
    for at in range(number):
        event = {"type": "ledger.record.accessed.v1", "id": f"more {at}"}
        log.append(made.RECORDS[at % 11], "record", event)
    log.notes[len(log.table)] = made.checkpoint(log.leaves)
    return log.finish()


def again(log: made.MemoryLog, folder: Path, **changes: Any) -> Any:
    return vc.verify_log(log, made.trust(size=SIZE), a_state(folder, **changes))


def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note from which entry on each part is read."""
    read: list[int] = []
    whole = made.MemoryLog.swept

    def swept(self: made.MemoryLog, first: int, *more: Any, **place: Any) -> Any:
        read.append(first)
        return whole(self, first, *more, **place)

    monkeypatch.setattr(made.MemoryLog, "swept", swept)
    return read


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, 600])
@pytest.mark.parametrize("more", [0, 1, 256, 300])
def test_the_next_run_reads_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, more: int
):
    log = grow(begun(tmp_path, size), more)
    read = watched(monkeypatch)
    result = vc.verify_log(log, made.trust(size=size), a_state(tmp_path))
    whole = vc.verify_log(log, made.trust(size=size))
    assert (result.code, result.verdict) == (whole.code, whole.verdict) == (0, "verified")
    assert result.holds == whole.holds
    assert {**result.counts} == {**whole.counts}
    assert read[0] == 1 if size < 256 else min(read[:1] or [1]) in {1, size // 256 * 256 + 1}
    assert size < 256 or "by an earlier run (" in result.scope


def test_many_runs_one_after_the_other_come_to_the_same(tmp_path: Path):
    log = begun(tmp_path, 1)
    for _ in range(12):
        grow(log, 97)
        result = vc.verify_log(log, made.trust(made.checkpoint(log.leaves)), a_state(tmp_path))
        assert result.code == 0, result.findings


def test_a_run_that_finds_something_leaves_the_state_as_it_was(tmp_path: Path):
    log = grow(begun(tmp_path), 300)
    before = (tmp_path / "state").read_bytes()
    made.change(log, 700, made.other_bytes(log, 700))
    made.expect(again(log, tmp_path), "altered", 700)
    assert (tmp_path / "state").read_bytes() == before


@pytest.mark.parametrize("seq", [513, 600, 601, 900])
def test_what_is_altered_after_the_state_is_named(tmp_path: Path, seq: int):
    log = grow(begun(tmp_path), 300)
    made.change(log, seq, made.other_bytes(log, seq), leaf_too=True)
    made.expect(again(log, tmp_path), "altered", seq)


@pytest.mark.parametrize("seq", [2, 100, 255])
def test_an_entry_altered_before_the_state_is_found_by_a_full_run(tmp_path: Path, seq: int):
    log = grow(begun(tmp_path), 300)
    made.change(log, seq, made.other_bytes(log, seq), leaf_too=True)
    result = again(log, tmp_path)
    assert result.code == 0
    assert any("not read again" in each for each in result.not_checked)
    made.expect(again(log, tmp_path, full=True), "altered", seq)


@pytest.mark.parametrize("seq", [1, 2, 257, 511, 512])
def test_a_log_rewritten_before_the_state_is_found(tmp_path: Path, seq: int):
    """Consistent in itself and signed anew: only what was seen before tells."""
    log = begun(tmp_path)
    if seq > 1:
        made.change(log, seq, made.other_bytes(log, seq), leaf_too=True)
        made.rechain(log, seq)
    else:
        log = made.sound(599)
        grow(log, 1)
    log.notes = {SIZE: made.checkpoint(log.leaves)}
    result = vc.verify_log(log, made.trust(made.checkpoint(log.leaves)), a_state(tmp_path))
    assert result.kinds == ["rewritten"], result.findings
    assert any("what a run of" in each.what for each in result.findings)


def test_a_log_that_became_shorter_than_the_state_is_truncated(tmp_path: Path):
    begun(tmp_path)
    for size in (100, 512, 599):
        log = made.sound(size)
        result = vc.verify_log(log, made.trust(size=size), a_state(tmp_path))
        assert "truncated" in result.kinds, result.findings


def test_rows_deleted_before_the_state_are_named(tmp_path: Path):
    log = grow(begun(tmp_path), 300)
    del log.table[99]
    made.expect(again(log, tmp_path), "deleted", 100)


@pytest.mark.parametrize("level", [1, 2])
def test_a_tree_node_altered_before_the_state_is_named(tmp_path: Path, level: int):
    log = grow(begun(tmp_path), 300)
    log.nodes[level - 1] = (1, level - 1, bytes(32))
    made.expect(again(log, tmp_path), "altered", 256 * (level - 1) + 1)


def test_boxes_erased_before_the_state_are_erasure_and_added_ones_are_found(tmp_path: Path):
    log = begun(tmp_path)
    log.box_seqs -= {seq for seq in log.box_seqs if seq < 100}
    assert again(log, tmp_path).code == 0
    log = made.sound(SIZE)
    log.box_seqs |= set(range(1, 513))
    assert again(log, tmp_path).kinds == ["inserted"]


def test_accepted_rows_are_counted_over_all_runs(tmp_path: Path):
    log = grow(begun(tmp_path), 300)
    log.accepted_seqs.remove(log.accepted_seqs[3])
    assert again(log, tmp_path).kinds == ["deleted"]


def test_a_stream_forked_across_the_state_is_found(tmp_path: Path):
    log = begun(tmp_path)
    stream = next(row.stream for row in log.table[20:] if row.stream.decode() in made.RECORDS)
    head = log.heads[stream]
    for _ in range(2):
        log.heads[stream] = head
        log.append(stream.decode(), "record", {"type": "ledger.record.accessed.v1"})
    log.finish()
    made.expect(again(log, tmp_path), "inserted", 602)


def test_a_receipt_for_an_entry_before_the_state_is_compared(tmp_path: Path):
    log = begun(tmp_path)
    for leaf, code in ((log.leaves[99], 0), (bytes(32), 1)):
        receipts = {100: [vc.Receipt(leaf, "", "receipt r:1")]}
        given = vc.replace(made.trust(size=SIZE), receipts=receipts)
        assert vc.verify_log(log, given, a_state(tmp_path)).code == code


def test_checkpoints_of_any_size_before_the_state_are_compared(tmp_path: Path):
    log = begun(tmp_path)
    for size in (1, 255, 256, 257, 511, 512, 513, 599):
        good = made.trust(made.checkpoint(log.leaves[:size]))
        assert vc.verify_log(log, good, a_state(tmp_path)).code == 0
        bad = made.trust(made.checkpoint([*log.leaves[: size - 1], bytes(32)]))
        assert vc.verify_log(log, bad, a_state(tmp_path)).kinds == ["rewritten"]


# -- the file --


def test_every_flipped_byte_of_a_state_file_is_noticed(tmp_path: Path):
    begun(tmp_path)
    path = tmp_path / "state"
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(vc.UsageError, match="--full begins anew"):
            a_state(tmp_path)
    for cut in (0, 1, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:cut])
        with pytest.raises(vc.UsageError):
            a_state(tmp_path)
        assert vc.verify_log(made.sound(SIZE), made.trust(size=SIZE), a_state(tmp_path, full=True))
        path.write_bytes(good)


def forge(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text()) | changes
    del document["digest"]
    path.write_text(json.dumps(document | {"digest": vc._digest(document)}))


@pytest.mark.parametrize(
    "changes",
    [
        {"reached": [600, "00" * 32]},
        {"reached": [601, "00" * 32]},
        {"leaf": "11" * 32},
        {"entries": 256},
        {"balance": "7"},
        {"key": "22" * 32},
        {"firsts": 1},
        {"boxed": 0},
        {"recorded": "2099-01-01T00:00:00.000000Z"},
        {"roots": {"200": "33" * 32}},
    ],
)
def test_a_state_changed_by_somebody_never_makes_a_log_verified_for_it(
    tmp_path: Path, changes: dict[str, Any]
):
    """Its digest is no secret; what it claims is still held against the log."""
    log = begun(tmp_path)
    forge(tmp_path / "state", **changes)
    result = again(log, tmp_path)
    unharmed = {"leaf", "balance", "key", "recorded"} & changes.keys()
    # Where only the sweep is misled the examination reads everything, and finds nothing wrong.
    assert result.code == (0 if unharmed else 1), result.findings
    assert not unharmed or "earlier" not in result.scope


@pytest.mark.parametrize("full", [False, True])
def test_an_interrupted_run_keeps_how_far_an_earlier_one_came(
    tmp_path: Path,
    full: bool,  # noqa: FBT001
):
    log = grow(begun(tmp_path), 300)
    whole = vc.join_part
    joined: list[int] = []

    def joining(totals: Any, part: Any) -> None:
        if joined:
            raise KeyboardInterrupt
        joined.append(part.first)
        whole(totals, part)

    def interrupt() -> int:
        joined.clear()
        state = a_state(tmp_path, full=full)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vc, "join_part", joining)
            with pytest.raises(KeyboardInterrupt):
                vc.verify_log(log, made.trust(size=SIZE), state)
        kept: int = state.save_early()
        return kept

    assert interrupt() == (256 if full else 768)
    assert again(log, tmp_path).code == 0
    (tmp_path / "state").unlink()
    begun(tmp_path)
    interrupt()
    shorter = made.sound(599)  # cut after the interruption
    result = vc.verify_log(shorter, made.trust(size=300), a_state(tmp_path))
    assert "truncated" in result.kinds or "rewritten" in result.kinds


def test_a_state_of_another_ledger_or_made_otherwise_is_usage(tmp_path: Path):
    log = begun(tmp_path)
    for changes in ({"reads": "log"}, {"keys": ()}):
        with pytest.raises(vc.UsageError, match="--full begins anew"):
            a_state(tmp_path, **changes)
    forge(tmp_path / "state", origin="ledger.example/other")
    with pytest.raises(vc.UsageError, match=r"of the ledger ledger\.example/other"):
        again(log, tmp_path)


def test_a_state_file_is_private_and_never_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    log = begun(tmp_path)
    path = tmp_path / "state"
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()

    def failing(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vc.os, "fsync", failing)
    with pytest.raises(vc.UnavailableError, match="No space"):
        again(grow(log, 300), tmp_path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


# -- from a checkpoint --


def after(log: made.MemoryLog, size: int, note: str = "", **more: Any) -> Any:
    note = note or made.checkpoint(made.sound(SIZE).leaves[:size])
    given = made.trust(note)
    return vc.verify_log(log, vc.replace(given, begin=given.checkpoints[0], **more))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 512, 513, 600])
def test_a_log_is_verified_from_a_checkpoint_on(size: int):
    result = after(grow(made.sound(SIZE), 100), size)
    assert (result.code, result.findings) == (0, [])
    if size >= 256:
        number = size // 256 * 256
        assert result.scope == f"entries {number + 1} to 700; 1 to {number} only by hash"
        assert any(f"what stands in entries 1 to {number}" in each for each in result.not_checked)


def test_the_log_has_to_go_on_from_the_checkpoint():
    log = grow(made.sound(SIZE), 100)
    other = made.checkpoint([*log.leaves[:299], bytes(32)])
    assert after(log, 300, other).kinds == ["rewritten"]
    log = made.sound(SIZE)
    made.change(log, 100, made.other_bytes(log, 100), leaf_too=True)
    made.rechain(log, 100)
    log.notes = {}
    assert after(log, 512).kinds == ["rewritten"]
    assert after(log, 300).kinds == ["rewritten"]


def test_a_log_shorter_than_the_checkpoint_is_truncated():
    assert "truncated" in after(made.sound(400), 500).kinds


@pytest.mark.parametrize("seq", [513, 600, 700])
def test_what_is_altered_after_the_checkpoint_is_named(seq: int):
    log = grow(made.sound(SIZE), 100)
    made.change(log, seq, made.other_bytes(log, seq))
    made.expect(after(log, 520), "altered", seq)


def test_two_entries_that_follow_the_same_one_after_the_checkpoint_are_found():
    log = made.sound(SIZE)
    stream = made.RECORDS[0]
    head = log.heads[stream.encode()]
    for _ in range(2):
        log.heads[stream.encode()] = head
        log.append(stream, "record", {"type": "ledger.record.accessed.v1"})
    log.finish()
    made.expect(after(log, 512), "inserted", 602)


def test_the_digest_is_what_the_file_says_it_is(tmp_path: Path):
    begun(tmp_path)
    document = json.loads((tmp_path / "state").read_text())
    digest = document.pop("digest")
    text = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    assert digest == hashlib.sha256(text).hexdigest()
