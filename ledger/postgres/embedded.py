"""Supervise a PostgreSQL server of our own in one home directory.

What holds, each with a test:

- One process supervises a home; a second is refused at once.
- The server does not outlive this process, however that ends (Linux).
- After a kill of everything, the next start has every acknowledged row.
- Only this process's system user gets in, over a Unix socket, to the roles mapped.
- Root never runs the server, and no directory outside the home is changed.
- The settings below are given on the command line, above everything that the data directory
  holds, so `ALTER SYSTEM` can't switch durability off.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Self

from psycopg.conninfo import make_conninfo

from ledger.errors import Unavailable
from ledger.postgres.binaries import find_binaries
from ledger.postgres.home import (
    OWNER_ROLE,
    Home,
    admit_server,
    is_taken,
    make_socket_dir,
    open_log,
    remove_socket_dir,
    take_home,
    write_access_rules,
)
from ledger.postgres.initialise import has_cluster, make_cluster
from ledger.postgres.private_copy import binaries_for
from ledger.postgres.processes import end_orphans, is_alive, kill_processes_in
from ledger.postgres.server_process import LastingProcess, Launcher
from ledger.postgres.server_user import choose_server_user

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

SOCKET_LINE = 4
"""Index of the line of `postmaster.pid` that holds the socket's directory."""

READY_LINE = 7
"""Index of the line of `postmaster.pid` that holds the server's status."""

ORPHAN_GRACE_S = 10.0

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    # The wheel's build has neither lz4 nor zstd.
    "wal_compression": "pglz",
    # Compiling costs more than it saves on the ledger's short statements.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements and details of errors can hold what a person sent; logs must not collect it.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}
DURABILITY_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit")


class EmbeddedPostgres:
    """Start, stop and connect to the server of one home directory."""

    def __init__(
        self,
        home: Path,
        *,
        durable: bool = True,
        dbname: str = "postgres",
        roles: Sequence[str] = (),
        os_user: str | None = None,
        pg_bin: Path | None = None,
        settings: Mapping[str, str] | None = None,
        start_timeout_s: float = 60.0,
        stop_timeout_s: float = 60.0,
    ) -> None:
        """Keep what the server is to be; nothing is read, made or started yet.

        Args:
            home: a directory for this server alone, made if absent.
            durable: False gives up every acknowledged row on a loss of power; for tests only.
            dbname: the database that `dsn` names.
            roles: roles that this process's user may take besides `ledger_owner`.
            os_user: system user to run the server as when this process is root.
            pg_bin: directory of PostgreSQL's programs (`LEDGER_PG_BIN`); None finds some.
            settings: PostgreSQL settings in addition to, or in place of, `SETTINGS`.
            start_timeout_s: seconds until a server that isn't ready counts as failed; recovery
                after a crash is part of it.
            stop_timeout_s: seconds until a server that doesn't stop is killed.
        """
        durability = dict.fromkeys(DURABILITY_SETTINGS, "on" if durable else "off")
        self._home = Home(root=home.absolute())
        self._durable = durable
        self._dbname = dbname
        self._roles = (OWNER_ROLE, *roles)
        self._os_user = os_user
        self._pg_bin = pg_bin
        self._settings = {**SETTINGS, **durability, **(settings or {})}
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._descriptors: list[int] = []
        self._process: LastingProcess | None = None
        self._socket_dir: Path | None = None

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()

    @property
    def dsn(self) -> str:
        """A libpq connection string for `ledger_owner`; fixed from the first start on."""
        return self.dsn_for(self._dbname)

    @property
    def pid(self) -> int | None:
        """The server's process id, or None while it isn't running."""
        running = self._process is not None and self._process.popen.poll() is None
        return self._process.popen.pid if self._process and running else None

    def dsn_for(self, dbname: str, *, role: str = OWNER_ROLE) -> str:
        """Return a libpq connection string for another database or role.

        Raises:
            Unavailable: the server was never started, so its socket has no place yet.
        """
        if self._socket_dir is None:
            raise Unavailable("the embedded database was not started")
        return make_conninfo(host=str(self._socket_dir), user=role, dbname=dbname)

    def start(self) -> None:
        """Start the server, making its cluster first if there is none; safe in any thread.

        Does nothing if it is running. On an error nothing is left running or locked.

        Raises:
            Misconfigured: home, users, programs and data don't fit together, or another
                process supervises the home.
            Unavailable: the server failed or was not ready in time; the message ends with
                what it said.
        """
        if self.pid is not None:
            return
        self._release()
        try:
            _, lock = take_home(self._home.root)
            self._descriptors.append(lock)
            self._start_in_home()
        except BaseException:
            self.kill()
            raise

    def find_running(self) -> str | None:
        """Return the connection string of the server that another process runs in this home.

        Waits for one that is starting; None if no process supervises the home. It ends with
        the process that runs it.

        Raises:
            Unavailable: it was not ready in time.
        """
        end_s = time.monotonic() + self._start_timeout_s
        while is_taken(self._home):
            lines = self._status_lines()
            if lines and lines[READY_LINE].strip() == "ready" and is_alive(int(lines[0])):
                return make_conninfo(host=lines[SOCKET_LINE], user=OWNER_ROLE, dbname=self._dbname)
            if time.monotonic() > end_s:
                raise Unavailable(
                    "the embedded database, which another process runs, was not ready after "
                    f"{self._start_timeout_s:.0f} s"
                )
            time.sleep(0.05)
        return None

    def stop(self) -> None:
        """Stop the server in order and unlock the home; does nothing if it isn't running.

        Sessions are ended and a checkpoint is written. A server that does not end in time is
        killed, after which the next start recovers.
        """
        if self._process is not None:
            process = self._process.popen
            process.send_signal(signal.SIGINT)
            try:
                process.wait(self._stop_timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
            if self._socket_dir:
                remove_socket_dir(self._home, self._socket_dir)
        self._release()

    def kill(self) -> None:
        """Kill the server's processes at once, as a crash would, and unlock the home."""
        if self._process is not None:
            self._process.popen.kill()
            self._process.popen.wait()
            kill_processes_in(self._home.data_dir)
        self._release()

    def _start_in_home(self) -> None:
        home, end_s = self._home, time.monotonic() + self._start_timeout_s
        exists = has_cluster(home.data_dir)
        user = choose_server_user(home.data_dir if exists else None, wanted=self._os_user)
        admit_server(home, user)
        found = find_binaries(chosen=self._pg_bin, data_dir=home.data_dir)
        # Before the programs are copied anew: an orphan may be running the old ones.
        end_orphans(home.data_dir, grace_s=ORPHAN_GRACE_S)
        binaries = binaries_for(found, user, home.root / "binaries")
        log = open_log(home)
        self._descriptors.append(log)
        launcher = Launcher(
            user=user,
            bin_dir=binaries.bin_dir,
            log=log,
            log_file=home.log_file,
            log_start_bytes=os.fstat(log).st_size,
        )
        if not exists:
            make_cluster(home, launcher, durable=self._durable)
        write_access_rules(home, user, self._roles)
        self._socket_dir = make_socket_dir(home, user)
        user.check_can_enter(self._socket_dir)
        self._spawn(launcher)
        self._wait_until_ready(launcher, end_s)

    def _spawn(self, launcher: Launcher) -> None:
        settings = {
            **self._settings,
            "hba_file": str(self._home.hba_file),
            "ident_file": str(self._home.ident_file),
            "unix_socket_directories": str(self._socket_dir),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        # SIGINT is a fast shutdown: sessions end, a checkpoint is written.
        self._process = LastingProcess(
            launcher,
            "postgres",
            *("-D", str(self._home.data_dir), *options),
            death_signal=signal.SIGINT,
        )

    def _wait_until_ready(self, launcher: Launcher, end_s: float) -> None:
        while not self._is_ready():
            if self.pid is None:
                raise Unavailable(f"the embedded database ended: {launcher.tail()}")
            if time.monotonic() > end_s:
                raise Unavailable(
                    f"the embedded database was not ready after {self._start_timeout_s:.0f} s: "
                    f"{launcher.tail()}"
                )
            time.sleep(0.005)

    def _is_ready(self) -> bool:
        lines = self._status_lines()
        written = bool(lines) and lines[0] == str(self.pid)
        return written and lines[READY_LINE].strip() == "ready"

    def _status_lines(self) -> list[str]:
        try:
            text = (self._home.data_dir / "postmaster.pid").read_text(encoding="utf-8")
        except OSError:
            return []
        lines = text.splitlines()
        # The last line is written in place, so it can be read in part.
        return lines if len(lines) > READY_LINE else []

    def _release(self) -> None:
        if self._process is not None:
            self._process.popen.wait()
            self._process.release()
            self._process = None
        # The lock goes last.
        while self._descriptors:
            os.close(self._descriptors.pop())
