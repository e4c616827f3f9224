"""A road between recorder and PostgreSQL on which the statement that sequences entries is lost.

It knows as much of PostgreSQL's protocol (version 3, "Message Formats") as it takes to tell
where that statement begins and where its answer ends.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from select import select
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Fault = Literal["unsent", "unanswered", "held"]
"""Lost on the way there; stored, and its answer lost; on its way for as long as we like."""

WRITING = b"WITH moved AS"
SYNC, BIND, PARSE, ROW, READY = b"S", b"B", b"P", b"D", b"Z"


def read_exactly(source: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = source.recv(size - len(parts))
        if not part:
            raise ConnectionError
        parts += part
    return parts


def read_message(source: socket.socket) -> tuple[bytes, bytes]:
    """Give a message's type and all of its bytes."""
    start = read_exactly(source, 5)
    return start[:1], start + read_exactly(source, struct.unpack(">I", start[1:])[0] - 4)


@dataclass
class Held:
    """A statement that the network still has."""

    server: socket.socket
    request: bytes

    def deliver(self) -> int:
        """Bring it to the server after all; give how often it moved the head."""
        moved = 0
        self.server.sendall(self.request)
        while True:
            kind, message = read_message(self.server)
            if kind == ROW:
                moved = struct.unpack(">q", message[11:])[0]
            elif kind == READY:
                self.server.close()
                return moved


@dataclass
class Wire:
    """The road, and the faults that are still to happen on it, each to one statement."""

    server_path: str
    faults: list[Fault] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None
    """What happens elsewhere while the recorder still waits for its lost answer."""
    before_writing: list[Callable[[], object]] = field(default_factory=list)
    """What happens just before a writing statement goes through, one for each."""
    held: list[Held] = field(default_factory=list)
    happened: int = 0
    directory: Path | None = None
    """Where clients find the road, as the directory of a socket."""

    def serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.connect(self.server_path)
        with client, server, suppress(OSError):
            size = read_exactly(client, 4)
            server.sendall(size + read_exactly(client, struct.unpack(">I", size)[0] - 4))
            writing: set[bytes] = set()
            while True:
                readable, _, _ = select([client, server], [], [])
                if server in readable:
                    client.sendall(read_message(server)[1])
                elif not self._carry_request(client, server, writing):
                    return

    def _carry_request(
        self, client: socket.socket, server: socket.socket, writing: set[bytes]
    ) -> bool:
        """Carry a message, or lose the writing statement; False where the connection ends."""
        kind, message = read_message(client)
        if kind == PARSE and WRITING in message:
            writing.add(message[5:].split(b"\0")[0])
        if kind != BIND or message[5:].split(b"\0")[1] not in writing:
            server.sendall(message)
            return True
        request = message
        while kind != SYNC:
            kind, message = read_message(client)
            request += message
        if self.before_writing:
            self.before_writing.pop(0)()
        if not self.faults:
            server.sendall(request)
            return True
        self._lose(self.faults.pop(0), Held(server, request))
        return False

    def _lose(self, fault: Fault, statement: Held) -> None:
        self.happened += 1
        if fault == "unanswered":
            assert statement.deliver() == 1
        elif fault == "held":
            self.held.append(Held(statement.server.dup(), statement.request))
        self.meanwhile()


@contextmanager
def wire(directory: Path, server_path: str) -> Iterator[Wire]:
    road = Wire(server_path, directory=directory)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / ".s.PGSQL.5432"))
    listener.listen()
    serving = threading.Thread(target=road.serve, args=(listener,), daemon=True)
    serving.start()
    try:
        yield road
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        serving.join()
