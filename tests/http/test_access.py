from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from api.access import Gate
from ledger.control import TRUST_S, Credential
from ledger.errors import Unauthenticated
from tests.http.support import LEDGER, OTHER, Running, bearer, event, head, new_emitter, problem

if TYPE_CHECKING:
    import httpx

    from ledger.control import Control

READING = [
    ("GET", "entries"),
    ("GET", "entries/1"),
    ("POST", "records/lookup"),
    ("GET", "records/00000000-0000-4000-8000-000000000000/entries"),
    ("GET", "records/00000000-0000-4000-8000-000000000000/state"),
    ("POST", "accesses/query"),
]


def send(service: Running, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    content = b"{}" if method == "POST" else None
    return service.client.request(method, path, headers=headers, content=content)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic Y2s6Y2s="},
        {"Authorization": "Bearer x y"},
        {"Authorization": "Bearer secret"},
        {"Authorization": "Bearer ck_aaaaaaaaaa_" + "A" * 43},
        {"Authorization": b"Bearer ck_\xff"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        *((method, f"/v1/ledgers/{LEDGER}/{rest}") for method, rest in READING),
        ("POST", f"/v1/ledgers/{LEDGER}/events"),
        ("GET", f"/v1/ledgers/{LEDGER}/checkpoint"),
        ("GET", "/v1/event-types"),
        ("GET", "/v1/openapi.json"),
    ],
)
def test_nothing_is_told_without_a_valid_key(
    service: Running, method: str, path: str, headers: dict[str, str]
) -> None:
    response = send(service, method, path, headers)
    problem(response, 401)
    assert response.headers["www-authenticate"] == 'Bearer realm="custody-ledger"'


def test_a_key_with_one_letter_changed_opens_nothing(service: Running) -> None:
    changed = service.emitter[:-1] + ("A" if service.emitter[-1] != "A" else "B")
    problem(service.post(event(), key=changed), 401)


@pytest.mark.parametrize(("method", "rest"), READING)
def test_an_emitter_never_reads(service: Running, method: str, rest: str) -> None:
    problem(send(service, method, service.path(rest), bearer(service.emitter)), 403)


def test_a_reader_never_writes(service: Running) -> None:
    before = head(service)
    problem(service.post(event(), key=service.reader), 403)
    assert head(service) == before


@pytest.mark.parametrize(("method", "rest"), [*READING, ("POST", "events"), ("GET", "checkpoint")])
def test_another_ledger_and_none_at_all_look_the_same(
    service: Running, method: str, rest: str
) -> None:
    answers = []
    for ledger in (OTHER, "no_such_ledger", "%00", "A" * 500):
        response = send(service, method, f"/v1/ledgers/{ledger}/{rest}", bearer(service.reader))
        problem(response, 404)
        answers.append(response.content)
    assert len(set(answers)) == 1


def test_a_ledger_made_after_the_start_is_said_to_be_not_open_yet(service: Running) -> None:
    control = service.control
    control.add_ledger("later", "ledger.test/later/0a1b2c3d")
    _, key = control.add_credential(ledger="later", role="reader", label="l")
    response = service.client.get("/v1/ledgers/later/checkpoint", headers=bearer(key))
    problem(response, 503)
    assert response.headers["retry-after"]


def test_a_revoked_key_is_refused_once_it_is_no_longer_trusted(service: Running) -> None:
    key = new_emitter(service.control)
    assert service.post(event(), key=key).status_code == 201
    service.control.revoke(LEDGER, key[:13])
    trusted = service.service.control._trusted
    for digest, (until, credential) in list(trusted.items()):
        trusted[digest] = (until - TRUST_S, credential)
    problem(service.post(event(), key=key), 401)


class CountingControl:
    """A control that counts how often it is asked, and answers when it is let go."""

    def __init__(self, credential: Credential | None) -> None:
        self.credential = credential
        self.asked = 0
        self.let_go = threading.Event()

    def trusted(self, _key: str) -> None:
        return None

    def authenticate(self, _key: str) -> Credential:
        self.asked += 1
        self.let_go.wait(10)
        if self.credential is None:
            raise Unauthenticated("expected a valid key")
        return self.credential


CREDENTIAL = Credential(
    id="ck_aaaaaaaaaa", ledger="demo", role="reader", label="", sources=(), namespaces=(), types=()
)


@pytest.mark.parametrize("credential", [CREDENTIAL, None])
def test_many_with_one_key_at_once_ask_the_database_once(credential: Credential | None) -> None:
    control = CountingControl(credential)

    async def ask() -> list[Credential | BaseException]:
        gate = Gate(_as_control(control))
        headers = [(b"authorization", b"Bearer key")]
        asking = [asyncio.create_task(gate.credential(headers)) for _ in range(50)]
        await asyncio.sleep(0.05)
        asking[0].cancel()
        control.let_go.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert not gate._asking
        return answers

    answers = asyncio.run(ask())
    assert control.asked == 1
    assert isinstance(answers[0], asyncio.CancelledError)
    kind = Credential if credential is not None else Unauthenticated
    assert all(isinstance(answer, kind) for answer in answers[1:])


def _as_control(control: CountingControl) -> Control:
    return control  # type: ignore[return-value]
