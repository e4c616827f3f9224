"""The one place where the shell meets the projections of a ledger."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import psycopg

from projections.queries import ViewReader
from projections.schema import migrate_views
from projections.sources import select_sums

if TYPE_CHECKING:
    from ledger.control import LedgerRow
    from projections.process import ViewProcess
    from projections.queries import ViewPosition
    from projections.sources import SourceSums
    from projections.supervisor import ViewStatus


_LOG = logging.getLogger("api.views")

SUMS_S = 10.0
"""How long sums of sources are good for: whoever asks for metrics must not burden the views."""


class Views:
    """The views of one ledger: how they stand, and what reads them."""

    def __init__(self, row: LedgerRow, dsn: str, process: ViewProcess) -> None:
        self._dsn = dsn
        self._schema = row.schema
        self._process = process
        self.reader = ViewReader(dsn, row.schema)
        self._sums: tuple[float, list[SourceSums]] = (float("-inf"), [])
        self._summing = threading.Lock()

    def migrate(self) -> None:
        """Bring the views' tables up to date, for the process that folds."""
        with psycopg.connect(self._dsn, autocommit=True, connect_timeout=5) as connection:
            migrate_views(connection, schema=self._schema)

    def close(self) -> None:
        """Stop reading."""
        self.reader.close()

    def standing(self) -> list[ViewStatus]:
        """Say how each view stands."""
        return self._process.standing(self._schema)

    def source_sums(self, most: int) -> list[SourceSums]:
        """Give sums of sources, as they were a moment ago; those known last if none can be read."""
        if time.monotonic() - self._sums[0] > SUMS_S and self._summing.acquire(blocking=False):
            try:
                self._sums = (time.monotonic(), select_sums(self.reader, most))
            except Exception as error:  # noqa: BLE001 - whoever measures needs all the others
                _LOG.warning("sources can't be summed up: %s", type(error).__name__)
                self._sums = (time.monotonic(), self._sums[1])
            finally:
                self._summing.release()
        return self._sums[1]

    def position(self, view: str) -> ViewPosition:
        """Give how far a view has come, whichever process folds it.

        Asked before the view is read, so that the view holds at least as much.
        """
        return next(p for p in self.reader.select_positions() if p.view == view)
