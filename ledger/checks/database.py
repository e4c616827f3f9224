"""Checks of the database: that it answers, holds what the program knows, and tells the time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ledger.anchors.settings import named_ledgers
from ledger.checks.finding import SETTINGS, bad, ok, warn
from ledger.control import CONTROL_SCHEMA, SQL_DIRECTORY
from ledger.errors import Misconfigured
from ledger.postgres.migrations import read_migrations, schema_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from ledger.checks.finding import Finding
    from ledger.config import Settings
    from ledger.control import LedgerRow

APART_S, FAR_APART_S = 2.0, 60.0
"""Seconds between two clocks at which the doctor warns, and at which it is bad."""

SELECT_CLOCK = "SELECT clock_timestamp()"


def check_clock(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Compare this machine's clock with the database's."""
    before = datetime.now(UTC)
    row = connection.execute(SELECT_CLOCK).fetchone()
    after = datetime.now(UTC)
    if row is None:
        return
    apart_s = max((before - row[0]).total_seconds(), (row[0] - after).total_seconds(), 0.0)
    detail = f"{apart_s:.1f} s apart from the database's"
    if apart_s >= FAR_APART_S:
        yield bad("clock", detail, "set both clocks by NTP: entries bear this machine's time")
    elif apart_s >= APART_S:
        yield warn("clock", detail, "set both clocks by NTP")
    else:
        yield ok("clock", detail)


def check_names(settings: Settings, rows: list[LedgerRow]) -> Iterator[Finding]:
    """Look whether the ledgers that sinks are for exist."""
    try:
        named = named_ledgers(settings)
    except Misconfigured:
        return  # said already, with its place
    for name in sorted(named - {row.name for row in rows}):
        advice = "mend the name in anchors.toml, or custody init makes the ledger"
        yield warn("anchors file", f"a sink is for ledger {name}: there is none", advice)


def check_migrations(
    connection: psycopg.Connection[Any], rows: list[LedgerRow]
) -> Iterator[Finding]:
    """Look whether each schema is at the version of the program."""
    schemas = [(CONTROL_SCHEMA, "control"), *((row.schema, "ledger") for row in rows)]
    for schema, kind in schemas:
        wanted = len(read_migrations(SQL_DIRECTORY / kind))
        found = schema_version(connection, schema)
        if found > wanted:
            yield bad(
                "migrations",
                f"version {found} is newer than the program's {wanted}",
                "run the newer program",
                about=schema,
                code=SETTINGS,
            )
        elif found < wanted:
            yield warn(
                "migrations",
                f"version {found}, the program has {wanted}",
                "custody serve brings it up to date at its start",
                about=schema,
            )
        else:
            yield ok("migrations", f"version {found}", about=schema)
