"""A process that emits through an outbox until it is killed, or kills itself at a given step.

Arguments: url, ledger, key, outbox, verifier key, step, at which call of it, how many events.
It prints the id of each event once that event is stored; `open` before the first.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING, Any

from ledger.client import Client, Limits
from ledger.client.archive import Archive
from ledger.client.exchange import Exchange
from ledger.client.outbox import Outbox
from ledger.client.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]

STEPS: dict[str, tuple[Any, str, bool]] = {
    "before storing": (Outbox, "store", True),
    "while storing, before the commit": (Outbox, "_number", False),
    "after storing": (Outbox, "store", False),
    "before sending": (Exchange, "post_events", True),
    "after sending, before the acknowledgement is read": (Exchange, "post_events", False),
    "after the acknowledgement, before it is noted": (Sender, "_settle", True),
    "while noting it, after the events are taken out": (Outbox, "take_out", False),
    "while noting it, before the commit": (Archive, "keep", False),
    "after noting it": (Sender, "_settle", False),
}
"""Class, method, and whether the kill comes before the call or after it."""


def kill_at(step: str, call: int) -> None:
    """Make this process kill itself at one call of a step."""
    owner, name, before = STEPS[step]
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def killing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if before and calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, killing)


def main() -> None:
    url, ledger, key, outbox, verifier, step, call, count = sys.argv[1:]
    if step:
        kill_at(step, int(call))
    limits = Limits(batch_age_s=0.0, batch_events=3, retry_first_s=0.01, report_every_s=None)
    client = Client(
        url, ledger, key, source="crm", outbox=outbox, verifier_key=verifier, limits=limits
    )
    os.write(1, b"open\n")
    for number in range(int(count)):
        ticket = client.emit(
            "record.accessed", f"crm:C-{number % 7}", actor="e1", fields=["phone"], durable=True
        )
        os.write(1, f"{ticket.id}\n".encode())
    client.close()


def emitting(*arguments: object, step: str = "", call: int = 0, count: int = 30) -> Popen[str]:
    """Start such a process."""
    command = [sys.executable, "-m", "tests.faults.emitting_process", *map(str, arguments)]
    return Popen([*command, step, str(call), str(count)], cwd=ROOT, stdout=PIPE, text=True)


if __name__ == "__main__":
    main()
