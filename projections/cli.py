"""Operate the read side: `custody rebuild`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click
import psycopg

from ledger.cli.terminal import json_option, ledger_argument, print_json, working
from ledger.config import read_settings
from ledger.control import Control
from ledger.database import open_database
from ledger.errors import NotFound
from projections.catalogue import VIEWS
from projections.rebuild import rebuild as rebuild_views
from projections.schema import migrate_views

if TYPE_CHECKING:
    from ledger.control import LedgerRow


@click.command()
@ledger_argument
@click.option(
    "--view",
    "views",
    multiple=True,
    type=click.Choice(list(VIEWS)),
    help="Only this view; can be given several times. Without it, all of them.",
)
@json_option
def rebuild(*, ledger: str, views: tuple[str, ...], as_json: bool) -> None:
    """Empty the views of LEDGER and fill them again from its log.

    A running service may go on: its own folding pauses meanwhile, and readers see how far
    the views have come.
    """
    with open_database(read_settings()) as dsn:
        row = _find_ledger(Control(dsn), ledger)
        with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
            migrate_views(connection, schema=row.schema)
        with working("rebuilding the views"):
            rebuilt = rebuild_views(dsn, row.schema, views)
    rate = round(rebuilt.entries_per_second)
    if as_json:
        print_json({**asdict(rebuilt), "entries_per_second": rate})
        return
    names = ", ".join(rebuilt.views)
    click.echo(f"rebuilt {names}: {rebuilt.entries} entries in {rebuilt.seconds:.1f} s ({rate}/s)")


def _find_ledger(control: Control, name: str) -> LedgerRow:
    for row in control.ledgers():
        if row.name == name:
            return row
    raise NotFound("expected the name of a ledger that this database holds")
