"""What `custody doctor` asks of the views: how far each has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from ledger.checks.finding import bad, ok, warn
from ledger.errors import LedgerError
from ledger.postgres.migrations import read_migrations, schema_version
from projections.queries import ViewReader
from projections.schema import JOURNAL, SQL_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger.checks.finding import Finding

BEHIND = 10_000
"""Entries that a view may lack before the doctor warns."""


def check_views(dsn: str, ledger: str, schema: str) -> Iterator[Finding]:
    """Look at the version of the views' tables, and at each view's position."""
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
            found = schema_version(connection, schema, journal=JOURNAL)
        if found == len(read_migrations(SQL_DIRECTORY)):
            yield from _positions(dsn, ledger, schema)
        else:
            advice = "custody serve brings them up to date at its start"
            yield warn("views", f"tables of version {found}", advice, about=ledger)
    except (LedgerError, psycopg.Error) as error:
        advice = "see what is said of the database; custody rebuild fills views again"
        yield bad("views", type(error).__name__, advice, about=ledger)


def _positions(dsn: str, ledger: str, schema: str) -> Iterator[Finding]:
    reader = ViewReader(dsn, schema)
    try:
        for view in reader.select_positions():
            about, detail = f"{ledger}/{view.view}", f"at entry {view.position}"
            if view.lag > BEHIND:
                advice = "is the service running? its log says where a view stopped"
                yield warn("view", f"{detail}, {view.lag} behind", advice, about=about)
            else:
                yield ok("view", detail, about=about)
    finally:
        reader.close()
