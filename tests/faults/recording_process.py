"""A process that opens a ledger and does what it is told on its standard input, for faults.

Commands, one a line: `load N` records from N tasks without end, `ingest JSON` records each
event of an array from tasks of their own, `signs` tells whether this process signs, `quit`
closes the ledger. Every answer is one line of JSON, written at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from subprocess import PIPE, Popen
from threading import Thread
from typing import TYPE_CHECKING, Any

from ledger.config import read_settings
from ledger.control import LedgerRow
from ledger.core.checkpoint import open_checkpoint
from ledger.errors import LedgerError
from ledger.service import Ledger
from tests.fixtures.ledgers import Place, an_emitter, an_event

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
ANSWER_S = 20.0


def say(**answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def record_one(ledger: Ledger, event: dict[str, Any]) -> None:
    try:
        _, receipt = await ledger.ingest(json.dumps(event).encode(), an_emitter())
    except LedgerError as error:
        say(failed=event["id"], error=type(error).__name__)
        return
    answer = json.loads(receipt)
    note = answer.pop("checkpoint")
    if note is not None:
        answer["size"] = open_checkpoint(note, ledger.signer.verifier, ledger.origin).size
    say(subject=event["subject"], **answer)


async def load(ledger: Ledger, tasks: int) -> None:
    async def without_end(task: int) -> None:
        number = 0
        while True:
            number += 1
            await record_one(ledger, an_event(subject=f"crm:C-{task}-{number % 7}"))

    await asyncio.gather(*map(without_end, range(tasks)))


async def ingest(ledger: Ledger, events: list[dict[str, Any]]) -> None:
    await asyncio.gather(*(record_one(ledger, event) for event in events))
    say(done=True)


def main() -> None:
    dsn, home, name, origin = sys.argv[1:]
    settings = read_settings({"LEDGER_HOME": home, "LEDGER_ANCHOR_INTERVAL_S": "0"})
    ledger = Ledger(LedgerRow(name, origin), settings, dsn)
    ledger.start()
    say(open=True)
    for line in sys.stdin:
        command, _, rest = line.strip().partition(" ")
        if command == "load":
            asyncio.run(load(ledger, int(rest)))
        elif command == "ingest":
            asyncio.run(ingest(ledger, json.loads(rest)))
        elif command == "signs":
            say(signs=ledger.notary.signs)
        else:
            break
    ledger.close()
    say(closed=True)


class Recording:
    """The parent's end of such a process."""

    def __init__(self, place: Place) -> None:
        command = [sys.executable, "-m", "tests.faults.recording_process"]
        command += [place.dsn, str(place.settings.home), *place.row]
        self.process = Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True)
        self._answers: Queue[dict[str, Any]] = Queue()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):
                self._answers.put(json.loads(line))

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        return self._answers.get(timeout=ANSWER_S)

    def ask(self, command: str) -> dict[str, Any]:
        self.tell(command)
        return self.answer()

    def answers_until_done(self) -> list[dict[str, Any]]:
        answers = []
        while "done" not in (answer := self.answer()):
            answers.append(answer)
        return answers

    def kill(self) -> list[dict[str, Any]]:
        """Kill it as `kill -9` does; give the answers that still came out."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        rest = []
        try:
            while True:
                rest.append(self._answers.get_nowait())
        except Empty:
            return rest

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def recording(place: Place, count: int = 1) -> Iterator[list[Recording]]:
    """Start processes on one ledger; whatever is left of them ends with the block."""
    started = [Recording(place) for _ in range(count)]
    try:
        for process in started:
            assert process.answer() == {"open": True}
        yield started
    finally:
        for process in started:
            process.close()


if __name__ == "__main__":
    main()
