"""Run the demonstration: `scripts/demo`."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ledger.cli.client import header_file, own_url, read_key
from ledger.cli.group import INTERRUPTED, UNAVAILABLE, USAGE, exit_code
from ledger.cli.terminal import LedgerName
from ledger.config import read_settings
from ledger.errors import LedgerError, Unavailable
from scripts.demo_ledger import bpic, story
from scripts.demo_ledger.filling import fill_loans, fill_month
from scripts.demo_ledger.proving import Proof, attack, draw_key, verify_bundle, verify_ledger
from scripts.demo_ledger.sending import Target
from scripts.demo_ledger.service import Service
from scripts.demo_ledger.showing import fetch_bundle, show_record

if TYPE_CHECKING:
    from ledger.config import Settings
    from scripts.demo_ledger.sending import Sent

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", help="The service; without it as LEDGER_HOST and LEDGER_PORT say.")
@click.option("--ledger", type=LedgerName(), default="customers", show_default=True)
@click.option("--emitter-key-file", type=_FILE, help="The key that events are sent with.")
@click.option("--reader-key-file", type=_FILE, help="The key that questions are asked with.")
@click.option(
    "--seed",
    type=click.IntRange(0, 999_999),
    default=1,
    show_default=True,
    help="The invented month's seed.",
)
@click.option(
    "--bpic",
    "loans",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="bpic2012.csv or bpic2012.csv.gz: real loan applications instead of an invented month.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the file's first rows.")
@click.option("--no-attack", is_flag=True, help="Change nothing behind the ledger's back.")
def main(
    *,
    url: str | None,
    ledger: str,
    emitter_key_file: Path | None,
    reader_key_file: Path | None,
    seed: int,
    loans: Path | None,
    limit: int | None,
    no_attack: bool,
) -> None:
    """Fill a running ledger, show what it knows, prove it, and try to falsify it.

    Start the service first, in another terminal: scripts/up. Without --bpic a month of a small
    housekeeping company is invented; the same --seed gives the same month, so that a second run
    finds everything recorded. The falsification changes one byte of one entry in the database,
    as its owner could, and puts it back: run it against a ledger for trying things.

    Exit codes are those of `custody`.
    """
    settings = read_settings()
    address = url or own_url(settings)
    folder = settings.home / "demo"
    if not settings.home.is_dir():
        raise Unavailable(f"{settings.home}: expected LEDGER_HOME; scripts/up makes it")
    folder.mkdir(mode=0o700, exist_ok=True)
    if loans is None:
        key = read_key(emitter_key_file or header_file(settings, ledger, "emitter"))
        sent, subject = fill_month(Target(url=address, ledger=ledger, key=key), seed, folder)
    else:
        key = read_key(emitter_key_file or _loan_key_file(settings, ledger))
        sent, subject = fill_loans(Target(url=address, ledger=ledger, key=key), loans, limit)
    reader_file = reader_key_file or header_file(settings, ledger, "reader")
    with Service(address, ledger, read_key(reader_file)) as reader:
        proof = Proof(
            settings=settings,
            ledger=ledger,
            folder=folder,
            checkpoint=_keep_checkpoint(reader, sent, folder / f"{ledger}.checkpoint"),
        )
        _tell(reader, proof, subject, reader_file, falsify=not no_attack)


def _tell(reader: Service, proof: Proof, subject: str, key_file: Path, *, falsify: bool) -> None:
    """Show, prove and attack; each step ends the whole where it fails."""
    story.chapter("What the ledger knows of one customer")
    record, access_seq = show_record(reader, proof.ledger, subject)
    story.chapter("Evidence to take away, checked with the script that an auditor has")
    bundle = fetch_bundle(reader, record, proof.folder, key_file)
    if bundle is not None:
        verify_bundle(proof, bundle)
    story.chapter("The whole database, checked with a key and a checkpoint held outside it")
    verify_ledger(proof)
    if not falsify:
        story.say("Done. Nothing was changed behind the ledger's back (--no-attack).")
        return
    story.chapter("The database's owner changes one byte, past every grant and trigger")
    attack(proof, access_seq)
    story.chapter("With the byte back, everything verifies again")
    verify_ledger(proof)
    story.say("Done.")


def _loan_key_file(settings: Settings, ledger: str) -> Path:
    """Give the place of the key for loans; draw one where there is none.

    The emitter that `custody up` makes may write about customers of the CRM only.
    """
    path = settings.home / "credentials" / f"{ledger}.{bpic.NAMESPACE}"
    if not path.exists():
        story.chapter("Loans have a namespace of their own: an emitter's credential for it")
        rights = ["--source", bpic.SOURCE, "--namespace", bpic.NAMESPACE]
        draw_key(settings, ledger, path, rights)
    return path


def _keep_checkpoint(reader: Service, sent: Sent, path: Path) -> Path:
    """Keep the last checkpoint of the receipts outside the database, as an emitter should."""
    note = sent.checkpoint or reader.get("checkpoint").body.decode()
    path.write_text(note, encoding="utf-8")
    story.say(f"The last receipts' checkpoint is kept in {path}.")
    return path


def run() -> int:
    """Run the command; give its exit code, which is never 1 but for tampering."""
    try:
        main.main(standalone_mode=False, prog_name="scripts/demo")
    except LedgerError as error:
        story.warn(str(error))
        return exit_code(error)
    except click.ClickException as error:
        error.show()
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:
        story.warn(f"{error.filename or 'system'}: {error.strerror}")
        return UNAVAILABLE
    except Exception as error:  # noqa: BLE001 (Python's own code for these would be 1)
        traceback.print_tb(error.__traceback__, file=sys.stderr)
        story.warn(f"a fault of this program: {type(error).__name__}")
        return UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(run())
