"""Make a new cluster so that a half-made one is never confused with real data.

The directory's name is the marker. initdb works in `data.initialising`; when it has ended, and
only then, that directory is renamed to `data`. Crash points:

1. before the rename: `data.initialising` is there and `data` is not (or is empty). No server
   ever ran on it, so the next start deletes it and begins again;
2. after the rename: `data` is complete. A rename is atomic, so there is nothing in between.

What is called `data` is therefore real, and no code here deletes it, whatever it holds.
"""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

from ledger.errors import Misconfigured
from ledger.postgres.home import OWNER_ROLE, sync_directory
from ledger.postgres.processes import kill_processes_in

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.postgres.home import Home
    from ledger.postgres.server_process import Launcher

INITDB_TIMEOUT_S = 120.0
INITDB_OPTIONS = (
    f"--username={OWNER_ROLE}",
    "--encoding=UTF8",
    "--locale=C",
    "--data-checksums",
    "--auth-local=peer",
    "--auth-host=reject",
)


def has_cluster(data_dir: Path) -> bool:
    """Say whether `data_dir` is a cluster; an absent or empty directory is not.

    Raises:
        Misconfigured: it holds something else, which is not ours to delete.
    """
    if not data_dir.exists() or not any(data_dir.iterdir()):
        return False
    for name in ("PG_VERSION", "global/pg_control"):
        if not (data_dir / name).exists():
            raise Misconfigured(
                f"{data_dir}: expected a complete PostgreSQL cluster or nothing, found files "
                f"without {name}. Restore it from a backup, or move it away to begin anew"
            )
    return True


def make_cluster(home: Home, launcher: Launcher, *, durable: bool) -> None:
    """Make the cluster `home.data_dir`, deleting what an earlier attempt left.

    Precondition: `has_cluster` said no, and this process holds the home's lock.

    Args:
        home: where.
        launcher: runs initdb.
        durable: flush the files, so that the cluster survives a loss of power.

    Raises:
        Misconfigured: `data.initialising` is no half-made cluster.
        Unavailable: initdb failed.
    """
    _delete_half_made(home.unfinished_dir)
    home.unfinished_dir.mkdir(mode=0o700)
    user = launcher.user
    if user.is_another:
        os.chown(home.unfinished_dir, user.uid, user.gid, follow_symlinks=False)
    options = INITDB_OPTIONS if durable else (*INITDB_OPTIONS, "--no-sync")
    launcher.run(
        "initdb",
        f"--pgdata={home.unfinished_dir}",
        *options,
        # Not SIGTERM: initdb would then delete files while the next start does the same.
        death_signal=signal.SIGKILL,
        timeout_s=INITDB_TIMEOUT_S,
    )
    home.unfinished_dir.rename(home.data_dir)
    sync_directory(home.root)


def _delete_half_made(directory: Path) -> None:
    # A server writes this file at its start, and none of ours starts before the rename.
    if (directory / "postmaster.opts").exists():
        raise Misconfigured(
            f"{directory}: expected a half-made cluster, found one on which a server has run. "
            "If it holds your data, rename it to `data`; otherwise move it away"
        )
    # initdb's own child can outlive a killed initdb for a moment and would write into it.
    kill_processes_in(directory)
    if directory.exists():
        shutil.rmtree(directory)
