"""The verifier reads a running service's tiles, as an auditor far away would."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ledger.cli import main
from tests.http.support import LEDGER, Running, event, running

VERIFIER = Path(__file__).resolve().parents[2] / "scripts" / "verify_chain.py"
VERIFIED, TAMPERED, USAGE, UNAVAILABLE, INCOMPLETE = range(5)

Verify = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def filled(service: Running) -> list[dict[str, Any]]:
    """Record enough for two full tiles; give the receipts."""
    answers = []
    for _ in range(6):
        response = service.post([event() for _ in range(100)])
        assert response.status_code == 201, response.text
        answers.append(response.json())
    return answers


@pytest.fixture
def verify(service: Running, filled: list[dict[str, Any]], tmp_path: Path) -> Verify:
    """Give a function that runs the verifier on the service."""
    assert filled
    return verifier_of(service, tmp_path)


def verifier_of(service: Running, tmp_path: Path) -> Verify:
    (tmp_path / "reader").write_text(f"Authorization: Bearer {service.reader}\n")
    note = service.get("checkpoint").text
    (tmp_path / "held.checkpoint").write_text(note)

    def run(*more: str, credential: bool = True, checkpoint: bool = True) -> dict[str, Any]:
        command = [sys.executable, str(VERIFIER), "--log", f"{service.url}/v1/ledgers/{LEDGER}"]
        command += ["--json", "--key", service.open.ledger.keyring.verifier_key()]
        command += ["--evidence", str(tmp_path / "evidence.json")]
        command += ["--credential", str(tmp_path / "reader")] if credential else []
        command += ["--checkpoint", str(tmp_path / "held.checkpoint")] if checkpoint else []
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        if not done.stdout:
            return {"exit_code": done.returncode, "stderr": done.stderr}
        verdict: dict[str, Any] = json.loads(done.stdout)
        assert verdict["exit_code"] == done.returncode
        return verdict

    return run


def test_a_running_service_is_verified_by_its_tiles(verify: Verify):
    verdict = verify()
    assert verdict["exit_code"] == VERIFIED, verdict
    assert verdict["counts"]["entries"] >= 601


def test_without_a_checkpoint_from_outside_it_is_only_signed(verify: Verify):
    verdict = verify(checkpoint=False)
    assert verdict["exit_code"] == INCOMPLETE
    assert "signed by the pinned key up to entry" in verdict["verdict"]


def test_without_a_credential_a_closed_service_is_no_verdict(verify: Verify):
    found = verify(credential=False)
    assert found["exit_code"] == UNAVAILABLE
    assert "--credential" in found["stderr"]


def test_an_emitters_credential_is_no_readers(verify: Verify, service: Running, tmp_path: Path):
    (tmp_path / "emitter").write_text(service.emitter)
    found = verify("--credential", str(tmp_path / "emitter"))
    assert found["exit_code"] == UNAVAILABLE
    assert service.emitter not in found["stderr"]


def test_the_next_run_reads_what_was_recorded_since(
    verify: Verify, service: Running, tmp_path: Path
):
    state = ("--state", str(tmp_path / "state"))
    assert verify(*state)["exit_code"] == VERIFIED
    size = json.loads((tmp_path / "state").read_text())["entries"]
    assert size >= 512
    for _ in range(4):
        assert service.post([event() for _ in range(100)]).status_code == 201
    found = verify(*state)
    assert found["exit_code"] == VERIFIED
    assert found["scope"].startswith(f"entries {size + 1} to ")
    held = verify("--from-checkpoint", str(tmp_path / "held.checkpoint"), checkpoint=False)
    assert held["exit_code"] == VERIFIED
    assert "only by hash" in held["scope"]


def test_receipts_are_held_against_the_service(
    verify: Verify, filled: list[dict[str, Any]], tmp_path: Path
):
    path = tmp_path / "receipts"
    path.write_text("".join(json.dumps(answer) + "\n" for answer in filled))
    found = verify("--receipts", str(path), checkpoint=False)
    assert found["exit_code"] == VERIFIED, found
    assert found["counts"]["acknowledged entries"] == 600
    other = filled[2] | {"receipts": [filled[2]["receipts"][0] | {"leaf": "ab" * 32}]}
    path.write_text(json.dumps(filled[0]) + "\n" + json.dumps(other) + "\n")
    found = verify("--receipts", str(path))
    assert (found["exit_code"], found["kinds"]) == (TAMPERED, ["rewritten"])
    assert found["first_bad"]["seq"] == other["receipts"][0]["seq"]
    evidence = json.loads((tmp_path / "evidence.json").read_text())
    assert "receipt receipts:2" in evidence["findings"][0]["what"]


def test_an_acknowledged_entry_beyond_the_services_checkpoint_is_not_verified(
    verify: Verify, filled: list[dict[str, Any]], tmp_path: Path
):
    beyond = filled[0]["receipts"][0] | {"seq": 10**9, "checkpoint": None}
    (tmp_path / "receipts").write_text(json.dumps(beyond))
    found = verify("--receipts", str(tmp_path / "receipts"))
    assert found["exit_code"] == INCOMPLETE
    assert any("receipts of 1 entries" in each for each in found["not_checked"])


def test_reading_all_entries_leaves_entries_that_the_next_run_verifies(
    verify: Verify, service: Running
):
    before = service.open.head_seq or 0
    assert verify()["exit_code"] == VERIFIED
    assert (service.open.head_seq or 0) >= before
    assert verify()["exit_code"] == VERIFIED


@pytest.fixture(scope="module")
def opened(new_database: Callable[[], str]) -> Iterator[Running]:
    """Serve ledgers whose tiles are open to anybody."""
    with running(new_database(), LEDGER_OPEN_TILES="1") as found:
        yield found


def test_open_tiles_are_read_by_anybody_and_never_called_verified(opened: Running, tmp_path: Path):
    for _ in range(3):
        assert opened.post([event() for _ in range(100)]).status_code == 201
    verify = verifier_of(opened, tmp_path)
    found = verify(credential=False)
    assert found["exit_code"] == INCOMPLETE, found
    assert found["verdict"].startswith("hashes are one tree and signed by the pinned key")
    assert any("what stands in the entries" in each for each in found["not_checked"])
    state = ("--state", str(tmp_path / "state"))
    assert verify(*state, credential=False)["exit_code"] == INCOMPLETE
    assert verify(*state)["exit_code"] == USAGE  # what was read then is not what is read now


def test_custody_verify_passes_everything_on(
    service: Running,
    filled: list[dict[str, Any]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    verifier_of(service, tmp_path)
    (tmp_path / "receipts").write_text(json.dumps(filled[0]) + "\n")
    arguments = ["verify", f"{service.url}/v1/ledgers/{LEDGER}", "--json"]
    arguments += ["--key", service.open.ledger.keyring.verifier_key()]
    arguments += ["--checkpoint", str(tmp_path / "held.checkpoint")]
    arguments += ["--credential", str(tmp_path / "reader")]
    arguments += ["--receipts", str(tmp_path / "receipts"), "--state", str(tmp_path / "state")]
    done = CliRunner().invoke(main, [*arguments, "--full"])
    found = json.loads(capfd.readouterr().out)
    assert (done.exit_code, found["exit_code"]) == (VERIFIED, VERIFIED)
    assert found["counts"]["acknowledged entries"] == 100
    assert (tmp_path / "state").exists()
