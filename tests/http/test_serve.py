from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from api.app import create_app
from ledger.config import read_settings
from ledger.control import Control
from ledger.keys.keyring import make_keyring, save_keyring
from tests.http.support import LEDGER, bearer, event, free_port, new_emitter

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, database: str) -> dict[str, str]:
    """Make a ledger; give the environment in which it is served."""
    settings = read_settings({"LEDGER_HOME": str(tmp_path)})
    control = Control(database)
    control.migrate()
    keyring = make_keyring("ledger.test/demo/0a1b2c3d")
    save_keyring(settings.keys_dir / f"{LEDGER}.json", keyring)
    control.add_ledger(LEDGER, keyring.origin)
    return {
        **os.environ,
        "LEDGER_HOME": str(tmp_path),
        "LEDGER_DATABASE_URL": database,
        "LEDGER_PORT": str(free_port()),
        "PYTHONPATH": os.getcwd(),  # noqa: PTH109
    }


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the service did not become ready")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_finishes_what_is_in_flight_and_ends_well(
    home: dict[str, str], number: signal.Signals
) -> None:
    command = [sys.executable, "-c", "from api.serve import serve; serve()"]
    url = f"http://127.0.0.1:{home['LEDGER_PORT']}"
    key = new_emitter(Control(home["LEDGER_DATABASE_URL"]))
    process = subprocess.Popen(command, env=home, stderr=subprocess.PIPE, text=True)
    answers: list[int] = []
    try:
        wait_until_ready(url)
        sender = threading.Thread(target=send_until_refused, args=(url, key, answers))
        sender.start()
        while len(answers) < 20:
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
        sender.join()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert set(answers) == {201}
    assert count(home) == len(answers)


def send_until_refused(url: str, key: str, answers: list[int]) -> None:
    """Send events one after another until nobody takes the connection any more."""
    with httpx.Client(base_url=url, headers=bearer(key)) as client:
        while True:
            try:
                response = client.post(f"/v1/ledgers/{LEDGER}/events", json=event())
            except httpx.TransportError:
                return
            answers.append(response.status_code)


def count(home: dict[str, str]) -> int:
    """Count recorded events of the emitter."""
    import psycopg

    with psycopg.connect(home["LEDGER_DATABASE_URL"]) as connection:
        row = connection.execute(
            "SELECT count(*) FROM ledger_demo.entries WHERE topic LIKE '%accessed%'"
        ).fetchone()
    assert row is not None
    number: int = row[0]
    return number


def test_making_the_app_connects_to_nothing(tmp_path: Path) -> None:
    settings = read_settings({"LEDGER_HOME": str(tmp_path)})
    app = create_app(settings, "host=/nowhere dbname=none")
    assert app.openapi()["info"]["title"] == "Custody Ledger"
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_without_its_keys_is_said_in_words(home: dict[str, str]) -> None:
    Control(home["LEDGER_DATABASE_URL"]).add_ledger("keyless", "ledger.test/keyless/0a1b2c3d")
    command = [sys.executable, "-c", "from ledger.cli import main; main()", "serve"]
    done = subprocess.run(
        command, env=home, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode not in {0, 1}
    assert "Traceback" not in done.stderr
    assert "keyless" in done.stderr
