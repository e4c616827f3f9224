"""Bundles through the service and the command, as auditors get them."""

from __future__ import annotations

import http.client
import io
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from api.routes import exports
from ledger.cli import main
from projections.exports import bundle
from tests.http.support import LEDGER, Running, bearer, event, head, problem

if TYPE_CHECKING:
    import httpx
    from click.testing import Result

VERIFIER = Path(__file__).resolve().parents[2] / "scripts" / "verify_chain.py"
VERIFIED, TAMPERED, INCOMPLETE = 0, 1, 4
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def filled(service: Running) -> Running:
    service.record([event(subject=f"crm:E-{number % 3}") for number in range(30)])
    return service


def manifest_of(content: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        found: dict[str, Any] = json.loads(archive.read("manifest.json"))
    return found


def verify(service: Running, path: Path, *, key: bool = True) -> int:
    command = [sys.executable, str(VERIFIER), str(path), "--evidence", f"{path}.evidence"]
    command += ["--key", service.open.ledger.keyring.verifier_key()] if key else []
    return subprocess.run(command, capture_output=True, check=False).returncode


def export(service: Running, question: dict[str, Any]) -> httpx.Response:
    response = service.ask("exports", question)
    assert response.status_code == 200, response.text
    return response


@pytest.mark.parametrize("asked", ["record", "subject", "range"])
def test_an_exported_bundle_is_verified_by_the_script_alone(
    filled: Running, tmp_path: Path, asked: str
) -> None:
    record = filled.ask("records/lookup", {"subject": "crm:E-1"}).json()["record"]
    questions = {
        "record": {"record": record},
        "subject": {"subject": "crm:E-1"},
        "range": {"from": 1, "to": 20},
    }
    response = export(filled, questions[asked])
    found = manifest_of(response.content)
    assert found["scope"]["kind"] == ("range" if asked == "range" else "record")
    assert found["scope"].get("record", record) == record
    path = tmp_path / "b.zip"
    path.write_bytes(response.content)
    assert verify(filled, path) == VERIFIED
    assert verify(filled, path, key=False) == INCOMPLETE
    spoiled = response.content.replace(b"manifest.note", b"manifest.not_")
    path.write_bytes(spoiled)
    assert verify(filled, path) == TAMPERED


def test_the_answer_names_its_file_without_the_subject_and_its_reading(filled: Running) -> None:
    response = export(filled, {"subject": "crm:E-2"})
    name = response.headers["content-disposition"]
    assert name.startswith(f'attachment; filename="{LEDGER}-record-')
    assert "E-2" not in str(response.headers)
    assert response.headers["cache-control"] == "no-store"
    assert int(response.headers["content-length"]) == len(response.content)
    found = manifest_of(response.content)
    assert response.headers["custody-read-seq"] == str(found["read_seq"])
    entry = filled.get(f"entries/{found['read_seq']}").json()
    assert entry["event"]["type"] == "ledger.ledger.read.v1"
    assert entry["event"]["data"]["file_sha256"] == found["files"]["entries.jsonl"]


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"from": 5},
        {"to": 5},
        {"from": 5, "to": 4},
        {"from": 0, "to": 4},
        {"from": 1, "to": 2, "record": UNKNOWN},
        {"subject": "crm:E-1", "record": UNKNOWN},
        {"record": "E-1"},
        {"subject": "crm:E-1", "unknown": 1},
        {"from": 1, "to": 2**63},
    ],
)
def test_a_question_that_names_no_one_thing_is_refused(
    filled: Running, question: dict[str, Any]
) -> None:
    before = head(filled)
    problem(filled.ask("exports", question), 422)
    assert head(filled) == before


@pytest.mark.parametrize(
    "question",
    [{"record": UNKNOWN}, {"subject": "crm:never-met"}, {"from": 1, "to": 10_000_000}],
)
def test_asking_for_what_is_not_there_leaves_an_entry_too(
    filled: Running, question: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_ENTRIES", 10_000_000)
    before = head(filled)
    found = problem(filled.ask("exports", question), 404)
    assert found.pointer in {"/record", "/subject", "/to"}
    assert head(filled) == before + 1
    entry = filled.get(f"entries/{before + 1}").json()
    assert entry["event"]["data"]["rows"] == 0
    assert "never-met" not in json.dumps(entry)


def test_a_range_beyond_the_limit_is_too_large(filled: Running) -> None:
    problem(filled.ask("exports", {"from": 1, "to": bundle.MAX_ENTRIES + 1}), 413)


def test_only_a_reader_may_export(filled: Running) -> None:
    before = head(filled)
    question = {"from": 1, "to": 2}
    problem(filled.ask("exports", question, key=filled.emitter), 403)
    problem(filled.ask("exports", question, key=filled.other_reader), 404)
    problem(filled.client.post(filled.path("exports"), json=question, headers=bearer("ck_no")), 401)
    assert head(filled) == before


def test_more_exports_than_there_are_turns_are_asked_to_come_again(filled: Running) -> None:
    for _ in range(exports.MAX_AT_ONCE):
        assert exports._turns.acquire(blocking=False)
    try:
        response = filled.ask("exports", {"from": 1, "to": 2})
        assert problem(response, 503).detail == "other exports are being made"
        assert int(response.headers["retry-after"]) > 0
    finally:
        for _ in range(exports.MAX_AT_ONCE):
            exports._turns.release()
    export(filled, {"from": 1, "to": 2})


def test_a_client_that_goes_away_leaves_nothing_behind(
    filled: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[Any] = []

    def remember() -> Any:
        files.append(TemporaryFile())  # noqa: SIM115 - the service closes it
        return files[-1]

    monkeypatch.setattr("api.routes.exports.TemporaryFile", remember)
    monkeypatch.setattr(exports, "PIECE_BYTES", 64)
    address = urlsplit(filled.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port or 0)
    headers = {**bearer(filled.reader), "Content-Type": "application/json"}
    connection.request("POST", filled.path("exports"), b'{"from":1,"to":30}', headers)
    response = connection.getresponse()
    assert response.status == 200
    response.close()
    connection.close()
    deadline = time.monotonic() + 10
    while not all(file.closed for file in files):
        assert time.monotonic() < deadline, "the file was left open"
        time.sleep(0.01)
    assert len(files) == 1


# -- the command -----------------------------------------------------------------------


@pytest.fixture
def keyed(filled: Running, tmp_path: Path) -> list[str]:
    """Give the options with which the command asks as the reader."""
    path = tmp_path / "reader"
    path.write_text(filled.reader)
    return ["--url", filled.url, "--key-file", str(path)]


def run(*arguments: str | Path, stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["export", LEDGER, *map(str, arguments)], input=stdin)


def test_the_command_writes_what_is_verified(
    filled: Running, keyed: list[str], tmp_path: Path
) -> None:
    subject = tmp_path / "subject"
    subject.write_text("crm:E-1\n")
    record = filled.ask("records/lookup", {"subject": "crm:E-1"}).json()["record"]
    for number, scope in enumerate(
        (
            ("--from", "2", "--to", "9"),
            ("--record", record),
            ("--subject-file", subject),
            ("--subject-file", "-"),
        )
    ):
        out = tmp_path / f"{number}.zip"
        done = run(*scope, "--out", out, "--json", *keyed, stdin="crm:E-1\n")
        assert done.exit_code == 0, done.output
        said = json.loads(done.stdout)
        assert said["size_bytes"] == out.stat().st_size
        assert said["scope"].get("record", record) == record
        assert said["read_seq"] == head(filled)
        assert done.stderr == ""
        assert verify(filled, out) == VERIFIED


def test_the_command_speaks_to_people_too(keyed: list[str], tmp_path: Path) -> None:
    done = run("--from", "1", "--to", "3", "--out", tmp_path / "b.zip", *keyed)
    assert done.exit_code == 0, done.output
    assert "verify_chain.py" in done.stdout
    assert '{"kind": "range", "from": 1, "to": 3}' in done.stdout


@pytest.mark.parametrize(
    "scope",
    [
        (),
        ("--from", "1"),
        ("--from", "3", "--to", "2"),
        ("--record", UNKNOWN, "--from", "1", "--to", "2"),
        ("--record", "E-1"),
    ],
)
def test_the_command_refuses_a_call_that_makes_no_sense(
    keyed: list[str], tmp_path: Path, scope: tuple[str, ...]
) -> None:
    assert run(*scope, "--out", tmp_path / "b.zip", *keyed).exit_code == 2
    assert not (tmp_path / "b.zip").exists()


def test_the_command_leaves_a_file_alone_that_is_there(keyed: list[str], tmp_path: Path) -> None:
    out = tmp_path / "b.zip"
    out.write_text("mine")
    assert run("--from", "1", "--to", "2", "--out", out, *keyed).exit_code == 2
    assert out.read_text() == "mine"


def test_the_command_says_what_the_service_refused(keyed: list[str], tmp_path: Path) -> None:
    out = tmp_path / "b.zip"
    done = run("--record", UNKNOWN, "--out", out, *keyed)
    assert done.exit_code == 2
    assert "expected a record of this ledger" in done.stderr
    nobody = run(
        "--from", "1", "--to", "2", "--out", out, "--url", "http://127.0.0.1:9", *keyed[2:]
    )
    assert nobody.exit_code == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reader"]
