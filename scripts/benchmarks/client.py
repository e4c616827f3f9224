"""What `ledger.client` costs the caller: the time that `emit` takes, with the outbox on.

The outbox lies on the disk, flushed at each commit, and the service takes events meanwhile, so
that writer and sender contend with the caller for the interpreter as they do in a real
service. At a steady rate `emit` is what a handler waits for if it doesn't wait for the
disk; `durable` is what it waits for if it does. The burst is 5,000 events as fast as they go.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from ledger.client import Client, Limits
from scripts.benchmarks.figures import Value, compare, percentile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.benchmarks.figures import Figure
    from scripts.benchmarks.options import Options
    from scripts.benchmarks.place import Place

RATE_PER_S = 500
BURST = 5_000
DURABLE = 200
WARM = 100
FLUSH_S = 120.0
AIM_US = 50.0


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
        steady(client, WARM / RATE_PER_S)
        client.flush(FLUSH_S)
        taken = steady(client, options.seconds * 3)
        name = f"client: emit with the outbox on, {RATE_PER_S} events a second"
        yield Value(
            name=f"{name}, mean",
            value=statistics.fmean(taken) * 1e6,
            unit="µs",
            aim=AIM_US,
            most=True,
        )
        yield Value(name=f"{name}, median", value=statistics.median(taken) * 1e6, unit="µs")
        yield Value(name=f"{name}, p99", value=percentile(taken, 0.99) * 1e6, unit="µs")
        client.flush(FLUSH_S)
        bursts = [burst(client) for _ in range(options.rounds)]
        yield Value(
            name=f"client: emit in a burst of {BURST:,}, mean of the median burst",
            value=statistics.median(bursts) * 1e6,
            unit="µs",
            aim=AIM_US,
            most=True,
        )
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


def steady(client: Client, seconds: float) -> list[float]:
    """Emit at a rate; give the seconds of each call."""
    taken, started = [], time.perf_counter()
    for number in range(int(seconds * RATE_PER_S)):
        taken.append(emit(client, number))
        time.sleep(max(0.0, started + (number + 1) / RATE_PER_S - time.perf_counter()))
    return taken


def burst(client: Client) -> float:
    """Emit as fast as it goes, fewer than the buffer holds; give the mean seconds of a call."""
    started = time.perf_counter()
    for number in range(BURST):
        emit(client, number)
    mean_s = (time.perf_counter() - started) / BURST
    client.flush(FLUSH_S)
    return mean_s


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
