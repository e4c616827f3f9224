from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from fastapi.routing import APIRoute

from api.schemas import EventTypes, Health
from ledger.errors import ReadOnly, Unavailable
from tests.http.support import OTHER, Running, bearer, event, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    import pytest

Try = tuple[str, str, dict[str, Any]]


def document(service: Running) -> dict[str, Any]:
    response = service.client.get("/v1/openapi.json", headers=bearer(service.emitter))
    found: dict[str, Any] = response.json()
    return found


def test_openapi_lists_every_route(service: Running) -> None:
    listed = {
        (path, method.upper())
        for path, operations in document(service)["paths"].items()
        for method in operations
    }
    routes = {
        (route.path_format, method)
        for route in service.app.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert listed == routes


def test_every_reference_leads_somewhere(service: Running) -> None:
    found = document(service)
    schemas = found["components"]["schemas"]
    references = re.findall(r"#/components/schemas/(\w+)", str(found))
    assert set(references) <= set(schemas)


def test_every_operation_names_its_parameters_and_its_key(service: Running) -> None:
    for path, operations in document(service)["paths"].items():
        for operation in operations.values():
            named = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))
            is_open = path in {"/healthz", "/readyz", "/verifier.html"}
            assert bool(operation["security"]) is not is_open
            assert operation["summary"]


def test_event_types_are_described_for_their_writer(service: Running) -> None:
    headers = bearer(service.emitter)
    response = service.client.get("/v1/event-types?for=service", headers=headers)
    found = EventTypes.model_validate_json(response.content)
    names = [described["type"] for described in found.types]
    first = ["collected", "accessed", "updated", "exported", "shared", "erased"]
    assert set(names[:6]) == {f"record.{name}" for name in first}
    assert "policy.published" not in names
    assert "purpose" in found.vocabularies
    everything = EventTypes.model_validate_json(
        service.client.get("/v1/event-types", headers=headers).content
    )
    assert len(everything.types) > len(found.types)
    wrong = service.client.get("/v1/event-types?for=nobody", headers=headers)
    assert problem(wrong, 422).parameter == "for"


def test_health_is_as_declared(service: Running) -> None:
    Health.model_validate_json(service.client.get("/healthz").content)
    Health.model_validate_json(service.client.get("/readyz").content)


QUESTIONS = {
    "/records/lookup": {"subject": "crm:O-1"},
    "/accesses/query": {"subject": "crm:O-1"},
    "/exports": {"subject": "crm:O-1"},
}


def good(service: Running, path: str, method: str) -> Try:
    """Give a request that is answered as the operation promises."""
    names = {"tile": "0/000.p/1", "bundle": "000.p/1", "size": _newest_size(service)}
    url = path.format(ledger="demo", seq=1, record=_record(service), **names)
    if path.endswith("/consistency"):
        url += "?from=0&to=1"
    if path.endswith("/events"):
        return method, url, {"json": event(), "headers": bearer(service.emitter)}
    options: dict[str, Any] = {"headers": bearer(service.reader)}
    if method == "POST":
        options["json"] = next(q for end, q in QUESTIONS.items() if path.endswith(end))
    return method, url, options


def _newest_size(service: Running) -> int:
    return service.open.ledger.checkpoint()[0]


def _record(service: Running) -> str:
    return str(service.post(event(id="openapi", subject="crm:O-1")).json()["record"])


def provoke(service: Running, path: str, method: str, status: int) -> httpx.Response:
    """Make an operation answer with a status."""
    method, url, options = good(service, path, method)
    posts = path.endswith("/events")
    if status == 200 and posts:
        service.client.request(method, url, **options)
    elif status == 400:
        options["content"] = b"{"
        del options["json"]
    elif status == 401:
        options["headers"] = {"Via": "1.1 proxy"}
    elif status == 403:
        wrong = service.reader if posts else service.emitter
        options["headers"] = {**bearer(wrong), "Via": "1.1 proxy"}
    elif status == 404:
        url = url.replace("/demo/", f"/{OTHER}/")
    elif status == 409:
        service.client.request(method, url, **options)
        options["json"] = {**options["json"], "subject": "crm:O-2"}
    elif status == 413:
        options["content"] = b" " * 70_000 if not posts else b"[" + b"0," * 10_000 + b"0]"
        del options["json"]
    elif status == 415:
        options["headers"] = {**options["headers"], "Content-Type": "text/plain"}
    elif status == 422:
        url, options = _malformed(service, url, options)
    return service.client.request(method, url, **options)


def _malformed(service: Running, url: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if "json" in options:
        return url, {**options, "json": {"id": 1}}
    url = url.replace("/entries/1", "/entries/none").replace(_record(service), "none")
    url = re.sub("/checkpoints/[0-9]+", "/checkpoints/none", url.replace(".p/1", ".p/01"))
    return f"{url}?limit=0&for=none&after=none&size=none", options


def slow(
    service: Running, path: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> httpx.Response:
    """Send a body more slowly than an operation waits for."""
    method, url, options = good(service, path, method)
    del options["json"]

    def pieces() -> Iterator[bytes]:
        yield b"{"
        time.sleep(0.3)

    with monkeypatch.context() as patch:
        patch.setattr("api.body.BODY_TIMEOUT_S", 0.05)
        return service.client.request(method, url, **options, content=pieces())


def unavailable(
    service: Running, path: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> httpx.Response:
    """Make an operation answer that it can't answer now."""
    method, url, options = good(service, path, method)

    def fail(*_: object) -> None:
        raise Unavailable("away for a test")

    with monkeypatch.context() as patch:
        patch.setattr(service.open.ledger.recorder, "stopped", ReadOnly("for a test"))
        patch.setattr(service.open.ledger.notary, "_newest", None)
        patch.setattr(service.open.ledger, "checkpoint", fail)
        patch.setattr(service.open.ledger.anchors, "_read", fail)
        if path.startswith("/v1/event-types") or path.endswith((".json", "metrics")):
            patch.setattr(service.service.control, "trusted", lambda _: None)
            patch.setattr(service.service.control, "authenticate", fail)
            options["headers"] = {**options["headers"], "Via": "1.1 proxy"}
        return service.client.request(method, url, **options)


def test_every_declared_status_can_be_met(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    _record(service)
    service.wait_for_views()
    # That none is met which isn't declared is checked at every answer in all these tests.
    tries: list[tuple[str, str, int]] = [
        (path, method.upper(), int(status))
        for path, operations in document(service)["paths"].items()
        for method, operation in operations.items()
        for status in operation["responses"]
    ]
    assert len(tries) > 60
    for path, method, status in tries:
        if status == 503:
            response = unavailable(service, path, method, monkeypatch)
        elif status == 408:
            response = slow(service, path, method, monkeypatch)
        else:
            response = provoke(service, path, method, status)
        assert response.status_code == status, (method, path, response.text)


def test_an_unknown_record_is_not_found(service: Running) -> None:
    problem(service.get(f"records/{uuid4()}/entries"), 404)
