from __future__ import annotations

import socket
import time
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from api import body, protocol
from ledger.admission import MAX_SEALED_BYTES
from ledger.service import MAX_BODY_BYTES, MAX_ENTRIES
from tests.http.support import Running, bearer, event, head, problem

if TYPE_CHECKING:
    from collections.abc import Iterator


class Wire:
    """A connection on which a test says exactly what it wants."""

    def __init__(self, service: Running) -> None:
        parts = urlsplit(service.url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=10)

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def answer(self) -> tuple[int, bytes]:
        """Give status and all that comes until the server ends the connection."""
        received = b""
        while piece := self.socket.recv(65_536):
            received += piece
        self.socket.close()
        return int(received.split(b" ", 2)[1]), received


def post_head(service: Running, *headers: str) -> bytes:
    lines = [
        f"POST {service.path('events')} HTTP/1.1",
        "Host: test",
        f"Authorization: Bearer {service.emitter}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def test_a_body_said_to_be_too_long_is_refused_before_it_is_read(service: Running) -> None:
    wire = Wire(service)
    wire.send(post_head(service, f"Content-Length: {MAX_BODY_BYTES + 1}"))
    status, received = wire.answer()
    assert status == 413
    assert b"urn:custody-ledger:problem:too-large" in received
    assert b"connection: close" in received.lower()


def test_who_waits_for_a_go_ahead_is_refused_without_sending(service: Running) -> None:
    wire = Wire(service)
    headers = f"Content-Length: {MAX_BODY_BYTES + 1}", "Expect: 100-continue"
    wire.send(post_head(service, *headers))
    assert wire.answer()[0] == 413


def test_a_body_that_never_ends_is_refused_at_the_limit(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.routes.events.MAX_BODY_BYTES", 200_000)
    before = head(service)

    def pieces() -> Iterator[bytes]:
        while True:
            yield b" " * 10_000

    wire = Wire(service)
    wire.send(post_head(service, "Transfer-Encoding: chunked"))
    chunks = (b"%x\r\n%b\r\n" % (len(piece), piece) for piece in islice(pieces(), 10_000))
    with pytest.raises(OSError):  # noqa: PT011 - whichever way the connection ends
        wire.send(*chunks)
    wire.socket.close()
    assert head(service) == before
    assert service.service.bodies.held_bytes == 0


def test_large_bodies_share_a_bound_of_memory(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "MAX_HELD_BYTES", 100_000)
    response = service.post([event() for _ in range(2_000)])
    problem(response, 503)
    assert response.headers["retry-after"]
    monkeypatch.undo()
    assert service.service.bodies.held_bytes == 0
    assert service.post([event() for _ in range(2_000)]).status_code == 201


def test_a_body_that_does_not_arrive_is_given_up(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "BODY_TIMEOUT_S", 0.1)
    wire = Wire(service)
    wire.send(post_head(service, "Content-Length: 100"), b"{")
    time.sleep(0.05)
    status, received = wire.answer()
    assert status == 408
    assert b"urn:custody-ledger:problem:timeout" in received


def test_a_sender_that_leaves_changes_nothing(service: Running) -> None:
    before = head(service)
    wire = Wire(service)
    wire.send(post_head(service, "Content-Length: 100000"), b"[" * 70_000)
    wire.socket.close()
    assert service.post(event()).status_code == 201
    assert head(service) == before + 1
    deadline = time.monotonic() + 5
    while service.service.bodies.held_bytes:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_body_in_many_pieces_is_one_body(service: Running) -> None:
    sent = event(id="in-pieces")
    content = httpx.Request("POST", "http://test", json=sent).content

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(content), 7):
            yield content[start : start + 7]

    headers = {**bearer(service.emitter), "Content-Type": "application/json"}
    response = service.client.post(service.path("events"), content=pieces(), headers=headers)
    assert response.status_code == 201


def test_more_events_than_the_limit_are_refused_and_as_many_are_recorded(
    service: Running,
) -> None:
    before = head(service)
    sent = [event() for _ in range(MAX_ENTRIES + 1)]
    problem(service.post(sent), 413)
    assert head(service) == before


def test_subjects_count_as_the_entries_they_make(service: Running) -> None:
    before = head(service)
    sent = [
        event(subject=None, subjects=[f"crm:{many}-{n}" for n in range(1000)]) for many in range(11)
    ]
    for item in sent:
        del item["subject"]
    assert problem(service.post(sent), 413).pointer == "/10"
    assert head(service) == before


def test_an_entry_past_its_limit_is_refused(service: Running) -> None:
    before = head(service)
    evidence = [{"sha256": "a" * 64, "name": "n"} for _ in range(600)]
    data = {"actor": {"id": "e1"}, "fields": ["phone"], "evidence": evidence}
    problem(service.post(event(data=data)), 413)
    assert head(service) == before


def test_a_sealed_value_past_its_limit_is_refused_at_its_place(service: Running) -> None:
    data = {"actor": {"id": "e1"}, "fields": ["phone"], "note": "n" * MAX_SEALED_BYTES}
    assert problem(service.post(event(data=data)), 413).pointer == "/data/note"
    data["note"] = data["note"][2:]
    assert service.post(event(data=data)).status_code == 201


def test_headers_have_a_limit(service: Running) -> None:
    wire = Wire(service)
    filler = "x" * 1_000
    lines = [f"X-{number}: {filler}" for number in range(protocol.MAX_HEADER_BYTES // 1_000 + 1)]
    wire.send(post_head(service, *lines))
    status, received = wire.answer()
    assert status == 400
    assert b"application/problem+json" in received


def test_what_is_not_http_is_a_400(service: Running) -> None:
    wire = Wire(service)
    wire.send(b"HELO\r\n\r\n")
    status, received = wire.answer()
    assert status == 400
    assert b"urn:custody-ledger:problem:bad-request" in received


def test_who_connects_and_says_nothing_is_sent_away(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADERS_TIMEOUT_S", 0.1)
    wire = Wire(service)
    wire.send(b"GET /healthz HTTP/1.1\r\n")
    assert wire.socket.recv(1) == b""
    wire.socket.close()


def test_connections_past_the_limit_are_told_to_come_back(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 0)
    wire = Wire(service)
    wire.send(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
    status, received = wire.answer()
    assert status == 503
    assert b"retry-after: 1" in received.lower()
