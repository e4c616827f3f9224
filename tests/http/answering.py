"""A ledger that answers what a test wants: real HTTP, receipts signed with a key of its own.

It is no ledger: it keeps entries in a list and checks nothing. What it is for is everything
that a real one never does, such as answering nonsense, or signing with another key.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.core.checkpoint import Checkpoint, sign_checkpoint
from ledger.core.merkle import RightEdge, leaf_hash
from ledger.core.note import Signer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ORIGIN = "ledger.test/answering/0a1b2c3d"
Answer = tuple[int, dict[str, str], bytes]


def new_signer(origin: str = ORIGIN) -> Signer:
    return Signer.from_private_key(origin, Ed25519PrivateKey.generate())


@dataclass
class Answering:
    """What was asked, and how it is answered."""

    url: str = ""
    signer: Signer = field(default_factory=new_signer)
    script: list[Callable[[list[Any]], Answer | None]] = field(default_factory=list)
    """How the next requests are answered; None breaks the connection. Then: as a ledger."""
    always: Callable[[list[Any]], Answer | None] | None = None
    """How every request after the script is answered; None: as a ledger."""
    requests: list[list[Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)
    edge: RightEdge = field(default_factory=RightEdge)
    lenient: bool = True
    poison: str = "poison"
    drop_bytes: int = 65_536
    """How many bytes of an answer go out at once."""

    @property
    def verifier_key(self) -> str:
        return self.signer.verifier.verifier_key()

    @property
    def ids(self) -> list[str]:
        """Ids of all events taken, in order."""
        return list(self.seen)

    def answer(self, body: bytes) -> Answer | None:
        events = json.loads(body)
        self.times.append(time.monotonic())
        self.requests.append(events)
        if self.script:
            return self.script.pop(0)(events)
        return self.always(events) if self.always else self.take(events)

    def take(self, events: list[Any]) -> Answer:
        """Answer as a ledger would."""
        if not self.lenient:
            for index, event in enumerate(events):
                if self.poison in event["type"]:
                    return problem(422, f"/{index}/type")
            receipts = [self.receipt(event) for event in events]
            return ok({"receipts": receipts, "checkpoint": self.note()})
        results = [
            {"status": 422, "problem": {"status": 422, "pointer": f"/{index}/type"}}
            if self.poison in event["type"]
            else {"status": 201, "receipt": self.receipt(event)}
            for index, event in enumerate(events)
        ]
        return ok({"results": results, "checkpoint": self.note()})

    def receipt(self, event: dict[str, Any]) -> dict[str, Any]:
        """Take one event."""
        before = self.seen.get(event["id"])
        if before is not None:
            return {**before, "repeated": True}
        leaf = leaf_hash(json.dumps(event).encode())
        self.edge.extend([leaf])
        receipt = {
            "id": event["id"],
            "record": self.records.setdefault(event.get("subject", ""), str(uuid4())),
            "seq": self.edge.size,
            "leaf": leaf.hex(),
            "version": 1,
            "recorded": "2026-01-31T09:30:00.000000Z",
            "incomplete": [],
            "repeated": False,
        }
        self.seen[event["id"]] = receipt
        return receipt

    def note(self, signer: Signer | None = None, **changes: Any) -> str:
        """Sign the tree as it is."""
        given = {"origin": ORIGIN, "size": self.edge.size, "root": self.edge.root(), **changes}
        return sign_checkpoint(Checkpoint(**given), [signer or self.signer])


def ok(document: Any, **headers: str) -> Answer:
    return 201, {"Content-Type": "application/json", **headers}, json.dumps(document).encode()


def problem(status: int, pointer: str | None = None, **headers: str) -> Answer:
    document: dict[str, Any] = {
        "type": "urn:custody-ledger:problem:made-up",
        "title": "t",
        "status": status,
        "detail": "d",
    }
    if pointer is not None:
        document["pointer"] = pointer
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps(document).encode()
    return status, {"Content-Type": "application/problem+json", **given}, body


@contextmanager
def answering(port: int = 0, **options: Any) -> Iterator[Answering]:
    """Serve on this machine until the block ends."""
    ledger = Answering(**options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            ledger.headers.append(dict(self.headers))
            answer = ledger.answer(body)
            if answer is None:
                self.close_connection = True
                return
            status, headers, content = answer
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            step = ledger.drop_bytes
            for place in range(0, len(content), step):
                self.wfile.write(content[place : place + step])
                if step < 65_536:
                    time.sleep(0.05)

        def do_GET(self) -> None:
            ledger.headers.append(dict(self.headers))
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that went away is what some tests are about."""

    with Server(("127.0.0.1", port), Handler) as server:
        ledger.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield ledger
        finally:
            server.shutdown()
            thread.join()
