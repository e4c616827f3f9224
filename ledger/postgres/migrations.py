"""Bring one schema to the version of the code, by numbered SQL files that only go forward.

A file is called `NNNN_name.sql`; numbers start at 0001 and have no gaps. It names its tables
without a schema, so that one set of files serves every ledger's schema. What was applied is
recorded with the SHA-256 of the file's bytes, so a file can't be changed once it was used.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from ledger.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql", re.ASCII)
SCHEMA_NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """Hold one numbered file."""

    number: int
    """Its place in the order; the first is 1."""

    name: str
    """What follows the number in the file's name, without the ending."""

    statements: bytes
    """The file's bytes, exactly as they are executed and hashed."""

    @property
    def sha256(self) -> bytes:
        """The SHA-256 of the file's bytes (32 bytes)."""
        return hashlib.sha256(self.statements).digest()

    @property
    def file_name(self) -> str:
        """The file's name."""
        return f"{self.number:04d}_{self.name}.sql"


def read_migrations(directory: Path) -> list[Migration]:
    """Return the migrations in `directory`, in order; other files are passed over.

    Raises:
        Misconfigured: a name that starts with a digit is no migration's, a number is missing
            or there twice, or the directory can't be read.
    """
    try:
        paths = sorted(path for path in directory.iterdir() if path.name[0].isdigit())
        found = [_read_migration(path) for path in paths]
    except OSError as error:
        raise Misconfigured(f"migrations in {directory}: can't be read ({error})") from error
    for expected, migration in enumerate(found, start=1):
        if migration.number != expected:
            raise Misconfigured(
                f"migrations in {directory}: expected number {expected:04d} next, "
                f"found {migration.file_name}"
            )
    return found


def _read_migration(path: Path) -> Migration:
    match = FILE_NAME.fullmatch(path.name)
    if match is None:
        raise Misconfigured(f"{path}: expected a name like 0001_name.sql")
    return Migration(number=int(match[1]), name=match[2], statements=path.read_bytes())


def migrate(
    connection: psycopg.Connection[Any],
    *,
    schema: str,
    directory: Path,
    journal: str = "migrations",
) -> list[int]:
    """Apply what `schema` lacks and return the numbers applied here, in order.

    Each migration is a transaction of its own, under a lock of the schema's: after a failure
    the earlier ones stay, the failed one leaves nothing, and callers at the same time apply
    each once. The schema is made if absent. A schema that lacks nothing is only read.

    Args:
        connection: one outside a transaction, in either autocommit mode.
        schema: lower-case name of the target schema.
        directory: holds the numbered files.
        journal: lower-case name of the table, in `schema`, that records the files applied; two
            sets of files in one schema go forward apart.

    Raises:
        Misconfigured: an applied file has changed, the database is newer than the files, a
            migration failed by its own fault, or an argument makes no sense.
        Unavailable: the server ended the connection or a wait; trying again makes sense.
    """
    _check_schema_name(schema)
    _check_schema_name(journal)
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        raise Misconfigured("migrations: expected a connection outside a transaction")
    migrations = read_migrations(directory)
    applied: list[int] = []
    try:
        while (number := _apply_next(connection, schema, journal, migrations)) is not None:
            applied.append(number)
    except psycopg.OperationalError as error:
        raise Unavailable(f"schema {schema}: migrating stopped: {_primary(error)}") from error
    except psycopg.Error as error:
        raise Misconfigured(f"schema {schema}: can't be migrated: {_primary(error)}") from error
    return applied


def schema_version(
    connection: psycopg.Connection[Any], schema: str, *, journal: str = "migrations"
) -> int:
    """Return the number of the last migration applied to `schema`; 0 if there was none.

    Raises:
        Misconfigured: `schema` can't name a schema.
    """
    _check_schema_name(schema)
    with connection.transaction():
        return max(_select_recorded(connection, schema, journal), default=0)


def _check_schema_name(schema: str) -> None:
    # PostgreSQL cuts longer names silently, after which they'd be looked up in vain.
    if not SCHEMA_NAME.fullmatch(schema):
        raise Misconfigured(
            "schema: expected 1 to 63 lower-case letters, digits and underscores, not starting "
            f"with a digit or pg_, found {schema!r}"
        )


# Every number is decided while holding this lock, from rows read after it was granted. READ
# COMMITTED is what makes that true: each statement takes a new snapshot, whereas under the
# stricter levels waiting for the lock would itself fix the snapshot, from before the holder's
# commit, and the holder's migration would be applied a second time. The lock belongs to the
# transaction, so neither a lost connection nor a pooler can leave it behind.
ISOLATE = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
LOCK = "SELECT pg_advisory_xact_lock(%s)"


def _apply_next(
    connection: psycopg.Connection[Any],
    schema: str,
    journal: str,
    migrations: Sequence[Migration],
) -> int | None:
    with connection.transaction():
        connection.execute(ISOLATE)
        connection.execute(LOCK, [_lock_key(schema)])
        recorded = _select_recorded(connection, schema, journal)
        _check_recorded(recorded, schema, migrations)
        if len(recorded) == len(migrations):
            return None
        if not recorded:
            _create_schema(connection, schema, journal)
        migration = migrations[len(recorded)]
        _execute(connection, schema, migration)
        _insert_recorded(connection, schema, journal, migration)
    return migration.number


def _lock_key(schema: str) -> int:
    digest = hashlib.sha256(f"custody ledger, migrations of {schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _check_recorded(
    recorded: Mapping[int, bytes], schema: str, migrations: Sequence[Migration]
) -> None:
    if sorted(recorded) != list(range(1, len(recorded) + 1)):
        raise Misconfigured(
            f"schema {schema}: expected migrations recorded from 1 without gaps, "
            f"found {sorted(recorded)}"
        )
    if len(recorded) > len(migrations):
        raise Misconfigured(
            f"schema {schema}: expected version {len(migrations)} or older, found "
            f"{len(recorded)}. The database is newer than this program: run the newer program"
        )
    for migration in migrations[: len(recorded)]:
        if recorded[migration.number] != migration.sha256:
            raise Misconfigured(
                f"schema {schema}: expected {migration.file_name} as it was applied, SHA-256 "
                f"{recorded[migration.number].hex()}, found {migration.sha256.hex()}. An applied "
                "migration must not change: restore the file and add a new one"
            )


SELECT_HAS_TABLE = """
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_tables WHERE schemaname = %s AND tablename = %s
)"""
SELECT_RECORDED = "SELECT number, sha256 FROM {journal}"


def _select_recorded(
    connection: psycopg.Connection[Any], schema: str, journal: str
) -> dict[int, bytes]:
    row = connection.execute(SELECT_HAS_TABLE, [schema, journal]).fetchone()
    if row is None or not row[0]:
        return {}
    query = sql.SQL(SELECT_RECORDED).format(journal=sql.Identifier(schema, journal))
    return {number: bytes(sha256) for number, sha256 in connection.execute(query)}


# Looked up first: IF NOT EXISTS asks for the right to create even where there is nothing to do.
SELECT_HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s)"
CREATE_SCHEMA = "CREATE SCHEMA {schema}"
CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS {journal} (
    number  integer     PRIMARY KEY CHECK (number > 0),
    name    text        NOT NULL,
    sha256  bytea       NOT NULL CHECK (octet_length(sha256) = 32),
    applied timestamptz NOT NULL DEFAULT clock_timestamp()
)"""


def _create_schema(connection: psycopg.Connection[Any], schema: str, journal: str) -> None:
    identifier = sql.Identifier(schema)
    row = connection.execute(SELECT_HAS_SCHEMA, [schema]).fetchone()
    if row is None or not row[0]:
        connection.execute(sql.SQL(CREATE_SCHEMA).format(schema=identifier))
    table = sql.Identifier(schema, journal)
    connection.execute(sql.SQL(CREATE_TABLE).format(journal=table))


SET_SEARCH_PATH = "SET LOCAL search_path TO {schema}, pg_temp"


def _execute(connection: psycopg.Connection[Any], schema: str, migration: Migration) -> None:
    where = f"schema {schema}, migration {migration.file_name}"
    connection.execute(sql.SQL(SET_SEARCH_PATH).format(schema=sql.Identifier(schema)))
    try:
        connection.execute(migration.statements)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        line = _line_of(error, migration.statements)
        raise Misconfigured(f"{where}, {line}: failed: {_primary(error)}") from error
    if connection.info.transaction_status is not TransactionStatus.INTRANS:
        raise Misconfigured(f"{where}: expected no COMMIT or ROLLBACK, found the transaction ended")


def _primary(error: psycopg.Error) -> str:
    # Never the detail, which can quote rows.
    return f"{error.diag.message_primary or type(error).__name__} (SQLSTATE {error.sqlstate})"


def _line_of(error: psycopg.Error, statements: bytes) -> str:
    position = error.diag.statement_position
    if position is None:
        return "line unknown"
    before = statements.decode("utf-8", "replace")[: int(position)]
    return f"line {before.count(chr(10)) + 1}"


INSERT_RECORDED = "INSERT INTO {journal} (number, name, sha256) VALUES (%s, %s, %s)"


def _insert_recorded(
    connection: psycopg.Connection[Any], schema: str, journal: str, migration: Migration
) -> None:
    query = sql.SQL(INSERT_RECORDED).format(journal=sql.Identifier(schema, journal))
    connection.execute(query, [migration.number, migration.name, migration.sha256])
