"""`custody export`: take evidence away."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from zipfile import ZipFile

import click

from ledger.cli.client import Client, key_file_option, url_option
from ledger.cli.terminal import json_option, ledger_argument, print_json, working

if TYPE_CHECKING:
    from uuid import UUID


@click.command()
@ledger_argument
@click.option("--record", type=click.UUID, help="A whole record, by its UUID.")
@click.option(
    "--subject-file",
    type=click.File("r", encoding="utf-8"),
    help="A whole record, by the subject that stands in a file, or in stdin (-): subjects are"
    " personal, and a command line can be read by others.",
)
@click.option("--from", "first", type=click.IntRange(1), help="A whole range: first position.")
@click.option("--to", "last", type=click.IntRange(1), help="A whole range: last position.")
@click.option(
    "--accesses",
    is_flag=True,
    help="Only accesses, narrowed by what else is given: record, positions, and the next five.",
)
@click.option(
    "--actor-file",
    type=click.File("r", encoding="utf-8"),
    help="With --accesses: by the member of staff whose name stands in a file, or in stdin (-).",
)
@click.option("--actor", type=click.UUID, help="With --accesses: by somebody's pseudonym.")
@click.option("--type", "type_name", help="With --accesses: of a type, such as record.exported.")
@click.option("--from-time", help="With --accesses: happened then or later (RFC 3339).")
@click.option("--to-time", help="With --accesses: happened before.")
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write the bundle; a file that exists is left alone.",
)
@url_option
@key_file_option
@json_option
def export(
    *,
    ledger: str,
    record: UUID | None,
    subject_file: TextIO | None,
    first: int | None,
    last: int | None,
    accesses: bool,
    actor_file: TextIO | None,
    actor: UUID | None,
    type_name: str | None,
    from_time: str | None,
    to_time: str | None,
    out: Path,
    url: str | None,
    key_file: Path | None,
    as_json: bool,
) -> None:
    """Write an evidence bundle: a zip that verifies without anything of ours running.

    It holds every entry of one record or one range, who looked at it, and the proofs; or, with
    --accesses, only the accesses that were asked for, which is proved to be whole by `custody
    attest` alone. The export becomes an entry too: whoever reads evidence leaves a trace.
    """
    narrowing = {
        "actor": actor_file and actor_file.read().strip(),
        "actor_pseudonym": actor,
        "type": type_name,
        "from_time": from_time,
        "to_time": to_time,
    }
    given = {name: str(value) for name, value in narrowing.items() if value is not None}
    if accesses:
        question = _accesses(record, subject_file, first, last, given)
    elif given:
        raise click.UsageError("expected --accesses with options that narrow accesses")
    else:
        question = _question(record, subject_file, first, last)
    if out.exists():
        raise click.BadParameter(f"expected no file, found {out}", param_hint="--out")
    client = Client(ledger, "reader", url, key_file)
    with working("making the bundle"):
        client.download(f"/v1/ledgers/{ledger}/exports", json.dumps(question).encode(), out)
    summary = _summary(out)
    if as_json:
        print_json(summary)
        return
    for name, value in summary.items():
        click.echo(f"{name:<16}  {json.dumps(value) if isinstance(value, dict) else value}")


def _question(
    record: UUID | None, subject_file: TextIO | None, first: int | None, last: int | None
) -> dict[str, Any]:
    if sum((record is not None, subject_file is not None, (first, last) != (None, None))) != 1:
        raise click.UsageError("expected one of: --record; --subject-file; --from and --to")
    if record is not None:
        return {"record": str(record)}
    if subject_file is not None:
        return {"subject": subject_file.read().strip()}
    if first is None or last is None or first > last:
        raise click.UsageError("expected --from and --to, --from not after --to")
    return {"from": first, "to": last}


def _accesses(
    record: UUID | None,
    subject_file: TextIO | None,
    first: int | None,
    last: int | None,
    given: dict[str, str],
) -> dict[str, Any]:
    if record is not None:
        given["record"] = str(record)
    if subject_file is not None:
        given["subject"] = subject_file.read().strip()
    ends = {name: end for name, end in (("from", first), ("to", last)) if end is not None}
    return {"accesses": given, **ends}


def _summary(path: Path) -> dict[str, Any]:
    """Say what was got, as the bundle itself says it; nothing of that is checked here."""
    with ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    with path.open("rb") as file:
        digest = sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    wanted = ("ledger", "scope", "rows", "first_seq", "last_seq", "as_of", "completeness")
    return {
        "file": str(path),
        "size_bytes": path.stat().st_size,
        "sha256": digest.hexdigest(),
        **{name: manifest[name] for name in (*wanted, "read_seq", "verify")},
    }
