"""Bundles of a real ledger, given to the verifier that auditors run."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tracemalloc
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import NotFound, TooLarge, Unavailable
from projections.exports import bundle, envelope, scopes
from projections.exports.archive import HashedZip
from projections.exports.bundle import export_range, export_record
from projections.exports.gaps import SequenceGaps
from projections.rebuild import rebuild
from projections.recorded import read_entry
from tests.fixtures.bundles import (
    FILES,
    INCOMPLETE,
    READER,
    ROOT,
    SUBJECTS,
    TAMPERED,
    VERIFIED,
    Desk,
    Evidence,
    vc,
)
from tests.fixtures.ledgers import an_event, record

if TYPE_CHECKING:
    from ledger.service import Ledger

SCOPES: list[Any] = [*SUBJECTS, (1, 1), (1, 22), (7, 19), (22, 22)]


@pytest.mark.parametrize("what", SCOPES)
def test_a_bundle_is_verified_with_the_key_and_only_consistent_without(
    desk: Desk, what: Any
) -> None:
    evidence = desk.hand_out(what)
    verdict = evidence.verdict()
    assert (verdict.code, verdict.findings) == (VERIFIED, [])
    assert verdict.completeness.startswith("proved")
    assert verdict.counts["entries"] == evidence.made.entries == len(evidence.entries)
    assert evidence.verdict(key="").code == INCOMPLETE
    assert set(evidence.files) == FILES


def test_the_manifest_has_the_members_that_the_format_names(desk: Desk) -> None:
    format_md = (ROOT / "ledger" / "FORMAT.md").read_text(encoding="utf-8")
    table = format_md.split("\n7.1.")[1].split("\n7.2.")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert list(desk.hand_out((1, 5)).manifest) == named


def test_the_envelope_says_what_the_files_hold(desk: Desk) -> None:
    evidence = desk.hand_out((3, 20))
    found = evidence.manifest
    assert found["scope"] == {"kind": "range", "from": 3, "to": 20}
    assert (found["first_seq"], found["last_seq"]) == (3, 20)
    assert found["ledger"] == desk.ledger.origin
    accesses = [e for e in evidence.entries if e["event"]["type"] == "ledger.record.accessed.v1"]
    assert found["population"] == found["rows"] == len(evidence.rows) == len(accesses)
    sums = {name: hashlib.sha256(raw).hexdigest() for name, raw in evidence.files.items()}
    assert found["files"] == {n: d for n, d in sums.items() if not n.startswith("manifest")}
    assert evidence.files["FORMAT.md"] == (ROOT / "ledger" / "FORMAT.md").read_bytes()
    verifier = (ROOT / "scripts" / "verify_chain.py").read_bytes()
    assert found["verifier_sha256"] == hashlib.sha256(verifier).hexdigest()
    leaves = {e["seq"]: hashlib.sha256(b"\0" + raw).hexdigest() for e, raw in lines_of(evidence)}
    assert {row["seq"]: row["leaf"] for row in evidence.rows} == {
        str(e["seq"]): leaves[e["seq"]] for e in accesses
    }
    assert evidence.rows[0]["fields"] == "phone address"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", evidence.rows[0]["recorded"])
    assert evidence.rows[0]["time_given"] == "false"
    assert found["verify"].startswith("python verify_chain.py")
    assert evidence.key not in evidence.files["manifest.json"].decode()


def lines_of(evidence: Evidence) -> list[tuple[dict[str, Any], bytes]]:
    return list(zip(evidence.entries, evidence.files["entries.jsonl"].splitlines(), strict=True))


def test_a_record_holds_all_its_versions_and_nothing_of_others(desk: Desk) -> None:
    evidence = desk.hand_out(SUBJECTS[2])
    versions = [entry["version"] for entry in evidence.entries]
    assert versions == list(range(1, len(versions) + 1))
    assert {entry["stream"] for entry in evidence.entries} == {evidence.manifest["scope"]["record"]}
    assert {row["record"] for row in evidence.rows} == {evidence.manifest["scope"]["record"]}
    assert evidence.manifest["gaps"] is None


def test_pages_join_without_seam(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | tuple[int, int]] = [(2, 22), SUBJECTS[0]]
    whole = [desk.hand_out(what) for what in asked]
    for size in (1, 2, 3):
        monkeypatch.setattr(scopes, "PAGE_ENTRIES", size)
        monkeypatch.setattr(scopes, "PAGE_ROWS", size)
        for before, what in zip(whole, asked, strict=True):
            again = desk.hand_out(what)
            for name in ("entries.jsonl", "rows.csv", "FORMAT.md"):
                assert again.files[name] == before.files[name]


def test_the_reading_is_recorded_before_the_bundle_and_comes_after_its_position(desk: Desk) -> None:
    before = desk.head()
    evidence = desk.hand_out((1, 10))
    found = evidence.manifest
    assert found["as_of"]["seq"] == before < found["read_seq"] == evidence.made.read_seq
    (row,) = desk.ledger.entries(found["read_seq"], found["read_seq"], 1)
    entry = json.loads(row.entry)
    assert entry["event"]["type"] == "ledger.ledger.read.v1"
    data = entry["event"]["data"]
    assert data["report"] == "evidence-bundle"
    assert data["rows"] == 10
    assert data["as_of_seq"] == before
    assert data["file_sha256"] == found["files"]["entries.jsonl"]
    assert "data.query" in entry["sealed"]
    assert desk.ledger.staff_names([UUID(data["actor"]["id"])]) == {
        UUID(data["actor"]["id"]): READER
    }


def test_nothing_is_handed_out_where_the_reading_cannot_be_recorded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Unavailable("for a test")

    monkeypatch.setattr(desk.ledger, "append_own", fail)
    file = io.BytesIO()
    with pytest.raises(Unavailable):
        export_range(desk.ledger, desk.views, (1, 5), file, reader=READER)
    with zipfile.ZipFile(file) as archive:
        assert not {"manifest.json", "manifest.note"} & set(archive.namelist())


def test_the_same_content_is_the_same_bytes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    size, note = desk.ledger.checkpoint()
    placed = desk.ledger.entries(size, size, 1)
    monkeypatch.setattr(desk.ledger, "checkpoint", lambda: (size, note))
    monkeypatch.setattr(desk.ledger, "append_own", lambda *_, **__: read_entry(placed[0].entry))
    made = [desk.hand_out(SUBJECTS[1]).path.read_bytes() for _ in range(2)]
    assert made[0] == made[1]
    with zipfile.ZipFile(desk.folder / "1.zip") as archive:
        names = archive.namelist()
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert names == [*sorted(names[:-2]), "manifest.json", "manifest.note"]


def test_no_sealed_value_and_no_subject_is_in_a_bundle(desk: Desk) -> None:
    for what in ((1, 22), *SUBJECTS):
        evidence = desk.hand_out(what)
        for name in FILES - {"FORMAT.md", "verifier.html"}:
            text = evidence.files[name].decode()
            assert not re.search("秘密|王|C-1|𠮷", text), name
        assert not re.search("C-1|𠮷", evidence.made.name)


def test_what_was_recorded_after_the_position_is_not_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    correction = {"actor": {"id": "王0"}, "correction": "wrong_actor"}
    early = {"id": "early", "type": "event.corrected", "data": {**correction, "target_seq": 2}}
    record(desk.ledger, early)
    then = desk.ledger.checkpoint()
    late = {"id": "late", "type": "event.corrected", "data": {**correction, "target_seq": 6}}
    record(desk.ledger, late)
    record(desk.ledger, an_event(subject=SUBJECTS[0]))
    desk.catch_up()
    monkeypatch.setattr(desk.ledger, "checkpoint", lambda: then)
    evidence = desk.hand_out(SUBJECTS[0])
    assert evidence.verdict().code == VERIFIED
    assert len(evidence.entries) == 7
    corrected = {row["seq"]: row["corrected_seq"] for row in evidence.rows}
    assert corrected["2"] == str(then[0])
    assert len(evidence.rows) == evidence.manifest["population"]
    assert not any(desk.hand_out((6, 6)).rows[0][n] for n in ("correction", "corrected_seq"))
    monkeypatch.setattr(bundle, "WAIT_S", 0.1)
    with pytest.raises(Unavailable, match="no checkpoint covers"):
        desk.hand_out((1, then[0] + 1))


# -- attacks on a bundle ---------------------------------------------------------------


@pytest.mark.parametrize("what", [(3, 19), SUBJECTS[1]])
@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_byte_in_any_file_is_tampering(desk: Desk, name: str, what: Any) -> None:
    evidence = desk.hand_out(what)
    content = evidence.files[name]
    for place in {0, len(content) // 3, len(content) // 2, len(content) - 2}:
        changed = bytearray(content)
        changed[place] ^= 1
        assert evidence.verdict(evidence.files | {name: bytes(changed)}).code == TAMPERED


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_left_out_is_tampering(desk: Desk, name: str) -> None:
    evidence = desk.hand_out((3, 19))
    files = {each: raw for each, raw in evidence.files.items() if each != name}
    assert evidence.verdict(files).code == TAMPERED


def test_an_entry_left_out_is_tampering_whatever_the_manifest_says(desk: Desk) -> None:
    evidence = desk.hand_out((3, 19))
    lines = evidence.files["entries.jsonl"].splitlines(keepends=True)
    entries = b"".join(lines[:7] + lines[8:])
    manifest = evidence.manifest | {
        "files": evidence.manifest["files"] | {"entries.jsonl": hashlib.sha256(entries).hexdigest()}
    }
    text = json.dumps(manifest).encode()
    files = evidence.files | {
        "entries.jsonl": entries,
        "manifest.json": text,
        # The operator itself signs it.
        "manifest.note": desk.ledger.attest(text).encode(),
    }
    verdict = evidence.verdict(files)
    assert verdict.code == TAMPERED
    assert verdict.first_bad.seq == 10


def test_a_bundle_of_another_ledger_is_not_verified(desk: Desk) -> None:
    other = "ledger.example/other-0a1b2c3d"
    key = desk.ledger.keyring.verifier_key().replace(desk.ledger.origin, other)
    key_id = hashlib.sha256(
        other.encode()
        + b"\n"
        + desk.ledger.signer.verifier.kind.to_bytes()
        + desk.ledger.signer.verifier.public_key
    ).hexdigest()[:8]
    name, _, rest = key.split("+", 2)
    assert desk.hand_out((1, 3)).verdict(key=f"{name}+{key_id}+{rest}").code == TAMPERED


def test_an_entry_altered_in_the_database_is_exported_and_found(desk: Desk) -> None:
    (row,) = desk.ledger.entries(6, 6, 1)
    altered = row.entry.replace(b"phone", b"phony")
    assert altered != row.entry
    desk.spoil("UPDATE entries SET entry = %s WHERE seq = 6", altered)
    evidence = desk.hand_out((1, 22))
    verdict = evidence.verdict()
    assert verdict.code == TAMPERED
    assert verdict.first_bad.seq == 6


@pytest.mark.parametrize("seq", [6, 19])
def test_unreadable_bytes_are_exported_and_found(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, seq: int
) -> None:
    then = desk.ledger.checkpoint()
    monkeypatch.setattr(desk.ledger, "checkpoint", lambda: then)
    desk.spoil("UPDATE entries SET entry = 'no longer JSON' WHERE seq = %s", seq)
    verdict = desk.hand_out((1, 22)).verdict()
    assert (verdict.code, verdict.first_bad.seq) == (TAMPERED, seq)


@pytest.mark.parametrize("what", [(1, 22), SUBJECTS[1]])
def test_an_entry_deleted_from_the_database_is_missed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, what: Any
) -> None:
    monkeypatch.setattr(scopes, "PAGE_ENTRIES", 2)
    desk.spoil("DELETE FROM entries WHERE seq = 6")
    evidence = desk.hand_out(what)
    seqs = [entry["seq"] for entry in evidence.entries]
    assert seqs == sorted(set(seqs))
    assert 6 not in seqs
    assert evidence.verdict().code == TAMPERED


def test_a_row_that_the_view_lost_shows_in_the_counts(desk: Desk) -> None:
    desk.spoil("DELETE FROM view_access_history WHERE seq = 6")
    found = desk.hand_out((1, 22)).manifest
    assert found["rows"] == found["population"] - 1


# -- what can't be exported ------------------------------------------------------------


def test_what_is_not_there_is_not_found(desk: Desk) -> None:
    file = io.BytesIO()
    with pytest.raises(NotFound):
        export_record(desk.ledger, desk.views, uuid4(), file, reader=READER)
    with pytest.raises(NotFound):
        export_range(desk.ledger, desk.views, (1, 10_000), file, reader=READER)
    training = UUID(desk.hand_out((22, 22)).entries[0]["stream"])
    with pytest.raises(NotFound):
        export_record(desk.ledger, desk.views, training, file, reader=READER)


def test_a_view_that_is_behind_is_waited_for_and_not_for_ever(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.folding.stop()
    record(desk.ledger, an_event())
    head = desk.head()
    monkeypatch.setattr(bundle, "WAIT_S", 0.2)
    with pytest.raises(Unavailable, match=f"expected {head}"):
        desk.hand_out((1, 5))
    assert desk.head() == head
    rebuild(desk.place.dsn, desk.place.row.schema)
    assert desk.hand_out((1, 5)).verdict().code == VERIFIED


@pytest.mark.parametrize("what", [(1, 6), SUBJECTS[0]])
def test_more_than_a_bundle_holds_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, what: Any
) -> None:
    monkeypatch.setattr(bundle, "MAX_ENTRIES", 5)
    with pytest.raises(TooLarge):
        desk.hand_out(what)
    assert len(desk.hand_out((2, 6)).entries) == 5


def test_a_program_without_the_verifier_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelope, "VERIFIER", Path("/nowhere"))
    evidence = desk.hand_out((1, 2))
    assert evidence.manifest["verifier_sha256"] is None
    assert evidence.verdict().code == VERIFIED


# -- the parts ------------------------------------------------------------------------


def test_gaps_stand_in_the_manifest_of_a_range(desk: Desk) -> None:
    assert desk.hand_out((1, 22)).manifest["gaps"] == [
        {
            "source": "crm",
            "instance": None,
            "first": 0,
            "last": 24,
            "missing": 5,
            "gaps": [[13, 17]],
        }
    ]


def event_with(sequence: int) -> Any:
    """Give what `SequenceGaps` reads of an event."""
    data = {"actor": {"id": "x"}, "sequence": sequence}
    entry = {
        "seq": 1,
        "recorded": "2026-01-01T00:00:00Z",
        "stream": str(uuid4()),
        "stream_kind": "record",
        "version": 1,
        "emitter": {"by": "service", "source": "crm"},
        "sealed": {},
        "event": {"type": "ledger.record.accessed.v1", "data": data},
    }
    return read_entry(json.dumps(entry).encode())


EVENTS = [event_with(number) for number in range(30)]


@given(st.lists(st.integers(0, 29), min_size=1))
def test_gaps_are_what_a_set_of_numbers_would_say(numbers: list[int]) -> None:
    gaps = SequenceGaps()
    for number in numbers:
        gaps.meet(EVENTS[number])
    met = set(numbers)
    missing = set(range(min(met), max(met))) - met
    (found,) = gaps.listed()
    assert (found["first"], found["last"], found["missing"]) == (min(met), max(met), len(missing))
    assert {n for first, last in found["gaps"] for n in range(first, last + 1)} == missing
    ends = [edge for gap in found["gaps"] for edge in gap]
    assert ends == sorted(ends)


def test_writing_a_large_member_holds_none_of_it_in_memory(tmp_path: Path) -> None:
    piece = bytes(range(256)) * 256
    with (tmp_path / "large.zip").open("w+b") as file:
        tracemalloc.start()
        with HashedZip(file) as archive, archive.member("large") as write:
            for _ in range(500):
                write(piece)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < 4_000_000
    assert archive.digests["large"] == hashlib.sha256(piece * 500).hexdigest()


def test_the_ledger_attests_to_manifests_and_never_to_a_checkpoint(ledger: Ledger) -> None:
    note = ledger.attest(b"5\nAAAA\n")
    text = note.split("\n\n")[0]
    assert text.splitlines()[0] == "custody-ledger manifest v0"
    with pytest.raises(vc.MalformedError):
        vc.open_checkpoint(note, (vc.parse_key(ledger.keyring.verifier_key()),), held="it")
