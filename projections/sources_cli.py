"""`custody sources`: what is missing of each source, and how long it has been silent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from ledger.cli.client import Client, key_file_option, url_option
from ledger.cli.terminal import json_option, ledger_argument, print_json

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 1_000
_HEADER = ("source", "instance", "events", "missing", "repeats", "unreceived", "silent")


@click.command()
@ledger_argument
@click.option("--silent-for", type=click.IntRange(1), metavar="SECONDS", help="Only such.")
@click.option("--with-gaps", is_flag=True, help="Only those with missing numbers.")
@url_option
@key_file_option
@json_option
def sources(
    *,
    ledger: str,
    silent_for: int | None,
    with_gaps: bool,
    url: str | None,
    key_file: Path | None,
    as_json: bool,
) -> None:
    """List the sources of LEDGER: numbers that no event had, repeats, and silence.

    `unreceived` is what a source's own report (source.reported) tells of and what isn't here.
    The question becomes an entry: whoever reads evidence leaves a trace.
    """
    client = Client(ledger, "reader", url, key_file)
    question: dict[str, Any] = {"limit": PAGE}
    question |= {} if silent_for is None else {"silent_for_s": silent_for}
    question |= {"with_gaps": "true"} if with_gaps else {}
    found = _pages(client, f"/v1/ledgers/{ledger}/sources", question)
    if as_json:
        print_json(found)
        return
    rows = [_HEADER, *map(_cells, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _pages(client: Client, path: str, question: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = client.get(f"{path}?{urlencode(question)}").document
        found += page["sources"]
        if page["next"] is None:
            return found
        question["after"] = page["next"]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    numbers, report = row["sequence"] or {}, row["report"] or {}
    return (
        row["source"],
        row["instance"] or "",
        str(row["events"]),
        str(numbers.get("missing", "")),
        str(numbers.get("repeats", "")),
        str(report.get("unreceived", "")),
        _duration(row["silent_s"]),
    )


def _duration(seconds: float) -> str:
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
