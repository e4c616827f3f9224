"""All views from entry 1."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from projections.rebuild import rebuild
from scripts.benchmarks.figures import Figure, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.benchmarks.options import Options
    from scripts.benchmarks.place import Place


def measure(place: Place, options: Options) -> Iterator[Figure]:
    """Measure a rebuild of the views."""
    place.hold(60_000 if options.quick else 300_000)
    rates = [
        rebuild(place.dsn, place.schema).entries_per_second
        for _ in range(1 if options.quick else 3)
    ]
    rate = statistics.median(rates)
    yield Value(name="rebuild of all views", value=rate, aim=30_000, unit="events/s")
