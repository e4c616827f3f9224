"""Measure the ledger against bare work of the same kind, in one run.

Every figure is a ratio of two rates taken in turn (A B A B …), the median of the
pairs, with the spread; absolute rates are printed only to be understood. The
database is the embedded one with fsync on, in a directory of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import uvicorn
import uvloop

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fastapi import Request, Response  # noqa: E402

from api.app import create_app  # noqa: E402
from api.direct import DirectRoute  # noqa: E402
from api.serve import server_config  # noqa: E402
from ledger.config import read_settings  # noqa: E402
from ledger.control import Control  # noqa: E402
from ledger.keys.keyring import make_keyring, save_keyring  # noqa: E402
from ledger.postgres.embedded import EmbeddedPostgres  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLIENTS = 64
BATCH = 1_000
BATCH_CLIENTS = 4
LEDGER = "bench"


# -- the server, a process of its own ------------------------------------------


def serve(home: Path, dsn: str) -> None:
    """Serve a ledger and, beside it, a POST that does nothing; print the port."""
    settings = read_settings({"LEDGER_HOME": str(home)})
    app = create_app(settings, dsn)

    async def noop(request: Request) -> Response:
        await request.body()
        return Response(b'{"ok":true}', media_type="application/json")

    app.router.routes.append(DirectRoute("/bench/noop", noop, methods=["POST"]))
    app.state.service.open()
    server = uvicorn.Server(server_config(app, host="127.0.0.1", port=0))

    async def run() -> None:
        task = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await task

    uvloop.run(run())


# -- the load, a process of its own --------------------------------------------


class _Client(asyncio.Protocol):
    """One keep-alive connection that sends its next request as soon as it is answered."""

    def __init__(self, requests: Iterator[bytes], until: float, counts: dict[int, int]) -> None:
        self.requests = requests
        self.until = until
        self.counts = counts
        self.buffer = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self.buffer.lower().index(b"content-length:")
        length = int(self.buffer[at + 15 : self.buffer.index(b"\r\n", at)])
        if len(self.buffer) >= end + 4 + length:
            status = int(self.buffer[9:12])
            self.counts[status] = self.counts.get(status, 0) + 1
            self.buffer = b""
            self._next()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _next(self) -> None:
        request = next(self.requests, None) if time.monotonic() < self.until else None
        if request is None:
            self.transport.close()
        else:
            self.transport.write(request)


def load(port: int, path: str, key: str, plan: dict[str, Any]) -> None:
    """Send requests for some seconds, or as many as there are; print what came of it."""
    make = _bodies(plan)
    prepared = [_request(path, key, body) for body in make]

    async def run() -> dict[str, Any]:
        counts: dict[int, int] = {}
        shared = iter(prepared)
        started = time.monotonic()
        clients = []
        for _ in range(plan["clients"]):
            _, client = await asyncio.get_running_loop().create_connection(
                lambda: _Client(shared, started + plan["seconds"], counts), "127.0.0.1", port
            )
            clients.append(client.done)
        await asyncio.gather(*clients)
        return {"seconds": time.monotonic() - started, "statuses": counts}

    print(json.dumps(uvloop.run(run())))


def _bodies(plan: dict[str, Any]) -> list[bytes]:
    chance = random.Random(plan["seed"])  # noqa: S311 - repeatable load, not secrets
    if plan["events"] == 1:
        return [_event(chance, plan) for _ in range(plan["requests"])]
    return [
        b"[" + b",".join(_event(chance, plan) for _ in range(plan["events"])) + b"]"
        for _ in range(plan["requests"])
    ]


def _event(chance: random.Random, plan: dict[str, Any]) -> bytes:
    sealed = ',"note":"the customer asked by phone why the bill was high"' * plan["sealed"]
    return (
        f'{{"id":"{uuid4()}","type":"record.accessed","source":"crm",'
        f'"subject":"crm:C-{chance.randrange(plan["subjects"])}","time":"2026-11-22T10:00:00Z",'
        f'"data":{{"actor":{{"id":"e{chance.randrange(200)}","kind":"person"}},'
        '"fields":["phone","address"],"activity":"support-desk","purpose":"service",'
        f'"outcome":"success"{sealed}}}}}'
    ).encode()


def _request(path: str, key: str, body: bytes) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


# -- the measurements ----------------------------------------------------------


@dataclass
class Bench:
    """One run: a database, a server, and what was measured."""

    home: Path
    quick: bool
    dsn: str = ""
    port: int = 0
    key: str = ""
    vkey: str = ""
    server: subprocess.Popen[str] | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    seed: int = 0

    def start(self, postgres: EmbeddedPostgres) -> None:
        """Make a ledger and serve it."""
        self.dsn = postgres.dsn
        settings = read_settings({"LEDGER_HOME": str(self.home)})
        keyring = make_keyring("custody.local/bench/00000000")
        save_keyring(settings.keys_dir / f"{LEDGER}.json", keyring)
        self.vkey = keyring.verifier_key()
        control = Control(self.dsn)
        control.migrate()
        control.add_ledger(LEDGER, keyring.origin)
        _, self.key = control.add_credential(
            ledger=LEDGER, role="emitter", label="bench", sources=["crm"], namespaces=["crm"]
        )
        command = [sys.executable, __file__, "serve", str(self.home), self.dsn]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.server.stdout is not None  # noqa: S101 - a pipe was asked for
        self.port = int(self.server.stdout.readline())

    def send(self, path: str, **plan: Any) -> float:
        """Give requests answered a second; every answer must be a success."""
        self.seed += 1
        defaults = {"events": 1, "sealed": 0, "subjects": 5_000, "seed": self.seed}
        command = [sys.executable, __file__, "load", str(self.port), path, self.key]
        done = subprocess.run(
            [*command, json.dumps({**defaults, **plan})], stdout=subprocess.PIPE, check=True
        )
        answer = json.loads(done.stdout)
        if set(answer["statuses"]) - {"200", "201"}:
            raise SystemExit(f"the server refused: {answer['statuses']}")
        return sum(answer["statuses"].values()) / answer["seconds"]

    def compare(
        self, name: str, aim: float, product: Callable[[], float], bare: Callable[[], float]
    ) -> None:
        """Take pairs in turn and keep the median of their ratios."""
        rounds = 3 if self.quick else 7
        pairs = [(product(), bare()) for _ in range(rounds)]
        ratios = sorted(a / b for a, b in pairs)
        self.results.append(
            {
                "name": name,
                "ratio": statistics.median(ratios),
                "spread": [ratios[0], ratios[-1]],
                "aim": aim,
                "product_per_s": statistics.median(a for a, _ in pairs),
                "bare_per_s": statistics.median(b for _, b in pairs),
                "pairs": rounds,
            }
        )
        _show(self.results[-1])

    def note(self, name: str, value: float, aim: float, unit: str, *, most: bool = False) -> None:
        """Keep a figure that is not a ratio."""
        self.results.append({"name": name, "value": value, "aim": aim, "unit": unit, "most": most})
        _show(self.results[-1])

    # each figure

    def single(self) -> None:
        """One event a request."""
        seconds = 1.0 if self.quick else 3.0
        plan = {"clients": CLIENTS, "seconds": seconds, "requests": int(12_000 * seconds)}
        events = f"/v1/ledgers/{LEDGER}/events"
        self.send(events, **plan)
        self.compare(
            "single-event POST / no-op POST, 64 keep-alive clients",
            0.5,
            lambda: self.send(events, **plan),
            lambda: self.send("/bench/noop", **plan),
        )

    def batches(self, sealed: int, aim: float) -> None:
        """Many events a request."""
        requests = 20 if self.quick else 60
        plan = {"clients": BATCH_CLIENTS, "seconds": 60.0, "requests": requests}

        def product() -> float:
            path = f"/v1/ledgers/{LEDGER}/events"
            return BATCH * self.send(path, events=BATCH, sealed=sealed, **plan)

        product()
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            rows = connection.execute(
                f"SELECT entry FROM ledger_{LEDGER}.entries ORDER BY seq DESC LIMIT {BATCH}",  # noqa: S608
                binary=True,
            ).fetchall()
            entries = [row[0] for row in rows]
            connection.execute(
                "CREATE TABLE IF NOT EXISTS bare (seq int8, leaf bytea, entry bytea)"
            )
            self.compare(
                f"POST of {BATCH} events, {sealed} sealed text / bare COPY of the same bytes",
                aim,
                product,
                lambda: _bare_copy(connection, entries, requests),
            )

    def verifier(self) -> None:
        """The whole log checked."""
        checkpoint = self.home / "checkpoint"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            time.sleep(1.5)  # the newest checkpoint is stored within a second
            row = connection.execute(
                f"SELECT note FROM ledger_{LEDGER}.checkpoints ORDER BY size DESC LIMIT 1"  # noqa: S608
            ).fetchone()
            cursor = connection.cursor(binary=True)
            cursor.execute(f"SELECT entry FROM ledger_{LEDGER}.entries ORDER BY seq")  # noqa: S608
            entries = [entry for (entry,) in cursor]
        checkpoint.write_text(row[0] if row else "")
        peak = 0

        def product() -> float:
            nonlocal peak
            command = [sys.executable, str(ROOT / "scripts" / "verify_chain.py")]
            command += ["--database", self.dsn, "--schema", f"ledger_{LEDGER}", "--key", self.vkey]
            command += ["--checkpoint", str(checkpoint)]
            started = time.perf_counter()
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            while child.poll() is None:
                peak = max(peak, _peak_kb(child.pid))
                time.sleep(0.02)
            if child.returncode != 0:
                raise SystemExit(f"the verifier ended with {child.returncode}")
            return len(entries) / (time.perf_counter() - started)

        def bare() -> float:
            started = time.perf_counter()
            for entry in entries:
                hashlib.sha256(entry).digest()
            return len(entries) / (time.perf_counter() - started)

        self.compare(f"verifier / bare hashlib loop, {len(entries)} entries", 0.3, product, bare)
        self.note("verifier's peak memory", peak / 1024, 150, "MB", most=True)

    def rebuild(self) -> None:
        """Both views from entry 1."""
        from projections.rebuild import rebuild  # noqa: PLC0415 - measured alone

        rates = [
            rebuild(self.dsn, f"ledger_{LEDGER}").entries_per_second
            for _ in range(1 if self.quick else 3)
        ]
        self.note("rebuild of both views", statistics.median(rates), 30_000, "events/s")

    def memory(self) -> None:
        """What the service took at most."""
        assert self.server is not None  # noqa: S101 - started before
        peak = _peak_kb(self.server.pid)
        self.note("service's peak memory", peak / 1024, 300, "MB", most=True)


def _peak_kb(pid: int) -> int:
    """Give the most memory that a process and those it started have held, since they began."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        pids += [int(child) for child in _read(task).split()]
    peaks = [re.search(r"VmHWM:\s+(\d+)", _read(Path(f"/proc/{each}/status"))) for each in pids]
    return sum(int(peak[1]) for peak in peaks if peak)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # it has ended meanwhile


def _bare_copy(connection: psycopg.Connection[Any], entries: list[bytes], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        with connection.cursor().copy("COPY bare FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "bytea", "bytea"])
            for number, entry in enumerate(entries):
                copy.write_row((number, hashlib.sha256(entry).digest(), entry))
    return times * len(entries) / (time.perf_counter() - started)


# -- printing ------------------------------------------------------------------


def _conditions(dsn: str) -> dict[str, Any]:
    with psycopg.connect(dsn) as connection:
        show = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
        database = {
            name: (connection.execute(f"SHOW {name}").fetchone() or ("",))[0] for name in show
        }
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "database": database,
        "load_before": os.getloadavg()[0],
        "entry_bytes": "about 700",
    }


def _show(result: dict[str, Any]) -> None:
    if "ratio" in result:
        low, high = result["spread"]
        met = "met" if result["ratio"] >= result["aim"] else "missed"
        line = (
            f"{result['name']}: {result['ratio']:.2f} ({low:.2f} to {high:.2f}), "
            f"aim {result['aim']} {met}; {result['product_per_s']:,.0f} against "
            f"{result['bare_per_s']:,.0f} a second"
        )
    else:
        better = (
            result["value"] <= result["aim"]
            if result["most"]
            else (result["value"] >= result["aim"])
        )
        bound = "at most" if result["most"] else "at least"
        line = (
            f"{result['name']}: {result['value']:,.0f} {result['unit']}, "
            f"aim {bound} {result['aim']:,} {'met' if better else 'missed'}"
        )
    print(line, file=sys.stderr, flush=True)


def measure(*, quick: bool, as_json: bool) -> None:
    """Run everything and print it."""
    home = Path(tempfile.mkdtemp(prefix="custody-bench-"))
    home.chmod(0o711)
    postgres = EmbeddedPostgres(home / "postgres")
    bench = Bench(home=home, quick=quick)
    try:
        postgres.start()
        conditions = _conditions(postgres.dsn)
        print(json.dumps(conditions, indent=1), file=sys.stderr)
        bench.start(postgres)
        bench.single()
        bench.batches(0, 0.2)
        bench.batches(1, 0.12)
        bench.memory()
        if bench.server is not None:
            bench.server.send_signal(signal.SIGTERM)
            bench.server.wait()
        bench.verifier()
        bench.rebuild()
        if as_json:
            print(json.dumps({"conditions": conditions, "results": bench.results}, indent=1))
    finally:
        if bench.server is not None and bench.server.poll() is None:
            bench.server.kill()
        postgres.stop()
        shutil.rmtree(home, ignore_errors=True)


def main() -> None:
    """Read the command line."""
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]), sys.argv[3])
    elif sys.argv[1:2] == ["load"]:
        load(int(sys.argv[2]), sys.argv[3], sys.argv[4], json.loads(sys.argv[5]))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
        parser.add_argument("--json", action="store_true", help="results on standard output")
        arguments = parser.parse_args()
        measure(quick=arguments.quick, as_json=arguments.json)


if __name__ == "__main__":
    main()
