"""The lock that keeps a second process, or a second client, out of an outbox."""

from __future__ import annotations

import fcntl
import os
import threading
from typing import TYPE_CHECKING

from ledger.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

_open_here: set[tuple[int, Path]] = set()
_guard = threading.Lock()


class OutboxLock:
    """The lock of an outbox's file, which also makes the file, readable by nobody else.

    A POSIX lock ends with the process, however it ends, and isn't inherited by a child; it
    doesn't part two clients of one process, so these are told apart by a set.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = (os.getpid(), path)
        self._file: int | None = None
        with _guard:
            if self._mark in _open_here:
                raise Misconfigured(f"outbox {path}: another client of this process has it")
            try:
                self._file = self._take()
            except OSError as error:
                raise Unavailable(f"outbox {path}: can't be made ({error.strerror})") from error
            _open_here.add(self._mark)

    def _take(self) -> int:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            os.close(lock)
            raise Misconfigured(
                f"outbox {self.path}: another process has it; give each process an outbox "
                "of its own"
            ) from None
        except OSError:
            os.close(lock)
            raise
        return lock

    def flush_directory(self) -> None:
        """Make the new file's name durable too."""
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def release(self) -> None:
        """Let others have it. The lock's file stays: removing it could part two holders."""
        with _guard:
            if self._file is not None and self._mark[0] == os.getpid():
                os.close(self._file)
                _open_here.discard(self._mark)
            self._file = None
