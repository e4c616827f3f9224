from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from api import body, protocol
from api.encodings import zstd
from ledger.admission import MAX_EVENT_BYTES, MAX_SEALED_BYTES
from ledger.bodies import MAX_BODY_BYTES, MAX_ENTRIES
from tests.http.support import Running, bearer, event, head, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextmanager
def peak_memory() -> Iterator[Callable[[], float]]:
    """Tell by how much this process, the service in it, grew at most meanwhile."""
    before = peak = resident_mb()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident_mb())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield lambda: peak - before
    finally:
        done.set()
        watching.join()


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


@pytest.mark.parametrize("said", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_a_body_of_which_nothing_arrives_is_given_up(
    service: Running, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(protocol, "BODY_TIMEOUT_S", 0.1)
    before = head(service)
    wire = Wire(service)
    wire.send(post_head(service, said))
    status, received = wire.answer()
    assert status == 408
    assert b"urn:custody-ledger:problem:timeout" in received
    assert head(service) == before


def test_a_body_that_drips_is_given_up_however_it_is_sent(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "BODY_TIMEOUT_S", 0.3)
    wire = Wire(service)
    wire.send(post_head(service, "Transfer-Encoding: chunked"))
    started = time.monotonic()
    with suppress(OSError):
        while time.monotonic() < started + 15:
            wire.send(b"1\r\n \r\n")
            time.sleep(0.02)
    assert time.monotonic() < started + 10
    wire.socket.close()
    assert service.service.bodies.held_bytes == 0


def test_an_idle_connection_outlives_the_time_for_a_body(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "BODY_TIMEOUT_S", 0.05)
    content = httpx.Request("POST", "http://test", json=event()).content
    wire = Wire(service)
    for _ in range(2):
        wire.send(post_head(service, f"Content-Length: {len(content)}") + content)
        assert wire.socket.recv(65_536).startswith(b"HTTP/1.1 20")
        time.sleep(0.15)
    wire.socket.close()


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("Content-Length: 5", b'[{"id":1}'),
        ("Content-Length: -1", b"[]"),
        ("Content-Length: x", b"[]"),
        ("Content-Length: 2\r\nContent-Length: 3", b"[] "),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", b"2\r\n[]\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"zz\r\n[]\r\n0\r\n\r\n"),
        ("Transfer-Encoding: gzip", b"[]"),
    ],
)
def test_who_lies_about_a_bodys_length_records_nothing(
    service: Running, said: str, sent: bytes
) -> None:
    before = head(service)
    wire = Wire(service)
    received = b""
    with suppress(OSError):
        wire.send(post_head(service, said), sent)
        wire.socket.shutdown(socket.SHUT_WR)
        while piece := wire.socket.recv(65_536):
            received += piece
    wire.socket.close()
    assert not received.startswith(b"HTTP/1.1 201")
    assert head(service) == before


def test_large_bodies_at_once_wait_or_are_told_to_come_back(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "MAX_HELD_BYTES", 12_000_000)
    content = b"[" + b" " * 5_000_000 + b"]"

    def send(_: int) -> int:
        said = bearer(service.emitter)
        with httpx.Client(base_url=service.url, headers=said, timeout=30) as client:
            try:
                return client.post(service.path("events"), content=content).status_code
            except httpx.TransportError:
                return 503  # the answer was lost, since the rest of the body was refused

    with ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(send, range(16)))
    assert 200 in statuses
    assert statuses <= {200, 503}
    assert service.service.bodies.held_bytes == 0


@pytest.mark.parametrize("cut", [1, 100, -1])
def test_a_connection_cut_in_mid_body_records_nothing(service: Running, cut: int) -> None:
    before = head(service)
    content = httpx.Request("POST", "http://test", json=[event() for _ in range(50)]).content
    wire = Wire(service)
    wire.send(post_head(service, f"Content-Length: {len(content)}"), content[:cut])
    wire.socket.close()
    deadline = time.monotonic() + 5
    while service.service.bodies.held_bytes:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert service.post(event()).status_code == 201
    assert head(service) == before + 1


# -- lines, and arrays of next to nothing --------------------------------------------------


def post_lines(service: Running, content: bytes, **headers: str) -> httpx.Response:
    said = {**bearer(service.emitter), "Content-Type": "application/x-ndjson", **headers}
    return service.client.post(service.path("events"), content=content, headers=said)


@pytest.mark.parametrize("preference", ["", "handling=lenient"])
@pytest.mark.parametrize("line", [b"0\n", b"{}\r\n", b'{"id":1}\n'])
def test_100_000_tiny_lines_are_refused_as_too_many(
    service: Running, line: bytes, preference: str
) -> None:
    before = head(service)
    problem(post_lines(service, line * 100_000, Prefer=preference), 413)
    assert head(service) == before


def test_as_many_lines_as_the_limit_are_recorded(service: Running) -> None:
    before = head(service)
    lines = [json.dumps(event(subject=f"crm:{n % 50}")).encode() for n in range(MAX_ENTRIES)]
    assert post_lines(service, b"\n".join(lines)).status_code == 201
    assert head(service) == before + MAX_ENTRIES


def test_a_body_of_white_space_is_read_in_a_moment(service: Running) -> None:
    started = time.monotonic()
    for white in (b"\n", b" ", b" \n", b"\r\n\t"):
        content = white * (20_000_000 // len(white))
        assert post_lines(service, content).json()["receipts"] == []
        problem(service.post(content), 413)
    assert time.monotonic() < started + 20


def test_an_array_of_next_to_nothing_takes_no_memory(service: Running) -> None:
    # Told apart before they are counted, 30 million zeros would take 2 GB.
    content = b"[" + b"0," * 30_000_000 + b"0]"
    with peak_memory() as grown_mb:
        problem(service.post(content), 413)
    assert grown_mb() < 400


def test_an_event_as_sent_has_a_limit(service: Running) -> None:
    sent = json.dumps(event()).encode()
    padded = sent[:-1] + b" " * (MAX_EVENT_BYTES - len(sent)) + b"}"
    assert service.post(padded).status_code == 201
    assert problem(service.post(b"[" + padded + b"," + padded + b" ]"), 422).pointer == "/1/id"
    longer = b"[0," + padded[:-1] + b" }]"
    problem(service.post(padded[:-1] + b" }"), 413)
    response = service.client.post(
        service.path("events"),
        content=longer,
        headers={**bearer(service.emitter), "Prefer": "handling=lenient"},
    )
    assert [item["status"] for item in response.json()["results"]] == [422, 413]


def test_of_a_large_broken_array_the_place_is_told_in_a_moment(service: Running) -> None:
    started = time.monotonic()
    content = b"[" + b'{"a":[' + b"0," * 10_000_000 + b"x]}]"
    found = problem(service.post(content), 400)
    assert "offset" in found.detail
    assert time.monotonic() < started + 15


# -- bombs -----------------------------------------------------------------------------


@cache
def bomb(coding: str, size_bytes: int) -> bytes:
    """Compress so many bytes of nothing, without ever having them."""
    compressor: Any = (
        zlib.compressobj(9, wbits=31) if coding == "gzip" else zstd.ZstdCompressor(level=3)
    )
    piece = b" " * 1_000_000
    pieces = [compressor.compress(piece) for _ in range(size_bytes // len(piece))]
    return b"".join(pieces) + bytes(compressor.flush())


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("media_type", ["application/json", "application/x-ndjson"])
def test_a_bomb_is_met_at_the_limit(service: Running, coding: str, media_type: str) -> None:
    before = head(service)
    content = bomb(coding, 200_000_000)
    assert len(content) < 250_000
    with peak_memory() as grown_mb:
        started = time.monotonic()
        response = post_lines(
            service, content, **{"Content-Encoding": coding, "Content-Type": media_type}
        )
        problem(response, 413)
        assert time.monotonic() < started + 15
    assert grown_mb() < 300
    assert service.service.bodies.held_bytes == 0
    assert head(service) == before


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_in_a_bomb_is_never_opened(service: Running, coding: str) -> None:
    inner = bomb(coding, 100_000_000)
    outer = gzip.compress(inner) if coding == "gzip" else zstd.compress(inner)
    problem(post_lines(service, outer, **{"Content-Encoding": coding}), 400)
    both = {"Content-Encoding": f"{coding}, {coding}"}
    problem(post_lines(service, outer, **both), 415)


def test_a_frame_that_looks_back_further_than_8_mib_is_refused(service: Running) -> None:
    wide = {zstd.CompressionParameter.window_log: 27}
    compressor = zstd.ZstdCompressor(options=wide)
    content = compressor.compress(json.dumps(event()).encode()) + compressor.flush()
    problem(post_lines(service, content, **{"Content-Encoding": "zstd"}), 400)


def test_a_stream_of_empty_blocks_ends(service: Running) -> None:
    # A frame's header, then raw blocks of no bytes, none of them the last.
    content = b"\x28\xb5\x2f\xfd\x00\x58" + b"\x00\x00\x00" * 5_000_000
    started = time.monotonic()
    problem(post_lines(service, content, **{"Content-Encoding": "zstd"}), 400)
    assert time.monotonic() < started + 15


def test_what_bodies_expand_to_shares_the_bound_of_memory(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "MAX_HELD_BYTES", 10_000_000)
    content = bomb("gzip", 20_000_000)
    response = post_lines(service, content, **{"Content-Encoding": "gzip"})
    problem(response, 503)
    assert response.headers["retry-after"]
    assert service.service.bodies.held_bytes == 0


def test_others_are_served_while_bombs_go_off(service: Running) -> None:
    content = bomb("gzip", 200_000_000)

    def send(_: int) -> int:
        said = {**bearer(service.emitter), "Content-Encoding": "gzip"}
        with httpx.Client(base_url=service.url, headers=said, timeout=30) as client:
            return client.post(service.path("events"), content=content).status_code

    with ThreadPoolExecutor(6) as pool:
        answers = pool.map(send, range(6))
        slowest = 0.0
        for _ in range(20):
            started = time.monotonic()
            assert service.post(event()).status_code == 201
            slowest = max(slowest, time.monotonic() - started)
        assert set(answers) <= {413, 503}
    assert slowest < 5
    assert service.service.bodies.held_bytes == 0


# -- headers of events ------------------------------------------------------------------


def test_headers_of_a_binary_event_have_the_limit_of_all_headers(service: Running) -> None:
    wire = Wire(service)
    long = "x" * protocol.MAX_HEADER_BYTES
    wire.send(post_head(service, "Content-Length: 0", f"ce-subject: crm:{long}"))
    status, received = wire.answer()
    assert status == 400
    assert b"xxxx" not in received


def test_many_attributes_are_refused_or_sealed_and_never_fail(service: Running) -> None:
    said = {**bearer(service.emitter), "ce-specversion": "1.0", "ce-id": "many-attributes"}
    said |= {"ce-type": "com.example.many.seen"}
    said |= {f"ce-a{number}": "x" for number in range(900)}
    response = service.client.post(service.path("events"), content=b"{}", headers=said)
    assert response.status_code in {201, 413}


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
