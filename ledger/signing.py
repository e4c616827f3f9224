"""Sign checkpoints, and remember outside the database what was signed (FORMAT.md 5.3).

The memory is what makes an old copy of the database visible: a signer never signs
a smaller tree, nor another root for a size, than it did before.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
import threading
from typing import TYPE_CHECKING, NamedTuple

from ledger.core.checkpoint import Checkpoint, sign_checkpoint
from ledger.core.merkle import EMPTY_ROOT
from ledger.errors import Misconfigured, ReadOnly

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.keys.keyring import Keyring

_SLOT = struct.Struct(">8sQQ32s")
_MAGIC = b"custody0"
_SLOT_BYTES = 512


class Signed(NamedTuple):
    """What a signer last put its name to."""

    size: int
    root: bytes


class SignerMemory:
    """A file with two slots, written in turn: a torn write leaves the other slot whole."""

    def __init__(self, path: Path) -> None:
        """Open the file, making an empty one where there is none."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._turn = 0
        self.last: Signed | None = None
        self.reload()

    def take(self) -> bool:
        """Become the only one who stores here, knowing what others stored; False while one is.

        The lock goes with the process, however that ends.
        """
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.reload()
        return True

    def leave(self) -> None:
        """Let another process store here."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def reload(self) -> None:
        """Read what was stored last, by whichever process.

        Raises:
            Misconfigured: something was stored, and none of it can be read.
        """
        self._turn, self.last = self._load()

    def _load(self) -> tuple[int, Signed | None]:
        found: list[tuple[int, Signed]] = []
        written = False
        for slot in range(2):
            raw = os.pread(self._file, _SLOT.size + 32, slot * _SLOT_BYTES)
            written = written or any(raw)
            if len(raw) == _SLOT.size + 32 and _checksum(raw[: _SLOT.size]) == raw[_SLOT.size :]:
                _, turn, size, root = _SLOT.unpack(raw[: _SLOT.size])
                found.append((turn, Signed(size, root)))
        if not found and written:
            raise Misconfigured(
                f"signer's memory {self.path}: expected a readable slot, found none"
            )
        return max(found) if found else (0, None)

    def store(self, signed: Signed) -> None:
        """Make a new memory durable before its signature leaves.

        Raises:
            OSError: it could not be made durable.
        """
        turn = self._turn + 1
        raw = _SLOT.pack(_MAGIC, turn, signed.size, signed.root)
        raw += _checksum(raw)
        if os.pwrite(self._file, raw, (turn % 2) * _SLOT_BYTES) != len(raw):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        _flush(self._file)
        # Only now: another try after a failure must hit the same slot, not the good one.
        self._turn = turn
        self.last = signed

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class CheckpointSigner:
    """Signs one ledger's checkpoints, never inconsistently with its memory."""

    def __init__(self, keyring: Keyring, memory: SignerMemory) -> None:
        self._keyring = keyring
        self._signer = keyring.signer()
        self._memory = memory
        self._lock = threading.Lock()
        self._newest: tuple[Signed, str] | None = None

    def take_place(self) -> bool:
        """Become the only one who signs with this memory; False while another is."""
        with self._lock:
            return self._memory.take()

    def leave_place(self) -> None:
        """Let another process sign."""
        with self._lock:
            self._memory.leave()

    def begin(self) -> None:
        """Remember the empty tree, so that a memory that knows nothing is always a lost one."""
        with self._lock:
            self._memory.store(Signed(0, EMPTY_ROOT))

    def recall(self) -> Signed | None:
        """Give what was signed last by anyone, read again from the file."""
        with self._lock:
            self._memory.reload()
            return self._memory.last

    def sign(self, size: int, root: bytes) -> str:
        """Give the signed checkpoint of a tree.

        The caller vouches that the tree extends the one signed last; size and root
        are compared with the memory here all the same. A tree smaller than this process
        has signed meanwhile is answered with that checkpoint: it covers both.

        Raises:
            ReadOnly: the tree is smaller than, or different from, what was signed.
            OSError: the memory could not be made durable; nothing was signed.
        """
        with self._lock:
            wanted = Signed(size, root)
            newest = self._newest
            if newest is not None and (size < newest[0].size or wanted == newest[0]):
                return newest[1]
            last = self._memory.last
            if last is not None and (size < last.size or (size == last.size and root != last.root)):
                raise ReadOnly(
                    f"signer's memory: expected a tree that extends size {last.size}, "
                    f"found size {size}",
                    retry_after_s=300,
                )
            if last != wanted:
                self._memory.store(wanted)
            checkpoint = Checkpoint(origin=self._keyring.origin, size=size, root=root)
            note = sign_checkpoint(checkpoint, [self._signer])
            self._newest = (wanted, note)
            return note


def _checksum(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def _flush(file: int) -> None:
    getattr(os, "fdatasync", os.fsync)(file)  # macOS has the second only
