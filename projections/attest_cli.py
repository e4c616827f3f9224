"""`custody attest`: what an auditor signs who has replayed a whole range."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ledger.cli.terminal import json_option, print_json, working
from ledger.core.note import parse_verifier, sign_note
from ledger.core.strict_json import check_strict
from ledger.errors import Misconfigured
from projections.attest import attest as replay
from projections.attestation import parse_filter
from projections.attestor import load_key, make_key

if TYPE_CHECKING:
    from projections.attestation import Attestation, Filter

_FILE = click.Path(dir_okay=False, path_type=Path)
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("ranges", metavar="[RANGE.zip]...", nargs=-1, type=_EXISTING)
@click.option(
    "--ledger-key", help="The ledger's verifier key, got by another way than these files."
)
@click.option("--bundle", "chosen", type=_EXISTING, help="The bundle of accesses to compare with.")
@click.option("--filter", "wanted", help="A filter as JSON, where there is no such bundle.")
@click.option("--key", required=True, type=_FILE, help="File with the auditor's own private key.")
@click.option("--new-key", metavar="NAME", help="Make that key under this name, and nothing else.")
@click.option("--out", type=_FILE, help="Where to write the attestation; else it goes to stdout.")
@json_option
def attest(
    *,
    ranges: tuple[Path, ...],
    ledger_key: str | None,
    chosen: Path | None,
    wanted: str | None,
    key: Path,
    new_key: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Replay bundles of whole, adjoining ranges, and sign which accesses are in them.

    Run by an auditor, on their own machine, with their own key; no database, no service and
    no key of the ledger is needed. With --bundle the attestation turns a filtered bundle's
    completeness from asserted into proved, or says which entry the bundle lacks or adds; then
    nothing is signed, and the exit code is 1.
    """
    if new_key is not None:
        if ranges or ledger_key or chosen or wanted or out:
            raise click.UsageError("--new-key takes nothing but --key")
        verifier_key = make_key(new_key, key).verifier.verifier_key()
        _tell({"name": new_key, "file": str(key), "verifier_key": verifier_key}, as_json=as_json)
        return
    if not ranges or ledger_key is None or (chosen is None) == (wanted is None):
        raise click.UsageError("expected RANGE.zip, --ledger-key, and one of --bundle and --filter")
    if out is not None and out.exists():
        raise click.BadParameter(f"expected no file, found {out}", param_hint="--out")
    signer, ledger = load_key(key), parse_verifier(ledger_key)
    if signer.verifier.name == ledger.name:
        raise Misconfigured("expected a key under the auditor's own name, found the ledger's")
    with working("verifying and replaying"):
        found = replay(ranges, ledger, chosen=chosen, wanted=_filter(wanted))
    note = sign_note(found.text(), [signer])
    if out is not None:
        with out.open("x", encoding="utf-8", newline="") as file:
            file.write(note)
    summary = _summary(found, signer.verifier.name, out)
    if as_json:
        print_json({**summary, "attestation": note})
        return
    # The note alone goes to stdout, so that it can be kept with `>`.
    _tell(summary, as_json=False, err=out is None)
    if out is None:
        click.echo(note, nl=False)


def _filter(text: str | None) -> Filter | None:
    if text is None:
        return None
    raw = text.encode()
    check_strict(raw)
    return parse_filter(json.loads(raw))


def _summary(found: Attestation, name: str, out: Path | None) -> dict[str, object]:
    return {
        "ledger": found.origin,
        "range": f"{found.first} to {found.last}",
        "checkpoint": found.size,
        "filter": found.filter.text(),
        "matches": found.count,
        "digest": found.digest,
        "signed_by": name,
        **({} if out is None else {"file": str(out)}),
    }


def _tell(lines: dict[str, object], *, as_json: bool, err: bool = False) -> None:
    if as_json:
        print_json(lines)
        return
    for name, value in lines.items():
        click.echo(f"{name:<12}  {value}", err=err)
