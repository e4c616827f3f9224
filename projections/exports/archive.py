"""Write a zip whose bytes depend on nothing but what is put into it, hashing as it goes."""

from __future__ import annotations

from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

_NEVER = (1980, 1, 1, 0, 0, 0)
"""The earliest date that a zip can state: the bundle's own dates stand in its manifest."""
_UNIX = 3
_MODE = 0o644 << 16


class HashedZip:
    """A zip under construction; what was written is never held in memory.

    Members can be larger than 4 GiB (zip64), and the file has to be seekable.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._zip = ZipFile(file, "w", ZIP_DEFLATED)
        self.digests: dict[str, str] = {}
        """Hex SHA-256 of each member that is complete, by name."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the directory, without which nothing of it can be read."""
        self._zip.close()

    @contextmanager
    def member(self, name: str) -> Iterator[Callable[[bytes], object]]:
        """Give the function that writes a member, piece by piece."""
        about = ZipInfo(name, _NEVER)
        about.compress_type, about.create_system, about.external_attr = ZIP_DEFLATED, _UNIX, _MODE
        digest = sha256()
        with self._zip.open(about, "w", force_zip64=True) as target:

            def write(piece: bytes) -> None:
                digest.update(piece)
                target.write(piece)

            yield write
        self.digests[name] = digest.hexdigest()

    def put(self, name: str, content: bytes) -> None:
        """Write a small member at once."""
        with self.member(name) as write:
            write(content)
