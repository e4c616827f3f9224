"""HTTP requests from a process of its own: `python -m scripts.benchmarks.load < plan`.

The plan is JSON: `port`, `key`, `clients`, `seconds`, and either `posts` (what `_posts` takes)
or `paths` to get, over and over. What came of it is printed as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import uvloop

from scripts.benchmarks.figures import percentile

if TYPE_CHECKING:
    from collections.abc import Iterator

NOOP_PATH = "/bench/noop"
"""A POST that does nothing, served beside the product's."""


class _Client(asyncio.Protocol):
    """One keep-alive connection that sends its next request as soon as it is answered."""

    def __init__(self, requests: Iterator[bytes], until: float, answers: _Answers) -> None:
        self.requests = requests
        self.until = until
        self.answers = answers
        self.buffer = b""
        self.sent = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self.buffer[:end].lower().index(b"content-length:")
        length = int(self.buffer[at + 15 : self.buffer.index(b"\r\n", at)])
        if len(self.buffer) >= end + 4 + length:
            self.answers.add(int(self.buffer[9:12]), time.perf_counter() - self.sent)
            self.buffer = b""
            self._next()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _next(self) -> None:
        request = next(self.requests, None) if time.monotonic() < self.until else None
        if request is None:
            self.transport.close()
        else:
            self.sent = time.perf_counter()
            self.transport.write(request)


class _Answers:
    """Counts statuses and keeps how long each answer took."""

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.durations_s: list[float] = []

    def add(self, status: int, duration_s: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.durations_s.append(duration_s)


async def _run(plan: dict[str, Any], requests: Iterator[bytes]) -> dict[str, Any]:
    answers = _Answers()
    started = time.monotonic()
    until = started + plan["seconds"]
    clients = []
    for _ in range(plan["clients"]):
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: _Client(requests, until, answers), "127.0.0.1", plan["port"]
        )
        clients.append(client.done)
    await asyncio.gather(*clients)
    return {
        "seconds": time.monotonic() - started,
        "statuses": answers.statuses,
        "p50_s": percentile(answers.durations_s, 0.5),
        "p99_s": percentile(answers.durations_s, 0.99),
    }


def _requests(plan: dict[str, Any]) -> Iterator[bytes]:
    if "paths" in plan:
        return itertools.cycle([_request("GET", path, plan["key"], b"") for path in plan["paths"]])
    posts = plan["posts"]
    return iter([_request("POST", posts["path"], plan["key"], body) for body in _posts(posts)])


def _posts(posts: dict[str, Any]) -> list[bytes]:
    chance = random.Random(posts["seed"])  # noqa: S311 - repeatable load, not secrets
    if posts["events"] == 1:
        return [_event(chance, posts) for _ in range(posts["requests"])]
    return [
        b"[" + b",".join(_event(chance, posts) for _ in range(posts["events"])) + b"]"
        for _ in range(posts["requests"])
    ]


def _event(chance: random.Random, posts: dict[str, Any]) -> bytes:
    sealed = ',"note":"the customer asked by phone why the bill was high"' * posts["sealed"]
    return (
        f'{{"id":"{uuid4()}","type":"record.accessed","source":"crm",'
        f'"subject":"crm:C-{chance.randrange(posts["subjects"])}","time":"2026-11-22T10:00:00Z",'
        f'"data":{{"actor":{{"id":"e{chance.randrange(200)}","kind":"person"}},'
        '"fields":["phone","address"],"activity":"support-desk","purpose":"service",'
        f'"outcome":"success"{sealed}}}}}'
    ).encode()


def _request(method: str, path: str, key: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
    if method == "POST":
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def main() -> None:
    """Do what the plan says."""
    plan = json.load(sys.stdin)
    print(json.dumps(uvloop.run(_run(plan, _requests(plan)))))


if __name__ == "__main__":
    main()
