"""What all figures share: a database, a ledger, its service, and load upon it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from ledger.config import Settings, read_settings
from ledger.control import Control
from ledger.keys.keyring import make_keyring, save_keyring
from scripts.benchmarks.filling import LargeLedger, fill
from scripts.benchmarks.load import NOOP_PATH

if TYPE_CHECKING:
    from collections.abc import Sequence

CLIENTS = 64
"""Connections of a load of single requests."""
LEDGER = "bench"
_PYTHON = (sys.executable, "-m")


class Answered(NamedTuple):
    """What came of a load."""

    per_s: float
    """Answers a second, all of them successes."""
    p50_s: float
    """Median of the seconds between request and answer."""
    p99_s: float
    """What 99 of 100 answers did not pass."""


class RunningService(NamedTuple):
    """The service as a process."""

    process: subprocess.Popen[str]
    """The process."""
    port: int
    """Where it listens on 127.0.0.1."""

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self.process.pid


@dataclass(slots=True, kw_only=True)
class Place:
    """A database and a home with one ledger, and a service that is started when needed."""

    home: Path
    """Where keys, signer's memory and the database live; files for figures too."""
    dsn: str
    """The database."""
    ledger: str = LEDGER
    """Name of the ledger."""
    emitter_key: str = ""
    """Key that may write into it: source `crm`, namespace `crm`."""
    reader_key: str = ""
    """Key that may read it."""
    vkey: str = ""
    """The ledger's verifier key."""
    _service: RunningService | None = None
    _large: dict[int, LargeLedger] = field(default_factory=dict)
    _seed: int = 0

    @property
    def settings(self) -> Settings:
        """What the service is started with."""
        return read_settings({"LEDGER_HOME": str(self.home)})

    @property
    def schema(self) -> str:
        """The ledger's schema."""
        return f"ledger_{self.ledger}"

    def prepare(self) -> None:
        """Make the ledger and its keys."""
        keyring = make_keyring("custody.local/bench/00000000")
        save_keyring(self.settings.keys_dir / f"{self.ledger}.json", keyring)
        self.vkey = keyring.verifier_key()
        control = Control(self.dsn)
        control.migrate()
        control.add_ledger(self.ledger, keyring.origin)
        _, self.emitter_key = control.add_credential(
            ledger=self.ledger, role="emitter", label="bench", sources=["crm"], namespaces=["crm"]
        )
        _, self.reader_key = control.add_credential(
            ledger=self.ledger, role="reader", label="bench"
        )

    # -- the service -----------------------------------------------------------

    def service(self) -> RunningService:
        """Give the service, started if it does not run; it serves every ledger there is."""
        if self._service is None:
            command = [*_PYTHON, "scripts.benchmarks.serving", str(self.home), self.dsn]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                raise SystemExit("the service did not start")
            self._service = RunningService(process, int(line))
        return self._service

    def stop_service(self) -> None:
        """End the service as people would; nothing where it does not run."""
        if self._service is not None:
            self._service.process.send_signal(signal.SIGTERM)
            self._service.process.wait()
            self._service = None

    def kill(self) -> None:
        """End the service at once."""
        if self._service is not None:
            self._service.process.kill()
            self._service.process.wait()

    # -- load ------------------------------------------------------------------

    def rate(self, path: str, *, clients: int = CLIENTS, **posts: Any) -> float:
        """Give answers a second to POSTs of events; every one must be a success.

        Args:
            path: where to post.
            clients: connections at the same time.
            **posts: `requests`, and where they differ `seconds`, `events` a request,
                `subjects` to draw from, `sealed` texts an event.
        """
        self._seed += 1
        seconds = posts.pop("seconds", 60.0)
        defaults = {"events": 1, "sealed": 0, "subjects": 5_000, "seed": self._seed, "path": path}
        plan = {"key": self.emitter_key, "posts": {**defaults, **posts}}
        return self._load({**plan, "clients": clients, "seconds": seconds}).per_s

    def hold(self, events: int) -> None:
        """Post events until the ledger holds so many entries at least, as a group run alone needs.

        The service is stopped afterwards: it has stored the newest checkpoint, and leaves the
        processors alone.
        """
        self.service()
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            row = connection.execute(f"SELECT seq FROM {self.schema}.head").fetchone()  # noqa: S608
        lacking = events - (row[0] if row else 0)
        if lacking > 0:
            path = f"/v1/ledgers/{self.ledger}/events"
            self.rate(path, clients=4, requests=-(-lacking // 1_000), events=1_000)
        self.stop_service()

    def noop_rate(self, *, requests: int, seconds: float) -> float:
        """Give answers a second to POSTs of single events that do nothing."""
        return self.rate(NOOP_PATH, requests=requests, seconds=seconds)

    def get(
        self, paths: Sequence[str], *, seconds: float, clients: int = CLIENTS, key: str = ""
    ) -> Answered:
        """Get paths over and over for some seconds; every answer must be a success."""
        plan = {"key": key or self.reader_key, "paths": list(paths)}
        return self._load({**plan, "clients": clients, "seconds": seconds})

    def _load(self, plan: dict[str, Any]) -> Answered:
        text = json.dumps({**plan, "port": self.service().port})
        command = [*_PYTHON, "scripts.benchmarks.load"]
        done = subprocess.run(command, input=text, stdout=subprocess.PIPE, check=True, text=True)
        answer = json.loads(done.stdout)
        if set(answer["statuses"]) - {"200", "201"}:
            raise SystemExit(f"the service refused: {answer['statuses']}")
        count = sum(answer["statuses"].values())
        return Answered(count / answer["seconds"], answer["p50_s"], answer["p99_s"])

    # -- the large ledger ------------------------------------------------------

    def large(self, size: int) -> LargeLedger:
        """Give a ledger of this many entries, made on the first call; stops the service then.

        It has no views: rows of views would only cost time and room.
        """
        if size not in self._large:
            self.stop_service()
            self._large[size] = fill(self.dsn, self.settings, size)
        return self._large[size]


def peak_kb(pid: int) -> int:
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
