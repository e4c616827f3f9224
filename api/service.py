"""What the composition root opens, and closes in the opposite order."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg

from api.access import Gate
from api.body import Bodies
from api.gauges import read_gauges
from api.metrics import Gauges, Metrics
from api.views import Views
from ledger.control import Control
from ledger.declaring import declare_types
from ledger.events.custom import UNREGISTERED, load_custom_types
from ledger.service import Ledger
from projections.process import ViewProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledger.config import Settings
    from ledger.control import LedgerRow
    from ledger.events.custom import CustomTypes

_LOG = logging.getLogger("api")

THREADS = 16
"""Threads for what waits for the database: reading, large bodies, keys."""
LOOK_S = 1.0
"""How long an answer about the database's health is good for."""


class OpenLedger:
    """A ledger with its views."""

    def __init__(
        self,
        row: LedgerRow,
        settings: Settings,
        dsn: str,
        on_group: Callable[[int, float], None],
        folding: ViewProcess,
        *,
        custom: CustomTypes,
    ) -> None:
        self._custom = custom
        self._seen: tuple[int, float] | None = None
        self._on_group = on_group
        self.ledger: Ledger = Ledger(row, settings, dsn, on_group=self._measured, custom=custom)
        self.views: Views = Views(row, dsn, folding)

    def start(self) -> None:
        """Begin to record, and make the views ready to be folded."""
        self.ledger.start()
        declare_types(self.ledger, self._custom.sha256)
        self.views.migrate()

    def close(self) -> None:
        """Stop reading, then recording."""
        self.views.close()
        self.ledger.close()

    def _measured(self, size: int, duration_s: float) -> None:
        self._on_group(size, duration_s)
        self._look()

    def _look(self) -> tuple[int, float] | None:
        newest = self.ledger.notary.newest
        if newest is not None and (self._seen is None or self._seen[0] != newest[0]):
            self._seen = (newest[0], time.monotonic())
        return self._seen

    @property
    def records(self) -> bool:
        """Whether events are taken in."""
        return self.ledger.recorder.stopped is None and self.ledger.recorder.head is not None

    @property
    def head_seq(self) -> int | None:
        """Number of the newest entry this process knows."""
        head = self.ledger.recorder.head
        return None if head is None else head.seq

    @property
    def signed_size(self) -> int | None:
        """Entries that the newest checkpoint covers."""
        seen = self._look()
        return None if seen is None else seen[0]

    @property
    def signed_age_s(self) -> float | None:
        """Seconds since the newest checkpoint was first seen here."""
        seen = self._look()
        return None if seen is None else time.monotonic() - seen[1]


class Service:
    """Everything that routes reach."""

    def __init__(self, settings: Settings, dsn: str) -> None:
        # Nothing is connected before `open`.
        self.settings = settings
        self.control = Control(dsn)
        self.gate = Gate(self.control)
        self.bodies = Bodies()
        self.metrics = Metrics()
        self.metrics.registry.register(Gauges(lambda: read_gauges(self)))
        self.ledgers: dict[str, OpenLedger] = {}
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="api")
        self.is_open = False
        self.custom = UNREGISTERED
        self._dsn = dsn
        self._folding: ViewProcess | None = None
        self._looked: tuple[float, bool] = (float("-inf"), False)

    def open(self) -> None:
        """Bring schemas up to date and open every ledger; a second call does nothing.

        Raises:
            LedgerError: keys, settings and database make no sense together.
        """
        if self.is_open:
            return
        self.custom = load_custom_types(self.settings.types_file)
        self.control.migrate()
        rows = self.control.ledgers()
        self._folding = folding = ViewProcess(self._dsn, [row.schema for row in rows])
        try:
            for row in rows:
                measured = self.metrics.on_group(row.name)
                opened = OpenLedger(
                    row, self.settings, self._dsn, measured, folding, custom=self.custom
                )
                self.ledgers[row.name] = opened
                opened.start()
            folding.start()
        except BaseException:
            self.close_ledgers()
            raise
        self.is_open = True

    def close_ledgers(self) -> None:
        """Stop folding, then close every ledger, whatever happens to one of them."""
        self.is_open = False
        if self._folding is not None:
            self._folding.close()
            self._folding = None
        for name, opened in reversed(list(self.ledgers.items())):
            try:
                opened.close()
            except Exception as error:  # noqa: BLE001 - the others must be closed too
                _LOG.error("closing %s failed: %s", name, type(error).__name__)
        self.ledgers.clear()

    def troubles(self) -> list[str]:
        """List why this service is not ready, as codes; empty if it is."""
        codes = [] if self._database_answers() else ["database-unreachable"]
        if not self.is_open:
            codes.append("not-open")
        for opened in self.ledgers.values():
            if opened.ledger.recorder.stopped is not None:
                codes.append("read-only")
            elif not opened.records:
                codes.append("not-recording")
            if opened.ledger.anchoring.split_views():
                codes.append("split-view")
            if any(view.condition == "failed" for view in opened.views.standing()):
                codes.append("view-failed")
        return sorted(set(codes))

    def _database_answers(self) -> bool:
        """Ask the database, but not more often than once a second: anybody may ask us."""
        now = time.monotonic()
        if now - self._looked[0] > LOOK_S:
            try:
                psycopg.connect(self._dsn, connect_timeout=2).close()
                self._looked = (now, True)
            except psycopg.Error:
                self._looked = (now, False)
        return self._looked[1]
