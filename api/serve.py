"""The `serve` command: one process, one event loop, a quiet end."""

from __future__ import annotations

import gc
import logging
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import uvicorn

from api.app import create_app
from api.protocol import LimitedProtocol
from ledger.config import read_settings
from ledger.database import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from fastapi import FastAPI

    from ledger.config import Settings

KEEP_ALIVE_S = 75
"""How long a connection may stay idle; longer than common load balancers keep theirs."""
GC_THRESHOLDS = (50_000, 20, 20)
"""Garbage in cycles is rare here; looking for it often doubles the slowest answers' time."""
GRACE_S = 30
"""How long requests may take to finish once the service is told to stop."""


def server_config(app: FastAPI, *, host: str, port: int) -> uvicorn.Config:
    """Give the server's settings; they are the same in tests."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=LimitedProtocol,
        ws="none",
        lifespan="on",
        access_log=False,  # it would hold paths and queries
        log_config=None,
        server_header=False,
        proxy_headers=False,  # who is local is decided by the connection itself
        backlog=2048,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )


@click.command()
@click.option("--host", help="Address to listen on (LEDGER_HOST).")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on (LEDGER_PORT).")
def serve(host: str | None, port: int | None) -> None:
    """Take events in and answer questions, until Ctrl-C or SIGTERM."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    settings = read_settings()
    with _terminable(), open_database(settings) as dsn:
        run(settings, dsn, host=host or settings.host, port=settings.port if port is None else port)


def run(settings: Settings, dsn: str, *, host: str, port: int) -> None:
    """Serve until told to stop; finish what is in flight, close the ledgers.

    Raises:
        LedgerError: the ledgers can't be opened.
    """
    app = create_app(settings, dsn)
    app.state.service.open()  # here, so that what is wrong is said in words
    gc.collect()
    gc.freeze()  # what the start has loaded stays: it need not be looked through again
    gc.set_threshold(*GC_THRESHOLDS)
    names = ", ".join(app.state.service.ledgers) or "none yet (custody init makes one)"
    click.echo(f"ledgers: {names}; listening on http://{host}:{port}", err=True)
    uvicorn.Server(server_config(app, host=host, port=port)).run()


@contextmanager
def _terminable() -> Iterator[None]:
    """End on SIGTERM and Ctrl-C as after any other return: the database is stopped last.

    The server takes both signals while it runs, and raises them again when it is done.
    """

    def end(_number: int, _frame: FrameType | None) -> Any:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
