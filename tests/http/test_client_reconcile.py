"""Receipts against the ledger: what was acknowledged and is gone or altered is named."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from ledger.client import AsyncClient, Client, Limits
from ledger.errors import CannotVerify, Misconfigured, TamperDetected
from tests.http.answering import answering
from tests.http.support import LEDGER, Running, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERIFIER = Path(__file__).parents[2] / "scripts" / "verify_chain.py"
LIMITS = Limits(batch_age_s=0.01, retry_first_s=0.02, retry_most_s=0.1, report_every_s=None)


@pytest.fixture(scope="module")
def place(new_database: Callable[[], str]) -> Iterator[tuple[Running, str]]:
    """Serve a ledger that is tampered with; give its database too.

    Each test has an outbox of its own, so it only asks for entries that it made itself. Those that
    need the tree come before those that tamper with it.
    """
    dsn = new_database()
    with running(dsn) as found:
        yield found, dsn


@pytest.fixture
def client(place: tuple[Running, str], tmp_path: Path) -> Iterator[Client]:
    service, _ = place
    with Client(
        service.url,
        LEDGER,
        service.emitter,
        source="crm",
        outbox=tmp_path / "outbox.sqlite",
        verifier_key=service.open.ledger.signer.verifier.verifier_key(),
        limits=LIMITS,
    ) as found:
        yield found


def emit(client: Client, count: int) -> list[int]:
    """Emit events; give their positions."""
    tickets = [
        client.emit("record.accessed", f"crm:C-{number % 5}", actor="e1", fields=["phone"])
        for number in range(count)
    ]
    client.flush(20)
    return [ticket.wait_recorded(0).entries[0].seq for ticket in tickets]


def tamper(dsn: str, statement: str, *arguments: object) -> None:
    """Change something as the database's owner can."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute(f"SET search_path TO ledger_{LEDGER}")
        changed = owner.execute(statement, arguments)
        assert changed.rowcount > 0


def has_consistency(service: Running) -> bool:
    return any("/consistency" in path for path in service.app.openapi()["paths"])


def test_a_sound_ledger_has_every_entry(place: tuple[Running, str], client: Client):
    service, _ = place
    emit(client, 40)
    service.record(
        {
            "id": "other",
            "type": "record.accessed",
            "subject": "crm:X",
            "data": {"actor": {"id": "e1"}, "fields": ["a"]},
        }
    )
    found = client.reconcile(service.reader)
    found.require_ok()
    assert found.checked == 40
    assert found.waiting == found.refused == 0
    assert bool(found.not_checked) is not has_consistency(service)


def test_an_export_of_several_subjects_is_checked_entry_by_entry(
    place: tuple[Running, str], client: Client
):
    service, _ = place
    client.emit("record.exported", subjects=["crm:A", "crm:B", "crm:C"], actor="e", fields=["a"])
    client.flush(10)
    found = client.reconcile(service.reader)
    assert found.ok
    assert found.checked == 3


def test_a_checkpoint_that_contradicts_the_one_held_is_found_out(
    place: tuple[Running, str], client: Client
):
    service, _ = place
    emit(client, 3)
    archive = client.core.engine.archive
    assert archive.newest is not None
    archive.newest = replace(archive.newest, size=10_000)
    found = client.reconcile(service.reader)
    assert found.contradiction is not None
    assert not found.ok


def test_a_consistency_proof_that_leads_elsewhere_is_found_out(
    place: tuple[Running, str], client: Client
):
    service, _ = place
    if not has_consistency(service):
        pytest.skip("this service gives no consistency proofs")
    emit(client, 3)
    archive = client.core.engine.archive
    assert archive.newest is not None
    archive.newest = replace(archive.newest, root=b"\7" * 32)
    emit_elsewhere(service)
    found = client.reconcile(service.reader)
    assert found.contradiction is not None


def emit_elsewhere(service: Running) -> None:
    service.record(
        {
            "id": "e",
            "type": "record.accessed",
            "subject": "crm:X",
            "data": {"actor": {"id": "e1"}, "fields": ["a"]},
        }
    )


def verify(dsn: str, key: str, receipts: Path) -> subprocess.CompletedProcess[str]:
    """Check the whole ledger with exported receipts, as an auditor would."""
    command = [sys.executable, VERIFIER, "--database", dsn, "--schema", f"ledger_{LEDGER}"]
    command += ["--key", key, "--receipts", receipts]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_verifier_takes_the_exported_receipts_and_misses_what_they_name(
    place: tuple[Running, str], client: Client, tmp_path: Path
):
    service, dsn = place
    emit(client, 5)
    client.emit("nothing.known", "crm:C-1")
    client.emit("record.exported", subjects=["crm:A", "crm:B"], actor="e", fields=["a"])
    client.flush(10)
    receipts = tmp_path / "receipts.jsonl"
    assert client.export_receipts(receipts) >= 2
    key = service.open.ledger.signer.verifier.verifier_key()
    done = verify(dsn, key, receipts)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = receipts.read_text().splitlines()
    other = json.loads(lines[0])
    found = other.get("results") or [{"receipt": each} for each in other["receipts"]]
    found[0]["receipt"]["leaf"] = "0a" * 32
    receipts.write_text("\n".join([json.dumps(other), *lines[1:]]) + "\n")
    done = verify(dsn, key, receipts)
    assert done.returncode == 1, done.stdout + done.stderr


def test_a_missing_entry_is_named(place: tuple[Running, str], client: Client):
    service, dsn = place
    seqs = emit(client, 20)
    tamper(dsn, "DELETE FROM entries WHERE seq = ANY(%s)", [seqs[3], seqs[-1]])
    found = client.reconcile(service.reader)
    assert found.missing == [seqs[3], seqs[-1]]
    assert found.altered == []
    with pytest.raises(TamperDetected, match="2 entries are missing"):
        found.require_ok()


def test_an_altered_entry_is_named_even_if_its_leaf_was_recomputed(
    place: tuple[Running, str], client: Client
):
    service, dsn = place
    seqs = emit(client, 5)
    entry = service.get(f"entries/{seqs[2]}").content
    altered = entry.replace(b'"phone"', b'"email"')
    tamper(
        dsn,
        "UPDATE entries SET entry = %s, leaf = sha256('\\x00'::bytea || %s) WHERE seq = %s",
        altered,
        altered,
        seqs[2],
    )
    found = client.reconcile(service.reader)
    assert found.altered == [seqs[2]]
    assert not found.ok


def test_a_receipt_that_names_the_entry_of_another_event_is_found_out(
    place: tuple[Running, str], client: Client
):
    service, _ = place
    seqs = emit(client, 2)
    rows = client.core.engine.database
    with rows.transaction() as connection:
        connection.execute("UPDATE receipts SET id = 'another' WHERE seq = ?", (seqs[0],))
    found = client.reconcile(service.reader)
    assert found.other == [seqs[0]]
    assert not found.ok


def test_a_subject_with_two_records_is_found_in_the_receipts_alone(tmp_path: Path):
    with (
        answering() as server,
        Client(
            server.url,
            "test",
            "ck_test",
            source="crm",
            outbox=tmp_path / "o",
            verifier_key=server.verifier_key,
            limits=LIMITS,
        ) as client,
    ):
        for subject in ("crm:A", "crm:B", "crm:A"):
            client.emit("record.accessed", subject, actor="e1").wait_recorded(10)
            server.records.pop("crm:A", None)
        ((records, seqs),) = client.core.engine.archive.split_subjects()
        assert len(set(records)) == 2
        assert seqs == [1, 3]


def test_an_emitters_key_can_not_reconcile_and_that_is_no_success(
    place: tuple[Running, str], client: Client
):
    service, _ = place
    emit(client, 1)
    with pytest.raises(CannotVerify, match="403"):
        client.reconcile(service.emitter)


def test_a_ledger_that_is_away_is_no_success(tmp_path: Path):
    with answering() as server:
        client = Client(
            server.url,
            "test",
            "ck_test",
            source="crm",
            outbox=tmp_path / "o",
            verifier_key=server.verifier_key,
            limits=LIMITS,
        )
        client.emit("record.accessed", "crm:A", actor="e1").wait_recorded(10)
    with client, pytest.raises(CannotVerify):
        client.reconcile("ck_reader")


def test_a_key_must_be_given_once(client: Client, tmp_path: Path):
    with pytest.raises(Misconfigured):
        client.reconcile()
    with pytest.raises(Misconfigured):
        client.reconcile("ck_x", key_file=tmp_path / "key")


def test_what_waits_and_what_was_refused_is_told(place: tuple[Running, str], client: Client):
    service, _ = place
    client.emit("nothing.known", "crm:A")
    client.flush(10)
    found = client.reconcile(service.reader)
    assert found.refused == 1
    assert found.checked == 0


def test_receipts_further_apart_than_a_page_are_all_checked(
    place: tuple[Running, str], client: Client
):
    service, _ = place
    emit(client, 2)
    for _ in range(2):
        body: list[Any] = [
            {
                "id": f"x-{number}-{service.open.head_seq}",
                "type": "record.accessed",
                "subject": "crm:Y",
                "data": {"actor": {"id": "e1"}, "fields": ["a"]},
            }
            for number in range(700)
        ]
        assert service.post(body).status_code == 201
    emit(client, 2)
    found = client.reconcile(service.reader)
    assert found.ok
    assert found.checked == 4


def test_the_client_for_event_loops_reconciles_too(
    place: tuple[Running, str], client: Client, tmp_path: Path
):
    service, _ = place
    emit(client, 3)
    client.close()

    async def run() -> int:
        async with AsyncClient(
            service.url,
            LEDGER,
            service.emitter,
            source="crm",
            outbox=tmp_path / "outbox.sqlite",
            verifier_key=service.open.ledger.signer.verifier.verifier_key(),
            limits=LIMITS,
        ) as again:
            return (await again.reconcile(service.reader)).checked

    assert asyncio.run(run()) == 3
