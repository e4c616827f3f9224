"""`custody verify`: run the verifier on a ledger of this machine, or on a bundle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import ledger
from ledger.cli.terminal import LedgerName
from ledger.config import read_settings
from ledger.database import open_database
from ledger.errors import CannotVerify, Unavailable

if TYPE_CHECKING:
    from ledger.config import Settings

SCRIPT = Path(ledger.__file__).resolve().parent.parent / "scripts" / "verify_chain.py"
"""The verifier: one file that imports nothing of ours, so it is run, not imported."""

MAX_ANCHORS = 1_000
"""Most files of this machine that are compared; each covers all entries before it."""


@click.command()
@click.argument("what", metavar="LEDGER|BUNDLE")
@click.option("--key", help="Verifier key to trust, got by another way than from this machine.")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Checkpoint held outside the database; can be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON on stdout.")
def verify(what: str, key: str | None, checkpoints: tuple[Path, ...], *, as_json: bool) -> None:
    """Check a whole ledger, or an evidence bundle (a .zip file), entry by entry.

    Runs scripts/verify_chain.py, which trusts neither the database nor this program. Without
    --key it takes the verifier key that this machine noted when the ledger was made, and
    without --checkpoint the checkpoints in LEDGER_ANCHOR_DIR: whoever controls this machine
    controls those too. An auditor gives both from outside.

    The exit code is the verdict: 0 verified, 1 tampering found, 4 not everything could be
    checked. 2 and 3 are no verdict.
    """
    if not SCRIPT.exists():
        raise Unavailable(
            f"{SCRIPT}: expected the verifier, found none. It is part of the source, not of the "
            "installed package: take it from there and run it on its own"
        )
    options = ["--json"] if as_json else []
    if Path(what).is_file():
        code = _run([what, *options, *_outside(key, checkpoints)])
    else:
        code = _verify_ledger(LedgerName()(what), options, key, checkpoints)
    click.get_current_context().exit(code)


def _verify_ledger(
    name: str, options: list[str], key: str | None, checkpoints: tuple[Path, ...]
) -> int:
    settings = read_settings()
    if key is None:
        key = _pinned(settings, name)
        click.echo(
            f"key: noted on this machine ({settings.home / 'pins'}); give --key to trust another",
            err=True,
        )
    if not checkpoints:
        anchored = sorted((settings.anchor_dir / name).glob("*.checkpoint"))
        checkpoints = tuple(anchored[-MAX_ANCHORS:])
        click.echo(
            f"checkpoints: newest {len(checkpoints)} of {len(anchored)} in "
            f"{settings.anchor_dir / name} on this machine",
            err=True,
        )
    with open_database(settings) as dsn:
        return _run(["--schema", f"ledger_{name}", *options, *_outside(key, checkpoints)], dsn=dsn)


def _pinned(settings: Settings, name: str) -> str:
    path = settings.home / "pins" / f"{name}.vkey"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise CannotVerify(
            f"{path}: expected the verifier key noted when the ledger was made, found none; "
            "give one with --key"
        ) from error


def _outside(key: str | None, checkpoints: tuple[Path, ...]) -> list[str]:
    arguments = [] if key is None else ["--key", key]
    for path in checkpoints:
        arguments += ["--checkpoint", str(path)]
    return arguments


def _run(arguments: list[str], *, dsn: str | None = None) -> int:
    command, environment = [sys.executable, str(SCRIPT), *arguments], dict(os.environ)
    if dsn is not None:
        # The password goes by the environment: other users can read a process's arguments.
        parts = conninfo_to_dict(dsn)
        password = parts.pop("password", None)
        if password is not None:
            environment["PGPASSWORD"] = str(password)
        command += ["--database", make_conninfo("", **parts)]
    return subprocess.run(command, env=environment, check=False).returncode
