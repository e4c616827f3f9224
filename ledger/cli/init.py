"""`custody init`: make a ledger."""

from __future__ import annotations

import re

import click

from ledger.cli.office import open_office
from ledger.cli.terminal import json_option, ledger_argument, print_json

_ORIGIN = re.compile(r"[a-z0-9][A-Za-z0-9._/-]{0,127}")


@click.command()
@ledger_argument
@click.option(
    "--origin", help="The ledger's name for ever and everywhere, such as a domain and path."
)
@json_option
def init(ledger: str, origin: str | None, *, as_json: bool) -> None:
    """Make a ledger: keys, schema, and entry 1, which says that it was opened.

    LEDGER is a short local name such as `customers`. The origin stands in every entry and
    checkpoint; without --origin it is custody.local/LEDGER/ and 8 random hex digits.

    Prints the verifier key. Give it to auditors by another way than this machine, before they
    need it: whoever gets the key from the same place as the evidence has to trust that place.

    Back up the key file that is named at the end: without it sealed values can't be opened and
    nothing more can be signed.
    """
    if origin is not None and not _ORIGIN.fullmatch(origin):
        raise click.BadParameter("expected up to 128 of A-Z a-z 0-9 . _ / -", param_hint="--origin")
    with open_office() as office:
        key = office.found(ledger, origin)
        row = office.ledger(ledger)
        keys_file = office.keys_file(ledger)
    if as_json:
        print_json({"ledger": ledger, "origin": row.origin, "verifier_key": key})
        return
    click.echo(f"ledger        {ledger}")
    click.echo(f"origin        {row.origin}")
    click.echo(f"verifier key  {key}")
    click.echo(f"key file      {keys_file}  (back it up)")
