"""Bring the views' tables in a ledger's schema up to date."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.postgres.migrations import migrate

if TYPE_CHECKING:
    import psycopg

SQL_DIRECTORY = Path(str(files("projections"))) / "sql"
JOURNAL = "view_migrations"
"""The views' own record of applied files: they go forward apart from the log's."""


def migrate_views(connection: psycopg.Connection[Any], *, schema: str) -> list[int]:
    """Make or extend the views' tables; give the numbers of the files applied.

    Raises:
        Misconfigured: as `ledger.postgres.migrations.migrate` says.
        Unavailable: the server ended the connection or a wait.
    """
    return migrate(connection, schema=schema, directory=SQL_DIRECTORY, journal=JOURNAL)
