"""Give whoever needs it the database that the settings mean, for as long as they need it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from ledger.errors import Misconfigured, Unavailable
from ledger.postgres.binaries import OLDEST_MAJOR
from ledger.postgres.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger.config import Settings

CONNECT_TIMEOUT_S = 5


@contextmanager
def open_database(settings: Settings) -> Iterator[str]:
    """Give a libpq connection string; the server behind it lives at least as long as the block.

    A server named by `LEDGER_DATABASE_URL` is only connected to. The embedded one is started
    and stopped here, unless another process runs it already: then that one is used, and ends
    when that process ends.

    Raises:
        Misconfigured: the server is older than supported, or the embedded one can't be run.
        Unavailable: the database can't be reached, or was lost inside the block.
    """
    try:
        if settings.database_url is not None:
            _check_version(settings.database_url)
            yield settings.database_url
        else:
            with _embedded(settings) as dsn:
                _check_version(dsn)
                yield dsn
    except psycopg.Error as error:
        # Never the server's own words: they can quote rows, and a URL can hold a password.
        state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
        raise Unavailable(f"the database can't be reached or refused to work{state}") from error


@contextmanager
def _embedded(settings: Settings) -> Iterator[str]:
    server = EmbeddedPostgres(settings.postgres_home, pg_bin=settings.pg_bin)
    try:
        yield server.find_running() or _start(server)
    finally:
        server.stop()  # does nothing to a server that another process runs


def _start(server: EmbeddedPostgres) -> str:
    try:
        server.start()
    except Misconfigured:
        # Another process may have been quicker.
        running = server.find_running()
        if running is None:
            raise
        return running
    return server.dsn


SHOW_VERSION = "SELECT current_setting('server_version_num')::int / 10000"


def _check_version(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S) as connection:
        row = connection.execute(SHOW_VERSION).fetchone()
    major = 0 if row is None else int(row[0])
    if major < OLDEST_MAJOR:
        raise Misconfigured(f"database: expected PostgreSQL {OLDEST_MAJOR} or newer, found {major}")
