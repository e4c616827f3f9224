"""`custody show`: what the ledger knows of one customer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ledger.cli.client import Client, key_file_option, url_option
from ledger.cli.terminal import json_option, ledger_argument, print_json

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 1_000


@click.command()
@ledger_argument
@click.argument("subject")
@url_option
@key_file_option
@json_option
def show(
    ledger: str, subject: str, url: str | None, key_file: Path | None, *, as_json: bool
) -> None:
    """Print how one customer's record stands, and everything that happened to it, in order.

    SUBJECT is namespace:id, such as crm:C-10023. It goes to the service in a request's body,
    never in a URL. The questions themselves become entries: whoever reads evidence leaves a trace.

    Staff stand under their pseudonyms, and sealed values under their digests.
    """
    client = Client(ledger, "reader", url, key_file)
    question = json.dumps({"subject": subject}).encode()
    place = f"/v1/ledgers/{ledger}/records"
    record = client.post(f"{place}/lookup", question).document["record"]
    found = _entries(client, f"{place}/{record}/entries?limit={PAGE}")
    # As of the last entry shown, folded from the entries: a view may lag behind them.
    state = client.get(f"{place}/{record}/state?seq={found[-1]['seq']}").document["state"]
    if as_json:
        print_json({"record": record, "state": state, "entries": found})
        return
    click.echo(f"record  {record}, versions 1 to {found[-1]['entry']['version']}")
    click.echo(f"status  {state.get('status', 'never_collected').replace('_', ' ')}")
    if state.get("fields"):
        click.echo(f"fields  {', '.join(state['fields'])}")
    for purpose, consent in state.get("consents", {}).items():
        click.echo(f"consent {purpose}: {consent['state']}, entry {consent['since']['seq']}")
    for item in found:
        _print_entry(item["seq"], item["entry"])


def _entries(client: Client, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: int | None = None
    while not found or after is not None:
        page = client.get(path if after is None else f"{path}&after={after}").document
        found += page["entries"]
        after = page["next"]
    return found


def _print_entry(seq: int, entry: dict[str, Any]) -> None:
    event = entry["event"]
    kind = event["type"]
    if kind.startswith("ledger."):
        kind = kind.removeprefix("ledger.").rsplit(".", 1)[0]
    parts = [f"by {event['data']['actor']['id']}"] if _has_actor(event) else []
    for name, value in event.get("data", {}).items():
        if name != "actor":
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            parts.append(f"{name}: {text}")
    if entry["sealed"]:
        parts.append(f"sealed: {', '.join(entry['sealed'])}")
    click.echo(f"{seq:>8}  {entry['recorded']}  {kind:<20} {'; '.join(parts)}")


def _has_actor(event: dict[str, Any]) -> bool:
    actor = event.get("data", {}).get("actor")
    return isinstance(actor, dict) and "id" in actor
