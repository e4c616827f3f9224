"""What `ledger.client` costs the caller: the time that `emit` takes, with the outbox on.

The outbox lies on the disk, flushed at each commit, and the service takes events meanwhile, so
that writer and sender contend with the caller for the interpreter as they do in a real
service. At a steady rate `emit` is what a handler waits for if it doesn't wait for the
disk; `durable` is what it waits for if it does. Between events the caller works, as a busy
service does, or sleeps: then each call is the first thing that a processor does after waking,
which alone makes anything several times slower. The burst is 5,000 events as fast as they go.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import TYPE_CHECKING

from ledger.client import Client, Limits
from scripts.benchmarks.figures import Value, compare, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scripts.benchmarks.figures import Figure
    from scripts.benchmarks.options import Options
    from scripts.benchmarks.place import Place

RATE_PER_S = 500
BURST = 5_000
DURABLE = 200
WARM = 100
FLUSH_S = 120.0
AIM_US = 50.0
DOCUMENT = json.dumps({f"field-{number}": "x" * number for number in range(30)})


def measure(place: Place, options: Options) -> Iterator[Figure]:
    """Measure the caller's path, and the way to the receipt."""
    outbox = place.home / "client.outbox"
    with Client(
        place.service().url,
        place.ledger,
        place.emitter_key,
        source="crm",
        outbox=outbox,
        verifier_key=place.vkey,
        limits=Limits(report_every_s=None),
    ) as client:
        steady(client, WARM / RATE_PER_S, work)
        client.flush(FLUSH_S)
        name = f"client: emit with the outbox on, {RATE_PER_S} events a second"
        for between, told, aim in (
            (work, "between work", AIM_US),
            (time.sleep, "after sleep", None),
        ):
            taken = steady(client, options.seconds * 3, between)
            client.flush(FLUSH_S)
            yield micros(f"{name} {told}, mean", statistics.fmean(taken), aim)
            yield micros(f"{name} {told}, median", statistics.median(taken))
            yield micros(f"{name} {told}, p99", percentile(taken, 0.99))
        bursts = [burst(client) for _ in range(options.rounds)]
        walls, processors = zip(*bursts, strict=True)
        name = f"client: emit in a burst of {BURST:,}, median burst"
        yield micros(name, statistics.median(walls), AIM_US)
        yield micros(f"{name}, the caller's processor time", statistics.median(processors))
        waits = durable(client, DURABLE)
        yield Value(
            name="client: emit and wait until it is on the disk, median",
            value=statistics.median(waits) * 1e3,
            unit="ms",
        )
        yield Value(name="client: the same, p99", value=percentile(waits, 0.99) * 1e3, unit="ms")
        yield compare(
            "client: events to their receipts / the same in POSTs of 500 without a client",
            None,
            lambda: through(client),
            lambda: (
                place.rate(
                    f"/v1/ledgers/{place.ledger}/events",
                    clients=1,
                    requests=20,
                    seconds=options.seconds,
                    events=500,
                )
                * 500
            ),
            rounds=options.rounds,
        )


def emit(client: Client, number: int) -> float:
    """Emit one event; give the seconds that it took."""
    started = time.perf_counter()
    client.emit(
        "record.accessed",
        f"crm:C-{number % 1_000}",
        actor="e0117",
        fields=["phone"],
        activity="support-desk",
    )
    return time.perf_counter() - started


def steady(client: Client, seconds: float, between: Callable[[float], object]) -> list[float]:
    """Emit at a rate; give the seconds of each call."""
    taken, started = [], time.perf_counter()
    for number in range(int(seconds * RATE_PER_S)):
        taken.append(emit(client, number))
        between(max(0.0, started + (number + 1) / RATE_PER_S - time.perf_counter()))
    return taken


def work(seconds: float) -> None:
    """Do for a time what handlers do: read, sort and write small documents."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        json.dumps(sorted(json.loads(DOCUMENT).items()))


def micros(name: str, seconds: float, aim: float | None = None) -> Value:
    """Give a figure in microseconds."""
    return Value(name=name, value=seconds * 1e6, unit="µs", aim=aim, most=True)


def burst(client: Client) -> tuple[float, float]:
    """Emit as fast as it goes, fewer than the buffer holds.

    Returns:
        Mean seconds of a call, and of the calling thread's processor time.
    """
    started, worked = time.perf_counter(), time.thread_time()
    for number in range(BURST):
        emit(client, number)
    wall_s = (time.perf_counter() - started) / BURST
    processor_s = (time.thread_time() - worked) / BURST
    client.flush(FLUSH_S)
    return wall_s, processor_s


def durable(client: Client, count: int) -> list[float]:
    """Emit and wait for the disk, one after the other; give the seconds of each."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        client.emit("record.accessed", "crm:C-1", actor="e0117", fields=["phone"], durable=True)
        taken.append(time.perf_counter() - started)
    client.flush(FLUSH_S)
    return taken


def through(client: Client) -> float:
    """Emit and wait for all receipts; give events a second."""
    started = time.perf_counter()
    for number in range(BURST):
        emit(client, number)
    client.flush(FLUSH_S)
    return BURST / (time.perf_counter() - started)
