"""Send one request to a place that isn't ours, and take its answer with care.

Redirects are refused, TLS is verified, the answer is bounded in bytes, and the whole
exchange in time: a server that sends a byte now and then must not hold a sink for ever.
Nothing of the environment counts, neither proxies nor `.netrc`.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

import httpx

from ledger.anchors.sink import SinkFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ledger.anchors.table import SinkTable, Url

TIMEOUT_S = 20.0
"""Longest exchange, unless a sink's settings say otherwise."""
MAX_WAIT_S = 3_600

# They log each request's URL at INFO, and a URL can hold a secret.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Answer(NamedTuple):
    """What came back."""

    status: int
    """HTTP status."""
    media_type: str
    """Content type without parameters, in lower case; empty where there is none."""
    body: bytes
    """Its bytes, all of them."""
    date: str
    """The header `Date` as it came; empty where there is none."""
    retry_after_s: int
    """Seconds that it asks us to wait; 0 where it asks for none."""


class Exchange:
    """Posts to one address, and asks what lies below it."""

    def __init__(
        self, url: Url, *, timeout_s: float, authorities: ssl.SSLContext | None, proxy: str | None
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._proxy = proxy
        self._authorities = authorities or httpx.create_ssl_context(trust_env=False)

    def post(self, content: bytes, headers: Mapping[str, str], *, most_bytes: int) -> Answer:
        """Post bytes and give the answer, whatever its status, if it is no redirect.

        Raises:
            SinkFailed: there was none, or it is one that nobody should follow.
        """
        return self.ask("POST", "", content, headers, most_bytes=most_bytes)

    def ask(
        self,
        method: str,
        below: str,
        content: bytes | None,
        headers: Mapping[str, str],
        *,
        most_bytes: int,
    ) -> Answer:
        """Send a request to a path below the address; else as `post`.

        Raises:
            SinkFailed: as `post` says.
        """
        client = self._client()
        # The library bounds each step only; whoever drips headers would take for ever.
        # Closing what the other thread reads from makes its next step fail.
        end_s = time.monotonic() + self._timeout_s
        timer = threading.Timer(self._timeout_s, client.close)
        timer.daemon = True
        timer.start()
        address = self._url.full.rstrip("/") + below if below else self._url.full
        headers = {"Accept-Encoding": "identity", **headers}
        try:
            with client, client.stream(method, address, content=content, headers=headers) as got:
                return _take(got, most_bytes)
        except SinkFailed:
            raise
        except Exception as error:
            if isinstance(error, httpx.TimeoutException) or time.monotonic() >= end_s:
                raise SinkFailed("timeout", f"no answer within {self._timeout_s:g} s") from None
            if not isinstance(error, (httpx.HTTPError, httpx.InvalidURL, OSError)):
                raise
            raise _unreachable(error) from None
        finally:
            timer.cancel()

    def close(self) -> None:
        """Nothing is held open between two exchanges."""

    def _client(self) -> httpx.Client:
        return httpx.Client(
            verify=self._authorities,
            proxy=self._proxy,
            timeout=self._timeout_s,
            follow_redirects=False,
            trust_env=False,
        )


def make_exchange(table: SinkTable, *, plain: bool) -> Exchange:
    """Make what a table's `url`, `timeout_s`, `ca_file` and `proxy` say.

    Raises:
        Misconfigured: one of them makes no sense.
    """
    url = table.url(plain=plain)
    timeout_s = table.number("timeout_s", default=TIMEOUT_S, least=0.1, most=120)
    authorities = None
    if table.has("ca_file"):
        try:
            text = table.file("ca_file").decode("ascii")
            authorities = ssl.create_default_context(cadata=text)
        except (UnicodeDecodeError, ssl.SSLError, ValueError):
            raise table.wrong("ca_file", "certificates in PEM") from None
    proxy = table.text("proxy", r"https?://[^@\s]+") if table.has("proxy") else None
    return Exchange(url, timeout_s=timeout_s, authorities=authorities, proxy=proxy)


def _take(response: httpx.Response, most_bytes: int) -> Answer:
    """Read an answer as it comes; nothing is decompressed, since a bomb would expand then."""
    if 300 <= response.status_code < 400:
        raise SinkFailed("redirected", "expected an answer, found a redirect")
    parts: list[bytes] = []
    size = 0
    for part in response.iter_raw():
        size += len(part)
        if size > most_bytes:
            raise SinkFailed("too_large", f"expected an answer of at most {most_bytes} bytes")
        parts.append(part)
    return Answer(
        response.status_code,
        response.headers.get("content-type", "").partition(";")[0].strip().lower(),
        b"".join(parts),
        response.headers.get("date", ""),
        _retry_after_s(response.headers.get("retry-after", "")),
    )


def _unreachable(error: Exception) -> SinkFailed:
    """Say why there was no answer, without the words: they can hold the URL."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SinkFailed("untrusted", "its certificate is not one that we trust")
        cause = cause.__cause__ or cause.__context__
    return SinkFailed("unreachable", type(error).__name__)


def _retry_after_s(value: str) -> int:
    if value.isdecimal() and len(value) < 10:
        return min(int(value), MAX_WAIT_S)
    try:
        wait_s = parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return 0
    return int(min(max(wait_s, 0), MAX_WAIT_S))
