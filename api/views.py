"""The one place where the shell meets the projections of a ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from projections.queries import ViewReader
from projections.schema import migrate_views

if TYPE_CHECKING:
    from ledger.control import LedgerRow
    from projections.process import ViewProcess
    from projections.queries import ViewPosition
    from projections.supervisor import ViewStatus


class Views:
    """The views of one ledger: how they stand, and what reads them."""

    def __init__(self, row: LedgerRow, dsn: str, process: ViewProcess) -> None:
        self._dsn = dsn
        self._schema = row.schema
        self._process = process
        self.reader = ViewReader(dsn, row.schema)

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

    def position(self, view: str) -> ViewPosition:
        """Give how far a view has come, whichever process folds it.

        Asked before the view is read, so that the view holds at least as much.
        """
        return next(p for p in self.reader.select_positions() if p.view == view)
