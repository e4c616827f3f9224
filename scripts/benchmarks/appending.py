"""Events in: single, in batches, and what the service takes for it."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

import psycopg

from scripts.benchmarks.figures import Figure, Ratio, Value, compare
from scripts.benchmarks.place import Place, peak_kb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.benchmarks.options import Options

BATCH = 1_000
BATCH_CLIENTS = 4


def measure(place: Place, options: Options) -> Iterator[Figure]:
    """Measure requests of one event, requests of many, and peak memory."""
    yield _single(place, options)
    yield _batches(place, options, sealed=0, aim=0.2)
    yield _batches(place, options, sealed=1, aim=0.12)
    peak_mb = peak_kb(place.service().pid) / 1024
    yield Value(name="service's peak memory", value=peak_mb, aim=300, unit="MB", most=True)


def _single(place: Place, options: Options) -> Ratio:
    seconds, requests = options.seconds, int(12_000 * options.seconds)
    events = f"/v1/ledgers/{place.ledger}/events"
    place.rate(events, requests=requests, seconds=seconds)
    return compare(
        "single-event POST / no-op POST, 64 keep-alive clients",
        0.5,
        lambda: place.rate(events, requests=requests, seconds=seconds),
        lambda: place.noop_rate(requests=requests, seconds=seconds),
        rounds=options.rounds,
    )


def _batches(place: Place, options: Options, *, sealed: int, aim: float) -> Ratio:
    requests = 20 if options.quick else 60
    path = f"/v1/ledgers/{place.ledger}/events"

    def product() -> float:
        plan = {"requests": requests, "events": BATCH, "sealed": sealed}
        return BATCH * place.rate(path, clients=BATCH_CLIENTS, **plan)

    product()
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        entries = _newest_entries(connection, place.schema)
        connection.execute("CREATE TABLE IF NOT EXISTS bare (seq int8, leaf bytea, entry bytea)")
        return compare(
            f"POST of {BATCH} events, {sealed} sealed text / bare COPY of the same bytes",
            aim,
            product,
            lambda: _bare_copy(connection, entries, requests),
            rounds=options.rounds,
        )


def _newest_entries(connection: psycopg.Connection[Any], schema: str) -> list[bytes]:
    query = f"SELECT entry FROM {schema}.entries ORDER BY seq DESC LIMIT {BATCH}"  # noqa: S608
    return [entry for (entry,) in connection.execute(query, binary=True)]


def _bare_copy(connection: psycopg.Connection[Any], entries: list[bytes], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        with connection.cursor().copy("COPY bare FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "bytea", "bytea"])
            for number, entry in enumerate(entries):
                copy.write_row((number, hashlib.sha256(entry).digest(), entry))
    return times * len(entries) / (time.perf_counter() - started)
