"""The verifier and what is brought along: receipts, witnesses, attestations, filtered bundles."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit import test_verify_chain_pure as made

if TYPE_CHECKING:
    from pathlib import Path

vc = made.vc
WITNESSES = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (7, 8, 9)]
AUDITOR = Ed25519PrivateKey.from_private_bytes(bytes([20]) * 32)


# -- receipts --


def receipt(log: made.MemoryLog, seq: int, /, **changes: Any) -> dict[str, Any]:
    row = log.table[seq - 1]
    given = {"record": row.stream.decode(), "seq": seq, "leaf": row.leaf.hex(), "version": 1}
    return {"id": f"e{seq}", **given, "incomplete": [], "repeated": False, **changes}


def answers(log: made.MemoryLog) -> list[dict[str, Any]]:
    """Give one answer of each shape that POST events has."""
    note = made.checkpoint(log.leaves[:40])
    parts = [receipt(log, 5), receipt(log, 6)]
    problem = {"status": 422, "problem": {"title": "no"}}
    several = {"id": "e5", "entries": parts, "incomplete": [], "repeated": False}
    return [
        {**receipt(log, 3), "checkpoint": note},
        {**several, "checkpoint": None, "checkpoint_pending": "/v1"},
        {"receipts": [receipt(log, 7), receipt(log, 8)], "checkpoint": note},
        {"results": [{"status": 201, "receipt": receipt(log, 9)}, problem], "checkpoint": None},
        {"results": [problem], "checkpoint": None},
        {"receipts": [], "checkpoint": None},
    ]


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def with_receipts(path: Path, given: Any = None) -> Any:
    given = given or made.trust()
    receipts, points = vc.read_receipts([str(path)], given.keys)
    held = (*given.checkpoints, *points)
    return vc.replace(given, receipts=receipts, checkpoints=held)


def test_receipts_of_every_shape_are_held_against_the_log(tmp_path: Path):
    log = made.sound()
    given = with_receipts(write_lines(tmp_path / "r", answers(log)))
    assert sorted(given.receipts) == [3, 5, 6, 7, 8, 9]
    result = made.verify(log, given)
    assert (result.code, result.counts["acknowledged entries"]) == (0, 6)
    assert "receipts of 6 entries, given from outside" in result.rests_on


def test_a_checkpoint_in_a_receipt_is_one_held_outside(tmp_path: Path):
    log = made.sound()
    path = write_lines(tmp_path / "r", answers(log))
    assert made.verify(log, with_receipts(path, made.trust(size=None))).code == 0
    other = {**receipt(log, 3), "checkpoint": made.checkpoint([bytes(32)] * 40)}
    result = made.verify(log, with_receipts(write_lines(path, [other])))
    assert result.kinds == ["rewritten"]
    assert "checkpoint of receipt r:1" in result.findings[0].what
    assert any(each.note == other["checkpoint"] for each in result.checkpoints)


def test_an_acknowledged_entry_that_is_missing_is_tampering_with_the_receipt_as_evidence(
    tmp_path: Path,
):
    log = made.sound()
    leaf = "ab" * 32
    path = write_lines(tmp_path / "r", [receipt(log, 60) | {"seq": 61, "leaf": leaf}])
    result = made.verify(log, with_receipts(path))
    made.expect(result, "truncated", 61)
    assert (result.findings[0].expected, result.findings[0].found) == (leaf, None)
    assert "receipt r:1" in result.findings[0].what


def test_an_acknowledged_entry_that_was_cut_out_is_named_with_its_receipt(tmp_path: Path):
    log = made.sound()
    path = write_lines(tmp_path / "r", [receipt(log, 30)])
    del log.table[29]
    result = made.verify(log, with_receipts(path))
    assert ("deleted", 30) in {(each.kind, each.seq) for each in result.findings}
    assert any("receipt r:1" in each.what for each in result.findings)


def test_another_entry_than_was_acknowledged_is_named_with_its_receipt(tmp_path: Path):
    log = made.sound()
    path = write_lines(tmp_path / "r", [receipt(log, 30)])
    made.change(log, 30, made.other_bytes(log, 30), leaf_too=True)
    made.rechain(log, 30)
    log.notes = {60: made.checkpoint(log.leaves)}  # with the ledger's own key
    given = with_receipts(path, made.trust(made.checkpoint(log.leaves)))
    result = made.verify(log, given)
    made.expect(result, "rewritten", 30)
    assert result.findings[0].found == log.leaves[29].hex()


def test_two_receipts_that_contradict_each_other_show_two_histories(tmp_path: Path):
    log = made.sound()
    lines = [receipt(log, 30), receipt(log, 30, leaf="cd" * 32)]
    result = made.verify(log, with_receipts(write_lines(tmp_path / "r", lines)))
    made.expect(result, "rewritten", 30)
    assert "receipt r:2" in result.findings[0].what


def test_a_receipt_forged_under_another_key_is_usage_and_names_the_line(tmp_path: Path):
    log = made.sound()
    note = made.checkpoint(log.leaves, made.OTHER)
    path = write_lines(tmp_path / "r", [receipt(log, 1), {**receipt(log, 2), "checkpoint": note}])
    with pytest.raises(vc.UsageError, match="r:2: not signed by the pinned key"):
        with_receipts(path)
    spoiled = made.checkpoint(log.leaves).replace("\n60\n", "\n61\n")
    write_lines(path, [{**receipt(log, 2), "checkpoint": spoiled}])
    with pytest.raises(vc.UsageError, match="r:1: bad signature"):
        with_receipts(path)


@pytest.mark.parametrize(
    "line",
    [
        "no",
        "[]",
        "{}",
        '{"seq":1}',
        '{"seq":0,"leaf":"%s"}' % ("00" * 32),
        '{"seq":true,"leaf":"%s"}' % ("00" * 32),
        '{"seq":"1","leaf":"%s"}' % ("00" * 32),
        '{"seq":1,"leaf":"00"}',
        '{"receipts":[1]}',
        '{"results":[[]]}',
        '{"seq":1,"seq":1,"leaf":"%s"}' % ("00" * 32),
    ],
)
def test_lines_that_are_no_answers_are_usage(tmp_path: Path, line: str):
    (tmp_path / "r").write_text(f"\n{line}\n")
    with pytest.raises(vc.UsageError, match="r:2: expected an answer"):
        vc.read_receipts([str(tmp_path / "r")], ())


def test_receipts_are_held_against_bundles(tmp_path: Path):
    log = made.sound()
    path = write_lines(tmp_path / "r", [receipt(log, 12), receipt(log, 55)])
    given = with_receipts(path, made.trust(size=None))
    result = made.verify_files(tmp_path, made.bundle_files(), given)
    assert result.code == 0
    assert any("receipts, 1 of them" in each for each in result.not_checked)
    write_lines(path, [receipt(log, 12, leaf="ab" * 32)])
    result = made.verify_files(tmp_path, made.bundle_files(), with_receipts(path, given))
    made.expect(result, "rewritten", 12)
    record = made.RECORDS[3]
    write_lines(path, [receipt(log, 2, record=record, seq=9, leaf="ab" * 32)])
    result = made.verify_files(tmp_path, made.bundle_files(record=record), with_receipts(path))
    assert result.code == 1


# -- witnesses --


def witness_key(key: Ed25519PrivateKey, name: str = "witness.example/w") -> str:
    typed = b"\4" + key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(name.encode() + b"\n" + typed).hexdigest()[:8]
    return f"{name}+{key_id}+{base64.b64encode(typed).decode()}"


def cosigned(note: str, *keys: Ed25519PrivateKey, at: int = 1_760_000_000) -> str:
    text = note[: note.index("\n\n") + 1]
    for key in keys:
        name, key_id, _ = witness_key(key).split("+", 2)
        message = f"cosignature/v1\ntime {at}\n{text}".encode()
        blob = bytes.fromhex(key_id) + at.to_bytes(8) + key.sign(message)
        note += f"\u2014 {name} {base64.b64encode(blob).decode()}\n"
    return note


def witnessed(*notes: str, quorum: int, **more: Any) -> Any:
    keys = tuple(vc.parse_key(witness_key(key), vc.COSIGNATURE) for key in WITNESSES)
    given = made.trust(size=None, **more)
    points = [
        vc.open_checkpoint(note, (*given.keys, *keys), held=f"outside {at}", outside=True)
        for at, note in enumerate(notes)
    ]
    return vc.replace(given, witnesses=keys, quorum=quorum, checkpoints=tuple(points))


def test_cosignatures_of_unknown_witnesses_are_passed_over():
    log = made.sound()
    log.notes[60] = cosigned(log.notes[60], *WITNESSES)
    assert made.verify(log).code == 0


def test_a_quorum_of_witnesses_stands_in_for_a_checkpoint_held_outside():
    log = made.sound()
    log.notes[60] = cosigned(log.notes[60], *WITNESSES[:2])
    result = made.verify(log, witnessed(quorum=2))
    assert result.code == 0
    told = [each for each in result.rests_on if each.startswith("witnesses' word on size 60")]
    assert told
    assert told[0].count("2025-10-09T") == 2
    result = made.verify(log, witnessed(quorum=3))
    assert result.code == 4
    assert any("3 of the witnesses" in each for each in result.not_checked)


def test_without_the_quorum_a_checkpoint_held_outside_is_not_enough_where_one_was_asked_for():
    log = made.sound()
    held = made.checkpoint(log.leaves)
    assert made.verify(log, witnessed(held, quorum=1)).code == 4
    assert made.verify(log, witnessed(cosigned(held, WITNESSES[0]), quorum=1)).code == 0


def test_one_witness_twice_is_no_quorum():
    log = made.sound()
    log.notes[60] = cosigned(log.notes[60], WITNESSES[0], WITNESSES[0])
    assert made.verify(log, witnessed(quorum=2)).code == 4


def test_a_cosignature_in_a_witness_name_that_it_did_not_make_is_found():
    log = made.sound()
    good = cosigned(log.notes[60], WITNESSES[0])
    line = good.splitlines()[-1]
    raw = bytearray(base64.b64decode(line.split()[2]))
    for at in (4, 11, 12, len(raw) - 1):
        spoiled = bytes(raw[:at]) + bytes([raw[at] ^ 1]) + bytes(raw[at + 1 :])
        log.notes[60] = good.replace(line.split()[2], base64.b64encode(spoiled).decode())
        assert made.verify(log, witnessed(quorum=1)).kinds == ["rewritten"]
    short = base64.b64encode(bytes(raw[:-1])).decode()
    log.notes[60] = good.replace(line.split()[2], short)
    assert made.verify(log, witnessed(quorum=1)).kinds == ["rewritten"]


def test_a_witnessed_checkpoint_of_another_root_is_a_split_view():
    log = made.sound()
    other = cosigned(made.checkpoint([bytes(32)] * 60), *WITNESSES)
    result = made.verify(log, witnessed(other, quorum=1))
    assert any("split view at size 60" in each.what for each in result.findings)
    assert other in {each.note for each in result.checkpoints}


def test_a_witness_key_is_no_ledger_key_and_the_other_way_round():
    with pytest.raises(vc.UsageError, match="Ed25519"):
        vc.parse_key(witness_key(WITNESSES[0]))
    with pytest.raises(vc.UsageError, match="type 04"):
        vc.parse_key(made.verifier_key(), vc.COSIGNATURE)


# -- accesses that a filter chose --


def subtree_proof(leaves: list[bytes], chosen: set[int], first: int = 0) -> list[bytes]:
    """Prove several leaves as FORMAT.md 7.7 says, in its own words."""
    if not chosen & set(range(first, first + len(leaves))):
        return [made.root_of(leaves)]
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    left = subtree_proof(leaves[:split], chosen, first)
    return left + subtree_proof(leaves[split:], chosen, first + split)


ACCESSES = {"record.accessed", "record.exported", "record.used", "record.shared"}


def chosen_log(size: int = 60) -> made.MemoryLog:
    """Give a log whose accesses differ in all that a filter asks for."""
    log = made.sound(1)
    kinds = [*sorted(ACCESSES), "record.updated"]
    for at in range(2, size + 1):
        event: dict[str, Any] = {"id": f"e{at}", "type": f"ledger.{kinds[at % 5]}.v1"}
        if at % 3 == 0:
            event["time"] = f"2026-02-{at % 28 + 1:02d}T23:30:00.1234567-01:00"
        event["data"] = {"actor": {"id": made.RECORDS[at % 2]}}
        log.append(made.RECORDS[at % 4], "record", event)
    log.notes = {size: made.checkpoint(log.leaves)}
    return log.finish()


def passes(row: Any, chosen: dict[str, str]) -> bool:
    entry = json.loads(row.entry)
    event = entry["event"]
    name = event["type"].removeprefix("ledger.").removesuffix(".v1")
    at = entry["recorded"]
    if "time" in event:
        day = event["time"][8:10]
        at = f"2026-{'03' if day == '28' else '02'}-{int(day) % 28 + 1:02d}T00:30:00.123456Z"
    return (
        name in ACCESSES
        and chosen.get("type", name) == name
        and chosen.get("record", entry["stream"]) == entry["stream"]
        and chosen.get("actor", event["data"]["actor"]["id"]) == event["data"]["actor"]["id"]
        and chosen.get("from_time", "") <= at < chosen.get("to_time", "~")
    )


def chosen_files(
    chosen: dict[str, str], first: int = 3, last: int = 50, **changes: Any
) -> dict[str, bytes]:
    log = chosen_log()
    rows = [row for row in log.table if first <= row.seq <= last and passes(row, chosen)]
    table = "seq,leaf\r\n" + "".join(f"{row.seq},{row.leaf.hex()}\r\n" for row in rows)
    lines = "".join(f"{row.seq} {row.leaf.hex()}\n" for row in rows)
    files = {
        "entries.jsonl": b"".join(row.entry + b"\n" for row in rows),
        "rows.csv": table.encode(),
        "checkpoint": made.checkpoint(log.leaves).encode(),
        "entries.proof": b"".join(subtree_proof(log.leaves, {row.seq - 1 for row in rows})),
        "verifier.html": b"<html></html>",
        "FORMAT.md": b"# The format\n",
    }
    manifest = {
        "format": "custody-ledger/bundle/v0",
        "ledger": made.ORIGIN,
        "scope": {"kind": "accesses", "from": first, "to": last, "filter": chosen},
        "as_of": {"seq": 60, "leaf": log.leaves[-1].hex()},
        "population": len(rows),
        "population_sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "rows": len(rows),
        "first_seq": rows[0].seq if rows else None,
        "last_seq": rows[-1].seq if rows else None,
        "completeness": "asserted",
    }
    return made.signed_manifest(files, manifest | changes)


FILTERS: list[dict[str, str]] = [
    {},
    {"record": made.RECORDS[2]},
    {"actor": made.RECORDS[1]},
    {"type": "record.shared"},
    {"from_time": "2026-02-10T00:30:00.123456Z"},
    {"to_time": "2026-02-10T00:30:00.123456Z"},
    {
        "record": made.RECORDS[1],
        "actor": made.RECORDS[1],
        "type": "record.exported",
        "from_time": "2026-01-01T00:00:00.000000Z",
        "to_time": "2026-02-20T00:00:00.000000Z",
    },
    {"record": "00000000-0000-4000-8000-000000000000"},
]


@pytest.mark.parametrize("chosen", FILTERS)
def test_a_bundle_of_chosen_accesses_is_verified_and_asserted(
    tmp_path: Path, chosen: dict[str, str]
):
    result = made.verify_files(tmp_path, chosen_files(chosen))
    assert (result.code, result.findings) == (0, [])
    assert result.completeness.startswith("asserted")


def test_proofs_of_any_entries_of_small_trees_lead_to_the_root():
    leaves = [made.leaf_of(bytes([n])) for n in range(9)]
    for size in range(1, 10):
        for mask in range(1 << size):
            chosen = {at for at in range(size) if mask >> at & 1}
            proof = subtree_proof(leaves[:size], chosen)
            found = {at + 1: leaves[at] for at in chosen}
            assert vc.root_above(found, size, proof) == made.root_of(leaves[:size])
            for wrong in ([*proof, bytes(32)], proof[:-1], [*proof[:-1], b"x"]):
                if wrong != proof:
                    with pytest.raises(vc.MalformedError):
                        vc.root_above(found, size, wrong)


def _files_with(lines: list[bytes], good: dict[str, bytes]) -> dict[str, bytes]:
    """Make a bundle of other lines, its manifest signed anew by the ledger's own key."""
    log, manifest = chosen_log(), json.loads(good["manifest.json"])
    rows = [row for row in log.table if row.entry + b"\n" in lines]
    text = "".join(f"{row.seq} {row.leaf.hex()}\n" for row in rows)
    files = {name: raw for name, raw in good.items() if "manifest" not in name}
    files |= {
        "entries.jsonl": b"".join(lines),
        "entries.proof": b"".join(subtree_proof(log.leaves, {row.seq - 1 for row in rows})),
    }
    manifest |= {
        "population": len(rows),
        "population_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "first_seq": rows[0].seq,
        "last_seq": rows[-1].seq,
    }
    return made.signed_manifest(files, manifest)


def test_an_entry_that_the_filter_does_not_choose_is_found_though_all_is_signed(tmp_path: Path):
    for chosen in FILTERS[1:5]:
        good = chosen_files(chosen)
        other = next(
            row.entry + b"\n" for row in chosen_log().table[3:50] if not passes(row, chosen)
        )
        lines = [*good["entries.jsonl"].splitlines(keepends=True), other]
        lines.sort(key=lambda line: json.loads(line)["seq"])
        result = made.verify_files(tmp_path, _files_with(lines, good))
        assert result.code == 1
        assert "isn't one that the filter chooses" in result.first_bad.what
        assert result.first_bad.seq == json.loads(other)["seq"]


def test_chosen_lines_attacked_are_found(tmp_path: Path):
    good = chosen_files({})
    for attack in (made._delete, made._swap, made._alter, made._repeat, made._cut):
        assert made.verify_files(tmp_path, made.attack_lines(good, attack)).code == 1, attack


def test_every_file_of_a_chosen_bundle_is_bound_to_the_key(tmp_path: Path):
    good = chosen_files({"actor": made.RECORDS[1]})
    for name, content in good.items():
        for at in range(0, len(content), max(1, len(content) // 20)):
            flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            assert made.verify_files(tmp_path, good | {name: flipped}).code == 1, (name, at)


def test_a_proof_cut_off_or_lengthened_is_found_though_all_is_signed(tmp_path: Path):
    good = chosen_files({"actor": made.RECORDS[1]})
    proof, manifest = good["entries.proof"], json.loads(good["manifest.json"])
    for other in (proof[:-32], proof + bytes(32), proof[:-1], b"", proof[32:] + proof[:32]):
        files = {name: raw for name, raw in good.items() if "manifest" not in name}
        spoiled = made.signed_manifest(files | {"entries.proof": other}, manifest)
        result = made.verify_files(tmp_path, spoiled)
        assert result.kinds == ["rewritten"]


@pytest.mark.parametrize(
    "scope",
    [
        {"kind": "accesses", "from": 3, "to": 2, "filter": {}},
        {"kind": "accesses", "from": 0, "to": 2, "filter": {}},
        {"kind": "accesses", "from": 3, "to": 61, "filter": {}},
        {"kind": "accesses", "from": 3, "to": 50},
        {"kind": "accesses", "filter": {}},
        {"kind": "accesses", "from": 3, "to": 50, "filter": {"type": "record.updated"}},
        {"kind": "accesses", "from": 3, "to": 50, "filter": {"phone": "x"}},
        {"kind": "accesses", "from": 3, "to": 50, "filter": {"to_time": "2026"}},
        {"kind": "accesses", "from": 3, "to": 50, "filter": {"type": "x", "record": "y"}},
        {"kind": "range", "from": 3, "to": 50},
        {"kind": "record", "record": made.RECORDS[1]},
    ],
)
def test_scopes_that_are_none_or_of_other_files_are_found(tmp_path: Path, scope: dict[str, Any]):
    assert made.verify_files(tmp_path, chosen_files({}, scope=scope)).code == 1


def test_what_is_chosen_can_not_call_itself_complete(tmp_path: Path):
    assert made.verify_files(tmp_path, chosen_files({}, completeness="proved")).code == 1


def test_the_population_of_every_bundle_is_counted(tmp_path: Path):
    for scope in ({}, {"record": made.RECORDS[3]}):
        good = made.bundle_files(**scope)
        lines = [json.loads(line) for line in good["entries.jsonl"].splitlines()]
        types = [entry["event"].get("type", "").split(".") for entry in lines]
        number = sum(".".join(each[1:3]) in ACCESSES for each in types)
        assert 0 < number < len(lines)
        for wrong in (0, 1):
            manifest = json.loads(good["manifest.json"]) | {"population": number + wrong}
            digest = made.population_digest(good["entries.jsonl"])
            manifest |= {"population_sha256": digest}
            files = {name: raw for name, raw in good.items() if "manifest" not in name}
            result = made.verify_files(tmp_path, made.signed_manifest(files, manifest))
            assert result.code == wrong


# -- attestations --


def attestation(
    files: dict[str, bytes], key: Ed25519PrivateKey = AUDITOR, **changes: str
) -> tuple[str, str]:
    """Attest what a bundle says, but for some lines; give the note and the verifier key."""
    manifest = json.loads(files["manifest.json"])
    scope = manifest["scope"]
    checkpoint = files["checkpoint"].decode().splitlines()
    facts = {
        "origin": made.ORIGIN,
        "range": f"range {scope['from']} {scope['to']}",
        "checkpoint": f"checkpoint {checkpoint[1]} {checkpoint[2]}",
        "filter": f"filter {made.compact(scope['filter']).decode()}",
        "count": f"count {manifest['population']}",
        "digest": f"digest {manifest['population_sha256']}",
        **changes,
    }
    text = "custody-ledger attestation v0\n" + "".join(f"{line}\n" for line in facts.values())
    name = "audit.example/firm"
    return made.sign(text, key, name), made.verifier_key(AUDITOR, name)


def attested(folder: Path, files: dict[str, bytes], note: str, vkey: str) -> Any:
    path = folder / "attestation"
    path.write_text(note)
    given = vc.replace(made.trust(size=None), attestation=vc.read_attestation(path, vkey))
    return made.verify_files(folder, files, given)


@pytest.mark.parametrize("chosen", FILTERS)
def test_an_attestation_makes_completeness_proved(tmp_path: Path, chosen: dict[str, str]):
    files = chosen_files(chosen)
    number = json.loads(files["manifest.json"])["population"]
    result = attested(tmp_path, files, *attestation(files))
    assert result.code == 0
    assert result.completeness == (
        f"proved: audit.example/firm replayed entries 3 to 50 and found these {number} and no other"
    )


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("origin", "ledger.example/other"),
        ("range", "range 3 49"),
        ("filter", 'filter {"type":"record.shared"}'),
        ("count", "count 4"),
        ("digest", f"digest {'00' * 32}"),
        ("checkpoint", f"checkpoint 49 {base64.b64encode(bytes(32)).decode()}"),
    ],
)
def test_an_attestation_of_something_else_proves_nothing(tmp_path: Path, line: str, other: str):
    files = chosen_files({})
    result = attested(tmp_path, files, *attestation(files, **{line: other}))
    assert result.code == 0
    assert result.completeness.startswith("asserted")
    assert any("attestation of audit.example/firm" in each for each in result.not_checked)


def test_an_attestation_on_another_tree_of_the_same_size_is_a_split_view(tmp_path: Path):
    files = chosen_files({})
    other = f"checkpoint 60 {base64.b64encode(bytes(32)).decode()}"
    result = attested(tmp_path, files, *attestation(files, checkpoint=other, count="count 1"))
    assert result.kinds == ["rewritten"]
    assert "split view at size 60" in result.findings[0].what


def test_an_attestation_on_a_later_tree_counts(tmp_path: Path):
    files = chosen_files({})
    later = f"checkpoint 70 {base64.b64encode(bytes(32)).decode()}"
    result = attested(tmp_path, files, *attestation(files, checkpoint=later))
    assert result.completeness.startswith("proved")


def test_an_attestation_by_somebody_else_is_usage(tmp_path: Path):
    files = chosen_files({})
    note, vkey = attestation(files, made.OTHER)
    with pytest.raises(vc.UsageError, match="not signed by the attestor's key"):
        attested(tmp_path, files, note, vkey)
    good, vkey = attestation(files)
    with pytest.raises(vc.UsageError, match="bad signature"):
        attested(tmp_path, files, good.replace("count ", "count 1"), vkey)
    with pytest.raises(vc.UsageError, match="of another format"):
        attested(tmp_path, files, *attestation(files, count="number 1"))


# -- streams of what has no subject --


def population(stream: str, *, source: str | None = None, **data: Any) -> made.MemoryLog:
    log = made.sound()
    event = {"id": "p", "type": "ledger.record.exported.v1", "data": data}
    event |= {"source": source} if source else {}
    emitter = b'{"by":"service","credential":"c","source":"crm"}'
    log.append(stream, "ledger", event, emitter=emitter)
    return log.finish()


def test_an_event_on_a_population_stands_in_its_sources_stream():
    counted = {"population": {"count": 5}}
    own, other = made.stream_named("#source:crm"), made.stream_named("#source:erp")
    assert made.verify(population(own, **counted)).code == 0
    assert made.verify(population(other, source="erp", **counted)).code == 0
    for log in (
        population(other, **counted),
        population(own, source="erp", **counted),
        population(own),
        population(own, population={"count": "5"}),
        population(made.RECORDS[1], **counted),
    ):
        made.expect(made.verify(log), "altered", 61)


def test_custom_types_stand_in_topic_as_they_were_sent():
    log = made.sound()
    name = "com.example.crm.customer-merged"
    log.append(made.RECORDS[1], "record", {"id": "c1", "type": name, "data": {}})
    log.append(made.stream_named(f"#{name}"), "ledger", {"id": "c2", "type": name, "data": {}})
    log.finish()
    assert made.verify(log).code == 0
    log.table[60] = log.table[60]._replace(topic=f"ledger.{name}.v1".encode())
    made.expect(made.verify(log), "altered", 61)


# -- the command --


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(made.SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_folder_of_checkpoints_may_hold_drafts_and_other_things(tmp_path: Path):
    made.verify_files(tmp_path, made.bundle_files())
    folder = tmp_path / "anchors"
    folder.mkdir()
    note = made.checkpoint(made.sound().leaves)
    (folder / "0060.checkpoint").write_text(note)
    (folder / "0061.draft").write_text(note[:20])
    (folder / ".0062.checkpoint").write_text("hidden")
    (folder / "0060.tsr").write_bytes(bytes(range(256)))
    (folder / "README").write_text("what this is")
    (folder / "an older one").write_text(made.checkpoint(made.sound().leaves[:30]))
    (folder / "inner").mkdir()
    assert len(vc.read_notes([str(folder)])) == 2
    given = (tmp_path / "bundle.zip", "--key", made.verifier_key(), "--checkpoint", folder)
    assert command(*given).returncode == 0
    (folder / "0063.checkpoint").write_text(note[:20])
    assert command(*given).returncode == 2


def test_a_failure_of_the_verifier_itself_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    made.verify_files(tmp_path, made.bundle_files())

    def failing(*_: object) -> None:
        raise ValueError("crm:C-10023")

    monkeypatch.setattr(vc, "verify_bundle", failing)
    assert vc.main([str(tmp_path / "bundle.zip")]) == 3
    said = capsys.readouterr().err
    assert "ValueError, line" in said
    assert "C-10023" not in said
    assert "Traceback" not in said


def test_without_its_library_the_verifier_has_no_verdict(tmp_path: Path):
    (tmp_path / "cryptography.py").write_text("raise ImportError('none here')")
    done = subprocess.run(
        [sys.executable, str(made.SCRIPT), "x.zip"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)


def test_a_terminal_that_can_not_write_everything_changes_no_verdict(tmp_path: Path):
    made.verify_files(tmp_path, made.bundle_files())
    done = subprocess.run(
        [sys.executable, str(made.SCRIPT), str(tmp_path / "bundle.zip")],
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ""},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 4


@pytest.mark.parametrize(
    "arguments",
    [
        "x.zip --log http://h/x",
        "--log http://h/x --schema s",
        "--database d",
        "x.zip --state s",
        "x.zip --from-checkpoint c",
        "x.zip --credential c",
        "x.zip --keyring k",
        "--log http://h/x --full",
        "--log http://h/x --state s --from-checkpoint c",
        "--log http://h/x --attestation a --attestor-key k",
        "x.zip --attestation a",
        "x.zip --attestor-key k",
        "x.zip --witness-quorum 0",
        "x.zip --witness-quorum 1",
        "--log http://h/x --step 100",
        "--log http://h/x --jobs 0",
    ],
)
def test_options_that_do_not_go_together_are_usage(arguments: str):
    try:
        code = vc.main(arguments.split())
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
