"""The example service as people run it: a process, beside a ledger as `scripts/up` makes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fixtures.postgres import short_directory
from tests.http.support import free_port
from tests.http.test_demo import Company, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]


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


def run(company: Company, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.example_crm_service", *arguments],
        cwd=company.home,
        env=company.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_script_is_executable_shell():
    path = ROOT / "scripts" / "example_crm"
    assert os.access(path, os.X_OK)
    subprocess.run(["sh", "-n", path], check=True)


@pytest.fixture(scope="module")
def first(company: Company) -> str:
    return run(company)


def test_requests_become_entries_and_the_ledger_knows_who_did_what(first: str):
    assert re.search(r"5 acknowledged, 0 refused, none lost", first)
    assert re.search(r"5 entries stand where their receipts say", first)
    assert re.search(r"crm:CRM-1 is record [0-9a-f-]{36}", first)
    assert re.search(r"zhang\.wei accessed city name phone \(customer-care\)", first)
    assert re.search(r"li\.na shared name phone \(delivery\)", first)


def test_no_value_of_the_crm_is_in_the_log(company: Company, first: str):
    assert first
    log = b"".join(company.entries()).decode()
    for each in ("陈静", "5550", "苏州", "Ågård", "CRM-1", "zhang.wei"):
        assert each not in log


def test_a_second_run_goes_on_numbering_where_the_first_ended(company: Company, first: str):
    assert first
    run(company)
    numbers = [
        int(found[1])
        for entry in company.entries()
        if (found := re.search(rb'"sequence":(\d+)', entry))
    ]
    assert numbers == list(range(1, 11))


def test_without_a_ledger_events_wait_in_the_outbox_and_the_next_run_sends_them(
    company: Company, first: str
):
    assert first
    environment = {**company.environment, "LEDGER_PORT": str(free_port())}
    done = subprocess.run(
        [sys.executable, "-c", AWAY],
        cwd=company.home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "not acknowledged yet" in done.stderr
    assert "10 acknowledged" in run(company)


AWAY = """
import sys
from scripts.example_crm_service import __main__ as example
example.ACKNOWLEDGED_S = 1.0
sys.exit(example.run())
"""


def test_a_home_that_is_not_there_is_said(tmp_path: Path, company: Company):
    environment = {**company.environment, "LEDGER_HOME": str(tmp_path / "none")}
    done = subprocess.run(
        [sys.executable, "-m", "scripts.example_crm_service"],
        env=environment,
        cwd=company.home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "scripts/up" in done.stderr
