"""Measure the service for Prometheus. No label can hold a value of a request.

Labels are names of ledgers, templates of routes, statuses, kinds of problems and
the default sources of credentials: all of them are few, and none is sent by anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ENTRIES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
MAX_SOURCES = 200
"""Default sources that get a label of their own; the others share `other`."""


class _EventReceipt(msgspec.Struct):
    """What is counted of an event's receipt."""

    incomplete: list[str] = []
    repeated: bool = False


class _Result(msgspec.Struct):
    """What is counted of an event that was judged on its own."""

    receipt: _EventReceipt | None = None


class _Receipt(_EventReceipt):
    """What is counted of a request's receipt: of one event, or of many."""

    receipts: list[_EventReceipt] = []
    results: list[_Result] = []


_read_receipt = msgspec.json.Decoder(_Receipt).decode


class Metrics:
    """Counters of one service; gauges are read when somebody asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "custody_requests",
            "Requests answered",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.append_seconds = Histogram(
            "custody_append_seconds",
            "From an event's arrival to its receipt",
            ["ledger"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.group_seconds = Histogram(
            "custody_group_seconds",
            "Time the writer took for a group",
            ["ledger"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.group_entries = Histogram(
            "custody_group_entries",
            "Entries that one commit held",
            ["ledger"],
            buckets=_ENTRIES,
            registry=self.registry,
        )
        self.refused = Counter(
            "custody_requests_refused",
            "Requests with events that were refused, and events refused on their own",
            ["ledger", "reason"],
            registry=self.registry,
        )
        self.incomplete = Counter(
            "custody_events_incomplete",
            "Events recorded without something expected",
            ["ledger", "source"],
            registry=self.registry,
        )
        self._answered: dict[tuple[str, str, int], Any] = {}
        self._sources: set[tuple[str, str]] = set()

    def answered(self, route: str, method: str, status: int) -> None:
        """Count an answer."""
        key = (route, method if method in _METHODS else "other", status)
        counter = self._answered.get(key)
        if counter is None:
            counter = self._answered[key] = self.requests.labels(*map(str, key))
        counter.inc()

    def on_group(self, ledger: str) -> Callable[[int, float], None]:
        """Give what a ledger's writer calls after each group."""
        seconds, entries = self.group_seconds.labels(ledger), self.group_entries.labels(ledger)

        def measured(size: int, duration_s: float) -> None:
            entries.observe(size)
            seconds.observe(duration_s)

        return measured

    def refuse(self, ledger: str, reason: str) -> None:
        """Count a request with events that was refused, or an event refused on its own."""
        self.refused.labels(ledger, reason).inc()

    def recorded(self, ledger: str, source: str, receipt: bytes, duration_s: float) -> None:
        """Measure a request with events, and count what lacked something expected."""
        self.append_seconds.labels(ledger).observe(duration_s)
        read = _read_receipt(receipt)
        events = read.receipts or [r.receipt for r in read.results if r.receipt] or [read]
        count = sum(bool(event.incomplete) and not event.repeated for event in events)
        if count:
            self.incomplete.labels(ledger, self._source(ledger, source)).inc(count)

    def _source(self, ledger: str, source: str) -> str:
        if len(self._sources) < MAX_SOURCES:
            self._sources.add((ledger, source))
        return source if (ledger, source) in self._sources else "other"

    def render(self, ledger: str | None = None) -> bytes:
        """Write everything, or only what is about one ledger."""
        if ledger is None:
            return generate_latest(self.registry)
        return generate_latest(_OfLedger(self.registry, ledger))


_METHODS = frozenset({"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"})


class _OfLedger(Collector):
    """A registry's samples about one ledger: its readers learn of no other."""

    def __init__(self, registry: CollectorRegistry, ledger: str) -> None:
        self._registry = registry
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        """Give each metric that has such samples."""
        for metric in self._registry.collect():
            samples = [s for s in metric.samples if s.labels.get("ledger") == self._ledger]
            if samples:
                kept = Metric(metric.name, metric.documentation, metric.type, metric.unit)
                kept.samples = samples
                yield kept


class Gauges(Collector):
    """Values that are read at the moment somebody asks for them."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Read them."""
        return self._read()

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: a ledger may not be open yet."""
        return ()
