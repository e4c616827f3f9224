"""The emitter is killed, as `kill -9` does, at every step: what was stored is recorded once."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from ledger.client import Client, Limits
from ledger.errors import Misconfigured
from tests.faults.emitting_process import STEPS, emitting
from tests.http.support import LEDGER, Running, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from subprocess import Popen

LIMITS = Limits(batch_age_s=0.0, retry_first_s=0.01, report_every_s=None)


@pytest.fixture(scope="module")
def service(new_database: Callable[[], str]) -> Iterator[Running]:
    with running(new_database()) as found:
        yield found


def arguments(service: Running, outbox: Path) -> list[object]:
    key = service.open.ledger.signer.verifier.verifier_key()
    return [service.url, LEDGER, service.emitter, outbox, key]


def stored_by(process: Popen[str]) -> list[str]:
    """Give the ids that it said were stored, once it has ended."""
    said, _ = process.communicate(timeout=60)
    return [line for line in said.split("\n")[:-1] if line != "open"]


def drain(service: Running, outbox: Path) -> str:
    """Send what is left; give the outbox's instance."""
    url, ledger, key, path, verifier = map(str, arguments(service, outbox))
    with Client(
        url, ledger, key, source="crm", outbox=path, verifier_key=verifier, limits=LIMITS
    ) as client:
        client.flush(20)
        assert client.refused() == []
        assert client.health().ok
        return client.instance


def recorded_by(service: Running, instance: str) -> list[dict[str, Any]]:
    """Give the events of an instance, in the ledger's order."""
    found: list[dict[str, Any]] = []
    after = 0
    while True:
        page = service.get("entries", params={"after": after, "limit": 1000}).json()
        events = [entry["entry"]["event"] for entry in page["entries"]]
        found += [each for each in events if each["data"].get("instance") == instance]
        if page["next"] is None:
            return found
        after = page["next"]


def assert_whole(service: Running, instance: str, stored: list[str]) -> None:
    events = recorded_by(service, instance)
    ids = [event["id"] for event in events]
    assert len(set(ids)) == len(ids), "an event was recorded twice"
    assert set(stored) <= set(ids), "a stored event was lost"
    numbers = [event["data"]["sequence"] for event in events]
    assert numbers == list(range(1, len(numbers) + 1)), "numbers have a gap, or come twice"


@pytest.mark.parametrize("call", [1, 4])
@pytest.mark.parametrize("step", STEPS)
def test_killed(service: Running, tmp_path: Path, step: str, call: int):
    outbox = tmp_path / "outbox.sqlite"
    process = emitting(*arguments(service, outbox), step=step, call=call)
    stored = stored_by(process)
    assert process.returncode == -9
    assert_whole(service, drain(service, outbox), stored)


def test_killed_again_and_again_at_one_step_after_another(service: Running, tmp_path: Path):
    outbox = tmp_path / "outbox.sqlite"
    stored: list[str] = []
    for step in STEPS:
        process = emitting(*arguments(service, outbox), step=step, call=2)
        stored += stored_by(process)
        assert process.returncode == -9
    assert_whole(service, drain(service, outbox), stored)


def test_killed_at_any_moment(service: Running, tmp_path: Path):
    outbox = tmp_path / "outbox.sqlite"
    stored: list[str] = []
    draw = random.Random(7)
    for _ in range(5):
        process = emitting(*arguments(service, outbox), count=100_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        time.sleep(draw.uniform(0.0, 0.4))
        process.kill()
        stored += stored_by(process)
    assert len(stored) > 20
    assert_whole(service, drain(service, outbox), stored)


def test_killed_while_the_ledger_is_away_and_then_it_comes(service: Running, tmp_path: Path):
    outbox = tmp_path / "outbox.sqlite"
    _, *rest = arguments(service, outbox)
    stored: list[str] = []
    for _ in range(2):
        process = emitting("http://127.0.0.1:9", *rest, count=100_000)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(100)]
        stored += [line.strip() for line in lines[1:]]
        process.kill()
        stored += stored_by(process)
    instance = drain(service, outbox)
    assert_whole(service, instance, stored)


def test_a_second_process_is_refused_the_outbox_and_a_kill_frees_it(
    service: Running, tmp_path: Path
):
    outbox = tmp_path / "outbox.sqlite"
    process = emitting(*arguments(service, outbox), count=100_000)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    with pytest.raises(Misconfigured, match="another process"):
        drain(service, outbox)
    process.kill()
    stored = stored_by(process)
    assert_whole(service, drain(service, outbox), stored)


def test_senders_with_an_outbox_each_number_under_instances_of_their_own(
    service: Running, tmp_path: Path
):
    outboxes = [tmp_path / f"outbox-{each}.sqlite" for each in range(3)]
    processes = [emitting(*arguments(service, outbox), count=40) for outbox in outboxes]
    stored = [stored_by(process) for process in processes]
    instances = [drain(service, outbox) for outbox in outboxes]
    assert len(set(instances)) == 3
    for instance, ids in zip(instances, stored, strict=True):
        assert len(ids) == 40
        assert_whole(service, instance, ids)


def test_the_exported_receipts_of_killed_senders_name_every_recorded_event(
    service: Running, tmp_path: Path
):
    outbox = tmp_path / "outbox.sqlite"
    for step in ("while noting it, before the commit", "after noting it"):
        stored_by(emitting(*arguments(service, outbox), step=step, call=3))
    instance = drain(service, outbox)
    url, ledger, key, path, verifier = map(str, arguments(service, outbox))
    receipts = tmp_path / "receipts.jsonl"
    with Client(url, ledger, key, source="crm", outbox=path, verifier_key=verifier) as client:
        client.export_receipts(receipts)
        found = client.reconcile(service.reader)
    assert found.ok
    named = set()
    for line in receipts.read_text().splitlines():
        document = json.loads(line)
        items = document.get("receipts") or [each["receipt"] for each in document["results"]]
        named |= {each["id"] for each in items}
    assert named == {event["id"] for event in recorded_by(service, instance)}
    assert found.checked == len(named)
