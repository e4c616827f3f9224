"""Runs of the verifier that end in the middle, as processes, and are taken up again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from ledger.config import read_settings
from scripts.benchmarks.filling import fill
from tests.attacks import test_hostile_service as hostile
from tests.fixtures.postgres import create_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger.postgres.embedded import EmbeddedPostgres
    from scripts.benchmarks.filling import LargeLedger

VERIFIER = Path(__file__).resolve().parents[2] / "scripts" / "verify_chain.py"
VERIFIED, TAMPERED, UNAVAILABLE, INTERRUPTED = 0, 1, 3, 130
ENTRIES = 40_000
made = hostile.made


@dataclass(kw_only=True)
class Large:
    """A log long enough to be interrupted, with what is held outside."""

    dsn: str
    ledger: LargeLedger
    checkpoint: Path

    def command(self, *more: str) -> list[str]:
        command = [sys.executable, str(VERIFIER), "--database", self.dsn, "--json"]
        command += ["--schema", self.ledger.row.schema, "--key", self.ledger.vkey]
        return [*command, "--checkpoint", str(self.checkpoint), *more]


@pytest.fixture(scope="module")
def large(cluster: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    dsn = create_database(cluster)
    with tempfile.TemporaryDirectory() as home:
        settings = read_settings({"LEDGER_HOME": home, "LEDGER_ANCHOR_INTERVAL_S": "0"})
        ledger = fill(dsn, settings, ENTRIES)
        with psycopg.connect(dsn) as connection:
            text = f"SELECT note FROM {ledger.row.schema}.checkpoints ORDER BY size DESC LIMIT 1"
            row = connection.execute(text).fetchone()
        assert row is not None
        checkpoint = tmp_path_factory.mktemp("held") / "outside.checkpoint"
        checkpoint.write_text(row[0])
        yield Large(dsn=dsn, ledger=ledger, checkpoint=checkpoint)


def started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def verdict(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    found: dict[str, Any] = json.loads(out) if out else {"said": err}
    return {**found, "exit_code": process.returncode}


READS = (
    "SELECT max(substring(query FROM 'generate_series\\(([0-9]+)')::bigint)"
    " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def wait_until_it_reads(large: Large, entry: int, process: subprocess.Popen[str]) -> None:
    """Wait until the verifier has come to an entry, as the database sees it."""
    with psycopg.connect(large.dsn, autocommit=True) as connection:
        while process.poll() is None:
            row = connection.execute(READS).fetchone()
            if row is not None and (row[0] or 0) >= entry:
                return
            time.sleep(0.001)


def interrupted(large: Large, command: list[str], entry: int, sent: signal.Signals) -> Any:
    """Interrupt a run in the middle; once more where this was too late on a busy machine."""
    state = Path(command[command.index("--state") + 1])
    for _ in range(5):
        state.unlink(missing_ok=True)
        process = started(command)
        wait_until_it_reads(large, entry, process)
        process.send_signal(sent)
        ended = verdict(process)
        if ended["exit_code"] != VERIFIED:
            break
    return ended


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_run_ended_by_a_signal_is_taken_up_again(
    large: Large, tmp_path: Path, sent: signal.Signals, jobs: str
):
    state = tmp_path / "state"
    command = large.command("--state", str(state), "--step", "2048", "--jobs", jobs)
    ended = interrupted(large, command, 10_241, sent)
    assert ended["exit_code"] == INTERRUPTED, ended
    assert "need not be read again" in ended["said"]
    kept = json.loads(state.read_text())["entries"]
    assert 0 < kept < ENTRIES
    resumed = verdict(started(command))
    whole = verdict(started(large.command()))
    assert resumed["scope"].startswith(f"entries {kept + 1} to {ENTRIES} now; 1 to {kept} by an")
    for name in ("exit_code", "verdict", "holds", "counts", "findings", "checkpoints"):
        assert resumed[name] == whole[name], name
    assert any(f"entries 1 to {kept}" in each for each in resumed["rests_on"])
    third = verdict(started(command))
    assert third["exit_code"] == VERIFIED
    assert third["scope"].startswith(f"entries {ENTRIES // 256 * 256 + 1} to")


def test_interrupted_again_and_again_it_comes_to_its_end(large: Large, tmp_path: Path):
    state, kept = tmp_path / "state", [0]
    command = large.command("--state", str(state), "--step", "4096", "--jobs", "1")
    for _ in range(30):
        process = started(command)
        wait_until_it_reads(large, kept[-1] + 8_193, process)
        process.send_signal(signal.SIGINT)
        found = verdict(process)
        if found["exit_code"] != INTERRUPTED:
            break
        kept.append(json.loads(state.read_text())["entries"])
    assert found["exit_code"] == VERIFIED, found
    assert kept == sorted(kept)
    assert len(kept) >= 2


def test_without_a_state_a_signal_keeps_nothing_and_is_no_verdict(large: Large):
    process = started(large.command("--jobs", "2"))
    wait_until_it_reads(large, 1, process)
    process.send_signal(signal.SIGTERM)
    found = verdict(process)
    assert (found["exit_code"], "nothing was kept" in found["said"]) == (INTERRUPTED, True)


def test_tampering_after_an_interruption_is_found(
    large: Large, tmp_path: Path, cluster: EmbeddedPostgres
):
    name = str(psycopg.conninfo.conninfo_to_dict(large.dsn)["dbname"])
    victim = Large(
        dsn=create_database(cluster, template=name),
        ledger=large.ledger,
        checkpoint=large.checkpoint,
    )
    state = tmp_path / "state"
    command = victim.command("--state", str(state), "--step", "2048", "--jobs", "1")
    ended = interrupted(victim, command, 10_241, signal.SIGINT)
    assert ended["exit_code"] == INTERRUPTED
    with psycopg.connect(victim.dsn, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(f"SET search_path TO {victim.ledger.row.schema}")
        text = "UPDATE entries SET entry = convert_to(replace(convert_from(entry, 'UTF8'),"
        connection.execute(f"{text} 'phone', 'email'), 'UTF8') WHERE seq = 30000")
    found = verdict(started([*command, "--evidence", str(tmp_path / "evidence")]))
    assert (found["exit_code"], found["first_bad"]["seq"]) == (TAMPERED, 30_000)


def test_a_database_that_goes_away_in_the_middle_is_no_verdict(large: Large):
    process = started(large.command("--jobs", "2"))
    wait_until_it_reads(large, 1, process)
    with psycopg.connect(large.dsn, autocommit=True) as connection:
        text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname ="
        connection.execute(f"{text} current_database() AND pid <> pg_backend_pid()")
    assert verdict(process)["exit_code"] == UNAVAILABLE


# -- a service --


def test_a_run_over_http_is_taken_up_again(tmp_path: Path):
    """The service holds one answer back until the signal is sent: it always hits the middle."""
    reached, go_on = threading.Event(), threading.Event()

    def waiting(_: Any, name: str) -> bool:
        if name.startswith("tile/entries/002") and not go_on.is_set():
            reached.set()
            go_on.wait(20)
        return False

    files = hostile.tiles_of(made.sound(hostile.SIZE), hostile.SIZE)
    (tmp_path / "reader").write_text(hostile.KEY)
    (tmp_path / "held").write_text(files["checkpoint"].decode())
    with hostile.showing(hostile.Shown(files, answer=waiting)) as service:
        command = [sys.executable, str(VERIFIER), "--log", service.url, "--json", "--step", "256"]
        command += ["--key", made.verifier_key(), "--checkpoint", str(tmp_path / "held")]
        command += ["--credential", str(tmp_path / "reader"), "--state", str(tmp_path / "state")]
        process = started(command)
        assert reached.wait(20)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        ended = verdict(process)
        assert time.monotonic() - begun < 5
        go_on.set()
        assert ended["exit_code"] == INTERRUPTED
        assert "entries 1 to 512" in ended["said"]
        service.asked.clear()
        found = verdict(started(command))
        assert found["exit_code"] == VERIFIED
        assert "tile/entries/001" not in service.asked
        assert found["scope"].startswith("entries 513 to 600 now; 1 to 512 by an earlier run")


def test_a_service_that_is_killed_in_the_middle_is_no_verdict(tmp_path: Path):
    """A real process, killed while it is asked; never verified, and nothing is made worse."""
    script = tmp_path / "serve.py"
    files = hostile.tiles_of(made.sound(hostile.SIZE), hostile.SIZE)
    folder = tmp_path / "v1"
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    script.write_text(
        "import http.server, os, signal\n"
        "class Handler(http.server.SimpleHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        if self.path.endswith('tile/entries/001'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "        super().do_GET()\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()\n"
    )
    server = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    with server:
        port = int(server.stdout.readline())
        (tmp_path / "reader").write_text(hostile.KEY)
        command = [sys.executable, str(VERIFIER), "--log", f"http://127.0.0.1:{port}/v1"]
        command += ["--json", "--key", made.verifier_key()]
        command += ["--credential", str(tmp_path / "reader"), "--state", str(tmp_path / "state")]
        found = verdict(started(command))
    assert found["exit_code"] == UNAVAILABLE
    assert server.returncode == -signal.SIGKILL
    assert not (tmp_path / "state").exists()
