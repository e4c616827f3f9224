"""Say how each ledger stands: head, checkpoint, queue, views, disk."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily

from api.metrics import MAX_SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from api.service import OpenLedger, Service

_Reading = tuple[str, str, "Callable[[OpenLedger], float | None]"]

_OF_LEDGERS: Sequence[_Reading] = (
    ("custody_head_seq", "Number of the newest entry", lambda o: o.head_seq),
    (
        "custody_checkpoint_size",
        "Entries that the newest checkpoint covers",
        lambda o: o.signed_size,
    ),
    (
        "custody_checkpoint_age_seconds",
        "Since the newest checkpoint was seen",
        lambda o: o.signed_age_s,
    ),
    (
        "custody_queue_entries",
        "Entries that wait for the writer",
        lambda o: o.ledger.recorder.queued,
    ),
    ("custody_recording", "1 while the ledger records", lambda o: float(o.records)),
    ("custody_signing", "1 while this process signs", lambda o: float(o.ledger.notary.signs)),
    (
        "custody_split_view",
        "1 while evidence of a contradicting checkpoint keeps the ledger from recording",
        lambda o: float(bool(o.ledger.anchoring.split_views())),
    ),
    (
        "custody_witness_quorum_failing",
        "1 while too few witnesses cosign, where a quorum is asked for",
        lambda o: o.ledger.anchoring.lacks_quorum(),
    ),
)


def read_gauges(service: Service) -> Iterator[Metric]:
    """Read every gauge of a service."""
    for name, meaning, read in _OF_LEDGERS:
        family = GaugeMetricFamily(name, meaning, labels=["ledger"])
        for ledger, opened in service.ledgers.items():
            value = read(opened)
            if value is not None:
                family.add_metric([ledger], value)
        yield family
    yield from _views(service)
    yield from _sources(service)
    yield from _anchors(service)
    free = GaugeMetricFamily("custody_disk_free_bytes", "Free space where the ledger's home is")
    free.add_metric([], shutil.disk_usage(service.settings.home).free)
    yield free


def _sources(service: Service) -> Iterator[Metric]:
    labels = ["ledger", "source"]
    missing = GaugeMetricFamily(
        "custody_source_missing_events", "Numbers of a source that no event had", labels=labels
    )
    repeated = GaugeMetricFamily(
        "custody_source_repeated_numbers", "Events whose number was used before", labels=labels
    )
    silent = GaugeMetricFamily(
        "custody_source_silent_seconds", "Since anything of a source was recorded", labels=labels
    )
    for ledger, opened in service.ledgers.items():
        for sums in opened.views.source_sums(MAX_SOURCES):
            named = [ledger, "other" if sums.source is None else sums.source]
            missing.add_metric(named, sums.missing)
            repeated.add_metric(named, sums.repeats)
            silent.add_metric(named, max(sums.silent_s, 0.0))
    yield missing
    yield repeated
    yield silent


def _views(service: Service) -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "custody_view_lag_entries", "Entries a view has not folded yet", labels=["ledger", "view"]
    )
    failed = GaugeMetricFamily(
        "custody_view_failed", "1 while a view stands still", labels=["ledger", "view"]
    )
    for ledger, opened in service.ledgers.items():
        head = opened.head_seq or 0
        for view in opened.views.standing():
            lag.add_metric([ledger, view.view], view.lag(head))
            failed.add_metric([ledger, view.view], float(view.condition == "failed"))
    yield lag
    yield failed


def _anchors(service: Service) -> Iterator[Metric]:
    labels = ["ledger", "sink"]
    failing = GaugeMetricFamily(
        "custody_anchor_failing", "1 while a sink takes no checkpoint", labels=labels
    )
    age = GaugeMetricFamily(
        "custody_anchor_age_seconds", "Since a sink's newest checkpoint", labels=labels
    )
    size = GaugeMetricFamily(
        "custody_anchor_size", "Entries that a sink's newest checkpoint covers", labels=labels
    )
    now = datetime.now(UTC)
    for ledger, opened in service.ledgers.items():
        for sink in opened.ledger.anchoring.standing():
            named = [ledger, sink.sink]
            failing.add_metric(named, float(sink.failing is not None))
            size.add_metric(named, sink.size)
            if sink.anchored is not None:
                age.add_metric(named, max((now - sink.anchored).total_seconds(), 0.0))
    yield failing
    yield age
    yield size
