"""Operate the read side: `custody rebuild`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
import psycopg

from ledger.config import read_settings
from ledger.control import Control
from ledger.database import open_database
from ledger.errors import LedgerError, NotFound
from projections.catalogue import VIEWS
from projections.rebuild import rebuild as rebuild_views
from projections.schema import migrate_views

if TYPE_CHECKING:
    from ledger.control import LedgerRow
    from projections.rebuild import Rebuilt


@click.command()
@click.argument("ledger")
@click.option(
    "--view",
    "views",
    multiple=True,
    type=click.Choice(list(VIEWS)),
    help="Only this view; may be given again. Without it, all of them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def rebuild(ledger: str, views: tuple[str, ...], as_json: bool) -> None:  # noqa: FBT001 - click
    """Empty the views of LEDGER and fill them again from its log."""
    try:
        with open_database(read_settings()) as dsn:
            row = _find_ledger(Control(dsn), ledger)
            with psycopg.connect(dsn, autocommit=True) as connection:
                migrate_views(connection, schema=row.schema)
            rebuilt = rebuild_views(dsn, row.schema, views)
    except LedgerError as error:
        raise click.ClickException(str(error)) from error
    click.echo(_render(rebuilt, as_json=as_json))


def _find_ledger(control: Control, name: str) -> LedgerRow:
    for row in control.ledgers():
        if row.name == name:
            return row
    raise NotFound("expected the name of a ledger that this database holds")


def _render(rebuilt: Rebuilt, *, as_json: bool) -> str:
    rate = round(rebuilt.entries_per_second)
    if as_json:
        return json.dumps({**asdict(rebuilt), "entries_per_second": rate})
    names = ", ".join(rebuilt.views)
    return f"rebuilt {names}: {rebuilt.entries} entries in {rebuilt.seconds:.1f} s ({rate}/s)"
