from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from projections.catalogue import VIEWS
from projections.process import NICENESS, ViewProcess
from projections.schema import migrate_views
from tests.fixtures.ledgers import an_event, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ledger.service import Ledger
    from projections.supervisor import ViewStatus
    from tests.fixtures.ledgers import Place

TIMEOUT_S = 20.0


@pytest.fixture
def views(place: Place) -> Place:
    """Give a ledger's place with its views' tables, empty."""
    with place.connect() as connection:
        migrate_views(connection, schema=place.row.schema)
    return place


@pytest.fixture
def process(views: Place) -> Iterator[ViewProcess]:
    """Give the running process of the ledger's views."""
    made = ViewProcess(views.dsn, [views.row.schema])
    made.start()
    yield made
    made.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def standing(process: ViewProcess, place: Place) -> list[ViewStatus]:
    return process.standing(place.row.schema)


def wait_for(process: ViewProcess, place: Place, seq: int) -> None:
    wait_until(lambda: all(s.position == seq for s in standing(process, place)))


def pid_of(process: ViewProcess) -> int:
    wait_until(lambda: process.pid is not None)
    pid = process.pid
    assert pid is not None
    return pid


def has_ended(pid: int) -> bool:
    """Say whether a process is gone, or dead and not waited for by whoever inherited it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def test_views_follow_what_is_recorded(views: Place, ledger: Ledger, process: ViewProcess):
    for _ in range(3):
        receipt = record(ledger, an_event())
        wait_for(process, views, receipt["seq"])
    assert [s.view for s in standing(process, views)] == list(VIEWS)
    assert {s.condition for s in standing(process, views)} == {"running"}
    pid = pid_of(process)
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
    process.close()
    assert has_ended(pid)
    assert {s.condition for s in standing(process, views)} == {"stopped"}
    with views.connect() as connection:
        row = connection.execute("SELECT count(*) FROM view_access_history").fetchone()
    assert row == (3,)


def test_a_killed_child_is_started_again_and_views_wait_meanwhile(
    views: Place, ledger: Ledger, process: ViewProcess
):
    seq = record(ledger, an_event())["seq"]
    wait_for(process, views, seq)
    killed = pid_of(process)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: {s.condition for s in standing(process, views)} == {"waiting"})
    assert {s.reason for s in standing(process, views)} == {"the views' process ended with -9"}
    assert {s.position for s in standing(process, views)} == {seq}
    wait_for(process, views, record(ledger, an_event())["seq"])
    assert pid_of(process) != killed
    assert {s.reason for s in standing(process, views)} == {None}


def test_a_silent_child_is_not_believed(
    views: Place, ledger: Ledger, process: ViewProcess, monkeypatch: pytest.MonkeyPatch
):
    wait_for(process, views, record(ledger, an_event())["seq"])
    monkeypatch.setattr("projections.process.SILENCE_S", 1.5)
    os.kill(pid_of(process), signal.SIGSTOP)
    wait_until(lambda: {s.condition for s in standing(process, views)} == {"waiting"})
    os.kill(pid_of(process), signal.SIGCONT)
    wait_until(lambda: {s.condition for s in standing(process, views)} == {"running"})


def test_a_child_that_does_not_end_is_killed(
    views: Place, process: ViewProcess, monkeypatch: pytest.MonkeyPatch
):
    wait_until(lambda: {s.condition for s in standing(process, views)} == {"running"})
    monkeypatch.setattr("projections.process.CLOSE_S", 0.2)
    pid = pid_of(process)
    os.kill(pid, signal.SIGSTOP)
    process.close()
    assert has_ended(pid)


PARENT = """
import json
import sys
import time
from projections.process import ViewProcess
process = ViewProcess(*json.loads(sys.stdin.readline()))
process.start()
while not all(s.condition == "running" for v in process._report.values() for s in v):
    time.sleep(0.01)
print(process.pid, flush=True)
time.sleep(60)
"""


def test_the_child_ends_when_the_service_is_killed(views: Place):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(json.dumps([views.dsn, [views.row.schema]]).encode() + b"\n")
        parent.stdin.flush()
        pid = int(parent.stdout.readline())
        assert not has_ended(pid)
        parent.kill()
    wait_until(lambda: has_ended(pid))


def test_ctrl_c_leaves_the_child_to_the_service(views: Place, ledger: Ledger, process: ViewProcess):
    wait_for(process, views, record(ledger, an_event())["seq"])
    pid = pid_of(process)
    os.kill(pid, signal.SIGINT)
    wait_for(process, views, record(ledger, an_event())["seq"])
    assert pid_of(process) == pid


def test_the_standing_of_a_failing_view_arrives(views: Place, ledger: Ledger, process: ViewProcess):
    with views.connect() as connection:
        connection.execute("ALTER TABLE view_access_history ADD CHECK (activity <> 'support-desk')")
    seq = record(ledger, an_event())["seq"]
    wait_until(lambda: standing(process, views)[1].condition == "failed")
    wait_until(lambda: standing(process, views)[0].position == seq)
    states, accesses, *_ = standing(process, views)
    assert states.condition == "running"
    assert (accesses.view, accesses.position) == ("access_history", seq - 1)
    assert (accesses.failed_at, accesses.reason) == (seq, "IntegrityError (SQLSTATE 23514)")


def test_the_list_of_processes_names_no_database(views: Place, process: ViewProcess):
    wait_until(lambda: {s.condition for s in standing(process, views)} == {"running"})
    arguments = Path(f"/proc/{pid_of(process)}/cmdline").read_bytes()
    assert b"projections.process" in arguments
    assert b"dbname" not in arguments
    assert views.dsn.encode() not in arguments


def test_without_ledgers_there_is_no_child(views: Place):
    process = ViewProcess(views.dsn, [])
    process.start()
    assert process.pid is None
    process.close()
