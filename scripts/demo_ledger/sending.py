"""Send many events in batches over a few connections, and count what was new."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scripts.demo_ledger.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

BATCH = 1_000

Event: TypeAlias = dict[str, Any]
Shown: TypeAlias = "Callable[[int], None]"
"""Takes how many events were answered since it was called last."""


@dataclass(slots=True, kw_only=True)
class Sent:
    """What came of sending."""

    events: int = 0
    """Events that were answered."""
    new: int = 0
    """Events that were not recorded before."""
    incomplete: int = 0
    """Events that lack something that is expected of their type."""
    seconds: float = 0.0
    """How long it took."""
    checkpoint: str | None = None
    """The last signed checkpoint that came with receipts."""
    seqs: dict[str, int] = field(default_factory=dict)
    """Position of the first entry of each event, by the event's id."""

    @property
    def rate(self) -> int:
        """Events per second."""
        return round(self.events / self.seconds) if self.seconds else 0

    def add(self, document: dict[str, Any]) -> None:
        """Count the receipts of one batch."""
        for receipt in document["receipts"]:
            self.events += 1
            self.new += not receipt["repeated"]
            self.incomplete += bool(receipt["incomplete"])
            entries = receipt.get("entries") or [receipt]
            self.seqs[receipt["id"]] = entries[0]["seq"]
        self.checkpoint = document["checkpoint"] or self.checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where events go."""

    url: str
    """Address of the service."""
    ledger: str
    """Name of the ledger."""
    key: str = field(repr=False)
    """An emitter's key."""

    def connect(self) -> Service:
        """Open a connection of one's own."""
        return Service(self.url, self.ledger, self.key)


def send(target: Target, lanes: Sequence[Iterable[Event]], *, total: int | None) -> Sent:
    """Send each lane over a connection of its own, in its order, lanes side by side.

    Events of one record belong into one lane: only there is their order kept.

    Raises:
        LedgerError: a batch was refused or could not be delivered. What was sent stays recorded,
            and sending everything again is safe.
    """
    sent, counting, stop = Sent(), threading.Lock(), threading.Event()
    begun = time.monotonic()

    def run(lane: Iterable[Event]) -> None:
        with target.connect() as service:
            for batch in _batches(lane):
                if stop.is_set():
                    return
                document = service.post("events", batch).document
                with counting:
                    sent.add(document)
                    show(len(batch))

    with _progress(total) as show, ThreadPoolExecutor(len(lanes)) as pool:
        futures = [pool.submit(run, lane) for lane in lanes]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            if any(future.exception() for future in done):
                stop.set()
        except BaseException:
            stop.set()
            raise
        for future in futures:
            future.result()
    sent.seconds = time.monotonic() - begun
    return sent


def _batches(events: Iterable[Event]) -> Iterator[list[Event]]:
    left = iter(events)
    while batch := list(itertools.islice(left, BATCH)):
        yield batch


@contextmanager
def _progress(total: int | None) -> Iterator[Shown]:
    """Show how far it is: on stderr, and only if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _count: None
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} events/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("sending", total=total, rate=0)
        begun = time.monotonic()

        def show(count: int) -> None:
            done = progress.tasks[0].completed + count
            rate = round(done / max(time.monotonic() - begun, 0.001))
            progress.update(task, advance=count, rate=rate)

        yield show
