"""Say how each ledger stands: head, checkpoint, queue, views, disk."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily

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
        "custody_anchoring_failed",
        "1 while no anchor can be written",
        lambda o: float(o.ledger.anchoring.failed),
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
    free = GaugeMetricFamily("custody_disk_free_bytes", "Free space where the ledger's home is")
    free.add_metric([], shutil.disk_usage(service.settings.home).free)
    yield free


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
