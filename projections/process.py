"""Keep the views of a service in a process of their own, and know how each of them stands.

Folding is work for the processor, and the service's own process has one interpreter lock:
in there it would take turns with recording. The child is told over its standard input what
to follow, so that no password stands in the list of processes. It lives for as long as that
input stays open: however the service ends, its child ends too. It answers with one line of
JSON whenever a view's standing has changed, and at least once a second.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from projections.catalogue import VIEWS
from projections.supervisor import FIRST_WAIT_S, LONGEST_WAIT_S, ViewStatus, ViewSupervisor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from projections.supervisor import Condition

_LOG = logging.getLogger("projections.process")

LOOK_S: Final = 0.05
"""How often the child looks for something new to report."""
HEARTBEAT_S: Final = 1.0
"""How often it reports although nothing is new."""
SILENCE_S: Final = 10.0
"""How long the child may say nothing before what it said last is no longer believed."""
CLOSE_S: Final = 10.0
"""How long the child may take to end."""
NICENESS: Final = 5
"""How far the child stands back when processors are scarce: recording goes first."""


class _Task(msgspec.Struct, frozen=True):
    dsn: str
    schemas: list[str]


_Report = dict[str, list[ViewStatus]]
_read_report = msgspec.json.Decoder(_Report).decode


class ViewProcess:
    """The child as its service sees it: started again when it dies, ended when it is closed."""

    def __init__(self, dsn: str, schemas: Iterable[str]) -> None:
        """Prepare; `start` makes the views follow their logs.

        Args:
            dsn: connection string of the ledgers' database.
            schemas: the ledgers' schemas, by `start` with `projections.schema.migrate_views`
                applied.
        """
        self._task = _Task(dsn, list(schemas))
        starting = [_status(view, "starting") for view in VIEWS]
        self._report: _Report = dict.fromkeys(self._task.schemas, starting)
        self._heard = time.monotonic()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="view-process", daemon=True)

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        child = self._child
        return None if child is None else child.pid

    def start(self) -> None:
        """Start the child; without any ledger there is nothing to do."""
        if self._task.schemas:
            self._heard = time.monotonic()
            self._thread.start()

    def close(self) -> None:
        """End the child, and wait until nothing is written from there any more."""
        with self._lock:
            self._stopping.set()
            child = self._child
            if child is not None and child.stdin is not None:
                child.stdin.close()
        if self._thread.ident is None:
            return
        self._thread.join(CLOSE_S)
        if self._thread.is_alive() and child is not None:
            _LOG.warning("the views' process did not end in %s s and is killed", CLOSE_S)
            child.kill()
        self._thread.join()

    def standing(self, schema: str) -> list[ViewStatus]:
        """Say how each view of a ledger stands, as the child said it last.

        While there is no child, or it says nothing, every view that hasn't failed is waiting.
        """
        statuses = self._report[schema]
        if time.monotonic() - self._heard > SILENCE_S and not self._stopping.is_set():
            return _waiting(statuses, "the views' process says nothing")
        return statuses

    def _keep(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._stopping.is_set():
            started = time.monotonic()
            reason = self._run()
            if self._stopping.is_set():
                break
            _LOG.error("%s; it is started again", reason)
            self._report = {
                schema: _waiting(statuses, reason) for schema, statuses in self._report.items()
            }
            self._stopping.wait(wait_s)
            lasted = time.monotonic() - started > 2 * LONGEST_WAIT_S
            wait_s = FIRST_WAIT_S if lasted else min(wait_s * 2, LONGEST_WAIT_S)
        self._report = {
            schema: [replace(status, condition="stopped") for status in statuses]
            for schema, statuses in self._report.items()
        }

    def _run(self) -> str:
        """Run one child to its end; say how it ended."""
        try:
            child = self._spawn()
        except OSError as error:
            return f"the views' process could not be started: {type(error).__name__}"
        if child is None:
            return "closing"
        try:
            self._listen(child)
        finally:
            child.wait()
            self._child = None
        return f"the views' process ended with {child.returncode}"

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            self._child = subprocess.Popen(
                # -P: no module of the directory where the service happens to run.
                [sys.executable, "-P", "-m", "projections.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_environment(),
            )
            return self._child

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        if child.stdin is None or child.stdout is None:
            raise AssertionError("pipes were asked for")
        try:
            with self._lock:
                if not self._stopping.is_set():
                    child.stdin.write(msgspec.json.encode(self._task) + b"\n")
                    child.stdin.flush()
            for line in child.stdout:
                self._hear(_read_report(line))
        except (OSError, msgspec.MsgspecError) as error:
            _LOG.error("the views' process is not understood: %s", type(error).__name__)
            child.kill()
        finally:
            child.stdout.close()
            with self._lock, suppress(OSError):  # what it was not told is of no use any more
                child.stdin.close()

    def _hear(self, report: _Report) -> None:
        self._heard = time.monotonic()
        self._report = {
            schema: [_known(old, new) for old, new in zip(statuses, report[schema], strict=True)]
            for schema, statuses in self._report.items()
        }


def _known(before: ViewStatus, now: ViewStatus) -> ViewStatus:
    """Keep the position known while a new child hasn't looked yet."""
    if now.condition == "starting" and now.position == 0:
        return replace(now, position=before.position)
    return now


def _status(view: str, condition: Condition) -> ViewStatus:
    return ViewStatus(view=view, condition=condition, position=0, failed_at=None, reason=None)


def _waiting(statuses: Iterable[ViewStatus], reason: str) -> list[ViewStatus]:
    return [
        status
        if status.condition == "failed"
        else replace(status, condition="waiting", reason=reason)
        for status in statuses
    ]


def _environment() -> dict[str, str]:
    """Give the child's environment: our packages are found, our settings don't concern it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")}
    ours = str(Path(__file__).parents[1])
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [kept.get("PYTHONPATH"), ours]))
    return kept


# -- the child -----------------------------------------------------------------


def follow() -> None:
    """Follow what standard input names, until it is closed or SIGTERM comes."""
    # Ctrl-C goes to the whole group; the service closes its child when it is ready to.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    task = _read_task()
    if task is None:
        return
    threading.Thread(target=_await_end, args=(stopping,), daemon=True).start()
    supervisors = {schema: ViewSupervisor(task.dsn, schema) for schema in task.schemas}
    for supervisor in supervisors.values():
        supervisor.start()
    _report_until(stopping, supervisors)
    for supervisor in supervisors.values():
        supervisor.stop()


def _read_task() -> _Task | None:
    # Not `sys.stdin`: a thread that waits in its buffer would hinder the interpreter's end.
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 65_536)
        if not part:
            return None
        line += part
    return msgspec.json.decode(line, type=_Task)


def _await_end(stopping: threading.Event) -> None:
    while os.read(0, 65_536):
        pass
    stopping.set()
    # A database that doesn't answer must not keep a process alive that nobody needs.
    time.sleep(CLOSE_S)
    os._exit(1)


def _report_until(stopping: threading.Event, supervisors: dict[str, ViewSupervisor]) -> None:
    told: _Report = {}
    told_at = time.monotonic()
    while not stopping.is_set():
        report = {schema: supervisor.status() for schema, supervisor in supervisors.items()}
        if report != told or time.monotonic() - told_at >= HEARTBEAT_S:
            try:
                _write(msgspec.json.encode(report) + b"\n")
            except OSError:  # nobody listens any more
                return
            told, told_at = report, time.monotonic()
        stopping.wait(LOOK_S)


def _write(line: bytes) -> None:
    while line:
        line = line[os.write(1, line) :]


if __name__ == "__main__":
    follow()
