"""Choose the operating system's user that runs the server, and check what it may reach.

PostgreSQL refuses to run as root, so root drops to another user. That user gets rights to
nothing but the server's own directories: what lies in between is never changed, only checked.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ledger.errors import Misconfigured

if TYPE_CHECKING:
    from pathlib import Path

ROOT_UID = 0
USERS_IN_PLACE_OF_ROOT = ("ledger", "postgres", "nobody")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUser:
    """Name the user that the server's processes run as."""

    name: str
    """The user's name in the system's user database."""

    uid: int
    """The user's number."""

    gid: int
    """The number of the user's primary group, the only one the server is in."""

    client_name: str
    """The name of this process's user: whom peer authentication will see."""

    @property
    def is_another(self) -> bool:
        """Whether the server runs as another user than this process."""
        return self.uid != os.geteuid()

    def succeeds_in(self, command: list[str | Path]) -> bool:
        """Say whether this user can run `command` with exit status 0."""
        ids: dict[str, object] = {}
        if self.is_another:
            ids = {"user": self.uid, "group": self.gid, "extra_groups": []}
        try:
            # mypy can't see that the mapping holds keyword arguments of Popen.
            done = subprocess.run(  # type: ignore[call-overload]
                command,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                **ids,
            )
        except OSError:
            return False
        return bool(done.returncode == 0)

    def can_enter(self, directory: Path) -> bool:
        """Say whether this user can make `directory` its working directory."""
        return self.succeeds_in(["/bin/sh", "-c", 'cd -- "$1"', "sh", directory])

    def check_can_enter(self, directory: Path) -> None:
        """Raise Misconfigured naming the first parent of `directory` closed to this user."""
        if self.can_enter(directory):
            return
        parents = reversed([directory, *directory.parents])
        closed = next((parent for parent in parents if not self.can_enter(parent)), directory)
        raise Misconfigured(
            f"home of the database: expected a directory that user {self.name} (uid {self.uid}) "
            f"can enter, found {directory}, where {closed} is closed to it. Choose another home, "
            "such as one under /var/lib, or start the ledger as another user"
        )


def choose_server_user(data_dir: Path | None, *, wanted: str | None = None) -> ServerUser:
    """Return the user to run the server as.

    An ordinary user runs it as itself. Root takes the owner of existing data, else `wanted`,
    else the first that exists of `USERS_IN_PLACE_OF_ROOT`.

    Args:
        data_dir: the cluster's directory, or None before there is one.
        wanted: a user's name; only root can choose.

    Raises:
        Misconfigured: this process's user or the wanted one has no entry in the user database,
            or the data belongs to a user that can't be taken.
    """
    client = _own_entry()
    owner_uid = data_dir.stat().st_uid if data_dir else None
    if client.pw_uid != ROOT_UID:
        if owner_uid not in (None, client.pw_uid):
            raise Misconfigured(
                f"{data_dir}: expected data of user {client.pw_name} (uid {client.pw_uid}), who "
                f"runs the ledger, found data of uid {owner_uid}"
            )
        return _server_user(client, client)
    return _server_user(_entry_in_place_of_root(data_dir, owner_uid, wanted), client)


def _own_entry() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise Misconfigured(
            f"uid {os.geteuid()}: expected an entry in the user database (/etc/passwd), found "
            "none. PostgreSQL's initdb and peer authentication need one: add it, run as a user "
            "that has one, or set LEDGER_DATABASE_URL to a server"
        ) from error


def _entry_in_place_of_root(
    data_dir: Path | None, owner_uid: int | None, wanted: str | None
) -> pwd.struct_passwd:
    if owner_uid == ROOT_UID:
        raise Misconfigured(
            f"{data_dir}: expected data of an ordinary user, found data of root, as whom "
            "PostgreSQL refuses to run. Give it to the user that is to run the server"
        )
    try:
        if owner_uid is not None:
            return pwd.getpwuid(owner_uid)
        if wanted is not None:
            return _not_root(pwd.getpwnam(wanted))
    except KeyError as error:
        missing = wanted if owner_uid is None else f"uid {owner_uid}, owner of {data_dir}"
        raise Misconfigured(
            f"user of the database: expected an entry in the user database for {missing}"
        ) from error
    for name in USERS_IN_PLACE_OF_ROOT:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Misconfigured(
        "PostgreSQL refuses to run as root: expected one of the users "
        f"{', '.join(USERS_IN_PLACE_OF_ROOT)}, found none"
    )


def _not_root(entry: pwd.struct_passwd) -> pwd.struct_passwd:
    if entry.pw_uid == ROOT_UID:
        raise Misconfigured("user of the database: expected an ordinary user, found root")
    return entry


def _server_user(server: pwd.struct_passwd, client: pwd.struct_passwd) -> ServerUser:
    return ServerUser(
        name=server.pw_name, uid=server.pw_uid, gid=server.pw_gid, client_name=client.pw_name
    )
