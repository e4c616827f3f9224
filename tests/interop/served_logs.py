"""Serve filled ledgers, and stand in the way between them and their readers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx

from api.app import create_app
from ledger.config import read_settings
from scripts.benchmarks.filling import fill
from tests.http.support import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ledger.service import Ledger
    from scripts.benchmarks.filling import LargeLedger

Alter = Callable[[str, bytes], bytes | None]
"""Takes a path below the log's prefix and what is served there; None is served as a 404."""


@dataclass(frozen=True, kw_only=True)
class ServedLog:
    """A filled ledger that is served."""

    filled: LargeLedger
    ledger: Ledger
    client: httpx.Client
    """With the log's prefix and a reader's credential."""

    def get(self, rest: str) -> httpx.Response:
        """Ask the service itself."""
        return self.client.get(rest)


def client_of(url: str, filled: LargeLedger) -> httpx.Client:
    """Give a client that reads a ledger at its log prefix."""
    headers = {"Authorization": f"Bearer {filled.reader_key}"}
    return httpx.Client(base_url=f"{url}/v1/ledgers/{filled.row.name}/", headers=headers)


@contextmanager
def served_logs(dsn: str, home: Path, sizes: Mapping[str, int]) -> Iterator[dict[str, ServedLog]]:
    """Fill a ledger of each size and serve them all."""
    settings = read_settings({"LEDGER_HOME": str(home), "LEDGER_ANCHOR_INTERVAL_S": "0"})
    filled = {name: fill(dsn, settings, size, name=name) for name, size in sizes.items()}
    app = create_app(settings, dsn)
    with serving(app) as url, ExitStack() as clients:
        opened = app.state.service.ledgers
        yield {
            name: ServedLog(
                filled=each,
                ledger=opened[name].ledger,
                client=clients.enter_context(client_of(url, each)),
            )
            for name, each in filled.items()
        }


@contextmanager
def between(log: ServedLog, alterations: Mapping[str, Alter]) -> Iterator[dict[str, str]]:
    """Pass on what a log serves, altered; give a log prefix for each alteration.

    It adds the credential too: readers of other makers send none.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name, _, rest = self.path[1:].partition("/")
            answer = log.get(rest)
            status, body = answer.status_code, answer.content
            if status == 200:
                altered = alterations[name](rest, body)
                status, body = (404, b"") if altered is None else (200, altered)
            self.send_response(status)
            self.send_header("Content-Type", answer.headers["content-type"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.server_address[1]}"
        yield {name: f"{base}/{name}/" for name in alterations}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
