"""Find and end the processes that work in a PostgreSQL data directory.

Every process of a server changes its working directory to the data directory and stays there.
That identifies them better than `postmaster.pid`, whose number can belong to a stranger once
its server was killed. Where there is no `/proc` nothing is found, and PostgreSQL's own checks
of `postmaster.pid` decide.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from ledger.errors import Unavailable

PROC = Path("/proc")
SERVER_NAME = "postgres"


def processes_in(directory: Path) -> set[int]:
    """Return the ids of living PostgreSQL processes whose working directory is `directory`.

    The name is asked for too, so that an operator's shell in that directory is left alone.
    """
    try:
        wanted = directory.stat()
        entries = [entry for entry in PROC.iterdir() if entry.name.isdecimal()]
    except OSError:
        return set()
    found: set[int] = set()
    for entry in entries:
        # Gone, a zombie, or another user's: none can be a server on our directory.
        with contextlib.suppress(OSError):
            name = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
            if name == SERVER_NAME and os.path.samestat(wanted, (entry / "cwd").stat()):
                found.add(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    """Say whether a process of this number exists, whosoever it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def kill_processes_in(directory: Path, *, timeout_s: float = 10.0) -> None:
    """Send SIGKILL to every PostgreSQL process in `directory` until none is left.

    Raises:
        Unavailable: some survived `timeout_s` seconds (blocked in the kernel).
    """
    end_s = time.monotonic() + timeout_s
    while found := processes_in(directory):
        for pid in found:
            _send(pid, signal.SIGKILL)
        if time.monotonic() > end_s:
            raise Unavailable(f"processes {sorted(found)} in {directory} can't be killed")
        time.sleep(0.002)


def end_orphans(data_dir: Path, *, grace_s: float) -> None:
    """End whatever still runs on `data_dir`; only for the holder of the home's lock.

    The postmaster is asked for a fast shutdown; what is left after `grace_s` seconds is
    killed, which loses nothing that was acknowledged. Then a left-over `postmaster.pid` goes:
    with no process on the directory it can only name a stranger or a zombie, for which
    PostgreSQL would refuse to start.

    Raises:
        Unavailable: a process can't be killed.
    """
    pid_file = data_dir / "postmaster.pid"
    if not PROC.exists():
        return
    running = processes_in(data_dir)
    postmaster = _read_pid(pid_file)
    if postmaster in running:
        _send(postmaster, signal.SIGINT)
    end_s = time.monotonic() + grace_s
    while processes_in(data_dir) and time.monotonic() < end_s:
        time.sleep(0.005)
    kill_processes_in(data_dir)
    pid_file.unlink(missing_ok=True)


def _read_pid(pid_file: Path) -> int:
    try:
        return int(pid_file.read_text(encoding="utf-8").splitlines()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
