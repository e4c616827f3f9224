"""An auditor replays whole ranges and signs what they found, or is told what is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from ledger.cli.group import main
from ledger.core.merkle import RightEdge, prove_inclusion
from ledger.core.note import open_note, parse_verifier
from projections.exports.chosen import AccessFilter, ChosenAccesses
from tests.fixtures.bundles import ROOT, SUBJECTS, TAMPERED, VERIFIED, Desk, Evidence
from tests.fixtures.ledgers import an_event, record

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

USAGE, UNAVAILABLE, INCOMPLETE = 2, 3, 4
PROOF = "c2sp.org/tlog-proof@v1"
VERIFIER = ROOT / "scripts" / "verify_chain.py"


@dataclass(frozen=True, kw_only=True)
class Office:
    """An auditor with bundles of the whole ledger, on a machine without it."""

    desk: Desk
    ranges: list[Path]
    end: int
    key: Path
    vkey: str
    folder: Path

    def attest(self, *arguments: Any, ranges: list[Path] | None = None) -> Result:
        """Run the command, over a ledger's key that came from elsewhere."""
        ledger_key = self.desk.ledger.keyring.verifier_key()
        given = ["--ledger-key", ledger_key, "--key", self.key, *arguments]
        chosen = self.ranges if ranges is None else ranges
        return CliRunner().invoke(main, ["attest", *map(str, [*chosen, *given])])

    def accesses(self, **narrowing: Any) -> Evidence:
        """Get a bundle of accesses of somebody."""
        actor = self.desk.ledger.find_staff("王1")
        asked = AccessFilter(actor=actor)
        return self.desk.hand_out(ChosenAccesses(filter=asked, **{"last": self.end, **narrowing}))

    def verify(self, bundle: Path, *arguments: Any) -> tuple[int, dict[str, Any]]:
        """Run the script that auditors run."""
        key = self.desk.ledger.keyring.verifier_key()
        evidence = self.folder / "evidence.json"
        command = [sys.executable, VERIFIER, bundle, "--key", key, "--json", *arguments]
        done = subprocess.run(
            [*map(str, command), "--evidence", str(evidence)], capture_output=True, check=False
        )
        return done.returncode, json.loads(done.stdout or b"{}")


@pytest.fixture
def office(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    """Give bundles of entries 1 to 9, and 10 to the head, and a key."""
    record(desk.ledger, an_event(type="record.shared", data=shared()))
    desk.catch_up()
    end = desk.head()
    ranges = [desk.hand_out((1, 9)).path, desk.hand_out((10, end)).path]
    folder = tmp_path / "office"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LEDGER_HOME", "/nowhere")
    monkeypatch.setenv("LEDGER_DATABASE_URL", "host=/nowhere")
    made = CliRunner().invoke(main, ["attest", "--new-key", "审计.example", "--key", "my.key"])
    assert made.exit_code == 0, made.output
    vkey = made.output.split("verifier_key")[1].split()[0]
    return Office(
        desk=desk, ranges=ranges, end=end, key=folder / "my.key", vkey=vkey, folder=folder
    )


def shared() -> dict[str, Any]:
    recipient = {"id": "P-7", "kind": "processor"}
    return {"actor": {"id": "王1"}, "fields": ["phone"], "recipient": recipient}


def test_a_replay_turns_what_was_asserted_into_proved(office: Office) -> None:
    evidence = office.accesses()
    code, verdict = office.verify(evidence.path)
    assert (code, verdict["completeness"][:8]) == (VERIFIED, "asserted")
    out = office.folder / "note"
    result = office.attest("--bundle", evidence.path, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"matches       {evidence.manifest['population']}" in result.output
    note = open_note(out.read_text(encoding="utf-8"), [parse_verifier(office.vkey)])
    found = evidence.manifest
    assert note.text.splitlines() == [
        "custody-ledger attestation v0",
        office.desk.ledger.origin,
        f"range {found['scope']['from']} {found['scope']['to']}",
        note.text.splitlines()[3],
        f"filter {json.dumps(found['scope']['filter'], separators=(',', ':'))}",
        f"count {found['population']}",
        f"digest {found['population_sha256']}",
    ]
    assert note.text.splitlines()[3].startswith("checkpoint ")
    code, verdict = office.verify(
        evidence.path, "--attestation", out, "--attestor-key", office.vkey
    )
    assert code == VERIFIED
    assert verdict["completeness"].startswith("proved: 审计.example replayed entries 1 to ")


def test_a_part_of_the_range_can_be_attested_too(office: Office) -> None:
    evidence = office.accesses(first=4, last=15)
    out = office.folder / "note"
    assert office.attest("--bundle", evidence.path, "--out", out).exit_code == 0
    code, verdict = office.verify(
        evidence.path, "--attestation", out, "--attestor-key", office.vkey
    )
    assert (code, verdict["completeness"][:7]) == (VERIFIED, "proved:")
    last = office.accesses(first=10, last=15)
    result = office.attest("--bundle", last.path, ranges=office.ranges[1:])
    assert result.exit_code == 0, result.output
    other = office.accesses(first=4, last=16)
    code, verdict = office.verify(other.path, "--attestation", out, "--attestor-key", office.vkey)
    assert (code, verdict["completeness"][:8]) == (VERIFIED, "asserted")


def test_a_filter_of_ones_own_is_counted_over_the_whole_ranges(office: Office) -> None:
    wanted = {"type": "record.accessed"}
    result = office.attest("--filter", json.dumps(wanted), "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["matches"] == 15
    assert document["filter"] == '{"type":"record.accessed"}'
    assert document["range"] == f"1 to {office.end}"
    open_note(document["attestation"], [parse_verifier(office.vkey)])


def test_the_note_alone_goes_to_stdout(office: Office) -> None:
    result = office.attest("--filter", "{}")
    assert result.exit_code == 0
    assert open_note(result.stdout, [parse_verifier(office.vkey)])
    assert "matches" in result.stderr


def test_the_order_of_the_files_does_not_matter(office: Office) -> None:
    notes = [office.attest("--filter", "{}", ranges=r).stdout for r in (office.ranges, [])]
    assert notes[0]
    assert notes[1] == ""
    assert office.attest("--filter", "{}", ranges=office.ranges[::-1]).stdout == notes[0]


# -- what a replay finds -----------------------------------------------------------------


def resign(office: Office, evidence: Evidence, files: dict[str, bytes]) -> Path:
    """Write a bundle as an operator would who holds the key and changed it."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = {
        name: hashlib.sha256(raw).hexdigest()
        for name, raw in files.items()
        if not name.startswith("manifest")
    }
    text = json.dumps(manifest).encode()
    note = office.desk.ledger.attest(text).encode()
    path = evidence.path.with_suffix(".forged.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in (files | {"manifest.json": text, "manifest.note": note}).items():
            archive.writestr(name, raw)
    return path


def test_an_access_that_the_operator_left_out_is_named_and_nothing_signed(
    office: Office,
) -> None:
    lost = office.accesses().entries[2]["seq"]
    office.desk.spoil("DELETE FROM view_access_history WHERE seq = %s", lost)
    evidence = office.accesses()
    assert office.verify(evidence.path)[0] == VERIFIED
    out = office.folder / "note"
    result = office.attest("--bundle", evidence.path, "--out", out)
    assert result.exit_code == TAMPERED
    assert f"lacks entry {lost}" in result.output
    assert not out.exists()


def test_an_entry_put_in_is_found_by_the_verifier_before(office: Office) -> None:
    evidence = office.accesses()
    wider = office.desk.hand_out(ChosenAccesses(filter=AccessFilter(), last=20))
    manifest = json.loads(wider.files["manifest.json"])
    manifest["scope"] = evidence.manifest["scope"] | {"to": 20}
    files = wider.files | {"manifest.json": json.dumps(manifest).encode()}
    result = office.attest("--bundle", resign(office, wider, files))
    assert result.exit_code == TAMPERED
    assert "the verifier found tampering" in result.output


def test_a_range_that_was_altered_is_refused(office: Office) -> None:
    raw = office.ranges[1].read_bytes()
    spoiled = office.folder / "spoiled.zip"
    with zipfile.ZipFile(office.ranges[1]) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["entries.jsonl"] = files["entries.jsonl"].replace(b"phone", b"phony", 1)
    with zipfile.ZipFile(spoiled, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    result = office.attest("--filter", "{}", ranges=[office.ranges[0], spoiled])
    assert result.exit_code == TAMPERED
    spoiled.write_bytes(raw[: len(raw) // 2])
    result = office.attest("--filter", "{}", ranges=[office.ranges[0], spoiled])
    assert result.exit_code == UNAVAILABLE


def test_ranges_that_do_not_adjoin_are_not_attested(office: Office) -> None:
    later = office.desk.hand_out((12, 15)).path
    again = office.desk.hand_out((9, 15)).path
    for second in (later, again):
        result = office.attest("--filter", "{}", ranges=[office.ranges[0], second])
        assert result.exit_code == INCOMPLETE
        assert "from entry 10" in result.output


def test_a_bundle_beyond_the_ranges_is_not_attested(office: Office) -> None:
    evidence = office.accesses()
    for part in (office.ranges[:1], office.ranges[1:]):
        assert office.attest("--bundle", evidence.path, ranges=part).exit_code == INCOMPLETE


def rewritten(office: Office, what: tuple[int, int]) -> tuple[list[bytes], list[bytes]]:
    """Give entries as a second history would have them, and its leaves."""
    rows = office.desk.ledger.entries(1, what[1], 10_000)
    lines, leaves, prev = [], [], "0" * 64
    streams: dict[str, str] = {}
    for row in rows:
        entry = json.loads(row.entry)
        line = row.entry.replace(
            b'"prev":"%s"' % entry["prev"].encode(), b'"prev":"%s"' % (prev.encode())
        )
        before = entry["stream_prev"]
        if before is not None:
            line = line.replace(before.encode(), streams[entry["stream"]].encode())
        if entry["seq"] == 5:
            line = line.replace(b"address", b"addressed")
        leaf = hashlib.sha256(b"\0" + line).digest()
        prev = streams[entry["stream"]] = leaf.hex()
        lines.append(line)
        leaves.append(leaf)
    return lines, leaves


def second_history(office: Office, what: tuple[int, int], size: int) -> Path:
    """Make a range bundle of a history that the same key signed as well."""
    evidence = office.desk.hand_out(what)
    lines, leaves = rewritten(office, (1, size))
    edge = RightEdge()
    edge.extend(leaves)
    ledger = office.desk.ledger
    root = base64.b64encode(edge.root()).decode()
    text = f"{ledger.origin}\n{size}\n{root}\n"
    raw = base64.b64decode(ledger.attest(b"").split(" ")[-1])[:4]
    signed = base64.b64encode(raw + ledger.signer.sign(text.encode())).decode()
    note = f"{text}\n— {ledger.origin} {signed}\n"
    kept = lines[what[0] - 1 : what[1]]
    nodes = {0: leaves}
    proof = prove_inclusion(what[1] - 1, size, lambda level, at, n: nodes[level][at : at + n])
    rows = evidence.files["rows.csv"].decode().split("\r\n")
    new = {str(n): leaf.hex() for n, leaf in enumerate(leaves, 1)}
    cells = [row.split(",") for row in rows[1:-1]]
    table = [rows[0], *(",".join([c[0], new[c[0]], *c[2:]]) for c in cells), ""]
    hashes = "".join(base64.b64encode(step).decode() + "\n" for step in proof)
    manifest = evidence.manifest | {"as_of": {"seq": size, "leaf": leaves[-1].hex()}}
    population = [
        f"{json.loads(line)['seq']} {hashlib.sha256(bytes(1) + line).hexdigest()}\n"
        for line in kept
        if b"record.accessed" in line or b"record.shared" in line
    ]
    digest = hashlib.sha256("".join(population).encode()).hexdigest()
    manifest["population_sha256"] = digest
    files = evidence.files | {
        "manifest.json": json.dumps(manifest).encode(),
        "entries.jsonl": b"".join(line + b"\n" for line in kept),
        "checkpoint": note.encode(),
        "last.tlog-proof": f"{PROOF}\nindex {what[1] - 1}\n{hashes}\n{note}".encode(),
        "rows.csv": "\r\n".join(table).encode(),
    }
    return resign(office, evidence, files)


def test_two_histories_under_one_key_are_a_split_view(office: Office) -> None:
    with zipfile.ZipFile(office.ranges[1]) as archive:
        size = int(archive.read("checkpoint").split(b"\n")[1])
    for part, signed in (((1, 9), size), ((1, 9), 9), ((1, 22), 22)):
        forged = second_history(office, part, signed)
        assert office.verify(forged)[0] == VERIFIED
        rest = office.desk.hand_out((part[1] + 1, size)).path
        result = office.attest("--filter", "{}", ranges=[forged, rest])
        assert result.exit_code == TAMPERED, result.output
        assert "nothing is signed" not in result.output
        accesses = office.accesses(last=part[1])
        result = office.attest("--bundle", accesses.path, ranges=[forged])
        assert result.exit_code == TAMPERED, result.output


# -- calls that make no sense ------------------------------------------------------------


def test_a_bundle_of_another_kind_is_refused(office: Office) -> None:
    kinds = [office.ranges[0], office.desk.hand_out(SUBJECTS[0]).path]
    for path in kinds:
        assert office.attest("--bundle", path).exit_code == USAGE
    assert office.attest("--filter", "{}", ranges=[kinds[1]]).exit_code == USAGE
    assert office.attest("--filter", "{}", ranges=[office.accesses().path]).exit_code == USAGE


@pytest.mark.parametrize("text", ["", "[]", "{", '{"actor":"王1"}', '{"a":1,"a":2}'])
def test_a_filter_that_is_none_is_refused(office: Office, text: str) -> None:
    assert office.attest("--filter", text).exit_code == USAGE


def test_calls_that_lack_something_are_refused(office: Office) -> None:
    assert office.attest().exit_code == USAGE
    assert office.attest("--filter", "{}", "--bundle", office.ranges[0]).exit_code == USAGE
    assert office.attest("--filter", "{}", ranges=[]).exit_code == USAGE
    assert office.attest("--filter", "{}", "--new-key", "me").exit_code == USAGE
    out = office.folder / "there"
    out.write_text("kept", encoding="utf-8")
    assert office.attest("--filter", "{}", "--out", out).exit_code == USAGE
    assert out.read_text(encoding="utf-8") == "kept"


def test_the_ledgers_own_name_is_no_auditors(office: Office) -> None:
    own = office.folder / "own.key"
    name = office.desk.ledger.origin
    assert CliRunner().invoke(main, ["attest", "--new-key", name, "--key", str(own)]).exit_code == 0
    result = CliRunner().invoke(
        main,
        [
            "attest",
            *map(str, office.ranges),
            *("--ledger-key", office.desk.ledger.keyring.verifier_key()),
            *("--key", str(own), "--filter", "{}"),
        ],
    )
    assert result.exit_code == USAGE
    assert "own name" in result.output


def test_another_ledgers_key_verifies_nothing(office: Office) -> None:
    result = CliRunner().invoke(
        main,
        [
            "attest",
            *map(str, office.ranges),
            *("--ledger-key", office.vkey),
            *("--key", str(office.key), "--filter", "{}"),
        ],
    )
    assert result.exit_code == USAGE
