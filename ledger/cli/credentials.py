"""`custody credentials`: who may write to a ledger, who may read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ledger.cli.office import open_office
from ledger.cli.terminal import json_option, ledger_argument, print_json, write_private
from ledger.founding import Rights

if TYPE_CHECKING:
    from ledger.control import Role


@click.group()
def credentials() -> None:
    """Create, list and revoke credentials.

    Every change is also an entry of the ledger (ledger.credential_changed).
    """


@credentials.command()
@ledger_argument
@click.option("--role", type=click.Choice(["emitter", "reader"]), required=True)
@click.option("--label", required=True, help="What people call it. Name no person here.")
@click.option(
    "--source", "sources", multiple=True, help="Prefix of `source`; the first is the default."
)
@click.option(
    "--namespace", "namespaces", multiple=True, help="Namespace of subjects, or * for any."
)
@click.option(
    "--type", "types", multiple=True, help="Event type, such as record.accessed; none for all."
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the key to a file of mode 0600 that curl takes with -H @FILE, and don't print it.",
)
@json_option
def create(
    *,
    ledger: str,
    role: Role,
    label: str,
    sources: tuple[str, ...],
    namespaces: tuple[str, ...],
    types: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Draw a key. It is shown once and never kept: only its hash is.

    An emitter writes events and never reads; a reader reads and never writes. An emitter is
    bound to --source and --namespace, both of which can be given several times.
    """
    if role == "reader" and (sources or namespaces or types):
        raise click.UsageError("--source, --namespace and --type are for emitters")
    if out is not None and out.exists():
        raise click.BadParameter(f"expected no file, found {out}", param_hint="--out")
    rights = Rights(role, label, sources, namespaces, types)
    with open_office() as office:
        credential, key = office.create_credential(ledger, rights)
    document: dict[str, Any] = {"id": credential.id, "ledger": ledger, "role": role}
    if out is None:
        document["key"] = key
    else:
        write_private(out, header(key))
        document["file"] = str(out)
    if as_json:
        print_json(document)
        return
    for name, value in document.items():
        click.echo(f"{name:<8}{value}")


@credentials.command(name="list")
@ledger_argument
@json_option
def list_credentials(ledger: str, *, as_json: bool) -> None:
    """List a ledger's credentials, living and revoked."""
    with open_office() as office:
        office.ledger(ledger)
        rows = office.control.credentials(ledger)
    if as_json:
        print_json([{name: _plain(value) for name, value in row.items()} for row in rows])
        return
    for row in rows:
        state = f"revoked {row['revoked']:%Y-%m-%d}" if row["revoked"] else "living"
        click.echo(f"{row['id']}  {row['role']:<8} {state:<19} {row['label']}")
        for name in ("sources", "namespaces", "types"):
            if row[name]:
                click.echo(f"    {name}: {', '.join(row[name])}")


@credentials.command()
@ledger_argument
@click.argument("credential")
@json_option
def revoke(ledger: str, credential: str, *, as_json: bool) -> None:
    """End a credential, named by its ck_… identifier. Services refuse it within 5 seconds."""
    with open_office() as office:
        office.revoke_credential(ledger, credential)
    if as_json:
        print_json({"id": credential, "ledger": ledger, "revoked": True})
    else:
        click.echo(f"revoked {credential}")


def header(key: str) -> str:
    """Write a key as the header that curl reads with `-H @FILE`."""
    return f"Authorization: Bearer {key}\n"


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
