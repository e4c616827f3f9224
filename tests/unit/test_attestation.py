"""The filter on entries' bytes, the attestation's text, and an auditor's key."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.note import parse_verifier, sign_note
from ledger.errors import Malformed, Misconfigured, TamperDetected
from projections.attestation import Attestation, Filter, Population, parse_filter
from projections.attestor import load_key, make_key

RECORD = "a5c281be-a9f7-4971-852b-5829932b442b"
OTHER = "b5c281be-a9f7-4971-852b-5829932b442b"
ACTOR = "a9ab8cf6-f69e-81c4-9727-f9fadc43eb45"
FORMAT = Path(__file__).resolve().parents[2] / "ledger" / "FORMAT.md"


def an_access(*, kind: str = "record", time: str | None = None, **changes: Any) -> bytes:
    event = {"id": "e-1", "type": "ledger.record.accessed.v1", "data": {"actor": {"id": ACTOR}}}
    event |= {} if time is None else {"time": time}
    entry = {
        "seq": 7,
        "recorded": "2026-03-01T12:00:00.000000Z",
        "stream": RECORD,
        "stream_kind": kind,
        "event": event | changes,
    }
    return json.dumps(entry, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("document", "entry", "passes"),
    [
        ({}, an_access(), True),
        ({"record": RECORD}, an_access(), True),
        ({"record": OTHER}, an_access(), False),
        ({"record": RECORD}, an_access(kind="ledger"), False),
        ({}, an_access(kind="ledger"), True),
        ({}, an_access(kind="aggregate"), False),
        ({"actor": ACTOR}, an_access(), True),
        ({"actor": OTHER}, an_access(), False),
        ({"actor": ACTOR}, an_access(data={}), False),
        ({"actor": ACTOR}, an_access(data={"note": f'"actor":{{"id":"{ACTOR}"}}'}), False),
        ({"type": "record.accessed"}, an_access(), True),
        ({"type": "record.used"}, an_access(), False),
        ({}, an_access(type="ledger.record.updated.v1"), False),
        ({}, an_access(type="com.example.thing", note='"type":"ledger.record.used.v1"'), False),
        ({"from_time": "2026-03-01T12:00:00.000000Z"}, an_access(), True),
        ({"to_time": "2026-03-01T12:00:00.000000Z"}, an_access(), False),
        ({"from_time": "2026-03-01T12:00:00.000001Z"}, an_access(), False),
        ({"to_time": "2026-03-01T12:00:00.000001Z"}, an_access(), True),
        (
            {"to_time": "2026-03-01T12:00:00.000000Z"},
            an_access(time="2026-03-01T19:59:59.9+08:00"),
            True,
        ),
        (
            {"from_time": "2026-03-01T12:00:00.000001Z"},
            an_access(time="2026-03-01T12:00:00.000000999Z"),
            False,
        ),
    ],
)
def test_a_filter_means_what_the_format_says(
    document: dict[str, str], entry: bytes, *, passes: bool
) -> None:
    assert parse_filter(document).matches(entry) is passes


_TIMES = st.datetimes(datetime(1900, 1, 2), datetime(2999, 12, 30))  # noqa: DTZ001 - given a zone
_ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(_TIMES, _ZONES, _TIMES, st.integers(0, 999))
def test_times_are_compared_as_instants_to_the_microsecond(
    naive: datetime, zone: timezone, bound: datetime, nanoseconds: int
) -> None:
    happened = naive.replace(tzinfo=zone)
    text = happened.isoformat(timespec="microseconds")
    sent = f"{text[:26]}{nanoseconds:03d}{text[26:]}"
    limit = bound.replace(tzinfo=UTC)
    written = limit.isoformat(timespec="microseconds").replace("+00:00", "Z")
    entry = an_access(time=sent)
    assert Filter(from_time=written).matches(entry) is (happened >= limit)
    assert Filter(to_time=written).matches(entry) is (happened < limit)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "{}",
        {"unknown": "x"},
        {"record": None},
        {"record": 5},
        {"record": RECORD.upper()},
        {"record": RECORD.replace("-", "")},
        {"actor": ACTOR, "record": RECORD},
        {"type": "record.updated"},
        {"type": "ledger.record.used.v1"},
        {"from_time": "2026-03-01"},
        {"from_time": "2026-03-01T12:00:00Z"},
        {"to_time": "2026-02-30T12:00:00.000000Z"},
        {"to_time": "2026-03-01T12:00:00.000000+00:00"},
    ],
)
def test_a_filter_written_in_another_way_is_refused(document: Any) -> None:
    with pytest.raises(Malformed):
        parse_filter(document)


@pytest.mark.parametrize(
    "entry",
    [
        b'"type":"ledger.record.used.v1"',
        b'{"x":"type","event":{"type":"ledger.record.used.v1"}}',
        an_access(time="yesterday"),
        an_access(time="2026-03-01T12:00:00"),
        an_access(data=[]),
        an_access(data={"actor": "王"}),
    ],
)
def test_what_is_no_entry_is_never_passed_over(entry: bytes) -> None:
    with pytest.raises(TamperDetected):
        Filter(actor=ACTOR).matches(entry)


def test_the_text_is_the_one_that_the_format_writes() -> None:
    population = Population()
    population.add(7, bytes(32))
    population.add(9, bytes(range(32)))
    wanted = Filter(actor=ACTOR, record=RECORD, to_time="2026-03-01T12:00:00.000000Z")
    text = Attestation(
        origin="ledger.example/a",
        first=1,
        last=9,
        size=12,
        root=bytes(32),
        filter=wanted,
        count=population.count,
        digest=population.digest,
    ).text()
    digest = hashlib.sha256(f"7 {'00' * 32}\n9 {bytes(range(32)).hex()}\n".encode()).hexdigest()
    told = FORMAT.read_text(encoding="utf-8").split("\n7.8.")[1]
    shape = told.split("\n\n`")[1].split("`")[0]
    json_text = f'{{"record":"{RECORD}","actor":"{ACTOR}","to_time":"2026-03-01T12:00:00.000000Z"}}'
    expected = {
        " LF ": "\n",
        " LF": "\n",
        "origin": "ledger.example/a",
        " A B": " 1 9",
        "SIZE BASE64ROOT": f"12 {base64.b64encode(bytes(32)).decode()}",
        "JSON": json_text,
        "count N": "count 2",
        "HEX": digest,
    }
    for word, value in expected.items():
        shape = shape.replace(word, value)
    assert text == shape


def test_an_auditors_key_is_private_new_and_signs_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "auditor.key"
    made = make_key("审计.example", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.verifier.verifier_key() not in path.read_text(encoding="utf-8")
    loaded = load_key(path)
    assert loaded.verifier == made.verifier == parse_verifier(made.verifier.verifier_key())
    note = sign_note("text\n", [loaded])
    raw = base64.b64decode(note.split(" ")[-1])
    Ed25519PublicKey.from_public_bytes(made.verifier.public_key).verify(raw[4:], b"text\n")
    before = path.read_bytes()
    with pytest.raises(Misconfigured):
        make_key("审计.example", path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["", "two words", "a+b", "a\nb"])
def test_a_name_that_no_note_can_bear_makes_no_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "auditor.key"
    with pytest.raises(Malformed):
        make_key(name, path)
    assert not path.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: "",
        lambda line: line.replace("PRIVATE+KEY+", ""),
        lambda line: "x" + line,
        lambda line: line[:-5] + "\n",
        lambda line: line.replace("auditor", "another"),
        lambda line: line + line,
        lambda _: "PRIVATE+KEY+auditor+00000000+AA==\n",
        lambda _: "PRIVATE+KEY+auditor+00000000+\n",
    ],
)
def test_a_file_that_holds_no_such_key_is_refused_without_its_words(
    tmp_path: Path, spoil: Any
) -> None:
    path = tmp_path / "auditor.key"
    make_key("auditor", path)
    secret = path.read_text(encoding="utf-8").split("+")[-1].strip()
    path.write_text(spoil(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(Misconfigured) as caught:
        load_key(path)
    assert secret not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "auditor.key"
    make_key("auditor", path)
    path.chmod(0o640)
    with pytest.raises(Misconfigured, match="owner"):
        load_key(path)


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(Misconfigured):
        make_key("auditor", link)
    assert not target.exists()
