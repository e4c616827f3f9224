"""Run a real server over a real database, with a client that knows what is declared."""

from __future__ import annotations

import itertools
import re
import socket
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn

from api.app import create_app
from api.schemas import Problem
from api.serve import server_config
from ledger.config import read_settings
from ledger.control import Control
from ledger.keys.keyring import make_keyring, save_keyring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import FastAPI

    from api.service import OpenLedger, Service

LEDGER = "demo"
OTHER = "other"
_numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A service that answers on this machine."""

    url: str
    app: FastAPI
    control: Control
    emitter: str
    reader: str
    other_reader: str
    client: httpx.Client = field(repr=False)

    @property
    def service(self) -> Service:
        found: Service = self.app.state.service
        return found

    @property
    def open(self) -> OpenLedger:
        return self.service.ledgers[LEDGER]

    def path(self, rest: str) -> str:
        return f"/v1/ledgers/{LEDGER}/{rest}"

    def post(self, body: Any, *, key: str | None = None, **options: Any) -> httpx.Response:
        """Post events."""
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return self.client.post(
            self.path("events"), headers=bearer(key or self.emitter), **content, **options
        )

    def record(self, body: Any) -> dict[str, Any]:
        """Record one event and give its receipt."""
        response = self.post(body)
        assert response.status_code == 201, response.text
        receipt: dict[str, Any] = response.json()
        return receipt

    def get(self, rest: str, *, key: str | None = None, **options: Any) -> httpx.Response:
        """Read something of the ledger."""
        headers = {**bearer(key or self.reader), **options.pop("headers", {})}
        return self.client.get(self.path(rest), headers=headers, **options)

    def ask(self, rest: str, question: Any, *, key: str | None = None) -> httpx.Response:
        """Ask something that stands in a body."""
        content = {"content": question} if isinstance(question, bytes) else {"json": question}
        return self.client.post(self.path(rest), headers=bearer(key or self.reader), **content)

    def wait_for_views(self) -> None:
        """Wait until the views hold all that was recorded so far."""
        head = self.open.head_seq or 0
        deadline = time.monotonic() + 10
        while any(view.position < head for view in self.open.views.standing()):
            assert time.monotonic() < deadline, "the views did not follow"
            time.sleep(0.01)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def event(**changes: Any) -> dict[str, Any]:
    """Give the smallest useful event, with an id of its own."""
    return {
        "id": f"e-{next(_numbers)}",
        "type": "record.accessed",
        "subject": "crm:C-10023",
        "data": {"actor": {"id": "e0117"}, "fields": ["phone"], "activity": "support-desk"},
        **changes,
    }


def head(service: Running) -> int:
    """Give the number of the newest entry."""
    found = service.open.head_seq
    assert found is not None
    return found


def problem(response: httpx.Response, status: int) -> Problem:
    """Expect a problem document."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = Problem.model_validate_json(response.content, strict=True)
    assert found.status == status
    return found


class Declared:
    """What OpenAPI says of each operation; every answer is held against it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.operations = [
            (method.upper(), _pattern(path), operation)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        ]

    def check(self, response: httpx.Response) -> None:
        """Fail where an answer has a status or media type that isn't declared."""
        request = response.request
        for method, path, operation in self.operations:
            if method == request.method and path.fullmatch(request.url.path):
                declared = operation["responses"].get(str(response.status_code))
                assert declared is not None, (method, path.pattern, response.status_code)
                found = response.headers["content-type"].partition(";")[0]
                assert found in {name.partition(";")[0] for name in declared["content"]}
                return
        assert response.status_code in {404, 405}


def _pattern(path: str) -> re.Pattern[str]:
    """Give what a template matches: names of tiles and bundles have slashes in them."""
    slashed = re.sub(r"\{(tile|bundle)\}", ".+", path)
    return re.compile(re.sub(r"\{\w+\}", "[^/]+", slashed), re.DOTALL)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Run the server in a thread until it has closed everything."""
    port = free_port()
    server = uvicorn.Server(server_config(app, host="127.0.0.1", port=port))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def running(dsn: str, **environment: str) -> Iterator[Running]:
    """Make two ledgers with keys, and serve them."""
    with tempfile.TemporaryDirectory() as home:
        standard = {"LEDGER_HOME": home, "LEDGER_ANCHOR_INTERVAL_S": "0"}
        settings = read_settings({**standard, **environment})
        control = Control(dsn)
        control.migrate()
        for name in (LEDGER, OTHER):
            keyring = make_keyring(f"ledger.test/{name}/0a1b2c3d")
            save_keyring(Path(settings.keys_dir) / f"{name}.json", keyring)
            control.add_ledger(name, keyring.origin)
        app = create_app(settings, dsn)
        declared = Declared(app.openapi())
        hooks: dict[str, list[Callable[..., Any]]] = {"response": [declared.check]}
        with serving(app) as url, httpx.Client(base_url=url, event_hooks=hooks) as client:
            yield Running(
                url=url,
                app=app,
                control=control,
                emitter=new_emitter(control),
                reader=control.add_credential(ledger=LEDGER, role="reader", label="r")[1],
                other_reader=control.add_credential(ledger=OTHER, role="reader", label="o")[1],
                client=client,
            )


def new_emitter(control: Control, **rights: Any) -> str:
    """Draw a key of an emitter; rights not given are those of the CRM."""
    given = {"sources": ["crm"], "namespaces": ["crm"], "types": [], **rights}
    return control.add_credential(ledger=LEDGER, role="emitter", label="crm", **given)[1]
