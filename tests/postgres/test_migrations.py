"""Run migrations together, changed, too new and failing, on both supported ends of PostgreSQL."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

import ledger.postgres
from ledger.errors import LedgerError, Misconfigured, Unavailable
from ledger.postgres.migrations import migrate, read_migrations, schema_version

FIRST = "CREATE TABLE entry (number int PRIMARY KEY);\nINSERT INTO entry VALUES (1);\n"
SECOND = "-- 100 % sure\nALTER TABLE entry ADD COLUMN body text DEFAULT '{}';\n"
THIRD = "CREATE VIEW latest AS SELECT max(number) AS number FROM entry;\n"


@pytest.fixture(params=["database", "database_15"])
def dsn(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write(tmp_path, first=FIRST, second=SECOND, third=THIRD)
    return tmp_path


def write(directory: Path, **statements: str) -> None:
    for number, (name, text) in enumerate(statements.items(), start=1):
        (directory / f"{number:04d}_{name}.sql").write_text(text)


def relations(connection: psycopg.Connection, schema: str) -> set[str]:
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind <> 'i'",
        [schema],
    )
    return {row[0] for row in rows}


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_new_schema_gets_every_migration_and_a_second_run_none(
    dsn: str, directory: Path, *, autocommit: bool
):
    with psycopg.connect(dsn, autocommit=autocommit) as connection:
        assert schema_version(connection, "one") == 0
        assert migrate(connection, schema="one", directory=directory) == [1, 2, 3]
        assert migrate(connection, schema="one", directory=directory) == []
        assert schema_version(connection, "one") == 3
    with psycopg.connect(dsn) as connection:
        assert relations(connection, "one") == {"entry", "latest", "migrations"}
        assert connection.execute("SELECT number, body FROM one.entry").fetchall() == [(1, "{}")]
        recorded = connection.execute(
            "SELECT number, name, sha256, applied <= clock_timestamp() FROM one.migrations"
        ).fetchall()
    assert recorded == [
        (number, name, hashlib.sha256(text.encode()).digest(), True)
        for number, name, text in [(1, "first", FIRST), (2, "second", SECOND), (3, "third", THIRD)]
    ]


def test_only_what_is_new_is_applied(dsn: str, tmp_path: Path):
    with psycopg.connect(dsn) as connection:
        write(tmp_path, first=FIRST)
        assert migrate(connection, schema="one", directory=tmp_path) == [1]
        write(tmp_path, first=FIRST, second=SECOND)
        assert migrate(connection, schema="one", directory=tmp_path) == [2]


def test_schemas_have_versions_of_their_own_and_the_search_path_stays(dsn: str, directory: Path):
    with psycopg.connect(dsn) as connection:
        before = connection.execute("SHOW search_path").fetchone()
        connection.commit()
        migrate(connection, schema="one", directory=directory)
        assert schema_version(connection, "two") == 0
        assert migrate(connection, schema="two", directory=directory) == [1, 2, 3]
        assert relations(connection, "public") == set()
        assert connection.execute("SHOW search_path").fetchone() == before


def test_callers_at_the_same_time_apply_each_migration_once(dsn: str, directory: Path):
    callers = 6
    together = threading.Barrier(callers)

    def call(number: int) -> list[int]:
        with psycopg.connect(dsn, autocommit=bool(number % 2)) as connection:
            # The stricter levels fix their snapshot early; the runner must not depend on it.
            connection.isolation_level = psycopg.IsolationLevel(1 + number % 4)
            together.wait(10)
            return migrate(connection, schema="one", directory=directory)

    with ThreadPoolExecutor(callers) as pool:
        applied = [number for numbers in pool.map(call, range(callers)) for number in numbers]
    assert sorted(applied) == [1, 2, 3]


def test_a_migration_waits_for_one_under_way_and_then_sees_it(dsn: str, directory: Path):
    (directory / "0001_first.sql").write_text("SELECT pg_sleep(0.3);\n" + FIRST)
    results: list[list[int]] = []

    def call() -> None:
        with psycopg.connect(dsn) as connection:
            connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            results.append(migrate(connection, schema="one", directory=directory))

    with psycopg.connect(dsn) as watcher:
        watcher.autocommit = True
        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        waited = False
        while any(thread.is_alive() for thread in threads):
            row = watcher.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            ).fetchone()
            waited = waited or row != (0,)
    assert waited, "expected one caller to wait for the other"
    assert sorted(number for numbers in results for number in numbers) == [1, 2, 3]


def test_a_changed_migration_is_refused(dsn: str, directory: Path):
    with psycopg.connect(dsn) as connection:
        migrate(connection, schema="one", directory=directory)
        (directory / "0002_second.sql").write_text(SECOND + " ")
        expected = hashlib.sha256(SECOND.encode()).hexdigest()
        with pytest.raises(Misconfigured, match=rf"0002_second\.sql as it was.*{expected}"):
            migrate(connection, schema="one", directory=directory)
        assert schema_version(connection, "one") == 3


def test_a_changed_migration_stops_the_new_ones(dsn: str, tmp_path: Path):
    with psycopg.connect(dsn) as connection:
        write(tmp_path, first=FIRST)
        migrate(connection, schema="one", directory=tmp_path)
        write(tmp_path, first="SELECT 1;", second=SECOND)
        with pytest.raises(Misconfigured, match=r"0001_first\.sql"):
            migrate(connection, schema="one", directory=tmp_path)
        assert schema_version(connection, "one") == 1


def test_a_database_newer_than_the_code_is_refused(dsn: str, directory: Path):
    with psycopg.connect(dsn) as connection:
        migrate(connection, schema="one", directory=directory)
        (directory / "0003_third.sql").unlink()
        with pytest.raises(Misconfigured, match="expected version 2 or older, found 3"):
            migrate(connection, schema="one", directory=directory)


def test_a_record_with_a_gap_is_refused(dsn: str, directory: Path):
    with psycopg.connect(dsn) as connection:
        migrate(connection, schema="one", directory=directory)
        connection.execute("DELETE FROM one.migrations WHERE number = 2")
        connection.commit()
        with pytest.raises(Misconfigured, match=r"without gaps, found \[1, 3\]"):
            migrate(connection, schema="one", directory=directory)


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_failing_migration_leaves_nothing_and_names_its_line(
    dsn: str, directory: Path, *, autocommit: bool
):
    failing = "CREATE TABLE half (x int);\nINSERT INTO half VALUES (1);\nSELECT nonsense;\n"
    (directory / "0002_second.sql").write_text(failing)
    with psycopg.connect(dsn, autocommit=autocommit) as connection:
        with pytest.raises(Misconfigured, match=r"0002_second\.sql, line 3: .*\(SQLSTATE 42703\)"):
            migrate(connection, schema="one", directory=directory)
        assert schema_version(connection, "one") == 1
        assert relations(connection, "one") == {"entry", "migrations"}
        connection.rollback()
        write(directory, first=FIRST, second=SECOND, third=THIRD)
        assert migrate(connection, schema="one", directory=directory) == [2, 3]


def test_a_first_migration_that_fails_leaves_no_schema(dsn: str, tmp_path: Path):
    write(tmp_path, first="CREATE TABLE half (x int); SELECT 1/0;")
    with psycopg.connect(dsn) as connection:
        with pytest.raises(Misconfigured, match="division by zero"):
            migrate(connection, schema="one", directory=tmp_path)
        row = connection.execute("SELECT to_regnamespace('one')").fetchone()
    assert row == (None,)


def test_a_failure_is_told_without_the_rows_it_met(dsn: str, tmp_path: Path):
    write(tmp_path, first="CREATE TABLE p (n text); INSERT INTO p VALUES ('Ada'), ('Ada');")
    with psycopg.connect(dsn) as connection:
        migrate(connection, schema="one", directory=tmp_path)
        (tmp_path / "0002_unique.sql").write_text("CREATE UNIQUE INDEX ON p (n);")
        with pytest.raises(Misconfigured, match="SQLSTATE 23505") as caught:
            migrate(connection, schema="one", directory=tmp_path)
    assert "Ada" not in str(caught.value)


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_migration_that_ends_its_transaction_is_refused(
    dsn: str, tmp_path: Path, *, autocommit: bool
):
    write(tmp_path, first="COMMIT;")
    with psycopg.connect(dsn, autocommit=autocommit) as connection:
        with pytest.raises(Misconfigured, match="expected no COMMIT"):
            migrate(connection, schema="one", directory=tmp_path)
        assert schema_version(connection, "one") == 0


def test_a_wait_that_the_server_ends_is_unavailability(dsn: str, directory: Path):
    (directory / "0001_first.sql").write_text("SELECT pg_sleep(10);")
    with psycopg.connect(dsn) as connection:
        connection.execute("SET statement_timeout = '50ms'")
        connection.commit()
        with pytest.raises(Unavailable, match="SQLSTATE 57014"):
            migrate(connection, schema="one", directory=directory)


def test_a_role_that_may_only_read_finds_a_complete_schema_complete(dsn: str, directory: Path):
    with psycopg.connect(dsn) as connection:
        migrate(connection, schema="one", directory=directory)
        connection.execute("""
            DO $$ BEGIN CREATE ROLE looker; EXCEPTION WHEN duplicate_object THEN END $$;
            GRANT USAGE ON SCHEMA one TO looker;
            GRANT SELECT ON one.migrations TO looker;
            SET ROLE looker""")
        connection.commit()
        assert migrate(connection, schema="one", directory=directory) == []
        with pytest.raises(Misconfigured, match="permission denied"):
            migrate(connection, schema="two", directory=directory)


def test_a_connection_inside_a_transaction_is_refused(database: str, directory: Path):
    with psycopg.connect(database) as connection:
        connection.execute("SELECT 1")
        with pytest.raises(Misconfigured, match="outside a transaction"):
            migrate(connection, schema="one", directory=directory)


@pytest.mark.parametrize("schema", ["", "pg_own", "Upper", "a" * 64, "a b", "1a", 'a"', "é"])
def test_a_name_that_postgres_would_change_is_refused(database: str, directory: Path, schema: str):
    with psycopg.connect(database) as connection:
        for call in (
            lambda: migrate(connection, schema=schema, directory=directory),
            lambda: schema_version(connection, schema),
        ):
            with pytest.raises(Misconfigured, match="schema: expected"):
                call()


@pytest.mark.parametrize(
    "names",
    [
        ["0002_a.sql"],
        ["0001_a.sql", "0003_b.sql"],
        ["0001_a.sql", "0001_b.sql"],
        ["0000_a.sql"],
        ["1_a.sql"],
        ["0001_A.sql"],
        ["0001-a.sql"],
        ["0001_a.sql~"],
        ["٠٠٠١_a.sql"],
    ],
)
def test_numbers_with_gaps_repeats_or_odd_names_are_refused(tmp_path: Path, names: list[str]):
    for name in names:
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(Misconfigured, match="expected"):
        read_migrations(tmp_path)


def test_other_files_are_passed_over_and_an_absent_directory_is_not(tmp_path: Path):
    write(tmp_path, first=FIRST)
    (tmp_path / "schema.sql").write_text("SELECT 1;")
    assert [migration.file_name for migration in read_migrations(tmp_path)] == ["0001_first.sql"]
    with pytest.raises(LedgerError):
        read_migrations(tmp_path / "absent")


def test_the_names_of_every_migration_that_is_shipped_are_sound():
    shipped = (Path(ledger.postgres.__file__).parent / "sql").iterdir()
    for directory in shipped:
        if directory.is_dir():
            assert read_migrations(directory)
