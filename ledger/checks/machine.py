"""Checks of what lies on this machine: settings, files and who may read them, disk."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

from ledger.anchors.settings import anchors_file, check_file
from ledger.checks.finding import SETTINGS, bad, ok, warn
from ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ledger.checks.finding import Finding
    from ledger.config import Settings

LOW_BYTES, TOO_LOW_BYTES = 2 * 1024**3, 200 * 1024**2
"""Free space below which the doctor warns, and below which recording is about to stop."""

_SECRET, _NOT_FOR_OTHERS = 0o077, 0o022


def check_home(settings: Settings) -> Iterator[Finding]:
    """Look whether the home is there, and that nobody else can write to it."""
    home = settings.home
    if not home.is_dir():
        yield bad("home", f"expected a directory {home}", "custody up makes it", code=SETTINGS)
        return
    if home.stat().st_mode & _NOT_FOR_OTHERS:
        yield bad("home", f"{home} can be written by others", f"chmod go-w {home}")
    else:
        yield ok("home", str(home))


def check_secrets(settings: Settings) -> Iterator[Finding]:
    """Look whether what must stay secret can be read by its owner only."""
    count = 0
    for path in _secrets(settings):
        count += 1
        found = path.lstat()
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISREG(found.st_mode):
            yield bad("secrets", f"{path}: expected a file", "find out what put it there")
        elif mode & _SECRET:
            yield bad("secrets", f"{path}: expected mode 0600, found {mode:04o}", _close(path))
        elif found.st_uid != os.geteuid():
            yield warn("secrets", f"{path} belongs to another user", "run the doctor as that user")
    if settings.home.is_dir():
        yield ok("secrets", f"{count} files looked at")


def _secrets(settings: Settings) -> Iterator[Path]:
    for directory, pattern in (
        (settings.keys_dir, "*.json"),
        (settings.memory_dir, "*.memory"),
        (settings.home / "credentials", "*"),
    ):
        yield from sorted(directory.glob(pattern))


def _close(path: Path) -> str:
    return f"chmod 600 {path}, and think of who could have read it: a key that was read is lost"


def check_anchors_file(settings: Settings) -> Iterator[Finding]:
    """Look whether the file that names sinks can be read and makes sense."""
    try:
        path = anchors_file(settings)
        names = check_file(settings)
    except LedgerError as error:
        yield bad("anchors file", str(error), "mend it: no ledger opens with it", code=SETTINGS)
        return
    if settings.anchor_interval_s == 0:
        yield warn(
            "anchors file", "anchoring is turned off", "set LEDGER_ANCHOR_INTERVAL_S above 0"
        )
    elif not names:
        yield warn(
            "anchors file",
            "checkpoints are anchored in a directory of this machine only",
            "name a witness, a timestamp authority or a webhook in anchors.toml",
        )
    else:
        yield ok("anchors file", f"{path}: {', '.join(names)}")


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Look whether there is room where the home and the anchors are."""
    for about, path in (("home", settings.home), ("anchors", settings.anchor_dir)):
        if not path.exists():
            continue
        free = shutil.disk_usage(path).free
        detail = f"{free // 1024**2:,} MiB free in {path}"
        if free < TOO_LOW_BYTES:
            yield bad("disk", detail, "make room now: recording stops when it is full", about=about)
        elif free < LOW_BYTES:
            yield warn("disk", detail, "make room", about=about)
        else:
            yield ok("disk", detail, about=about)
