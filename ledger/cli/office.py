"""Open the database and the registry for one command."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ledger.cli.terminal import working
from ledger.config import read_settings
from ledger.control import Control
from ledger.database import open_database
from ledger.founding import Office

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def open_office() -> Iterator[Office]:
    """Give the place where ledgers and credentials are made, for one command."""
    settings = read_settings()
    with open_database(settings) as dsn:
        control = Control(dsn)
        with working("bringing the database up to date"):
            control.migrate()
        yield Office(settings, dsn, control)
