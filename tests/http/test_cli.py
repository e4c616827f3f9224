"""The commands as people run them: processes, a real database, a real service."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from ledger.cli.up import FIRST_EVENT
from ledger.config import read_settings
from ledger.database import open_database
from ledger.errors import Unavailable
from tests.fixtures.postgres import short_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
CUSTODY = [sys.executable, "-m", "ledger.cli"]
READY = "Ctrl-C stops the service"


class Machine:
    """A home with its environment, in which commands run."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        plain = {k: v for k, v in os.environ.items() if not k.startswith("LEDGER_")}
        self.environment = {
            **plain,
            "PYTHONPATH": str(ROOT),
            "LEDGER_HOME": str(home),
            "LEDGER_PORT": str(self.port),
            **settings,
        }
        self.up: subprocess.Popen[str] | None = None
        self.welcome = ""

    def run(
        self, *arguments: str | Path, stdin: str = "", **settings: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CUSTODY, *arguments],
            cwd=self.home,
            env={**self.environment, **settings},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: str | Path, stdin: str = "") -> Any:
        done = self.run(*arguments, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, command: list[str] | None = None, cwd: Path | None = None) -> str:
        """Run `custody up` and wait until it says what to try."""
        with (self.home / "stderr").open("w") as stderr:
            self.up = subprocess.Popen(
                command or [*CUSTODY, "up"],
                cwd=cwd or self.home,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert self.up.stdout is not None
        self.welcome = ""
        for line in self.up.stdout:
            self.welcome += line
            if READY in line:
                return self.welcome
        raise AssertionError((self.home / "stderr").read_text())

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        assert self.up is not None
        assert self.up.stdout is not None
        self.up.send_signal(number)
        code = self.up.wait(60)
        self.up.stdout.close()
        self.up = None
        return code


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """Run `custody up` with the embedded database."""
    with short_directory() as directory:
        home = directory / "home"
        home.mkdir()
        home.chmod(0o711)
        made = Machine(home)
        made.start()
        try:
            yield made
        finally:
            if made.up is not None:
                made.stop()


@pytest.fixture
def served(database: str) -> Iterator[Callable[..., Machine]]:
    """Give a function that makes homes beside a server named by its URL; nothing is served."""
    with short_directory() as directory:

        def make(name: str = "home") -> Machine:
            home = directory / name
            home.mkdir()
            return Machine(home, LEDGER_DATABASE_URL=database)

        yield make


def event(identifier: str, subject: str = "crm:C-1") -> str:
    return json.dumps(json.loads(FIRST_EVENT) | {"id": identifier, "subject": subject})


def topics(machine: Machine, schema: str = "ledger_customers") -> list[str]:
    with (
        open_database(read_settings(machine.environment)) as dsn,
        psycopg.connect(dsn) as connection,
    ):
        rows = connection.execute(f"SELECT topic FROM {schema}.entries ORDER BY seq").fetchall()  # type: ignore[arg-type]
    return [row[0] for row in rows]


# -- up and the README's commands --------------------------------------------------


def commands_in(text: str) -> list[str]:
    """Give the three commands of a text that shows them, each as the shell takes it."""
    command = r"^(?:curl -sS -H @|(?:scripts/)?custody (?:show|verify) )(?:[^\n]*\\\n)*[^\n]*$"
    return re.findall(command, text, re.MULTILINE)


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_shows_the_commands_that_up_prints(machine: Machine, name: str):
    printed = [
        each.replace(str(machine.home), ".custody")
        .replace(f":{machine.port}", ":8420")
        .replace("custody show", "scripts/custody show")
        .replace("custody verify", "scripts/custody verify")
        for each in commands_in(machine.welcome)
    ]
    assert len(printed) == 3
    assert commands_in((ROOT / name).read_text(encoding="utf-8"))[:3] == printed


def test_the_three_commands_work_as_printed(machine: Machine):
    answers = []
    for command in commands_in(machine.welcome):
        shell = f'custody() {{ "{sys.executable}" -m ledger.cli "$@"; }}\n{command}'
        done = subprocess.run(
            ["/bin/sh", "-c", shell],
            cwd=machine.home,
            env=machine.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout)
    receipt = json.loads(answers[0])
    assert receipt["version"] == 1
    assert receipt["checkpoint"]
    assert f"record  {receipt['record']}" in answers[1]
    assert "record.accessed" in answers[1]
    assert answers[2].startswith("VERIFIED")


def test_up_keeps_its_keys_in_private_files_and_prints_none(machine: Machine):
    for role in ("emitter", "reader"):
        path = machine.home / "credentials" / f"customers.{role}"
        assert path.stat().st_mode & 0o777 == 0o600
        key = path.read_text().split()[-1]
        assert key.startswith("ck_")
        assert key not in machine.welcome + (machine.home / "stderr").read_text()


def test_a_second_start_finds_everything_again_and_makes_nothing_new(machine: Machine):
    machine.json("emit", "customers", stdin=event("before-restart"))
    before = machine.welcome
    keys = [path.read_bytes() for path in sorted((machine.home / "credentials").iterdir())]
    assert machine.stop(signal.SIGINT) == 0
    assert not (machine.home / "postgres" / "data" / "postmaster.pid").exists()
    assert machine.start() == before
    assert [path.read_bytes() for path in sorted((machine.home / "credentials").iterdir())] == keys
    assert topics(machine).count("ledger.ledger.opened.v1") == 1
    assert topics(machine).count("ledger.ledger.credential_changed.v1") == 2
    assert machine.json("emit", "customers", stdin=event("before-restart"))["repeated"]


def test_sigterm_ends_service_and_database_in_order(machine: Machine):
    assert machine.stop(signal.SIGTERM) == 0
    assert not (machine.home / "postgres" / "data" / "postmaster.pid").exists()
    machine.start()


def test_a_second_up_beside_the_first_is_refused_and_leaves_the_first_alone(machine: Machine):
    done = machine.run("up")
    assert done.returncode == 3
    assert READY not in done.stdout or str(machine.port) in done.stdout
    assert machine.json("emit", "customers", stdin=event("after-second-up"))["seq"]


def test_up_replaces_a_credential_that_the_ledger_does_not_know(machine: Machine):
    path = machine.home / "credentials" / "customers.reader"
    machine.stop()
    path.write_text("Authorization: Bearer ck_" + "a" * 10 + "_" + "B" * 43)
    machine.start()
    assert machine.run("show", "customers", "crm:C-1").returncode in {0, 2}
    assert path.stat().st_mode & 0o777 == 0o600


def test_scripts_up_works_from_anywhere_with_the_environment_it_made():
    if not (ROOT / ".venv" / "made-from").exists():
        pytest.skip("this checkout has no environment; scripts/test makes one")
    with short_directory() as directory:
        scripted = Machine(directory)
        scripted.start([str(ROOT / "scripts" / "up")], cwd=Path("/"))
        shown = [each.split()[0] for each in commands_in(scripted.welcome)]
        assert shown == ["curl", "scripts/custody", "scripts/custody"]
        done = subprocess.run(
            [ROOT / "scripts" / "custody", "verify", "customers"],
            cwd="/",
            env=scripted.environment,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0
        assert scripted.stop() == 0


# -- emit and show -------------------------------------------------------------------


def test_a_file_of_lines_is_recorded_once_however_often_it_is_sent(machine: Machine):
    file = machine.home / "events.ndjson"
    file.write_text(event("line-1") + "\n" + event("line-2") + "\n")
    first = machine.json("emit", "customers", file)["receipts"]
    again = machine.json("emit", "customers", file)["receipts"]
    assert [each["seq"] for each in again] == [each["seq"] for each in first]
    assert [each["repeated"] for each in first + again] == [False, False, True, True]


def test_a_refused_event_ends_with_2_and_names_the_place_but_not_the_value(machine: Machine):
    wrong = event("wrong").replace('"service"', '"13800138000"')
    done = machine.run("emit", "customers", stdin=wrong)
    assert done.returncode == 2
    assert "/data/purpose" in done.stderr
    assert "13800138000" not in done.stderr


def test_another_event_under_a_used_id_ends_with_2(machine: Machine):
    machine.json("emit", "customers", stdin=event("used"))
    assert machine.run("emit", "customers", stdin=event("used", "crm:C-2")).returncode == 2


def test_a_service_that_does_not_answer_ends_with_3(machine: Machine):
    done = machine.run("emit", "customers", "--url", "http://127.0.0.1:9", stdin=event("nobody"))
    assert done.returncode == 3
    assert "no answer" in done.stderr


def test_a_key_file_that_is_absent_ends_with_3(machine: Machine):
    assert machine.run("emit", "customers", "--key-file", "absent").returncode == 3


def test_showing_a_customer_leaves_an_entry(machine: Machine):
    machine.json("emit", "customers", stdin=event("shown", "crm:C-77"))
    before = topics(machine).count("ledger.ledger.read.v1")
    shown = machine.json("show", "customers", "crm:C-77")
    assert [each["entry"]["version"] for each in shown["entries"]] == [1]
    assert shown["state"]["record"] == shown["record"]
    assert topics(machine).count("ledger.ledger.read.v1") > before


def test_a_customer_never_met_ends_with_2(machine: Machine):
    assert machine.run("show", "customers", "crm:never").returncode == 2


# -- init and credentials -----------------------------------------------------------------


def test_init_makes_entry_1_a_pin_and_a_private_key_file(served: Callable[..., Machine]):
    machine = served()
    made = machine.json("init", "customers", "--origin", "ledger.example/customers")
    assert made["origin"] == "ledger.example/customers"
    assert made["verifier_key"].startswith("ledger.example/customers+")
    assert (machine.home / "pins" / "customers.vkey").read_text().strip() == made["verifier_key"]
    assert (machine.home / "keys" / "customers.json").stat().st_mode & 0o777 == 0o600
    assert topics(machine)[0] == "ledger.ledger.opened.v1"


def test_init_refuses_a_ledger_that_exists_and_changes_nothing(served: Callable[..., Machine]):
    machine = served()
    machine.json("init", "customers")
    keys = (machine.home / "keys" / "customers.json").read_bytes()
    done = machine.run("init", "customers")
    assert done.returncode == 2
    assert (machine.home / "keys" / "customers.json").read_bytes() == keys


def test_init_refuses_to_write_over_a_key_file(served: Callable[..., Machine]):
    machine = served()
    (machine.home / "keys").mkdir()
    (machine.home / "keys" / "customers.json").write_text("keys of something")
    assert machine.run("init", "customers").returncode == 2
    assert (machine.home / "keys" / "customers.json").read_text() == "keys of something"


@pytest.mark.parametrize("origin", ["", "a b", "a\nb", "-x", "客户"])
def test_init_refuses_an_origin_that_a_signed_note_can_not_bear(machine: Machine, origin: str):
    assert machine.run("init", "other", "--origin", origin).returncode == 2


def test_credentials_are_created_listed_and_revoked_and_entries_tell_of_it(
    served: Callable[..., Machine],
):
    machine = served()
    machine.json("init", "customers")
    out = machine.home / "emitter.header"
    made = machine.json(
        *("credentials", "create", "customers", "--role", "emitter", "--label", "web shop"),
        *("--source", "shop", "--namespace", "*", "--type", "record.accessed", "--out", out),
    )
    assert "key" not in made
    assert re.fullmatch(r"Authorization: Bearer ck_\S+\n", out.read_text())
    assert out.stat().st_mode & 0o777 == 0o600
    machine.json("credentials", "revoke", "customers", made["id"])
    (row,) = machine.json("credentials", "list", "customers")
    assert (row["id"], row["role"], row["sources"]) == (made["id"], "emitter", ["shop"])
    assert row["revoked"] is not None
    assert topics(machine).count("ledger.ledger.credential_changed.v1") == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "customers", "--role", "reader", "--label", "x", "--source", "crm"),
        ("create", "customers", "--role", "emitter", "--label", "x"),
        ("create", "nothing", "--role", "reader", "--label", "x"),
        ("revoke", "customers", "ck_aaaaaaaaaa"),
        ("list", "nothing"),
    ],
)
def test_credentials_that_make_no_sense_end_with_2(machine: Machine, arguments: tuple[str, ...]):
    before = topics(machine)
    assert machine.run("credentials", *arguments).returncode == 2
    assert topics(machine) == before


def test_a_credential_made_beside_a_running_service_works_and_ends_at_once(machine: Machine):
    made = machine.json(
        *("credentials", "create", "customers", "--role", "emitter", "--label", "second"),
        *("--source", "second", "--namespace", "crm"),
    )
    key = machine.home / "second.key"
    key.write_text(made["key"])
    recorded = machine.json("emit", "customers", "--key-file", key, stdin=event("second"))
    assert recorded["checkpoint"]
    machine.json("credentials", "revoke", "customers", made["id"])
    machine.stop()
    machine.start()
    done = machine.run("emit", "customers", "--key-file", str(key), stdin=event("third"))
    assert done.returncode == 2


# -- verify ----------------------------------------------------------------------------------


def tamper(machine: Machine, statement: str) -> None:
    with (
        open_database(read_settings(machine.environment)) as dsn,
        psycopg.connect(dsn) as connection,
    ):
        connection.execute("SET session_replication_role = replica")
        connection.execute(statement)  # type: ignore[arg-type]


def test_verify_says_where_its_key_and_checkpoints_come_from(served: Callable[..., Machine]):
    machine = served()
    machine.json("init", "customers")
    done = machine.run("verify", "customers")
    assert done.returncode == 0, done.stdout
    assert str(machine.home / "pins") in done.stderr
    assert str(machine.home / "anchors") in done.stderr


def test_verify_finds_a_flipped_bit(served: Callable[..., Machine]):
    machine = served()
    machine.json("init", "customers")
    tamper(
        machine,
        "UPDATE ledger_customers.entries SET entry = set_byte(entry, 60, 1 # get_byte(entry, 60))"
        " WHERE seq = 1",
    )
    assert machine.run("verify", "customers").returncode == 1


def test_verify_finds_a_log_that_was_cut(served: Callable[..., Machine]):
    machine = served()
    machine.json("init", "customers")
    for table in ("entries", "stream_heads", "accepted", "boxes", "checkpoints"):
        tamper(machine, f"DELETE FROM ledger_customers.{table}")
    tamper(
        machine,
        "UPDATE ledger_customers.head SET seq = 0, leaf = decode(repeat('00', 32), 'hex'),"
        " recorded = ''",
    )
    assert machine.run("verify", "customers").returncode == 1


def test_verify_with_another_key_does_not_say_verified(served: Callable[..., Machine]):
    machine = served()
    machine.json("init", "customers")
    key = machine.json("init", "others")["verifier_key"]
    assert machine.run("verify", "customers", "--key", key).returncode not in {0, 1}


def test_verify_without_a_checkpoint_from_outside_ends_with_4(served: Callable[..., Machine]):
    machine = served()
    machine.json("init", "customers")
    elsewhere = str(machine.home / "empty")
    done = machine.run("verify", "customers", LEDGER_ANCHOR_DIR=elsewhere)
    assert done.returncode == 4


def test_verify_without_a_key_ends_with_4(served: Callable[..., Machine]):
    machine = served()
    machine.json("init", "customers")
    (machine.home / "pins" / "customers.vkey").unlink()
    assert machine.run("verify", "customers").returncode == 4


def test_a_database_that_can_not_be_reached_ends_with_3(served: Callable[..., Machine]):
    machine = served()
    machine.json("init", "customers")
    nowhere = "host=/nowhere dbname=postgres password=hunter2"
    for arguments in (("verify", "customers"), ("init", "other"), ("credentials", "list", "x")):
        done = machine.run(*arguments, LEDGER_DATABASE_URL=nowhere)
        assert done.returncode == 3, arguments
        assert "hunter2" not in done.stderr


# -- the database that settings mean ----------------------------------------------------------


def test_an_embedded_database_that_another_process_runs_is_used(machine: Machine):
    with (
        open_database(read_settings(machine.environment)) as dsn,
        psycopg.connect(dsn) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert machine.json("emit", "customers", stdin=event("still-there"))["seq"]


def test_an_embedded_database_that_nobody_runs_lives_as_long_as_the_block():
    with short_directory() as directory:
        settings = read_settings({"LEDGER_HOME": str(directory)})
        with open_database(settings) as dsn, psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(dsn)


def test_what_the_database_says_inside_the_block_is_not_repeated(database: str):
    settings = read_settings({"LEDGER_DATABASE_URL": database})

    def fail() -> None:
        with open_database(settings) as dsn, psycopg.connect(dsn) as connection:
            connection.execute("SELECT '13800138000'::int8::int4")

    with pytest.raises(Unavailable) as caught:
        fail()
    assert "13800138000" not in str(caught.value)
