"""The demonstration as people run it: a process, a real service, a home and database of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.sql import SQL

from ledger.config import read_settings
from ledger.database import open_database
from scripts.demo_ledger import bpic
from tests.fixtures.postgres import short_directory
from tests.http.support import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "bpic2012.csv.gz"
REAL_ROWS = 5_000
READY = "Ctrl-C stops the service"


class Company:
    """A home whose service runs, in which the demonstration is run."""

    def __init__(self, home: Path, database: str) -> None:
        self.home = home
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")},
            "PYTHONPATH": str(ROOT),
            "LEDGER_HOME": str(home),
            "LEDGER_DATABASE_URL": database,
            "LEDGER_PORT": str(free_port()),
        }

    def demo(self, *arguments: str | Path, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "scripts.demo_ledger", *arguments],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    def entries(self) -> list[bytes]:
        with (
            open_database(read_settings(self.environment)) as dsn,
            psycopg.connect(dsn) as connection,
        ):
            query = SQL("SELECT entry FROM ledger_customers.entries ORDER BY seq")
            return [row[0] for row in connection.execute(query).fetchall()]


def start(company: Company) -> subprocess.Popen[str]:
    """Run `custody up` until it says that it can be used."""
    with (company.home / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "ledger.cli", "up"],
            cwd=company.home,
            env=company.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    for line in process.stdout:
        if READY in line:
            return process
    raise AssertionError((company.home / "stderr").read_text())


@pytest.fixture(scope="module")
def company(new_database: Callable[[], str]) -> Iterator[Company]:
    with short_directory() as directory:
        made = Company(directory, new_database())
        process = start(made)
        try:
            yield made
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture(scope="module")
def month(company: Company) -> str:
    """Give what the first run says."""
    return company.demo("--seed", "7")


def sent(words: str) -> tuple[int, int, int]:
    """Give how many events were sent, were new, and were recorded before."""
    found = re.search(r"([\d,]+) events sent .*: ([\d,]+) new, ([\d,]+) recorded before", words)
    assert found, words
    numbers = [int(each.replace(",", "")) for each in found.groups()]
    return numbers[0], numbers[1], numbers[2]


def test_the_month_is_recorded_whole_and_every_step_is_taken(month: str):
    events, new, before = sent(month)
    assert 300 <= events == new <= 1_500
    assert before == 0
    assert re.findall(r"^\d+\. ", month, re.MULTILINE) == ["1. ", "2. ", "3. ", "4. ", "5. ", "6. "]
    assert month.endswith("Done.\n")


def test_record_and_accesses_are_shown_with_purpose(month: str):
    assert re.search(r"status +active\n", month)
    assert re.search(r"entry +\d+  2025-11-.* accessed .*\(take-orders: service\)", month)


def test_the_verifier_says_verified_then_names_the_entry_then_says_verified(month: str):
    codes = [int(each) for each in re.findall(r"exit code (\d)", month)]
    assert codes[-3:] == [0, 1, 0]
    assert set(codes[:-3]) <= {0}
    seq = re.search(r"Entry (\d+) says", month)
    assert seq
    assert f"first bad    entry {seq[1]}: " in month
    assert f"Caught: one byte of entry {seq[1]}, named." in month
    assert month.index("TAMPERED") < month.index("The byte is back.") < month.rindex("VERIFIED ")


def test_the_bundle_verifies_under_the_pinned_key(month: str):
    if "offers no evidence bundles" in month:
        pytest.skip("this service has no exports")
    assert re.search(r"\| VERIFIED .*\n.*checked +record [0-9a-f-]{36}\n", month)


def test_no_key_is_printed(company: Company, month: str):
    keys = [path.read_text().split()[-1] for path in (company.home / "credentials").iterdir()]
    assert len(keys) >= 2
    assert not [key for key in keys if key in month]


def test_no_entry_tells_a_customers_name_or_a_note(company: Company, month: str):
    assert month
    log = b"".join(company.entries()).decode()
    for each in ("𠮷", "㛃", "䶮", "ǅ", "Søren", "zhang.wei", "彭城路", "ring twice"):
        assert each not in log


def test_a_second_run_finds_everything_recorded_and_changes_nothing(company: Company, month: str):
    events, _, _ = sent(month)
    entries = company.entries()
    again = company.demo("--seed", "7", "--no-attack")
    assert sent(again) == (events, 0, events)
    assert "no-attack" in again
    assert "TAMPERED" not in again
    # Questions become entries; events that repeat don't.
    later = company.entries()
    assert later[: len(entries)] == entries
    assert all(b'"ledger.ledger.read.v1"' in each for each in later[len(entries) :])


def test_the_events_that_were_kept_can_be_sent_by_hand(company: Company, month: str):
    command = re.search(r"\$ scripts/custody (emit .*)", month)
    assert command
    done = subprocess.run(
        [sys.executable, "-m", "ledger.cli", *command[1].split()],
        cwd=company.home,
        env=company.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("was recorded before as") >= sent(month)[0]
    assert "is recorded as" not in done.stdout


# -- loan applications -------------------------------------------------------------------


def write_loans(path: Path, applications: int) -> int:
    """Write a file of the real one's shape; give its number of rows."""
    steps = (
        ("A_SUBMITTED", "COMPLETE"),
        ("A_PARTLYSUBMITTED", "COMPLETE"),
        ("W_Completeren aanvraag", "SCHEDULE"),
        ("W_Completeren aanvraag", "START"),
        ("A_ACCEPTED", "COMPLETE"),
        ("O_SENT", "COMPLETE"),
        ("W_Completeren aanvraag", "COMPLETE"),
        ("A_DECLINED", "COMPLETE"),
    )
    begun = datetime(2011, 10, 1, tzinfo=UTC)
    rows = [",".join(bpic.COLUMNS)]
    for place, (activity, lifecycle) in enumerate(steps):
        for application in range(applications):
            moment = begun + timedelta(hours=place, seconds=application)
            staff = "" if place == 1 else str(10_860 + application % 9)
            said = moment.isoformat(timespec="milliseconds")
            rows.append(f"{said},{173_000 + application},{5_000},{activity},{lifecycle},{staff}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return len(rows) - 1


@pytest.fixture(scope="module")
def bank(new_database: Callable[[], str]) -> Iterator[Company]:
    with short_directory() as directory:
        made = Company(directory, new_database())
        process = start(made)
        try:
            yield made
        finally:
            process.terminate()
            process.communicate(timeout=60)


def test_every_row_of_a_file_becomes_an_event_and_a_longer_file_adds_only_what_is_new(
    company: Company, tmp_path: Path
):
    path = tmp_path / "loans.csv"
    rows = write_loans(path, 150)
    first = company.demo("--bpic", path, "--limit", "700", "--no-attack")
    assert "custody credentials create customers" in first
    assert sent(first) == (700, 700, 0)
    whole = company.demo("--bpic", path, "--no-attack")
    assert "credentials create" not in whole
    assert sent(whole) == (rows, rows - 700, 700)
    assert re.search(r"loan:173000 is record [0-9a-f-]{36}", whole)
    assert re.search(
        r"staff-10860 accessed applicant contact income.*-application: contract\)", whole
    )


def test_an_applications_entries_stand_in_the_order_of_the_file(company: Company, tmp_path: Path):
    path = tmp_path / "loans.csv"
    write_loans(path, 150)
    company.demo("--bpic", path, "--no-attack")
    by_stream: dict[str, list[int]] = {}
    for entry in company.entries():
        text = entry.decode()
        row = re.search(r'"id":"bpic2012-(\d+)"', text)
        if row:
            stream = re.search(r'"stream":"([0-9a-f-]{36})"', text)
            assert stream, text
            by_stream.setdefault(stream[1], []).append(int(row[1]))
    assert len(by_stream) == 150
    assert all(numbers == sorted(numbers) and len(numbers) == 8 for numbers in by_stream.values())


@pytest.mark.skipif(not REAL.exists(), reason="the real file is not beside this checkout")
def test_the_real_file_is_recorded_shown_and_proved(bank: Company):
    words = bank.demo("--bpic", REAL, "--limit", str(REAL_ROWS))
    assert sent(words) == (REAL_ROWS, REAL_ROWS, 0)
    assert "validate-application     credit_risk, eu:6-1-c" in words
    assert "Caught: one byte of entry" in words
    assert words.endswith("Done.\n")


# -- what goes wrong ------------------------------------------------------------------------


def test_without_a_service_it_says_how_to_start_one(company: Company):
    said = company.demo("--url", f"http://127.0.0.1:{free_port()}", code=3)
    assert "scripts/up" in said


def test_a_file_of_another_shape_is_refused_before_anything_is_sent(
    company: Company, tmp_path: Path
):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    before = len(company.entries())
    assert "expected the columns" in company.demo("--bpic", path, code=2)
    assert b'"loan:' not in b"".join(company.entries()[before:])


def test_an_unknown_seed_is_a_call_that_makes_no_sense(company: Company):
    company.demo("--seed", "many", code=2)


def test_tampering_that_it_did_not_make_ends_it_with_one(company: Company, month: str):
    """Last, since this ledger can't be believed afterwards."""
    assert month
    with (
        open_database(read_settings(company.environment)) as dsn,
        psycopg.connect(dsn, autocommit=True) as owner,
    ):
        owner.execute("SET session_replication_role = replica")
        owner.execute(
            "UPDATE ledger_customers.entries SET entry = set_byte(entry, 60, 0) WHERE seq = 4"
        )
    said = company.demo("--seed", "7", code=1)
    assert "did not make" in said
