"""Bundles of accesses through the service and the command."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from ledger.cli import main
from tests.http.support import LEDGER, Running, event, head, problem

if TYPE_CHECKING:
    import httpx
    from click.testing import Result

VERIFIER = Path(__file__).resolve().parents[2] / "scripts" / "verify_chain.py"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
STAFF = "林小姐-0117"


@pytest.fixture(scope="module")
def filled(service: Running) -> Running:
    for number in range(12):
        actor = {"actor": {"id": STAFF if number % 3 else "e-2"}, "fields": ["phone"]}
        kind = "record.exported" if number % 4 == 0 else "record.accessed"
        time = f"2026-04-{number + 1:02d}T08:00:00+08:00"
        service.record(event(type=kind, subject=f"crm:F-{number % 2}", data=actor, time=time))
    return service


def entries_of(content: bytes) -> list[dict[str, Any]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [json.loads(line) for line in archive.read("entries.jsonl").splitlines()]


def manifest_of(content: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        found: dict[str, Any] = json.loads(archive.read("manifest.json"))
    return found


def export(service: Running, wanted: dict[str, Any], **ends: int) -> httpx.Response:
    response = service.ask("exports", {"accesses": wanted, **ends})
    assert response.status_code == 200, response.text
    return response


def verify(service: Running, path: Path) -> int:
    key = service.open.ledger.keyring.verifier_key()
    command = [sys.executable, str(VERIFIER), str(path), "--key", key]
    command += ["--evidence", f"{path}.evidence"]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"subject": "crm:F-1"}, 6),
        ({"actor": STAFF}, 8),
        ({"actor": STAFF, "subject": "crm:F-0", "type": "record.exported"}, 2),
        ({"actor": "e-2", "from_time": "2026-04-04T00:00:00Z"}, 3),
        ({"actor": "e-2", "to_time": "2026-04-04T08:00:00.000000+08:00"}, 1),
    ],
)
def test_accesses_of_people_are_exported_and_verified_by_the_script_alone(
    filled: Running, tmp_path: Path, wanted: dict[str, Any], count: int
) -> None:
    response = export(filled, wanted)
    assert len(entries_of(response.content)) == count
    found = manifest_of(response.content)
    assert found["completeness"] == "asserted"
    assert set(found["scope"]["filter"]) == {
        {"subject": "record"}.get(name, name) for name in wanted
    }
    path = tmp_path / "b.zip"
    path.write_bytes(response.content)
    assert verify(filled, path) == 0
    told = json.dumps(found, ensure_ascii=False) + str(response.headers)
    assert not any(word in told for word in ("F-0", "F-1", STAFF))


def test_pseudonyms_and_positions_narrow_too(filled: Running) -> None:
    actor = export(filled, {"actor": STAFF})
    pseudonym = manifest_of(actor.content)["scope"]["filter"]["actor"]
    same = export(filled, {"actor_pseudonym": pseudonym})
    assert entries_of(same.content) == entries_of(actor.content)
    seqs = [entry["seq"] for entry in entries_of(actor.content)]
    part = export(filled, {"actor": STAFF}, **{"from": seqs[2], "to": seqs[4]})
    assert [entry["seq"] for entry in entries_of(part.content)] == seqs[2:5]
    tail = export(filled, {"actor": STAFF}, **{"from": seqs[3]})
    assert [entry["seq"] for entry in entries_of(tail.content)] == seqs[3:]


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        ({"subject": "crm:never-met"}, "/accesses/subject"),
        ({"actor": "never-met"}, "/accesses/actor"),
        ({"actor": "never-met", "subject": "crm:F-1"}, "/accesses/actor"),
    ],
)
def test_asking_for_somebody_never_met_is_recorded_without_the_name(
    filled: Running, wanted: dict[str, Any], pointer: str
) -> None:
    before = head(filled)
    found = problem(filled.ask("exports", {"accesses": wanted}), 404)
    assert found.pointer == pointer
    assert head(filled) == before + 1
    entry = filled.get(f"entries/{before + 1}").json()
    assert entry["event"]["data"]["rows"] == 0
    assert "never-met" not in json.dumps(entry)
    (box,) = filled.open.ledger.entries(before + 1, before + 1, 1)
    assert b"never-met" not in box.entry


def test_a_record_or_pseudonym_that_nobody_has_gives_an_empty_bundle(
    filled: Running, tmp_path: Path
) -> None:
    for wanted in ({"record": UNKNOWN}, {"actor_pseudonym": UNKNOWN}):
        response = export(filled, wanted)
        assert entries_of(response.content) == []
        path = tmp_path / "b.zip"
        path.write_bytes(response.content)
        assert verify(filled, path) == 0


@pytest.mark.parametrize(
    ("question", "pointer"),
    [
        ({"accesses": {"subject": "crm:F-1", "record": UNKNOWN}}, "/accesses"),
        ({"accesses": {"actor": "e", "actor_pseudonym": UNKNOWN}}, "/accesses"),
        ({"accesses": {"type": "record.updated"}}, "/accesses/type"),
        ({"accesses": {"from_time": "yesterday"}}, "/accesses/from_time"),
        ({"accesses": {"to_time": "2026-01-01T00:00:00"}}, "/accesses/to_time"),
        ({"accesses": {"to_time": "0001-01-01T00:00:00+14:00"}}, "/accesses/to_time"),
        ({"accesses": {"unknown": 1}}, "/accesses/unknown"),
        ({"accesses": {}, "record": UNKNOWN}, None),
        ({"accesses": {}, "subject": "crm:F-1"}, None),
        ({"accesses": {}, "from": 3, "to": 2}, None),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    filled: Running, question: dict[str, Any], pointer: str | None
) -> None:
    before = head(filled)
    assert problem(filled.ask("exports", question), 422).pointer == pointer
    assert head(filled) == before


# -- the command -----------------------------------------------------------------------


@pytest.fixture
def keyed(filled: Running, tmp_path: Path) -> list[str]:
    path = tmp_path / "reader"
    path.write_text(filled.reader)
    return ["--url", filled.url, "--key-file", str(path)]


def run(*arguments: str | Path, stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["export", LEDGER, *map(str, arguments)], input=stdin)


def test_the_command_takes_names_from_files_and_writes_what_is_verified(
    filled: Running, keyed: list[str], tmp_path: Path
) -> None:
    subject, staff = tmp_path / "subject", tmp_path / "staff"
    subject.write_text("crm:F-0\n")
    staff.write_text(f"{STAFF}\n", encoding="utf-8")
    narrowing = ("--type", "record.exported", "--from-time", "2026-01-01T00:00:00Z")
    for number, scope in enumerate(
        (
            ("--subject-file", subject, "--actor-file", staff, *narrowing),
            ("--subject-file", subject, "--actor-file", "-", *narrowing, "--from", "1"),
        )
    ):
        out = tmp_path / f"{number}.zip"
        done = run("--accesses", *scope, "--out", out, "--json", *keyed, stdin=f"{STAFF}\n")
        assert done.exit_code == 0, done.output
        said = json.loads(done.stdout)
        assert (said["completeness"], said["rows"]) == ("asserted", 2)
        assert verify(filled, out) == 0


@pytest.mark.parametrize(
    "scope",
    [
        ("--type", "record.used", "--from", "1", "--to", "2"),
        ("--accesses", "--type", "record.updated"),
        ("--accesses", "--from", "3", "--to", "2"),
        ("--accesses", "--actor", "e-2"),
    ],
)
def test_the_command_refuses_a_call_that_makes_no_sense(
    keyed: list[str], tmp_path: Path, scope: tuple[str, ...]
) -> None:
    assert run(*scope, "--out", tmp_path / "b.zip", *keyed).exit_code == 2
    assert not (tmp_path / "b.zip").exists()
