"""Middleware and decorator: handlers become events, and nothing is seen that isn't stored."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from ledger.client import AsyncClient, Call, Client, Exchanged, Limits, RecordingMiddleware
from ledger.client import recorded as record_calls
from ledger.client.outbox import Outbox
from ledger.errors import Misconfigured, Unavailable
from tests.http.answering import Answering, answering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

LIMITS = Limits(
    batch_age_s=0, retry_first_s=0.01, retry_most_s=0.05, emit_timeout_s=0.2, report_every_s=None
)
SECRET = "13912345678"


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering() as found:
        yield found


@contextmanager
def client_of(server: Answering, outbox: Path | None) -> Iterator[Client]:
    with Client(
        server.url,
        "test",
        "ck_test",
        source="crm",
        outbox=outbox,
        verifier_key=server.verifier_key,
        limits=LIMITS,
    ) as client:
        yield client


@pytest.fixture
def client(server: Answering, tmp_path: Path) -> Iterator[Client]:
    with client_of(server, tmp_path / "outbox.sqlite") as found:
        yield found
        full(found, 1_000_000)


def events_of(exchanged: Exchanged) -> Any:
    """Map as an application would."""
    if exchanged.path == "/broken":
        return {}[SECRET]
    customer = exchanged.path_params.get("customer")
    if customer is None:
        return None
    event = {
        "type": "record.accessed",
        "subject": f"crm:{customer}",
        "data": {
            "actor": {"id": exchanged.state.get("user", "nobody")},
            "fields": ["phone"],
            "outcome": "success" if exchanged.status < 400 else "failed",
        },
    }
    return [event, event] if exchanged.path.endswith("/twice") else event


def make_app(client: Any, **options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(RecordingMiddleware, client=client, events=events_of, **options)

    @app.get("/customers/{customer}")
    async def read(customer: str, request: Request) -> dict[str, str]:
        request.state.user = "e0117"
        return {"phone": SECRET, "customer": customer}

    @app.get("/customers/{customer}/twice")
    def read_twice(customer: str) -> dict[str, str]:
        return {"phone": SECRET, "customer": customer}

    @app.get("/customers/{customer}/fails")
    async def fail(customer: str) -> None:
        raise RuntimeError(customer)

    @app.get("/customers/{customer}/stream")
    async def stream(customer: str) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            for _ in range(3):
                yield customer

        return StreamingResponse(pieces())

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    @app.get("/broken")
    async def broken() -> str:
        return SECRET

    return app


def get(app: FastAPI, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
            return await http.get(path)

    return asyncio.run(ask())


def taken(server: Answering) -> list[Any]:
    return [event for request in server.requests for event in request]


# -- middleware --------------------------------------------------------------------------------


def test_a_request_becomes_an_event_with_what_route_and_handler_know(
    server: Answering, client: Client
):
    response = get(make_app(client), "/customers/C-1")
    assert response.json()["phone"] == SECRET
    client.flush(10)
    (event,) = taken(server)
    assert event["subject"] == "crm:C-1"
    assert event["data"]["actor"] == {"id": "e0117"}


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let storing take long enough to be overtaken."""
    store = Outbox.store

    def slowly(*arguments: Any) -> None:
        time.sleep(0.3)
        store(*arguments)

    monkeypatch.setattr(Outbox, "store", slowly)


@pytest.mark.usefixtures("slow_disk")
def test_the_answer_leaves_only_after_the_event_is_stored(server: Answering, client: Client):
    server.always = lambda _: None
    response = get(make_app(client), "/customers/C-1")
    assert response.status_code == 200
    assert client.core.engine.outbox.last_number == 1


def test_a_request_can_become_several_events_and_mostly_becomes_none(
    server: Answering, client: Client
):
    app = make_app(client)
    assert get(app, "/plain").json() == "plain"
    assert get(app, "/nowhere").status_code == 404
    assert get(app, "/customers/C-1/twice").status_code == 200
    client.flush(10)
    assert len(taken(server)) == 2


def test_a_stream_is_passed_on_whole(server: Answering, client: Client):
    assert get(make_app(client), "/customers/C-1/stream").text == "C-1C-1C-1"
    client.flush(10)
    assert len(taken(server)) == 1


def test_a_handler_that_raises_is_recorded_as_failed(server: Answering, client: Client):
    assert get(make_app(client), "/customers/C-1/fails").status_code == 500
    client.flush(10)
    (event,) = taken(server)
    assert event["data"]["outcome"] == "failed"


def test_failing_closed_withholds_the_answer(client: Client, caplog: pytest.LogCaptureFixture):
    full(client)
    response = get(make_app(client, wait_s=0.2), "/customers/C-1")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == 503
    assert SECRET not in response.text
    assert "C-1" not in caplog.text
    assert "fail closed" in caplog.text


def test_failing_closed_withholds_a_stream_too(client: Client):
    full(client)
    response = get(make_app(client, wait_s=0.2), "/customers/C-1/stream")
    assert response.status_code == 503
    assert "C-1" not in response.text


def test_failing_open_lets_the_answer_out_and_says_so(
    client: Client, caplog: pytest.LogCaptureFixture
):
    full(client)
    response = get(make_app(client, fail="open", wait_s=0.2), "/customers/C-1")
    assert response.json()["phone"] == SECRET
    assert "fail open" in caplog.text
    assert SECRET not in caplog.text


def test_a_mapping_with_a_mistake_fails_as_a_disk_would_and_its_words_are_not_logged(
    client: Client, caplog: pytest.LogCaptureFixture
):
    assert get(make_app(client), "/broken").status_code == 503
    assert get(make_app(client, fail="open"), "/broken").status_code == 200
    assert "KeyError" in caplog.text
    assert SECRET not in caplog.text


def test_a_client_can_be_given_by_a_function(server: Answering, client: Client):
    assert get(make_app(lambda: client), "/customers/C-1").status_code == 200
    client.flush(10)
    assert len(taken(server)) == 1


def test_what_is_not_http_passes_untouched(client: Client):
    seen: list[str] = []

    async def app(scope: Any, *_: Any) -> None:
        seen.append(scope["type"])

    async def run() -> None:
        middleware = RecordingMiddleware(app, client=client, events=events_of)
        for kind in ("lifespan", "websocket"):
            await middleware({"type": kind}, None, None)  # type: ignore[arg-type]

    asyncio.run(run())
    assert seen == ["lifespan", "websocket"]


def test_middleware_works_with_the_client_for_event_loops_and_many_requests_at_once(
    server: Answering, tmp_path: Path
):
    async def run() -> list[int]:
        async with AsyncClient(
            server.url,
            "test",
            "ck_test",
            source="crm",
            outbox=tmp_path / "o",
            verifier_key=server.verifier_key,
            limits=LIMITS,
        ) as client:
            transport = httpx.ASGITransport(app=make_app(client))
            async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
                answers = await asyncio.gather(
                    *(http.get(f"/customers/C-{number}") for number in range(100))
                )
            await client.flush(10)
        return [answer.status_code for answer in answers]

    assert asyncio.run(run()) == [200] * 100
    assert len(server.ids) == 100


def full(client: Client, limit_bytes: int = 0) -> None:
    """Let the outbox hold no more."""
    client.core.engine.outbox._limit_bytes = limit_bytes


# -- decorator ---------------------------------------------------------------------------------


def test_a_call_becomes_an_event_with_arguments_by_name(server: Answering, client: Client):
    @record_calls(
        "record.accessed",
        client=client,
        subject="crm:{customer}",
        actor="{user}",
        fields=["phone"],
        members={"activity": "support-desk"},
    )
    def read(customer: str, *, user: str = "e0117") -> str:
        """Read."""
        return f"{customer} {user}"

    assert read("C-1") == "C-1 e0117"
    assert read.__doc__ == "Read."
    client.flush(10)
    (event,) = taken(server)
    assert event["subject"] == "crm:C-1"
    assert event["data"]["actor"] == {"id": "e0117"}
    assert event["data"]["activity"] == "support-desk"
    assert "outcome" not in event["data"]


def test_what_stands_in_an_event_can_be_taken_from_the_result(server: Answering, client: Client):
    def fields(call: Call) -> list[str]:
        return sorted(call.result)

    @record_calls(
        "record.accessed",
        client=lambda: client,
        subject=lambda call: f"crm:{call.arguments['n']}",
        fields=fields,
        members=lambda call: {"reason_ref": f"T-{call.arguments['n']}"},
    )
    def read(n: int) -> dict[str, str]:
        return {"phone": SECRET, "name": str(n)}

    read(7)
    client.flush(10)
    (event,) = taken(server)
    assert event["subject"] == "crm:7"
    assert event["data"]["fields"] == ["name", "phone"]
    assert event["data"]["reason_ref"] == "T-7"


@pytest.mark.usefixtures("slow_disk")
def test_the_result_is_given_only_after_the_event_is_stored(server: Answering, client: Client):
    server.always = lambda _: None

    @record_calls("record.accessed", client=client, subject="crm:C-1")
    def read() -> int:
        return client.core.engine.outbox.last_number

    assert read() == 0
    assert client.core.engine.outbox.last_number == 1


def test_a_call_that_raises_is_recorded_as_failed_and_goes_on_raising(
    server: Answering, client: Client
):
    @record_calls("record.accessed", client=client, subject="crm:{customer}")
    def read(customer: str) -> None:
        raise LookupError(customer)

    with pytest.raises(LookupError):
        read("C-1")
    client.flush(10)
    (event,) = taken(server)
    assert event["data"]["outcome"] == "failed"


@pytest.mark.parametrize("fail", ["closed", "open"])
def test_the_functions_own_error_is_never_hidden(client: Client, fail: Any):
    full(client)

    @record_calls("record.accessed", client=client, subject="crm:C-1", fail=fail)
    def read() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        read()


def test_failing_closed_raises_in_place_of_giving_the_result(
    client: Client, caplog: pytest.LogCaptureFixture
):
    full(client)

    @record_calls("record.accessed", client=client, subject="crm:{customer}", wait_s=0.2)
    def read(customer: str) -> str:
        return SECRET + customer

    with pytest.raises(Unavailable, match=r"record\.accessed can't be recorded"):
        read("C-1")
    assert SECRET not in caplog.text
    assert "C-1" not in caplog.text


def test_failing_open_gives_the_result(client: Client, caplog: pytest.LogCaptureFixture):
    full(client)

    @record_calls("record.accessed", client=client, subject="crm:C-1", fail="open", wait_s=0.2)
    def read() -> str:
        return SECRET

    assert read() == SECRET
    assert any(each.levelno == logging.ERROR for each in caplog.records)


def test_a_coroutine_function_stays_one(server: Answering, client: Client):
    @record_calls("record.accessed", client=client, subject="crm:{customer}")
    async def read(customer: str) -> str:
        await asyncio.sleep(0)
        return customer

    async def run() -> list[str]:
        full(client)
        with pytest.raises(Unavailable):
            await read("C-0")
        full(client, 1_000_000)
        await asyncio.sleep(1.1)
        return await asyncio.gather(*(read(f"C-{number}") for number in range(1, 20)))

    assert asyncio.run(run()) == [f"C-{number}" for number in range(1, 20)]
    client.flush(10)
    # The first was withheld from its caller; it is recorded all the same, once there is room.
    assert len(taken(server)) == 20


def test_a_coroutine_function_that_raises_is_recorded_as_failed(server: Answering, client: Client):
    @record_calls("record.accessed", client=client, subject="crm:C-1")
    async def read() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(read())
    client.flush(10)
    assert taken(server)[0]["data"]["outcome"] == "failed"


def test_a_generator_is_refused_when_it_is_decorated(client: Client):
    with pytest.raises(Misconfigured):

        @record_calls("record.accessed", client=client)
        def read() -> Iterator[int]:
            yield 1


def test_a_template_of_unknown_names_fails_closed(client: Client):
    @record_calls("record.accessed", client=client, subject="crm:{nobody}")
    def read() -> str:
        return SECRET

    with pytest.raises(Unavailable, match="KeyError"):
        read()
