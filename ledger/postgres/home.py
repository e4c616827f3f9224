"""Lay out the embedded database's home directory.

::

    home/                  of the user who runs the ledger; closed to all but the server's group
    ├── .lock              held while a ledger supervises this home; holds that process's id
    ├── binaries/          private copy of the programs, only where the server needs one
    ├── data/              a complete cluster; nothing of ours ever deletes it
    ├── data.initialising/ a cluster that initdb has not finished; deleted at the next start
    ├── hba.conf           who may connect, rewritten at every start
    ├── ident.conf         which system user may take which role, rewritten at every start
    ├── postgres.log       what the server said, and postgres.log.1 before it
    ├── s/                 the socket's directory, unless its path would be too long
    └── socket-dir         where the socket's directory is if it is not `s/`

Files beside `data/` and `s/` belong to the user who runs the ledger, so the server's user can
neither change who may connect nor lead a write by root elsewhere through a link.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ledger.postgres.server_user import ServerUser

BRIEF_TRIES = 5
LOG_LIMIT_BYTES = 16 * 1024 * 1024
OWNER_ROLE = "ledger_owner"
ROLE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PATH_LIMIT_BYTES = 107
"""The longest path that fits `sockaddr_un.sun_path` with its closing zero byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Name the places in one home directory."""

    root: Path
    """The home itself, absolute."""

    @property
    def lock_file(self) -> Path:
        """The file whose lock says that a process supervises this home."""
        return self.root / ".lock"

    @property
    def log_file(self) -> Path:
        """What the server and initdb wrote."""
        return self.root / "postgres.log"

    @property
    def data_dir(self) -> Path:
        """A complete cluster, or nothing."""
        return self.root / "data"

    @property
    def unfinished_dir(self) -> Path:
        """A cluster in the making; its name is what marks it as such."""
        return self.root / "data.initialising"

    @property
    def socket_record(self) -> Path:
        """Remembers the socket's directory where that isn't in the home."""
        return self.root / "socket-dir"

    @property
    def hba_file(self) -> Path:
        """Who may connect."""
        return self.root / "hba.conf"

    @property
    def ident_file(self) -> Path:
        """Which system user may take which role."""
        return self.root / "ident.conf"


def take_home(root: Path) -> tuple[Home, int]:
    """Make the home directory if absent and lock it; return it and the lock's descriptor.

    The lock (flock) ends when the descriptor is closed or its process ends in any way.

    Raises:
        Misconfigured: another process holds the lock, or the directory can't be used.
    """
    home = Home(root=root)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_is_home(home)
        lock = _open_own(home.lock_file, os.O_RDWR)
    except OSError as error:
        raise Misconfigured(
            f"home of the database: expected a directory that uid {os.geteuid()} can write to, "
            f"found {root} ({error.strerror})"
        ) from error
    try:
        _lock_alone(lock)
    except OSError as error:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise Misconfigured(
            f"home of the database: expected no other ledger on {root}, found it in use by "
            f"process {holder}"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
    return home, lock


def is_taken(home: Home) -> bool:
    """Say whether another process supervises this home.

    Raises:
        Misconfigured: the lock can't be asked for.
    """
    try:
        lock = os.open(home.lock_file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Misconfigured(
            f"home of the database: expected a directory that uid {os.geteuid()} can write to, "
            f"found {home.root} ({error.strerror})"
        ) from error
    try:
        # Shared, so that two who ask at once don't take each other for a supervisor.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def admit_server(home: Home, user: ServerUser) -> None:
    """Close the home to all but its owner, and let the server's user pass through it.

    Raises:
        Misconfigured: a directory on the way is closed to that user.
    """
    if home.root.stat().st_uid in {os.geteuid(), user.uid}:
        if user.is_another:
            os.chown(home.root, -1, user.gid)
        home.root.chmod(0o710 if user.is_another else 0o700)
    user.check_can_enter(home.root)


def write_access_rules(home: Home, user: ServerUser, roles: Iterable[str]) -> None:
    """Admit this process's user, by peer authentication, to the named roles and no others.

    Raises:
        Misconfigured: a name can't stand in the file.
    """
    if re.search(r'["\s\\]', user.client_name):
        raise Misconfigured("user of the ledger: expected a name without quotes or spaces")
    for role in roles:
        if not ROLE_NAME.fullmatch(role):
            raise Misconfigured(f"role: expected a name like {OWNER_ROLE}, found {role!r}")
    # Quotes take their meaning from keywords such as "all".
    lines = [f'ledger "{user.client_name}" "{role}"\n' for role in roles]
    _replace(home.ident_file, "".join(lines), user)
    _replace(home.hba_file, "local all all peer map=ledger\n", user)


def make_socket_dir(home: Home, user: ServerUser) -> Path:
    """Return an empty, private directory for the socket, owned by the server's user.

    It is in the home unless the socket's path there would be too long, or holds a comma,
    which separates hosts in connection strings. Otherwise it is made under the directory for
    temporary files and remembered, so that a killed ledger leaves at most one behind.

    Raises:
        Misconfigured: no path is short enough.
    """
    directory = home.root / "s"
    if _fits(directory):
        directory.mkdir(mode=0o700, exist_ok=True)
    else:
        directory = _make_short_dir(home, user)
    if user.is_another:
        os.chown(directory, user.uid, user.gid, follow_symlinks=False)
    directory.chmod(0o700)
    # Left by a killed server; PostgreSQL would refuse if a stranger has its process id now.
    for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
        (directory / name).unlink(missing_ok=True)
    return directory


def remove_socket_dir(home: Home, directory: Path) -> None:
    """Remove the directory that `make_socket_dir` returned if it is outside the home."""
    if directory.parent != home.root:
        with contextlib.suppress(OSError):
            directory.rmdir()
        home.socket_record.unlink(missing_ok=True)


def open_log(home: Home) -> int:
    """Open the log for appending, moving one that has grown large aside."""
    with contextlib.suppress(FileNotFoundError):
        if home.log_file.stat().st_size > LOG_LIMIT_BYTES:
            home.log_file.replace(home.log_file.with_suffix(".log.1"))
    return _open_own(home.log_file, os.O_WRONLY | os.O_APPEND)


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` survive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_is_home(home: Home) -> None:
    # The home's mode is changed, which would be bad for a directory named by mistake.
    if home.lock_file.exists():
        return
    strangers = {path.name for path in home.root.iterdir()} - {home.data_dir.name, "lost+found"}
    if strangers:
        raise Misconfigured(
            f"home of the database: expected an empty directory, one that a ledger has used or "
            f"one with a restored `data`, found {home.root} with {min(strangers)!r} in it"
        )


def _lock_alone(lock: int) -> None:
    # Whoever asks `is_taken` holds the lock for a moment, which must not count as supervising.
    for _ in range(BRIEF_TRIES):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.01)
    return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _open_own(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _replace(path: Path, text: str, user: ServerUser) -> None:
    # A temporary name and a rename: the server never reads half a file.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        if user.is_another:
            os.fchown(descriptor, -1, user.gid)
        os.fchmod(descriptor, 0o640)
    Path(name).replace(path)


def _fits(directory: Path) -> bool:
    path = os.fsencode(directory / SOCKET_NAME)
    return len(path) <= SOCKET_PATH_LIMIT_BYTES and b"," not in path


def _make_short_dir(home: Home, user: ServerUser) -> Path:
    if remembered := _remembered_short_dir(home, user):
        return remembered
    directory = Path(tempfile.mkdtemp(prefix="ledger-"))
    if not _fits(directory):
        directory.rmdir()
        raise Misconfigured(
            f"home of the database: expected a path of the socket of at most "
            f"{SOCKET_PATH_LIMIT_BYTES} bytes without a comma, found none: neither {home.root} "
            f"nor {directory.parent} is short enough. Choose a shorter home"
        )
    _replace(home.socket_record, f"{home.root}\0{directory}", user)
    return directory


def _remembered_short_dir(home: Home, user: ServerUser) -> Path | None:
    # It stands in a directory where anybody can write, so trust nothing but its owner and mode.
    with contextlib.suppress(OSError):
        of_home, _, name = home.socket_record.read_text(encoding="utf-8").partition("\0")
        status = Path(name).lstat()
        private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o700
        # A copy of a home must not take over the original's socket.
        if private and status.st_uid == user.uid and of_home == str(home.root):
            return Path(name)
    return None
