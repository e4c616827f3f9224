"""Ask the running service over HTTP, with a key from a file."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import click

from ledger.config import read_settings
from ledger.errors import Conflict, Misconfigured, Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledger.config import Settings
    from ledger.control import Role

TIMEOUT_S = 60.0

url_option: Callable[[Any], Any] = click.option(
    "--url", help="The service; without it the address that LEDGER_HOST and LEDGER_PORT say."
)
key_file_option: Callable[[Any], Any] = click.option(
    "--key-file",
    envvar="LEDGER_KEY_FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the key, alone or as a header [LEDGER_KEY_FILE]; without it the one that"
    " `custody up` made.",
)


class Answer(NamedTuple):
    """What the service answered."""

    status: int
    document: Any


class Client:
    """Sends requests with one key. The key stands in a header only, never in a URL."""

    def __init__(self, ledger: str, role: Role, url: str | None, key_file: Path | None) -> None:
        settings = read_settings()
        self._url = (url or own_url(settings)).rstrip("/")
        self._key = read_key(key_file or header_file(settings, ledger, role))

    def post(self, path: str, body: bytes) -> Answer:
        """Send JSON in a POST and give its answer.

        Raises:
            Refused: the service refused it; Conflict where it contradicts what is recorded.
            Unavailable: there is no answer, or the service can't answer now.
        """
        return self._send("POST", path, body, {"Content-Type": "application/json"})

    def get(self, path: str) -> Answer:
        """Send a GET and give its answer; raises as `post` does."""
        return self._send("GET", path, None, {})

    def download(self, path: str, body: bytes, target: Path) -> int:
        """Send JSON in a POST and write its answer to a new file; give the look's entry number.

        Raises:
            Refused: the service refused it.
            Unavailable: there is no answer, or it broke off; nothing is left of the file then.
        """
        connection = _connect(self._url)
        draft = target.with_name(f".{target.name}.draft")
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
            connection.request("POST", urlsplit(self._url).path + path, body, headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise _refusal(response.status, _parse(response.read()))
            with draft.open("xb") as file:
                copyfileobj(response, file)
            if response.length:
                raise Unavailable(f"{self._url}: the answer broke off")
            draft.rename(target)
            return int(response.headers["Custody-Read-Seq"])
        except (OSError, HTTPException) as error:
            raise Unavailable(f"{self._url}: no whole answer ({type(error).__name__})") from error
        finally:
            draft.unlink(missing_ok=True)
            connection.close()

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = _connect(self._url)
        try:
            connection.request(
                method,
                urlsplit(self._url).path + path,
                body,
                {"Authorization": f"Bearer {self._key}", "Accept": "application/json", **headers},
            )
            response = connection.getresponse()
            document = _parse(response.read())
        except (OSError, HTTPException) as error:
            raise Unavailable(
                f"{self._url}: no answer ({type(error).__name__}); `custody up` starts the service"
            ) from error
        finally:
            connection.close()
        if response.status >= 400:
            raise _refusal(response.status, document)
        return Answer(response.status, document)


def own_url(settings: Settings) -> str:
    """Give the address at which this machine reaches the service of its settings."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def header_file(settings: Settings, ledger: str, role: Role) -> Path:
    """Give the place of the key that `custody up` makes for a ledger and a role."""
    return settings.home / "credentials" / f"{ledger}.{role}"


def read_key(path: Path) -> str:
    """Read a key that stands in a file alone, or as the header `Authorization: Bearer …`.

    Raises:
        Unavailable: the file can't be read.
        Misconfigured: it holds no key.
    """
    try:
        words = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(f"key file {path}: can't be read") from error
    if not words or not words[-1].startswith("ck_"):
        raise Misconfigured(f"key file {path}: expected a key of the form ck_…")
    return words[-1]


def _connect(url: str) -> HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Misconfigured("--url: expected an address such as http://127.0.0.1:8420")
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(parts.hostname, parts.port, timeout=TIMEOUT_S)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return None


def _refusal(status: int, document: Any) -> Exception:
    """Turn a problem document (RFC 9457) into the error it tells of."""
    problem = document if isinstance(document, dict) else {}
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP status {status}")
    if status >= 500 or status in {408, 429}:
        return Unavailable(detail)
    kind = Conflict if status == 409 else Refused
    pointer, hint = problem.get("pointer", ""), problem.get("hint")
    return kind(detail, pointer=str(pointer), hint=str(hint) if hint else None)
