"""Proofs and tiles of a large ledger, in the service's process and over HTTP."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from ledger.core.tiles import TILE_WIDTH, tile_path
from ledger.service import Ledger
from scripts.benchmarks.figures import Figure, Value, compare, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ledger.proofs import PublishedTree
    from scripts.benchmarks.filling import LargeLedger
    from scripts.benchmarks.options import Options
    from scripts.benchmarks.place import Place

TILE_CLIENTS = 64
PROOF_CLIENTS = 2
"""As many as processors of a small machine: more measure only how long they wait in line."""


def measure(place: Place, options: Options) -> Iterator[Figure]:
    """Measure how long proofs take and how many tiles are served, at random places."""
    large = place.large(options.entries)
    yield Value(name="filling the large ledger", value=large.size / large.seconds, unit="entries/s")
    yield from _in_process(place, large, options)
    yield from _over_http(place, large, options)
    place.stop_service()


def _in_process(place: Place, large: LargeLedger, options: Options) -> Iterator[Figure]:
    """Ask the tree as the service does, with nothing of it kept at the start."""
    place.stop_service()
    ledger = Ledger(large.row, place.settings, place.dsn)
    ledger.start()
    try:
        asks: dict[str, Callable[[PublishedTree, random.Random], object]] = {
            "inclusion proof": lambda tree, chance: tree.proof(chance.randint(1, large.size)),
            "consistency proof": lambda tree, chance: tree.consistency(
                *sorted((chance.randint(1, large.size), chance.randint(1, large.size)))
            ),
        }
        for name, ask in asks.items():
            durations = _durations(ask, ledger.tree, 500 if options.quick else 5_000)
            yield from _both(f"{name} at {large.size:,} entries", durations, aim_ms=5)
    finally:
        ledger.close()


def _durations(
    ask: Callable[[PublishedTree, random.Random], object], tree: PublishedTree, count: int
) -> list[float]:
    chance = random.Random(count)  # noqa: S311 - repeatable places, not secrets
    durations = []
    for _ in range(count):
        started = time.perf_counter()
        ask(tree, chance)
        durations.append(time.perf_counter() - started)
    return durations


def _both(name: str, durations: list[float], *, aim_ms: float) -> Iterator[Figure]:
    yield Value(name=f"{name}, median", value=percentile(durations, 0.5) * 1e3, unit="ms")
    p99_ms = percentile(durations, 0.99) * 1e3
    yield Value(name=f"{name}, p99", value=p99_ms, unit="ms", aim=aim_ms, most=True)


def _over_http(place: Place, large: LargeLedger, options: Options) -> Iterator[Figure]:
    place.service()
    chance = random.Random(1)  # noqa: S311 - repeatable places, not secrets
    prefix = f"/v1/ledgers/{large.row.name}"
    seqs = [chance.randint(1, large.size) for _ in range(5_000)]
    proofs = [f"{prefix}/entries/{seq}/proof" for seq in seqs]
    key = large.reader_key
    name = f"proof over HTTP at {large.size:,} entries"
    for clients in (1, PROOF_CLIENTS):
        found = place.get(proofs, seconds=options.seconds, clients=clients, key=key)
        said = f"{name}, clients: {clients}"
        yield Value(name=f"{said}, rate", value=found.per_s, unit="a second")
        yield Value(name=f"{said}, median", value=found.p50_s * 1e3, unit="ms")
        yield Value(name=f"{said}, p99", value=found.p99_s * 1e3, unit="ms", aim=5, most=True)
    yield from _tiles(place, large, options)


def _tiles(place: Place, large: LargeLedger, options: Options) -> Iterator[Figure]:
    """Any tile of the lowest level, each a query; then as many as are kept, over and over."""
    chance = random.Random(2)  # noqa: S311 - repeatable places, not secrets
    prefix = f"/v1/ledgers/{large.row.name}"
    tiles = list(range(large.size // TILE_WIDTH))
    chance.shuffle(tiles)

    def rate(some: list[int]) -> float:
        paths = [f"{prefix}/{tile_path(0, index)}" for index in some]
        return place.get(
            paths, seconds=options.seconds, clients=TILE_CLIENTS, key=large.reader_key
        ).per_s

    name = f"tiles over HTTP, {TILE_CLIENTS} clients"
    yield Value(name=f"{name}, any of {len(tiles):,}", value=rate(tiles), unit="/s", aim=1_000)
    yield compare(
        f"{name}, of those kept / no-op POST",
        None,
        lambda: rate(tiles[:1_000]),
        lambda: place.noop_rate(requests=int(12_000 * options.seconds), seconds=options.seconds),
        rounds=options.rounds,
    )
