"""One table of the file that names sinks, read strictly: nothing in it stays unread.

Messages name the file, the table and the key, and never repeat a value: it may be a secret.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from ledger.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OTHERS = 0o077
MAX_FILE_BYTES = 1024 * 1024
"""Most bytes of a file that a sink's settings name."""


class Url(NamedTuple):
    """An address, and what may be shown of it."""

    full: str
    """All of it; path and query may hold a secret."""
    shown: str
    """Scheme, host and port."""


class SinkTable:
    """Takes the values of one table by key; `finish` refuses what nobody took."""

    def __init__(self, values: Mapping[str, Any], *, where: str, directory: Path) -> None:
        """Read a table.

        Args:
            values: the table.
            where: what messages call it.
            directory: where relative names of files begin.
        """
        self._values = dict(values)
        self._taken: set[str] = set()
        self._directory = directory
        self.where = where
        self.shown: str | None = None

    def wrong(self, key: str, expected: str) -> Misconfigured:
        """Give the error that says what a key should hold."""
        return Misconfigured(f"{self.where}, {key}: expected {expected}")

    def _take(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
        self._taken.add(key)
        value = self._values.get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise self.wrong(key, expected)
        return value

    def has(self, key: str) -> bool:
        """Tell whether a key stands in the table."""
        return key in self._values

    def text(self, key: str, pattern: str = r".+", *, default: str | None = None) -> str:
        """Give a string that matches a pattern in full."""
        value = self._take(key, str, "a string")
        if value is None:
            if default is None:
                raise self.wrong(key, "a value, found none")
            return default
        if not re.fullmatch(pattern, value):
            raise self.wrong(key, f"a string like {pattern}")
        return str(value)

    def texts(self, key: str, pattern: str = r".+") -> list[str] | None:
        """Give an array of strings, each once; None where the key is absent."""
        value = self._take(key, list, "an array of strings")
        if value is None:
            return None
        fits = [isinstance(item, str) and re.fullmatch(pattern, item) for item in value]
        if not value or not all(fits) or len(set(value)) != len(value):
            raise self.wrong(key, f"one or more different strings like {pattern}")
        return list(value)

    def number(self, key: str, *, default: float, least: float, most: float) -> float:
        """Give a number within bounds."""
        value = self._take(key, (int, float), "a number")
        if value is None:
            return default
        if not least <= value <= most:
            raise self.wrong(key, f"a number from {least:g} to {most:g}")
        return float(value)

    def url(self, key: str = "url", *, plain: bool = False) -> Url:
        """Give an address of HTTPS, without a name or password before its host.

        Args:
            key: where it stands.
            plain: whether HTTP will do, since what is answered proves itself; to this machine
                itself it always will.
        """
        value = self.text(key)
        try:
            parts = urlsplit(value)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise self.wrong(key, "a URL") from None
        if parts.scheme not in {"http", "https"} or not host or parts.fragment:
            raise self.wrong(key, "a URL that begins with https://")
        if parts.username is not None or parts.password is not None:
            raise self.wrong(key, "a URL without a name and password")
        if parts.scheme == "http" and not plain and host not in _LOOPBACK:
            raise self.wrong(key, "a URL that begins with https://")
        name = f"[{host}]" if ":" in host else host
        self.shown = f"{parts.scheme}://{name}" + (f":{port}" if port is not None else "")
        return Url(value, self.shown)

    def path(self, key: str) -> Path:
        """Give a path; a relative one begins where the settings' file lies."""
        return self._directory / Path(self.text(key)).expanduser()

    def file(self, key: str) -> bytes:
        """Give the bytes of a file that is there and can be read."""
        return self._read(key, self.path(key))

    def files(self, key: str) -> list[bytes]:
        """Give the bytes of each of several files; none where the key is absent."""
        names: Sequence[str] = self.texts(key) or ()
        return [self._read(key, self._directory / Path(name).expanduser()) for name in names]

    def secret(self, key: str) -> str:
        """Give the one line of a file that only its owner can read."""
        path = self.path(key)
        raw = self._read(key, path)
        if path.stat().st_mode & _OTHERS:
            raise self.wrong(key, f"{path} to be its owner's only (chmod 600)")
        try:
            text = raw.decode("ascii").strip()
        except UnicodeDecodeError:
            text = ""
        if not text or len(text.split()) != 1:
            raise self.wrong(key, f"one line without spaces in {path}")
        return text

    def _read(self, key: str, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise self.wrong(key, f"a readable file, found {path}: {error.strerror}") from None
        if len(raw) > MAX_FILE_BYTES:
            raise self.wrong(key, f"at most {MAX_FILE_BYTES} bytes in {path}")
        return raw

    def finish(self) -> None:
        """Check that every key was taken.

        Raises:
            Misconfigured: one is unknown here.
        """
        unknown = sorted(set(self._values) - self._taken)
        if unknown:
            known = ", ".join(sorted(self._taken))
            raise Misconfigured(f"{self.where}: expected keys among {known}; unknown: {unknown[0]}")
