"""`custody emit`: send events to the running service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import click

from ledger.cli.client import Client, key_file_option, url_option
from ledger.cli.terminal import json_option, ledger_argument, print_json

if TYPE_CHECKING:
    from pathlib import Path

_LINES = (".ndjson", ".jsonl")


@click.command()
@ledger_argument
@click.argument("file", type=click.File("rb"), default="-")
@url_option
@key_file_option
@json_option
def emit(
    ledger: str, file: BinaryIO, url: str | None, key_file: Path | None, *, as_json: bool
) -> None:
    """Send the events in FILE (or stdin) and print their receipts.

    FILE holds one JSON event, a JSON array of them, or, if its name ends in .ndjson or .jsonl,
    one event a line. All are recorded, or none. Sending the same file again is safe: what is
    recorded already is answered with its first receipt.

    Keep the receipts: each names a place in the log that can't be changed unnoticed, and the
    checkpoint signs it.
    """
    body = file.read()
    if file.name.endswith(_LINES):
        body = b"[%b]" % b",".join(line for line in body.splitlines() if line.strip())
    client = Client(ledger, "emitter", url, key_file)
    answer = client.post(f"/v1/ledgers/{ledger}/events", body)
    if as_json:
        print_json(answer.document)
        return
    for receipt in answer.document.get("receipts", [answer.document]):
        _print_receipt(receipt)
    click.echo(answer.document.get("checkpoint") or "The checkpoint is still to come.")


def _print_receipt(receipt: dict[str, Any]) -> None:
    said = "was recorded before as" if receipt["repeated"] else "is recorded as"
    for entry in receipt.get("entries", [receipt]):
        click.echo(
            f"{receipt['id']} {said} entry {entry['seq']}: record {entry['record']}, "
            f"version {entry['version']}, leaf {entry['leaf']}"
        )
    if receipt["incomplete"]:
        click.echo(f"  incomplete, missing: {' '.join(receipt['incomplete'])}")
