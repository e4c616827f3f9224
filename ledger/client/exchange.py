"""Talk HTTP with the ledger: bounded in time and size, the key in a header only."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx

from ledger.client.answers import Answer
from ledger.client.limits import MAX_ANSWER_BYTES
from ledger.errors import Misconfigured, Unauthenticated, Unavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from pathlib import Path

CONNECT_S = 10.0


class Exchange:
    """One kept connection to one ledger, under one key."""

    def __init__(
        self,
        url: str,
        ledger: str,
        key: str | Path,
        *,
        timeout_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Keep where the ledger is, and its key or the file that holds it.

        Raises:
            Misconfigured: the address or the key can't be one.
        """
        parts = httpx.URL(url)
        if parts.scheme not in {"http", "https"} or not parts.host or parts.userinfo:
            raise Misconfigured("url: expected an address such as http://127.0.0.1:8420")
        if isinstance(key, str) and not key.isascii():
            raise Misconfigured("key: expected a key of the form ck_…")
        self._base = f"{url.rstrip('/')}/v1/ledgers/{ledger}"
        self._key = key
        self._timeout_s = timeout_s
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            verify=True if tls is None else tls,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def post_events(self, bodies: Sequence[bytes]) -> Answer:
        """Send events as one array.

        Raises:
            Unavailable: no whole answer came in time.
            Unauthenticated: the key's file holds no key.
        """
        headers = {"Content-Type": "application/json", "Prefer": "handling=lenient"}
        return self._ask("POST", "events", headers, b"[" + b",".join(bodies) + b"]")

    def get(self, path: str, accept: str = "*/*") -> Answer:
        """Read something below the ledger's path; raises as `post_events` does."""
        return self._ask("GET", path, {"Accept": accept}, None)

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Answer:
        deadline = time.monotonic() + self._timeout_s
        sent = {**headers, "Authorization": f"Bearer {self._read_key()}"}
        try:
            with self._http.stream(
                method, f"{self._base}/{path}", headers=sent, content=body
            ) as response:
                pieces, size_bytes = [], 0
                for piece in response.iter_bytes():
                    pieces.append(piece)
                    size_bytes += len(piece)
                    if size_bytes > MAX_ANSWER_BYTES or time.monotonic() > deadline:
                        raise Unavailable("the answer is endless, or too slow")
                found = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status_code, found, b"".join(pieces))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise Unavailable(f"no answer ({type(error).__name__})") from error

    def _read_key(self) -> str:
        """Give the key; a file is read for each request, so that a new key needs no restart."""
        if isinstance(self._key, str):
            return self._key
        return read_key(self._key)


def read_key(path: Path) -> str:
    """Read a key that stands in a file alone, or as the header `Authorization: Bearer …`.

    Raises:
        Unauthenticated: the file can't be read, or holds no key.
    """
    try:
        words = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise Unauthenticated(f"key file {path}: can't be read") from error
    if not words or not words[-1].startswith("ck_"):
        raise Unauthenticated(f"key file {path}: expected a key of the form ck_…")
    return words[-1]
