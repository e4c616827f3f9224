"""Run PostgreSQL's programs as the server's user, tied to the life of this process."""

from __future__ import annotations

import os
import subprocess
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ledger.errors import Misconfigured, Unavailable
from ledger.postgres.launch import KEEP_ID, launch_command

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.postgres.server_user import ServerUser

PRIVATE_UMASK = 0o077
TAIL_BYTES = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Hold what every program of one server has in common."""

    user: ServerUser
    """Who the programs run as."""

    bin_dir: Path
    """Directory of the programs."""

    log: int
    """Descriptor that takes what the programs say."""

    log_file: Path
    """The file behind `log`."""

    log_start_bytes: int
    """The log's size before this start; what follows is about this start."""

    def spawn(self, program: str, *arguments: str, death_signal: int) -> subprocess.Popen[bytes]:
        """Start a program that gets `death_signal` when the calling *thread* ends.

        It is in a session of its own: Ctrl-C in a terminal reaches the ledger, which stops the
        database last. `umask` is given to the program only, because it is process-wide here.

        Raises:
            Misconfigured: the interpreter that launches it can't be run.
        """
        uid, gid = (self.user.uid, self.user.gid) if self.user.is_another else (KEEP_ID, KEEP_ID)
        command = launch_command(
            [str(self.bin_dir / program), *arguments], death_signal=death_signal, uid=uid, gid=gid
        )
        try:
            return subprocess.Popen(
                command,
                cwd="/",
                # Nothing inherited: PG* variables would change what the programs do.
                env={"PATH": f"{self.bin_dir}:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                start_new_session=True,
                umask=PRIVATE_UMASK,
            )
        except OSError as error:
            raise Misconfigured(f"{command[0]}: can't be run ({error.strerror})") from error

    def run(self, program: str, *arguments: str, death_signal: int, timeout_s: float) -> None:
        """Run a program to its end.

        Raises:
            Unavailable: it failed, or took longer than `timeout_s` seconds.
        """
        process = self.spawn(program, *arguments, death_signal=death_signal)
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{program} took longer than {timeout_s:.0f} s") from error
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if status != 0:
            raise Unavailable(f"{program} ended with status {status}: {self.tail()}")

    def tail(self) -> str:
        """Return the end of what the programs said since this start."""
        with self.log_file.open("rb") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(self.log_start_bytes, size_bytes - TAIL_BYTES))
            return file.read().decode("utf-8", "replace").strip() or "it said nothing"


class LastingProcess:
    """Run one program for as long as this process lives, whichever thread asked for it.

    The kernel signals a child when the thread that forked it ends. A thread of its own forks
    the program here and waits until `release`, so that a short-lived caller's end means nothing.
    """

    def __init__(
        self, launcher: Launcher, program: str, *arguments: str, death_signal: int
    ) -> None:
        self._released = threading.Event()
        spawned: Future[subprocess.Popen[bytes]] = Future()

        def keep() -> None:
            try:
                process = launcher.spawn(program, *arguments, death_signal=death_signal)
            except BaseException as error:  # noqa: BLE001 (it is raised in the caller's thread)
                spawned.set_exception(error)
            else:
                spawned.set_result(process)
                self._released.wait()

        # A daemon: the interpreter's end must not wait for it, and ends the server through it.
        threading.Thread(target=keep, name=f"keeper of {program}", daemon=True).start()
        self.popen = spawned.result()

    def release(self) -> None:
        """Let the keeping thread end; only once the program has been waited for."""
        self._released.set()
