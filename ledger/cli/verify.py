"""`custody verify`: run the verifier on a ledger of this machine, a service, or a bundle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import ledger
from ledger.cli.terminal import LedgerName
from ledger.config import read_settings
from ledger.database import open_database
from ledger.errors import CannotVerify, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger.config import Settings

SCRIPT = Path(ledger.__file__).resolve().parent.parent / "scripts" / "verify_chain.py"
"""The verifier: one file that imports nothing of ours, so it is run, not imported."""

MAX_ANCHORS = 1_000
"""Most files of this machine that are compared; each covers all entries before it."""

_FILE = click.Path(exists=True, dir_okay=False)


@click.command()
@click.argument("what", metavar="LEDGER|URL|BUNDLE")
@click.option("--key", help="Verifier key to trust, got by another way than from this machine.")
@click.option(
    "--checkpoint",
    multiple=True,
    type=click.Path(exists=True),
    help="Checkpoint held outside the database, or a folder of them; can be given several times.",
)
@click.option(
    "--receipts",
    multiple=True,
    type=_FILE,
    help="What the service acknowledged, an answer of POST events a line: none of it may be"
    " missing. Can be given several times.",
)
@click.option("--credential", type=_FILE, help="A reader's, for a URL; without it, only hashes.")
@click.option(
    "--state",
    type=click.Path(dir_okay=False),
    help="Go on from where the last run ended, or was interrupted, and leave the state here.",
)
@click.option("--full", is_flag=True, help="Read all entries again, whatever --state holds.")
@click.option(
    "--from-checkpoint", type=_FILE, help="Read only what comes after this checkpoint held."
)
@click.option(
    "--witness-key", multiple=True, help="Witness (type 04) whose cosignatures are asked for."
)
@click.option("--witness-quorum", type=int, help="How many of the witnesses it takes [all].")
@click.option("--attestation", type=_FILE, help="An auditor's, about a bundle's filter.")
@click.option("--attestor-key", help="The auditor's verifier key.")
@click.option("--json", is_flag=True, help="Print the verdict as JSON on stdout.")
def verify(what: str, **options: Any) -> None:
    """Check a whole ledger, or an evidence bundle (a .zip file), entry by entry.

    Runs scripts/verify_chain.py, which trusts neither the database nor this program. A LEDGER is
    read from this machine's database, a URL (https://HOST/v1/ledgers/NAME) from a running
    service's tiles.

    Without --key a LEDGER's is the one that this machine noted when the ledger was made, and
    without --checkpoint the checkpoints are those in LEDGER_ANCHOR_DIR: whoever controls this
    machine controls those too. An auditor gives both from outside.

    The exit code is the verdict: 0 verified, 1 tampering found, 4 not everything could be
    checked. 2 and 3 are no verdict, nor is 130: interrupted, to be taken up with --state.
    """
    if not SCRIPT.exists():
        raise Unavailable(
            f"{SCRIPT}: expected the verifier, found none. It is part of the source, not of the "
            "installed package: take it from there and run it on its own"
        )
    if what.startswith(("http://", "https://")):
        code = _run(["--log", what, *_arguments(options)])
    elif Path(what).is_file():
        code = _run([what, *_arguments(options)])
    else:
        code = _verify_ledger(LedgerName()(what), options)
    click.get_current_context().exit(code)


def _verify_ledger(name: str, options: dict[str, Any]) -> int:
    settings = read_settings()
    if options["key"] is None:
        options["key"] = _pinned(settings, name)
        click.echo(
            f"key: noted on this machine ({settings.home / 'pins'}); give --key to trust another",
            err=True,
        )
    if not options["checkpoint"]:
        anchored = sorted((settings.anchor_dir / name).glob("*.checkpoint"))
        options["checkpoint"] = tuple(anchored[-MAX_ANCHORS:])
        click.echo(
            f"checkpoints: newest {len(options['checkpoint'])} of {len(anchored)} in "
            f"{settings.anchor_dir / name} on this machine",
            err=True,
        )
    with open_database(settings) as dsn:
        return _run(["--schema", f"ledger_{name}", *_arguments(options)], dsn=dsn)


def _pinned(settings: Settings, name: str) -> str:
    path = settings.home / "pins" / f"{name}.vkey"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise CannotVerify(
            f"{path}: expected the verifier key noted when the ledger was made, found none; "
            "give one with --key"
        ) from error


def _arguments(options: dict[str, Any]) -> list[str]:
    """Write options as the verifier has them: they bear the same names there."""
    arguments: list[str] = []
    for name, value in options.items():
        values = value if isinstance(value, tuple) else () if value in {None, False} else (value,)
        for each in values:
            arguments.append(f"--{name.replace('_', '-')}")
            arguments += [] if each is True else [str(each)]
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
    process = subprocess.Popen(command, env=environment)
    with _signals_passed_to(process):
        return process.wait()


@contextmanager
def _signals_passed_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let the verifier end in its own way: it keeps what it has read."""

    def pass_on(number: int, _: object) -> None:
        process.send_signal(number)

    before = {each: signal.signal(each, pass_on) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
