"""The one place where the shell meets the projections of a ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from projections.queries import ViewReader
from projections.schema import migrate_views
from projections.supervisor import ViewSupervisor

if TYPE_CHECKING:
    from ledger.control import LedgerRow
    from projections.queries import ViewPosition
    from projections.supervisor import ViewStatus


class Views:
    """The views of one ledger: what keeps them up to date, and what reads them."""

    def __init__(self, row: LedgerRow, dsn: str) -> None:
        self._dsn = dsn
        self._schema = row.schema
        self._supervisor = ViewSupervisor(dsn, row.schema)
        self.reader = ViewReader(dsn, row.schema)

    def start(self) -> None:
        """Begin to fold."""
        with psycopg.connect(self._dsn, autocommit=True, connect_timeout=5) as connection:
            migrate_views(connection, schema=self._schema)
        self._supervisor.start()

    def close(self) -> None:
        """Stop folding."""
        self._supervisor.stop()
        self.reader.close()

    def standing(self) -> list[ViewStatus]:
        """Say how each view stands."""
        return self._supervisor.status()

    def position(self, view: str) -> ViewPosition:
        """Give how far a view has come, whichever process folds it.

        Asked before the view is read, so that the view holds at least as much.
        """
        return next(p for p in self.reader.select_positions() if p.view == view)
