"""The whole log checked: at once, in two goes, when nothing is new, and over HTTP."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from scripts.benchmarks.figures import Figure, Value, compare
from scripts.benchmarks.place import Place, peak_kb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.benchmarks.options import Options

VERIFIER = Path(__file__).resolve().parents[1] / "verify_chain.py"
INTERRUPTED = 130


class Run(NamedTuple):
    """One run of the verifier."""

    code: int
    seconds: float
    peak_mb: float
    """Most memory that it and its processes held."""


def measure(place: Place, options: Options) -> Iterator[Figure]:
    """Measure the verifier on the database, and the memory it takes."""
    place.hold(60_000)
    command = _command(place, place.schema, place.vkey)
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        cursor = connection.cursor(binary=True)
        cursor.execute(f"SELECT entry FROM {place.schema}.entries ORDER BY seq")  # noqa: S608
        entries = [entry for (entry,) in cursor]
    runs: list[Run] = []

    def product() -> float:
        runs.append(_verified(command))
        return len(entries) / runs[-1].seconds

    def bare() -> float:
        started = time.perf_counter()
        for entry in entries:
            hashlib.sha256(entry).digest()
        return len(entries) / (time.perf_counter() - started)

    name = f"verifier / bare hashlib loop, {len(entries)} entries"
    yield compare(name, 0.3, product, bare, rounds=options.rounds)
    peak_mb = max(run.peak_mb for run in runs)
    yield Value(name="verifier's peak memory", value=peak_mb, aim=150, unit="MB", most=True)
    yield from _of_many(place, options.entries)


def _of_many(place: Place, size: int) -> Iterator[Figure]:
    """Measure what makes a log of any length bearable: to stop, to go on, to read what is new."""
    large = place.large(size)
    of = f"of {size:,} entries"
    state = place.home / "verifier.state"
    command = [*_command(place, large.row.schema, large.vkey), "--state", str(state)]
    whole = _verified([*command, "--full"])
    yield Value(name=f"verification {of}", value=size / whole.seconds, unit="entries/s")
    yield Value(name=f"its peak memory, {of}", value=whole.peak_mb, aim=150, unit="MB", most=True)
    nothing_new = _verified(command)
    name = f"next verification {of}, nothing new"
    yield Value(name=name, value=nothing_new.seconds, unit="s")
    state.unlink()
    first = _run(command, stop_after_s=whole.seconds / 2)
    second = _verified(command)
    ratio = (first.seconds + second.seconds) / whole.seconds
    name = f"verification {of} interrupted half way and taken up again / at once"
    yield Value(name=name, value=ratio, aim=1.5, unit="times as long", most=True)
    credential = place.home / "verifier.credential"
    credential.write_text(large.reader_key)
    log = f"{place.service().url}/v1/ledgers/{large.row.name}"
    over_http = [sys.executable, str(VERIFIER), "--log", log, "--credential", str(credential)]
    run = _verified([*over_http, *command[command.index("--key") : command.index("--state")]])
    yield Value(name=f"verification {of} over HTTP", value=size / run.seconds, unit="entries/s")
    place.stop_service()


def _command(place: Place, schema: str, vkey: str) -> list[str]:
    """Give the command for a whole ledger, with its newest checkpoint as the one held."""
    checkpoint = place.home / f"{schema}.checkpoint"
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        row = connection.execute(
            f"SELECT note FROM {schema}.checkpoints ORDER BY size DESC LIMIT 1"  # noqa: S608
        ).fetchone()
    checkpoint.write_text(row[0] if row else "")
    command = [sys.executable, str(VERIFIER), "--database", place.dsn, "--schema", schema]
    return [*command, "--key", vkey, "--checkpoint", str(checkpoint)]


def _verified(command: list[str]) -> Run:
    run = _run(command)
    if run.code != 0:
        raise SystemExit(f"the verifier ended with {run.code}")
    return run


def _run(command: list[str], *, stop_after_s: float | None = None) -> Run:
    """Run the verifier, to its end or until it is interrupted."""
    started, peak = time.perf_counter(), 0
    child = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while child.poll() is None:
        peak = max(peak, peak_kb(child.pid))
        if stop_after_s is not None and time.perf_counter() - started > stop_after_s:
            child.send_signal(signal.SIGINT)
            stop_after_s = None
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    out, _ = child.communicate()
    code = json.loads(out)["exit_code"] if out else child.returncode
    return Run(code, seconds, peak / 1024)
