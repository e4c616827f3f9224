"""The page's verdict on bundles, held against that of verify_chain.py on the same bytes."""

from __future__ import annotations

import io
import re
import struct
import uuid
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.bundles import (
    ACTORS,
    AUDITOR,
    AUDITOR_NAME,
    ORIGIN,
    OTHER,
    RECORDS,
    ROOT,
    Log,
    attestation,
    bundle,
    checkpoint,
    disclosure,
    event_of,
    leaf_of,
    manifest_of,
    note_of,
    population,
    prove,
    sealing,
    seqs_of,
    sign,
    signed,
    sound,
    vc,
    verifier_key,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.browser.bundles import Files
    from tests.browser.support import Desk

VERIFIED, TAMPERED, USAGE, UNAVAILABLE, INCOMPLETE = range(5)
RECORD = {"kind": "record", "record": RECORDS[3]}
WHOLE = {"kind": "range", "from": 1, "to": 60}
RANGE = {"kind": "range", "from": 11, "to": 40}
CHOSEN: dict[str, Any] = {"kind": "accesses", "from": 5, "to": 55, "filter": {"actor": ACTORS[1]}}
FILTERS: list[dict[str, str]] = [
    {},
    {"record": RECORDS[2]},
    {"type": "record.exported"},
    {"from_time": "2026-01-01T00:20:00.000000Z", "to_time": "2026-01-01T00:41:00.000000Z"},
    {"actor": ACTORS[0], "type": "record.accessed", "from_time": "2026-01-01T00:09:00.000001Z"},
    {"type": "record.shared"},
]
PAGES_OWN = "this page itself: "
SCRIPTS_OWN = ("by the script that the manifest names", "who signed: ")


def script(path: Path, **trust: Any) -> dict[str, Any]:
    """Give the script's verdict."""
    try:
        result = vc.verify_bundle(path, vc.Trust(**trust))
    except vc.UnavailableError:
        return {"exit_code": UNAVAILABLE}
    found: dict[str, Any] = vc.json.loads(vc.as_json(result))
    return found


def facts(verdict: dict[str, Any]) -> dict[str, Any]:
    """Give what both have to say alike."""
    if verdict["exit_code"] == UNAVAILABLE:
        return {"exit_code": UNAVAILABLE}
    names = ("exit_code", "verdict", "kinds", "holds", "completeness", "counts", "origin")
    found = {name: verdict[name] for name in names}
    found["scope"] = None if verdict["scope"] == "record None" else verdict["scope"]
    told = [each for each in [verdict["first_bad"], *verdict["findings"]] if each]
    found["findings"] = [(each["kind"], each["seq"], each["what"]) for each in told]
    found["not_checked"] = [
        each for each in verdict["not_checked"] if not each.startswith((PAGES_OWN, *SCRIPTS_OWN))
    ]
    return found


def agreed(desk: Desk, path: Path, *, key: str | None = None) -> dict[str, Any]:
    """Have both judge a bundle; give the verdict that both come to."""
    key = verifier_key() if key is None else key
    verdict = desk.judge(path, keys=key)
    keys = (vc.parse_key(key),) if key else ()
    expected = script(path, keys=keys)
    assert facts(verdict) == facts(expected)
    if verdict["exit_code"] != UNAVAILABLE:
        assert verdict["rests_on"] == expected["rests_on"]
    return verdict


def judged(desk: Desk, folder: Path, files: Files, *, key: str | None = None) -> dict[str, Any]:
    return agreed(desk, write(folder / "bundle.zip", files), key=key)


# -- sound bundles --


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("scope", [RANGE, WHOLE, RECORD, CHOSEN])
def test_a_sound_bundle_is_verified_with_the_key_and_only_consistent_without(
    desk: Desk, tmp_path: Path, scope: dict[str, Any], *, stored: bool
) -> None:
    path = write(tmp_path / "bundle.zip", bundle(scope), stored=stored)
    verdict = agreed(desk, path)
    assert (verdict["exit_code"], verdict["verdict"]) == (VERIFIED, "verified")
    without = agreed(desk, path, key="")
    assert (without["exit_code"], without["verdict"]) == (INCOMPLETE, "consistent with itself")
    assert any(each.startswith("who signed") for each in without["not_checked"])
    assert "no key from outside" in without["rests_on"]


@pytest.mark.parametrize("chosen", FILTERS, ids=lambda chosen: "-".join(chosen) or "none")
def test_a_filter_lets_the_same_entries_pass_in_both(
    desk: Desk, tmp_path: Path, chosen: dict[str, str]
) -> None:
    scope = CHOSEN | {"filter": chosen}
    verdict = judged(desk, tmp_path, bundle(scope))
    assert verdict["exit_code"] == VERIFIED
    assert verdict["counts"]["entries"] == len(seqs_of(sound(), scope))
    assert verdict["completeness"].startswith("asserted")


def test_times_are_compared_as_instants_whatever_their_offset(desk: Desk, tmp_path: Path) -> None:
    log = Log()
    times = ["2026-01-01T08:00:00+08:00", "2025-12-31T23:59:59.9999999Z", "2026-01-01T00:00:00.5Z"]
    for number, time in enumerate([*times, "2026-01-01T01:00:00+01:00"]):
        event = {"id": f"t{number}", "type": "ledger.record.used.v1", "time": time}
        log.append(RECORDS[0], {**event, "data": {"actor": {"id": ACTORS[0]}}}, {})
    scope = {"kind": "accesses", "from": 1, "to": 4, "filter": {}}
    early = {"from_time": "2026-01-01T00:00:00.000000Z", "to_time": "2026-01-01T00:00:00.500000Z"}
    files = bundle(scope, log=log)
    manifest = manifest_of(files)
    for seqs, wanted in (([1, 4], early), ([1, 3, 4], {"from_time": early["from_time"]})):
        part = Log(entries=log.entries, leaves=log.leaves)
        made = _only(files, part, seqs)
        changed = signed(made, manifest | manifest_of(made) | {"scope": scope | {"filter": wanted}})
        assert judged(desk, tmp_path, changed)["exit_code"] == VERIFIED


def _only(files: Files, log: Log, seqs: list[int]) -> Files:
    """Give a bundle of accesses with these entries only."""
    lines = b"".join(log.entries[seq - 1] + b"\n" for seq in seqs)
    rows = "seq,leaf\r\n" + "".join(f"{seq},{log.leaves[seq - 1].hex()}\r\n" for seq in seqs)
    made = files | {"entries.jsonl": lines, "rows.csv": rows.encode()}
    made |= prove(log, seqs, "", is_chosen=True)
    told = {"first_seq": seqs[0], "last_seq": seqs[-1], "rows": len(seqs)}
    return signed(made, manifest_of(files) | population(log, seqs) | told)


# -- what was done to the lines --


def _delete(lines: list[bytes]) -> None:
    del lines[1]


def _delete_many(lines: list[bytes]) -> None:
    del lines[2:4]


def _swap(lines: list[bytes]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def _alter(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace(b'"by":"service"', b'"by":"person"')


def _alter_first(lines: list[bytes]) -> None:
    lines[0] = lines[0].replace(b"phone", b"phony")


def _alter_last(lines: list[bytes]) -> None:
    lines[-1] = lines[-1].replace(b"phone", b"phony")


def _alter_two(lines: list[bytes]) -> None:
    _alter(lines)
    lines[3] = lines[3].replace(b"phone", b"phony")


def _renumber(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace(b'"seq":', b'"seq":9').replace(b'"version":', b'"version":9')


def _enlarge(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace(b'"seq":', b'"seq":9007199254740993')


def _repeat(lines: list[bytes]) -> None:
    lines.insert(2, lines[1])


def _rival(lines: list[bytes]) -> None:
    lines.insert(2, lines[1].replace(b"phone", b"phony"))


def _cut(lines: list[bytes]) -> None:
    lines.pop()


def _cut_front(lines: list[bytes]) -> None:
    lines.pop(0)


def _empty(lines: list[bytes]) -> None:
    lines.clear()


def _no_entry(lines: list[bytes]) -> None:
    lines[1] = b"no longer JSON\n"


def _blank(lines: list[bytes]) -> None:
    lines.insert(1, b"\n")


def _no_end(lines: list[bytes]) -> None:
    lines[-1] = lines[-1][:-1]


def _not_utf8(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace("回访".encode(), b"\xff\xfe")


def _twice(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace(b'"data":{', b'"data":{"why":"x",')


def _huge(lines: list[bytes]) -> None:
    lines[1] = b'{"v":0,' + b"x" * 400_000 + b"}}\n"


def _almost(lines: list[bytes]) -> None:
    head = lines[1].partition(b'},"event":')[0]
    lines[1] = head + b'},"event":{' * 5_000 + b"\n"


def _other_ledger(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace(ORIGIN.encode(), b"ledger.example/other")


def _back_in_time(lines: list[bytes]) -> None:
    lines[-1] = lines[-1].replace(b'"recorded":"2026', b'"recorded":"2019')


LINES = [
    _delete, _delete_many, _swap, _alter, _alter_first, _alter_last, _alter_two, _renumber,
    _enlarge, _repeat, _rival, _cut, _cut_front, _empty, _no_entry, _blank, _no_end, _not_utf8,
    _twice, _huge, _almost, _other_ledger, _back_in_time,
]  # fmt: skip


@pytest.mark.parametrize("attack", LINES)
@pytest.mark.parametrize(
    ("scope", "resigned"),
    [(RANGE, False), (RANGE, True), (RECORD, True), (CHOSEN, True)],
    ids=["range", "range-resigned", "record-resigned", "accesses-resigned"],
)
def test_lines_attacked_are_named_as_the_script_names_them(
    desk: Desk,
    tmp_path: Path,
    attack: Callable[[list[bytes]], None],
    scope: dict[str, Any],
    *,
    resigned: bool,
) -> None:
    files = bundle(scope)
    lines = files["entries.jsonl"].splitlines(keepends=True)
    attack(lines)
    files |= {"entries.jsonl": b"".join(lines)}
    if resigned:  # by the ledger's operator itself
        files = signed(files)
    verdict = judged(desk, tmp_path, files)
    if attack is not _no_end or not resigned:
        assert verdict["exit_code"] == TAMPERED
        assert verdict["findings"]


def test_an_entry_of_no_stream_of_its_type_is_found(desk: Desk, tmp_path: Path) -> None:
    def bundle_of(name: str, data: dict[str, Any]) -> Files:
        log = Log()
        stream = str(uuid.uuid5(uuid.NAMESPACE_URL, ORIGIN + name))
        event = {"id": "1", "type": "ledger.control.performed.v1", "data": data}
        log.append(stream, event, {})
        kind = b'"stream_kind":"ledger"'
        log.entries[0] = log.entries[0].replace(b'"stream_kind":"record"', kind)
        log.leaves[0] = leaf_of(log.entries[0])
        return bundle({"kind": "range", "from": 1, "to": 1}, log=log)

    counted = {"population": {"count": 3}}
    tries = [
        ("#ledger.control.performed.v1", {}, VERIFIED),
        ("#source:crm", counted, VERIFIED),
        ("#source:crm", {}, TAMPERED),
        ("#source:web", counted, TAMPERED),
        ("#ledger.control.performed.v2", counted, TAMPERED),
    ]
    for name, data, code in tries:
        assert judged(desk, tmp_path, bundle_of(name, data))["exit_code"] == code


# -- what was done to the other files --


@pytest.mark.parametrize("scope", [RANGE, CHOSEN], ids=lambda scope: scope["kind"])
def test_a_changed_byte_in_any_file_is_tampering(
    desk: Desk, tmp_path: Path, scope: dict[str, Any]
) -> None:
    files = bundle(scope)
    for name, content in files.items():
        for at in {len(content) // 2, len(content) - 2}:
            changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            verdict = judged(desk, tmp_path, files | {name: changed})
            assert verdict["exit_code"] == TAMPERED, (name, at)


def test_a_file_left_out_or_added_is_tampering(desk: Desk, tmp_path: Path) -> None:
    for files in (bundle(), bundle(CHOSEN)):
        for name in files:
            rest = {each: raw for each, raw in files.items() if each != name}
            assert judged(desk, tmp_path, rest)["exit_code"] == TAMPERED, name
        for name in ("more.txt", "../evil", "/etc/passwd", "c:evil", "entries.jsonl/", "a\\b"):
            assert judged(desk, tmp_path, files | {name: b"x"})["exit_code"] == TAMPERED, name
        both = bundle() | bundle(CHOSEN)
        assert judged(desk, tmp_path, both)["exit_code"] == TAMPERED


def rows_attacked() -> list[bytes]:
    rows = bundle()["rows.csv"]
    head, _, rest = rows.partition(b"\r\n")
    return [
        rest,
        head + b"\r\n",
        b"",
        rows.replace(b",leaf", b",leaves"),
        rows.replace(b"seq,", b"no,"),
        rows + b"999," + b"00" * 32 + b",x\r\n",
        rows + b"\r\n",
        rows[:-2],
        rows.replace(b"\r\n", b"\n"),
        rows.replace(b'"",', b'"" and <b>more</b>'),
        rows + b"1,2\r\n",
        rows + "１１,x,y\r\n".encode(),
        rows + b"11,\xff,y\r\n",
    ]


@pytest.mark.parametrize("rows", rows_attacked())
def test_rows_are_held_against_entries_as_the_script_does(
    desk: Desk, tmp_path: Path, rows: bytes
) -> None:
    judged(desk, tmp_path, signed(bundle() | {"rows.csv": rows}))


CLAIMS: list[dict[str, Any]] = [
    {"completeness": "asserted"},
    {"completeness": "perhaps"},
    {"completeness": None},
    {"population": 7},
    {"population_sha256": "00" * 32},
    {"population_sha256": None},
    {"rows": 3},
    {"rows": 3.5},
    {"rows": "15"},
    {"first_seq": 12},
    {"last_seq": 12},
    {"last_seq": None},
    {"format": "custody-ledger/bundle/v1"},
    {"ledger": "ledger.example/other"},
    {"ledger": 5},
    {"as_of": {"seq": 59, "leaf": "00" * 32}},
    {"as_of": 4},
    {"scope": {"kind": "range", "from": 11, "to": 41}},
    {"scope": {"kind": "range", "from": 10, "to": 40}},
    {"scope": {"kind": "range", "from": 40, "to": 11}},
    {"scope": {"kind": "range", "from": 0, "to": 40}},
    {"scope": {"kind": "range", "from": "11", "to": 40}},
    {"scope": {"kind": "everything"}},
    {"scope": None},
    {"scope": RECORD},
    {"scope": CHOSEN},
    {"files": {}},
]


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
def test_what_a_signed_manifest_claims_is_held_against_the_files(
    desk: Desk, tmp_path: Path, claim: dict[str, Any]
) -> None:
    files = bundle()
    if claim == {"files": {}}:
        files |= {"verifier.html": b"another"}
    else:
        files = signed(files, manifest_of(files) | claim)
    verdict = judged(desk, tmp_path, files)
    if claim not in ({"completeness": "asserted"}, {"population_sha256": None}):
        assert verdict["exit_code"] == TAMPERED


FILTER_CLAIMS: list[Any] = [
    None,
    [],
    {"actor": 5},
    {"actor": ACTORS[1].upper()},
    {"type": "record.updated"},
    {"type": "record.accessed", "actor": ACTORS[1]},
    {"actor": ACTORS[1], "more": "x"},
    {"from_time": "2026-01-01T00:00:00Z"},
    {"actor": ACTORS[2]},
    {},
]


@pytest.mark.parametrize("claim", FILTER_CLAIMS, ids=str)
def test_a_filter_that_is_none_or_chooses_others_is_tampering(
    desk: Desk, tmp_path: Path, claim: Any
) -> None:
    files = bundle(CHOSEN)
    manifest = manifest_of(files) | {"scope": CHOSEN | {"filter": claim}}
    verdict = judged(desk, tmp_path, signed(files, manifest))
    assert verdict["exit_code"] == (VERIFIED if claim == {} else TAMPERED)


def test_what_is_chosen_stays_within_its_range_and_its_checkpoint(
    desk: Desk, tmp_path: Path
) -> None:
    files = bundle(CHOSEN)
    for ends in ({"from": 20}, {"to": 30}, {"to": 61}):
        manifest = manifest_of(files) | {"scope": CHOSEN | ends}
        assert judged(desk, tmp_path, signed(files, manifest))["exit_code"] == TAMPERED
    proved = manifest_of(files) | {"completeness": "proved"}
    assert judged(desk, tmp_path, signed(files, proved))["exit_code"] == TAMPERED


def test_a_proof_of_chosen_entries_is_used_up(desk: Desk, tmp_path: Path) -> None:
    files = bundle(CHOSEN)
    proof = files["entries.proof"]
    for changed in (b"", proof[32:], proof[:-1], proof + bytes(32), proof + b"\0", proof[::-1]):
        verdict = judged(desk, tmp_path, signed(files | {"entries.proof": changed}))
        assert (verdict["exit_code"], verdict["kinds"]) == (TAMPERED, ["rewritten"])


def test_no_entry_that_a_filter_chose_is_verified_too(desk: Desk, tmp_path: Path) -> None:
    files = bundle(CHOSEN | {"filter": {"type": "record.shared"}})
    assert files["entries.jsonl"] == b""
    assert judged(desk, tmp_path, files)["counts"] == {"entries": 0, "rows": 0, "population": 0}


# -- who signed, and which history --


def test_a_bundle_made_anew_with_another_key_is_rewritten(desk: Desk, tmp_path: Path) -> None:
    for scope in (RANGE, CHOSEN):
        files = bundle(scope)
        files |= {"checkpoint": checkpoint(sound().leaves, OTHER).encode()}
        verdict = judged(desk, tmp_path, signed(files, key=OTHER))
        assert (verdict["exit_code"], "rewritten" in verdict["kinds"]) == (TAMPERED, True)


def test_a_log_rewritten_by_its_own_signer_is_consistent_and_only_the_outside_tells(
    desk: Desk, tmp_path: Path
) -> None:
    other = Log()
    for seq, entry in enumerate(sound().entries, 1):
        whole = vc.json.loads(entry)
        event = event_of(entry) | ({"id": "another"} if seq == 5 else {})
        other.append(whole["stream"], event, whole["sealed"])
    path = write(tmp_path / "bundle.zip", bundle(RANGE, log=other))
    assert agreed(desk, path)["exit_code"] == VERIFIED
    assert outside(desk, path, checkpoint(sound().leaves))["exit_code"] == TAMPERED


@pytest.mark.parametrize("name", [ORIGIN, "ledger.example/other"])
def test_a_wrong_key_does_not_verify(desk: Desk, tmp_path: Path, name: str) -> None:
    wrong = verifier_key(OTHER if name == ORIGIN else AUDITOR, name)
    verdict = judged(desk, tmp_path, bundle(), key=wrong)
    assert verdict["exit_code"] == TAMPERED
    assert verdict["findings"][0]["what"] == "manifest.note: not signed by a pinned key"


def outside(desk: Desk, path: Path, note: str) -> dict[str, Any]:
    """Have both compare with a checkpoint held outside."""
    verdict = desk.judge(path, checkpoint=note)
    key = vc.parse_key(verifier_key())
    held = vc.open_checkpoint(note, (key,), held="checkpoint pasted", outside=True)
    expected = script(path, keys=(key,), checkpoints=(held,))
    assert facts(verdict) == facts(expected)
    assert verdict["rests_on"] == expected["rests_on"]
    return verdict


def test_a_checkpoint_held_outside_is_compared(desk: Desk, tmp_path: Path) -> None:
    path = write(tmp_path / "bundle.zip", bundle(WHOLE))
    for size in (60, 30, 1, 59):
        verdict = outside(desk, path, checkpoint(sound().leaves[:size]))
        assert verdict["exit_code"] == VERIFIED
        assert "signed by the pinned key" in verdict["rests_on"][1]
    part = write(tmp_path / "part.zip", bundle(RANGE))
    skipped = outside(desk, part, checkpoint(sound().leaves[:30]))
    assert any("of other sizes" in each for each in skipped["not_checked"])


def test_a_split_view_is_tampering_and_named(desk: Desk, tmp_path: Path) -> None:
    fork = [bytes(32), *sound().leaves[1:]]
    for scope in (WHOLE, RANGE, RECORD, CHOSEN):
        path = write(tmp_path / "bundle.zip", bundle(scope))
        verdict = outside(desk, path, checkpoint(fork))
        assert verdict["kinds"] == ["rewritten"]
        assert "both signed" in verdict["findings"][0]["what"]
    whole = write(tmp_path / "whole.zip", bundle(WHOLE))
    assert outside(desk, whole, checkpoint(fork[:40]))["kinds"] == ["rewritten"]


def test_what_does_not_parse_is_told_where_it_was_given(desk: Desk, tmp_path: Path) -> None:
    path = write(tmp_path / "bundle.zip", bundle(CHOSEN))
    vkey, key = verifier_key(AUDITOR, AUDITOR_NAME), verifier_key()
    note = attestation(bundle(CHOSEN))
    broken = checkpoint(sound().leaves).replace("\n60\n", "\n61\n")
    unsigned = checkpoint(sound().leaves, OTHER)
    tries = [
        ({"keys": "nonsense"}, "verifier key: expected name+8 hex digits+base64"),
        ({"keys": f"# kept\n{key[:-4]}AAAA"}, "the id of this name and key"),
        ({"checkpoint": "nonsense"}, "checkpoint pasted: expected a note"),
        ({"checkpoint": broken}, "bad signature in a pinned key's name"),
        ({"checkpoint": unsigned}, "which of the two is wrong?"),
        ({"attestation": note}, "no key of whoever signed it"),
        ({"attestor": vkey}, "but no attestation"),
        ({"attestation": note, "attestor": key}, "not signed by the attestor's key"),
        ({"attestation": sign("x\n", AUDITOR, AUDITOR_NAME), "attestor": vkey}, "another format"),
    ]
    for given, words in tries:
        blank = dict.fromkeys(("checkpoint", "attestation", "attestor"), "")
        verdict = desk.judge(path, **{"keys": key, **blank, **given})
        assert verdict["exit_code"] == USAGE
        assert words in verdict["usage"]
        assert desk.do(lambda page: page.locator("[aria-invalid]").count()) == 1


# -- attestations --


def attested(desk: Desk, folder: Path, files: Files, **changes: Any) -> dict[str, Any]:
    """Have both take an attestation into account."""
    note, path = attestation(files, **changes), write(folder / "bundle.zip", files)
    vkey = verifier_key(AUDITOR, AUDITOR_NAME)
    verdict = desk.judge(path, attestation=note, attestor=vkey)
    (folder / "pasted").write_text(note)
    given = vc.read_attestation(folder / "pasted", vkey)
    expected = script(path, keys=(vc.parse_key(verifier_key()),), attestation=given)
    assert facts(verdict) == facts(expected)
    return verdict


def test_an_attestation_proves_what_was_asserted(desk: Desk, tmp_path: Path) -> None:
    files = bundle(CHOSEN)
    number = manifest_of(files)["population"]
    verdict = attested(desk, tmp_path, files)
    assert verdict["exit_code"] == VERIFIED
    assert verdict["completeness"] == (
        f"proved: {AUDITOR_NAME} replayed entries 5 to 55 and found these {number} and no other"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": "ledger.example/other"},
        {"from": 6},
        {"to": 54},
        {"filter": "{}"},
        {"count": 99},
        {"digest": "00" * 32},
        {"size": 54},
    ],
    ids=str,
)
def test_an_attestation_of_something_else_proves_nothing_here(
    desk: Desk, tmp_path: Path, changes: dict[str, Any]
) -> None:
    verdict = attested(desk, tmp_path, bundle(CHOSEN), **changes)
    assert verdict["exit_code"] == VERIFIED
    assert verdict["completeness"].startswith("asserted")
    assert any(AUDITOR_NAME in each for each in verdict["not_checked"])


def test_an_attestation_over_another_root_is_a_split_view(desk: Desk, tmp_path: Path) -> None:
    for size in (60,):
        verdict = attested(desk, tmp_path, bundle(CHOSEN), root=bytes(32), size=size)
        assert verdict["exit_code"] == TAMPERED
        assert "split view at size 60" in verdict["findings"][0]["what"]


# -- the zip itself --


def test_a_bomb_is_not_unpacked(desk: Desk, tmp_path: Path) -> None:
    verdict = judged(desk, tmp_path, bundle() | {"rows.csv": bytes(2**24)})
    assert verdict["exit_code"] == UNAVAILABLE
    assert verdict["reason"] == "rows.csv: too large, or encrypted; not unpacked"


def test_a_name_that_stands_twice_is_tampering(desk: Desk, tmp_path: Path) -> None:
    path = write(tmp_path / "bundle.zip", bundle())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("entries.jsonl", b"")
    assert agreed(desk, path)["exit_code"] == TAMPERED


def spoiled(path: Path) -> list[bytes]:
    """Give zips whose directory and files don't agree."""
    whole = path.read_bytes()
    central = whole.index(b"PK\1\2")
    at = whole.index(b"PK\1\2", central + 4)  # the second file's entry
    size = whole.rindex(b"PK\5\6")

    def put(place: int, raw: bytes) -> bytes:
        return whole[:place] + raw + whole[place + len(raw) :]

    (packed,) = struct.unpack_from("<I", whole, at + 20)
    (length,) = struct.unpack_from("<I", whole, at + 24)
    return [
        b"",
        b"no zip",
        whole[: len(whole) // 2],
        whole[:-1],
        put(size + 16, struct.pack("<I", 3)),  # the directory elsewhere
        put(at + 42, struct.pack("<I", 5)),  # a file elsewhere
        put(at + 20, struct.pack("<I", packed - 3)),  # cut off
        put(at + 24, struct.pack("<I", length - 1)),  # unpacks to more than stated
        put(at + 24, struct.pack("<I", length + 1)),  # and to less
        put(at + 16, bytes(4)),  # another checksum
        put(at + 8, struct.pack("<H", 1)),  # encrypted, it says
        put(at + 10, struct.pack("<H", 99)),  # packed in a way that nobody knows
        put(whole.index(b"PK\3\4") + 30, b"X"),  # the file itself has another name
        put(whole.index(b"PK\3\4") + 80, b"\xff\xff\xff"),  # what was packed
    ]


def test_a_zip_that_contradicts_itself_is_not_judged(desk: Desk, tmp_path: Path) -> None:
    whole = write(tmp_path / "bundle.zip", bundle())
    for number, raw in enumerate(spoiled(whole)):
        path = tmp_path / f"spoiled-{number}.zip"
        path.write_bytes(raw)
        verdict = desk.judge(path)
        assert verdict["exit_code"] == UNAVAILABLE, number
        assert verdict["reason"]


def test_bytes_that_belong_to_no_file_are_refused(desk: Desk, tmp_path: Path) -> None:
    """More strictly than by Python: another program might read another zip out of them."""
    whole = write(tmp_path / "bundle.zip", bundle()).read_bytes()
    for raw in (b"in front" + whole, whole + b"behind", whole + whole):
        (tmp_path / "more.zip").write_bytes(raw)
        assert desk.judge(tmp_path / "more.zip")["exit_code"] == UNAVAILABLE


def test_files_that_share_their_bytes_are_refused(desk: Desk, tmp_path: Path) -> None:
    path = write(tmp_path / "bundle.zip", bundle())
    whole = path.read_bytes()
    first = whole.index(b"PK\1\2")
    second = whole.index(b"PK\1\2", first + 4)
    offset = whole[first + 42 : first + 46]
    path.write_bytes(whole[: second + 42] + offset + whole[second + 46 :])
    assert desk.judge(path)["exit_code"] == UNAVAILABLE


def test_a_zip64_with_descriptors_as_other_programs_write_it_is_read(
    desk: Desk, tmp_path: Path
) -> None:
    class Pipe(io.RawIOBase):
        """Can't be sought in: sizes then come after each file."""

        def __init__(self) -> None:
            self.raw = b""

        def writable(self) -> bool:
            return True

        def write(self, raw: Any) -> int:
            self.raw += bytes(raw)
            return len(raw)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in bundle().items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as file:
                file.write(raw)
    path = tmp_path / "bundle.zip"
    path.write_bytes(pipe.raw)
    assert agreed(desk, path)["exit_code"] == VERIFIED


def test_a_zip64_directory_is_read(desk: Desk, tmp_path: Path) -> None:
    path = write(tmp_path / "bundle.zip", bundle())
    whole = path.read_bytes()
    at = whole.rindex(b"PK\5\6")
    count, size, start = struct.unpack_from("<HII", whole, at + 10)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(whole[:at] + record + locator + end)
    assert agreed(desk, path)["exit_code"] == VERIFIED


# -- disclosures --


def test_a_disclosure_is_told_which_field_of_which_entry_it_opens(
    desk: Desk, tmp_path: Path
) -> None:
    other_salt = disclosure("another salt", "data.note", "秘密 13")
    held = [note_of(13), note_of(15), note_of(14), other_salt, "nonsense", note_of(47)]
    desk.judge(write(tmp_path / "bundle.zip", bundle()), disclosures="\n".join(held))
    shown = desk.do(lambda page: page.locator("#opened li").all_inner_texts())
    words = [
        "opens data.note of entry 13", "opens data.note of entry 15",
        "belongs to nothing in this bundle", "belongs to nothing in this bundle",
        "isn't a disclosure", "belongs to nothing in this bundle",
    ]  # fmt: skip
    assert [expected in found for expected, found in zip(words, shown, strict=True)] == [True] * 6
    assert 'data.note = "秘密 13"' in shown[0]


def test_a_disclosure_under_another_name_is_told_of(desk: Desk, tmp_path: Path) -> None:
    log = Log()
    opened = disclosure("s" * 22, "data.personal.tel.13800138000", "138")
    other = disclosure("t" * 22, "data.note", "x")
    sealed = {"~1": sealing(opened), "data.reason": sealing(other)}
    log.append(RECORDS[0], event_of(sound().entries[0]), sealed)
    files = bundle({"kind": "range", "from": 1, "to": 1}, log=log)
    desk.judge(write(tmp_path / "bundle.zip", files), disclosures=f"{opened}\n{other}")
    first, second = desk.do(lambda page: page.locator("#opened li").all_inner_texts())
    assert "opens ~1 of entry 1" in first
    assert "belongs to data.reason of entry 1, but names itself otherwise" in second


def test_the_worked_example_is_opened_by_its_disclosures(desk: Desk, tmp_path: Path) -> None:
    """FORMAT.md, section 9: what a customer's disclosures open, and a member of staff's."""
    example = (ROOT / "ledger" / "FORMAT.md").read_text(encoding="utf-8").split("## 9.")[1]
    entries = re.findall(r'^\{"v":0,.*\}$', example, re.MULTILINE)
    held = re.findall(r"^Wy[\w-]+$", example, re.MULTILINE)
    assert (len(entries), len(held)) == (3, 3)
    lines = "".join(f"{entry}\n" for entry in entries).encode()
    path = write(tmp_path / "bundle.zip", bundle() | {"entries.jsonl": lines})
    desk.judge(path, disclosures="\n".join(held))
    subject, note, staff = desk.do(lambda page: page.locator("#opened li").all_inner_texts())
    assert "opens subject of entry 2" in subject
    assert 'subject = "crm:C-10023"' in subject
    assert "opens data.note of entry 2" in note
    assert 'data.note = "回电\\u0020138"' not in note  # shown as decoded
    assert 'data.note = "回电 138"' in note
    assert "opens e0b8a9e5-6fc4-8610-aa76-d473ce6623c7 of entry 2" in staff
    assert "of entry 3" in staff
    assert 'staff = "e0117"' in staff
