"""`custody doctor`: what is wrong on this machine, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click
import psycopg

from ledger.checks.database import check_clock, check_migrations, check_names
from ledger.checks.finding import SETTINGS, UNAVAILABLE, bad, ok, verdict
from ledger.checks.ledgers import check_ledger
from ledger.checks.machine import check_anchors_file, check_disk, check_home, check_secrets
from ledger.cli.terminal import json_option, print_json
from ledger.config import read_settings
from ledger.control import Control
from ledger.database import open_database
from ledger.errors import LedgerError, Misconfigured
from ledger.postgres.migrations import schema_version
from ledger.service import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ledger.checks.finding import Finding
    from ledger.config import Settings
    from ledger.control import LedgerRow

ON_THE_MACHINE: Final[tuple[Callable[[Settings], Iterator[Finding]], ...]] = (
    check_home,
    check_secrets,
    check_anchors_file,
    check_disk,
)
"""Checks that need no database."""

OF_THE_READ_SIDE: Final = "projections.checks:check_views"
"""Where the check of the views is: the read side is plugged in, as in `ledger.cli.group`."""

_MARKS: Final = {"ok": "ok  ", "warn": "warn", "bad": "BAD "}
_COLOURS: Final = {"ok": "green", "warn": "yellow", "bad": "red"}


@click.command()
@json_option
def doctor(*, as_json: bool) -> None:
    """Check settings, files, database, signers, anchors and views of this machine.

    Nothing is changed, and no service need run; the embedded database is started for the
    moment if nobody runs it. Each line says whether it is ok, can wait (warn) or needs people
    (bad), and what to do.

    The exit code is 0 where nothing is bad; 1 where something contradicts what was signed;
    2 where settings make no sense; 3 where the database can't be reached; 4 for the rest.
    """
    findings = list(examine())
    if as_json:
        print_json({"verdict": verdict(findings), "findings": [asdict(f) for f in findings]})
    else:
        _print(findings)
    click.get_current_context().exit(verdict(findings))


def examine() -> Iterator[Finding]:
    """Make every check that can be made."""
    try:
        settings = read_settings()
    except Misconfigured as error:
        yield bad("settings", str(error), "mend the environment", code=SETTINGS)
        return
    for check in ON_THE_MACHINE:
        yield from check(settings)
    if settings.database_url is None and not (settings.postgres_home / "data").is_dir():
        yield bad("database", "there is none yet", "custody up makes one", code=UNAVAILABLE)
        return
    try:
        with open_database(settings) as dsn:
            yield from _examine_database(settings, dsn)
    except Misconfigured as error:
        yield bad("database", str(error), "mend the settings", code=SETTINGS)
    except LedgerError as error:
        yield bad("database", str(error), "is it running, is the way open?", code=UNAVAILABLE)


def _examine_database(settings: Settings, dsn: str) -> Iterator[Finding]:
    with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
        yield ok("database", f"PostgreSQL {connection.info.server_version // 10_000} answers")
        yield from check_clock(connection)
        known = schema_version(connection, "custody_control") > 0
        rows = Control(dsn).ledgers() if known else []
        yield from check_migrations(connection, rows)
    yield from check_names(settings, rows)
    if not rows:
        yield bad("ledgers", "there is none yet", "custody init makes one", code=SETTINGS)
    module, _, attribute = OF_THE_READ_SIDE.partition(":")
    check_views: Callable[[str, str, str], Iterator[Finding]]
    check_views = getattr(import_module(module), attribute)
    for row in rows:
        yield from _examine_ledger(row, settings, dsn)
        yield from check_views(dsn, row.name, row.schema)


def _examine_ledger(row: LedgerRow, settings: Settings, dsn: str) -> Iterator[Finding]:
    memory = settings.memory_dir / f"{row.name}.memory"
    if not memory.exists():  # opening the ledger would make an empty one
        advice = "put the file back that belongs to this ledger"
        yield bad("signer", f"expected a memory {memory}", advice, about=row.name)
        return
    try:
        ledger = Ledger(row, settings, dsn)
    except LedgerError as error:
        yield bad("ledger", str(error), "nothing is recorded until it opens", about=row.name)
        return
    try:
        yield from check_ledger(ledger)
    finally:
        ledger.close()


def _print(findings: list[Finding]) -> None:
    for finding in findings:
        mark: Any = click.style(_MARKS[finding.level], fg=_COLOURS[finding.level])
        about = f" {finding.about}" if finding.about else ""
        click.echo(f"{mark}  {finding.check}{about}: {finding.detail}")
        if finding.advice:
            click.echo(f"      {finding.advice}")
