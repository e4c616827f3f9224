"""Room kept aside on the disk, so that a full outbox can still be emptied.

Taking events out of SQLite writes before it frees. If storing could fill the disk to its last
block, acknowledged events could never be noted, and the outbox would stay full for ever.
So some room is held by a file of random bytes (zeros may take none). It is lent when an
acknowledgement can't be noted, and nothing is stored until one could be and the room is taken
again. The room is more than SQLite's log can hold before it is folded into the file.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

RESERVE_BYTES = 2 * 1024 * 1024


class Reserve:
    """The file that keeps the room; none for an outbox in memory."""

    def __init__(self, outbox: Path | None) -> None:
        self._path = None if outbox is None else outbox.with_name(f"{outbox.name}.reserve")
        self._taken = self._lent = False

    def take(self) -> bool:
        """Take the room, if it isn't taken; give whether it is now."""
        if self._path is None or self._taken:
            return True
        if self._lent:
            return False
        try:
            if not self._path.exists() or self._path.stat().st_size < RESERVE_BYTES:
                self._write(self._path)
        except OSError:
            self._let_go()
            return False
        self._taken = True
        return True

    def lend(self) -> None:
        """Let the room be used for what frees more."""
        self._lent = True
        self._let_go()

    def give_back(self) -> None:
        """Say that it was of use, so that it may be taken again."""
        self._lent = False

    def _let_go(self) -> None:
        self._taken = False
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    @staticmethod
    def _write(path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(os.urandom(RESERVE_BYTES))
            file.flush()
            os.fsync(file.fileno())
