"""`custody up`: everything that a first try needs, in one process."""

from __future__ import annotations

import signal
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from ledger.cli.client import header_file, own_url, read_key
from ledger.cli.credentials import header
from ledger.cli.group import load_command
from ledger.cli.office import open_office
from ledger.cli.terminal import LedgerName, write_private
from ledger.errors import LedgerError
from ledger.founding import Rights

if TYPE_CHECKING:
    from types import FrameType

    from ledger.config import Settings
    from ledger.founding import Office

RIGHTS = (
    Rights("emitter", "first emitter", sources=("crm",), namespaces=("crm",)),
    Rights("reader", "first reader"),
)
"""What the two credentials may do that every new home gets."""

WAIT_FOR_SERVICE_S = 60.0

FIRST_EVENT = (
    '{"id":"first","type":"record.accessed","subject":"crm:C-10023",'
    '"data":{"actor":{"id":"zhang.wei"},"fields":["phone"],"purpose":"service"}}'
)
"""The smallest useful event; README.md shows the same."""

WELCOME = """\
service       {url}
ledger        {ledger}
verifier key  {key}

Try, in another terminal, in this directory:

1. Record that somebody looked at a customer's phone number:

curl -sS -H @{home}/credentials/{ledger}.emitter -H 'Content-Type: application/json' \\
  -d '{event}' \\
  {url}/v1/ledgers/{ledger}/events

2. Ask what is known of that customer (this question becomes an entry too):

{program} show {ledger} crm:C-10023

3. Check the whole ledger with a script that needs nothing of ours running:

{program} verify {ledger}

Ctrl-C stops the service and its database.
"""


@click.command()
@click.option("--ledger", type=LedgerName(), default="customers", show_default=True)
@click.option("--program", default="custody", hidden=True, help="How the commands call it.")
@click.option("--home-shown", hidden=True, help="How the commands name LEDGER_HOME.")
def up(ledger: str, program: str, home_shown: str | None) -> None:
    """Make what is missing (database, ledger, two credentials) and serve until Ctrl-C.

    The first start makes a ledger with its keys, one emitter's and one reader's credential, and
    prints three commands to try. The credentials lie in LEDGER_HOME/credentials, in files of
    mode 0600 that curl reads, so that no key stands in a shell's history. A second start finds
    everything again.
    """
    # SIGTERM ends a service as Ctrl-C does: in order, the database last.
    signal.signal(signal.SIGTERM, _interrupt)
    with suppress(KeyboardInterrupt), open_office() as office:
        key = ensure(office, ledger)
        home = home_shown or str(office.settings.home)
        text = WELCOME.format(
            url=own_url(office.settings),
            ledger=ledger,
            key=key,
            home=home,
            program=program,
            event=FIRST_EVENT,
        )
        # A daemon: a service that can't start must not be waited for.
        threading.Thread(target=_welcome, args=(office.settings, text), daemon=True).start()
        serve = load_command("serve")
        if serve is not None:
            click.get_current_context().invoke(serve)


def ensure(office: Office, ledger: str) -> str:
    """Make what is missing of a ledger and its credentials; give its verifier key."""
    if not office.keys_file(ledger).exists():
        office.draw_keys(ledger)
    key = office.prepare(ledger)
    with office.open(ledger):
        for rights in RIGHTS:
            _ensure_credential(office, ledger, rights)
    return key


def _ensure_credential(office: Office, ledger: str, rights: Rights) -> None:
    """Keep the credential in its file if it is one of this ledger, else make a new one."""
    path = header_file(office.settings, ledger, rights.role)
    with suppress(LedgerError):
        found = office.control.authenticate(read_key(path))
        if (found.ledger, found.role) == (ledger, rights.role):
            return
    _, key = office.create_credential(ledger, rights)
    write_private(path, header(key))


def _welcome(settings: Settings, text: str) -> None:
    """Print what to try as soon as the service can be reached, so that it works when pasted."""
    address = (urlsplit(own_url(settings)).hostname, settings.port)
    end_s = time.monotonic() + WAIT_FOR_SERVICE_S
    while time.monotonic() < end_s:
        with suppress(OSError), socket.create_connection(address, timeout=1):
            click.echo(text)
            return
        time.sleep(0.05)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
