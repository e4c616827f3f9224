"""A process that opens a ledger, anchors it as its home says, and waits to be killed."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING

from ledger.anchors import anchoring
from ledger.anchors.keeper import Pace
from ledger.config import read_settings
from ledger.control import LedgerRow
from ledger.service import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.ledgers import Place

ROOT = Path(__file__).parents[2]


QUICK = Pace(first_wait_s=0.05, longest_wait_s=0.2)


def main() -> None:
    anchoring.Pace = lambda: QUICK  # type: ignore[assignment, misc] # nobody waits for minutes
    dsn, home, interval_s, name, origin = sys.argv[1:]
    settings = read_settings({"LEDGER_HOME": home, "LEDGER_ANCHOR_INTERVAL_S": interval_s})
    ledger = Ledger(LedgerRow(name, origin), settings, dsn)
    ledger.start()
    sys.stdout.write("open\n")
    sys.stdout.flush()
    sys.stdin.readline()
    ledger.close()


@contextmanager
def anchoring_process(place: Place, interval_s: float = 0.05) -> Iterator[Popen[str]]:
    """Run such a process; it is killed, if it still lives, when the block ends."""
    command = [sys.executable, "-m", "tests.faults.anchoring_process", place.dsn]
    command += [str(place.settings.home), str(interval_s), *place.row]
    process = Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


if __name__ == "__main__":
    main()
