from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.problems import PROBLEMS, answer, problem_of, safe_pointer
from ledger import errors
from tests.http.support import Running, bearer, event, problem

if TYPE_CHECKING:
    import httpx

SECRETS = ["13800138000", "Zhang San", "crm:SECRET-1", "e-secret-person", "ck_secretpart"]


def every_error() -> list[type[errors.LedgerError]]:
    found = [errors.LedgerError]
    for kind in found:
        found += kind.__subclasses__()
    return found


def test_every_error_has_a_problem_and_every_slug_one_meaning() -> None:
    for kind in every_error():
        assert problem_of(kind.__new__(kind)) in PROBLEMS.values()
    slugs = {(found.slug, found.status, found.title) for found in PROBLEMS.values()}
    assert len({slug for slug, _, _ in slugs}) == len(slugs)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", slug) for slug, _, _ in slugs)


def test_a_lost_database_is_a_503_and_a_fault_of_ours_a_500() -> None:
    assert answer(psycopg.OperationalError("secret")).status_code == 503
    assert answer(psycopg.ProgrammingError("secret")).status_code == 500
    assert b"secret" not in bytes(answer(psycopg.OperationalError("secret")).body)
    assert b"secret" not in bytes(answer(errors.TamperDetected("secret")).body)


@given(st.text())
def test_no_pointer_lets_a_number_or_words_through(text: str) -> None:
    pointer = safe_pointer("/data/personal/" + text)
    assert pointer.startswith("/data/personal/")
    assert not re.search(r"[0-9]{8}", pointer)
    assert re.fullmatch(r"[A-Za-z0-9_./…-]*", pointer)


@pytest.mark.parametrize("pointer", ["", "/data/actor/id", "/0/subjects/12", "/data/a.b-c_1"])
def test_plain_pointers_stay_as_they_are(pointer: str) -> None:
    assert safe_pointer(pointer) == pointer


def answers_to_secrets(service: Running) -> list[httpx.Response]:
    """Send personal values wherever they can stand, wrongly."""
    sent: list[Any] = [
        event(subject="crm:SECRET-1", type="Zhang San"),
        event(subject="hr:SECRET-1 Zhang San 13800138000"),
        event(id="13800138000"),
        event(source="Zhang San"),
        event(time="13800138000"),
        event(data={"actor": {"id": "e-secret-person" * 20}, "fields": ["phone"]}),
        event(data={"actor": {"id": "e-secret-person"}, "fields": ["Zhang San 13800138000"]}),
        event(data={"actor": {"id": "e1"}, "fields": ["p"], "purpose": "Zhang San"}),
        event(data={"actor": {"id": "e1"}, "personal": "Zhang San", "fields": ["p"]}),
        b'{"id":"a","data":{"Zhang San":1,"Zhang San":2}}',
        b'{"id":"a","data":{"personal":{"13800138000":1,"13800138000":2}}}',
        b'{"id":"a","data":{"13800138000":"Zhang San}}',
    ]
    headers = bearer("ck_secretpart_13800138000")
    get = service.client.get
    return [
        *map(service.post, sent),
        service.ask("records/lookup", {"subject": "crm:SECRET-1"}),
        service.ask("records/lookup", {"subject": 1, "Zhang San 13800138000": 1}),
        service.ask("accesses/query", {"actor": "e-secret-person"}),
        service.ask("accesses/query", {"from": "Zhang San"}),
        service.get("records/crm:SECRET-1/state"),
        service.get("records/13800138000/entries?after=Zhang San"),
        get("/v1/ledgers/Zhang San/crm:SECRET-1/13800138000"),
        get("/v1/event-types?for=Zhang San", headers=bearer(service.reader)),
        get("/v1/event-types", headers=headers),
    ]


def test_no_value_of_a_request_is_in_an_answer_or_a_log(
    service: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    answers = answers_to_secrets(service)
    assert all(400 <= response.status_code < 500 for response in answers)
    for secret in SECRETS:
        for response in answers:
            assert secret not in response.text, response.request.url
        assert secret not in caplog.text
        metrics = service.client.get("/metrics").text
        assert secret not in metrics


def test_what_nobody_expected_says_and_logs_nothing_internal(
    service: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("Zhang San 13800138000")

    monkeypatch.setattr(service.open.ledger, "ingest", fail)
    headers = bearer(service.emitter)
    # Not the client that checks what is declared: a fault never is.
    import httpx

    with httpx.Client(base_url=service.url) as client:
        response = client.post(service.path("events"), json=event(), headers=headers)
    assert problem(response, 500).type == "urn:custody-ledger:problem:internal"
    assert "Zhang" not in response.text + caplog.text
    assert "RuntimeError at fail" in caplog.text
    monkeypatch.undo()
    assert service.post(event()).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/ledgers/demo", 404),
        ("GET", "/v1/ledgers/demo/events/", 404),
        ("GET", "/docs", 404),
        ("GET", "/v1/ledgers/demo/events", 405),
        ("DELETE", "/v1/ledgers/demo/entries/1", 405),
        ("PUT", "/v1/ledgers/demo/checkpoint", 405),
    ],
)
def test_what_is_not_there_is_a_problem_too(
    service: Running, method: str, path: str, status: int
) -> None:
    response = service.client.request(method, path, headers=bearer(service.reader))
    problem(response, status)
    assert ("allow" in response.headers) == (status == 405)


def test_a_problem_is_short_and_has_no_member_without_a_value(service: Running) -> None:
    document = json.loads(service.post(event(id=None)).content)
    assert set(document) == {"type", "title", "status", "detail", "pointer"}, document
