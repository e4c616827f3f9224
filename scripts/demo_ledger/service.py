"""Ask the running service over HTTP; what it can't take now is sent again."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

from ledger.errors import Conflict, Misconfigured, NotFound, Refused, Unavailable

if TYPE_CHECKING:
    from types import TracebackType

TIMEOUT_S = 120.0
ATTEMPTS = 6
"""How often a request is sent before giving up; repeating is always safe."""
LONGEST_PAUSE_S = 10.0
PASSING = frozenset({408, 429, 502, 503, 504})
"""Statuses of what may go better a moment later."""


class Answer(NamedTuple):
    """What the service answered."""

    status: int
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON; None where it is none."""
        with suppress(ValueError):
            return json.loads(self.body)
        return None


class Service:
    """One kept connection with one key. The key stands in a header only. Not for two threads."""

    def __init__(self, url: str, ledger: str, key: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Misconfigured("--url: expected an address such as http://127.0.0.1:8420")
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_S)
        self._base = f"{parts.path.rstrip('/')}/v1/ledgers/{ledger}"
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self.url = url
        self.base = f"{url.rstrip('/')}/v1/ledgers/{ledger}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def post(self, path: str, question: object) -> Answer:
        """Send JSON below the ledger's path.

        Raises:
            Refused: the service refused it; Conflict and NotFound are kinds of that.
            Unavailable: there was no answer, or it could not answer, several times over.
        """
        body = json.dumps(question, ensure_ascii=False, separators=(",", ":")).encode()
        return self._ask("POST", path, body)

    def get(self, path: str) -> Answer:
        """Read below the ledger's path; raises as `post` does."""
        return self._ask("GET", path, None)

    def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        reason = ""
        for attempt in range(ATTEMPTS):
            pause_s = min(2.0**attempt / 4, LONGEST_PAUSE_S)
            try:
                self._connection.request(method, f"{self._base}/{path}", body, self._headers)
                response = self._connection.getresponse()
                answer = Answer(response.status, response.read())
            except ConnectionRefusedError:
                self._connection.close()
                raise Unavailable(f"{self.url}: no answer; scripts/up starts the service") from None
            except (OSError, HTTPException) as error:
                self._connection.close()
                reason = f"no answer ({type(error).__name__})"
            else:
                if answer.status < 400:
                    return answer
                if answer.status not in PASSING:
                    raise _refusal(answer)
                reason = str(_refusal(answer))
                pause_s = min(_retry_after_s(response, pause_s), LONGEST_PAUSE_S)
            time.sleep(pause_s)
        raise Unavailable(f"{self.url}: {reason}, {ATTEMPTS} times")


def _retry_after_s(response: HTTPResponse, otherwise: float) -> float:
    """Read how long to wait, where the service says so in seconds (RFC 9110 section 10.2.3)."""
    said = response.getheader("Retry-After") or ""
    return float(said) if said.isdecimal() else otherwise


def _refusal(answer: Answer) -> Refused:
    """Turn a problem document (RFC 9457) into the error it tells of."""
    document = answer.document
    problem: dict[str, Any] = document if isinstance(document, dict) else {}
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP status {answer.status}")
    kind = {404: NotFound, 409: Conflict}.get(answer.status, Refused)
    hint = problem.get("hint")
    return kind(detail, pointer=str(problem.get("pointer") or ""), hint=str(hint) if hint else None)
