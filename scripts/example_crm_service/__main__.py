"""Run the example: `scripts/example_crm`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click
import httpx
import uvicorn

from ledger.cli.client import header_file, own_url, read_key
from ledger.cli.group import INTERRUPTED, UNAVAILABLE, USAGE, exit_code
from ledger.cli.terminal import LedgerName
from ledger.client import AsyncClient
from ledger.config import read_settings
from ledger.errors import CannotVerify, LedgerError, Unavailable
from scripts.demo_ledger import story
from scripts.demo_ledger.service import Service
from scripts.demo_ledger.showing import show_record
from scripts.example_crm_service.crm import make_crm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

    from ledger.config import Settings

SHOWN = "CRM-1"
REQUESTS = (
    ("GET", f"/customers/{SHOWN}", "zhang.wei", None),
    ("PATCH", f"/customers/{SHOWN}", "zhang.wei", {"city": "苏州"}),
    ("POST", f"/customers/{SHOWN}/courier", "li.na", None),
    ("GET", "/customers/CRM-2", "li.na", None),
    ("GET", "/customers/CRM-404", "li.na", None),
)
ACKNOWLEDGED_S = 30.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", help="The ledger's service; without it as LEDGER_HOST and LEDGER_PORT say.")
@click.option("--ledger", type=LedgerName(), default="customers", show_default=True)
def main(*, url: str | None, ledger: str) -> None:
    """Run a tiny CRM on a running ledger, ask it a few things, show what the ledger knows then.

    Start the ledger first, in another terminal: scripts/up. The CRM's outbox is a file in
    LEDGER_HOME; what a run could not send, the next one sends. Exit codes are those of `custody`.
    """
    settings = read_settings()
    if not settings.home.is_dir():
        raise Unavailable(f"{settings.home}: expected LEDGER_HOME; scripts/up makes it")
    address = url or own_url(settings)
    asyncio.run(emit(settings, address, ledger))
    reader_file = header_file(settings, ledger, "reader")
    story.chapter("What the ledger knows of one customer")
    with Service(address, ledger, read_key(reader_file)) as reader:
        show_record(reader, ledger, f"crm:{SHOWN}")
    story.say("Done. The service is scripts/example_crm_service/crm.py.")


async def emit(settings: Settings, address: str, ledger: str) -> None:
    """Run the CRM, ask it, and wait until the ledger has acknowledged everything.

    Raises:
        Unavailable: the ledger doesn't answer; the events wait in the outbox.
        TamperDetected: receipts and ledger differ.
    """
    async with AsyncClient(
        address,
        ledger,
        key_file=header_file(settings, ledger, "emitter"),
        source="crm",
        outbox=settings.home / f"example-crm.{ledger}.outbox",
        verifier_key=pinned_key(settings, ledger),
    ) as client:
        story.chapter("A tiny CRM whose requests become events")
        await ask_around(make_crm(client))
        health = client.health()
        story.say(f"{health.waiting + health.recorded} events are stored in the outbox or beyond.")
        await client.flush(ACKNOWLEDGED_S)
        refused = len(client.refused())
        story.say(f"{client.health().recorded} acknowledged, {refused} refused, none lost.")
        story.chapter("Every receipt's entry, asked for again with a reader's key")
        found = await client.reconcile(key_file=header_file(settings, ledger, "reader"))
        found.require_ok()
        story.say(f"{found.checked} entries stand where their receipts say, byte for byte.")
        for each in found.not_checked:
            story.say(f"not checked: {each}")


async def ask_around(crm: FastAPI) -> None:
    """Serve the CRM and send it the requests of a working day."""
    async with serving(crm) as address, httpx.AsyncClient(base_url=address) as browser:
        for method, path, user, body in REQUESTS:
            answer = await browser.request(method, path, json=body, headers={"X-User": user})
            story.say(f"{user:<10} {method:<6} {path:<28} {answer.status_code}")


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """Serve on a free port of this machine until the block ends."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            if task.done():
                raise Unavailable("the CRM did not start")
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def pinned_key(settings: Settings, ledger: str) -> str:
    """Give the verifier key that this machine noted when the ledger was made.

    A real service gets it another way than from the machine that it checks.

    Raises:
        CannotVerify: there is none.
    """
    path = settings.home / "pins" / f"{ledger}.vkey"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise CannotVerify(f"{path}: expected the ledger's verifier key") from error


def run() -> int:
    """Run the command; give its exit code, which is never 1 but for tampering."""
    try:
        main.main(standalone_mode=False, prog_name="scripts/example_crm")
    except LedgerError as error:
        story.warn(str(error))
        return exit_code(error)
    except click.ClickException as error:
        error.show()
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (OSError, httpx.HTTPError) as error:
        story.warn(f"{type(error).__name__}")
        return UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(run())
