"""The client against a real service: what it emits is recorded, once, in order, with receipts."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ledger.client import AsyncClient, Client, Limits
from ledger.core.merkle import leaf_hash
from ledger.errors import Malformed, Misconfigured, NotFound, Refused, TooLarge, Unavailable
from tests.http.support import LEDGER, Running, new_emitter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
QUICK = Limits(batch_age_s=0.01, retry_first_s=0.02, retry_most_s=0.1)

MakeClient = "Callable[..., Client]"


@pytest.fixture
def make(service: Running, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Give a function that opens clients of the running service, closed at the end."""
    made: list[Client] = []

    def open_client(**options: Any) -> Client:
        given: dict[str, Any] = {
            "key": service.emitter,
            "source": "crm",
            "outbox": tmp_path / "outbox.sqlite",
            "verifier_key": verifier_key(service),
            "limits": QUICK,
        }
        client = Client(service.url, LEDGER, **{**given, **options})
        made.append(client)
        return client

    yield open_client
    for client in made:
        client.close()


def verifier_key(service: Running) -> str:
    return service.open.ledger.signer.verifier.verifier_key()


def entry(service: Running, seq: int) -> dict[str, Any]:
    found: dict[str, Any] = service.get(f"entries/{seq}").json()
    return found


def access(client: Client, number: int = 1, **changes: Any) -> Any:
    return client.emit(
        "record.accessed", f"crm:C-{number}", actor="e0117", fields=["phone"], **changes
    )


# -- what arrives -----------------------------------------------------------------------------


def test_an_emitted_event_becomes_the_entry_that_its_receipt_names(
    service: Running, make: MakeClient
):
    receipt = access(make(instance="desk"), activity="support-desk").wait_recorded(10)
    (found,) = receipt.entries
    answer = service.get(f"entries/{found.seq}")
    assert leaf_hash(answer.content) == found.leaf
    event = answer.json()["event"]
    assert event["id"] == receipt.id
    assert event["source"] == "crm"
    assert event["data"]["instance"] == "desk"
    assert event["data"]["sequence"] == 1
    assert event["data"]["activity"] == "support-desk"
    assert event["data"]["fields"] == ["phone"]
    assert answer.json()["stream"] == str(found.record)


def test_time_is_that_of_emitting_and_not_of_arrival(service: Running, make: MakeClient):
    before = datetime.now(UTC)
    receipt = access(make()).wait_recorded(10)
    time = datetime.fromisoformat(entry(service, receipt.entries[0].seq)["event"]["time"])
    assert before <= time <= datetime.now(UTC)


def test_an_event_of_several_subjects_has_one_receipt_with_an_entry_for_each(make: MakeClient):
    client = make()
    ticket = client.emit(
        "record.exported",
        subjects=["crm:S-1", "crm:S-2", "crm:S-3"],
        actor="e0117",
        fields=["phone"],
    )
    receipt = ticket.wait_recorded(10)
    assert len(receipt.entries) == len({each.record for each in receipt.entries}) == 3


def test_a_document_is_sent_as_it_is_and_keeps_its_own_id_and_time(
    service: Running, make: MakeClient
):
    event = {
        "id": "mine-1",
        "time": "2026-01-31T09:30:00+08:00",
        "type": "record.accessed",
        "subject": "crm:C-1",
        "source": "crm/desk",
        "data": {"actor": {"id": "e1"}, "fields": ["phone"]},
    }
    receipt = make().emit_event(event).wait_recorded(10)
    assert receipt.id == "mine-1"
    stored = entry(service, receipt.entries[0].seq)["event"]
    assert stored["time"] == "2026-01-31T09:30:00+08:00"
    assert stored["source"] == "crm/desk"


def test_sequences_are_contiguous_for_each_source_in_the_order_of_emitting(
    service: Running, make: MakeClient
):
    client = make()
    tickets = []
    for number in range(60):
        source = "crm/a" if number % 3 else "crm/b"
        tickets.append(
            client.emit_event(
                {
                    "type": "record.accessed",
                    "subject": "crm:C-5",
                    "source": source,
                    "data": {"actor": {"id": "e1"}, "fields": ["phone"]},
                }
            )
        )
    client.flush(10)
    seqs = [ticket.wait_recorded(0).entries[0].seq for ticket in tickets]
    assert seqs == sorted(seqs)
    events = [entry(service, seq)["event"] for seq in seqs]
    for source in ("crm/a", "crm/b"):
        found = [each["data"]["sequence"] for each in events if each["source"] == source]
        assert found == list(range(1, len(found) + 1))


def test_many_threads_share_one_client_and_nothing_is_lost_or_numbered_twice(
    service: Running, make: MakeClient
):
    client = make(instance="threads")
    first = service.open.head_seq or 0

    def emit() -> None:
        for number in range(100):
            access(client, number)

    threads = [threading.Thread(target=emit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.flush(30)
    lines = service.get(
        "entries",
        params={"from": first + 1, "limit": 1000},
        headers={"Accept": "application/x-ndjson"},
    ).text.splitlines()
    numbers = [
        each["data"]["sequence"]
        for each in (json.loads(line)["event"] for line in lines)
        if each["data"].get("instance") == "threads"
    ]
    assert numbers == list(range(1, 801))


def test_the_number_goes_on_where_it_was_after_a_restart(service: Running, make: MakeClient):
    client = make()
    access(client).wait_recorded(10)
    instance = client.instance
    client.close()
    again = make()
    assert again.instance == instance
    receipt = access(again).wait_recorded(10)
    assert entry(service, receipt.entries[0].seq)["event"]["data"]["sequence"] == 2


def test_a_receipt_of_before_a_restart_can_still_be_read(make: MakeClient):
    client = make()
    ticket = access(client)
    receipt = ticket.wait_recorded(10)
    client.close()
    again = make()
    assert again.core.engine.archive.find(ticket.number) == receipt


def test_without_a_file_an_event_counts_as_stored_when_the_ledger_has_it(make: MakeClient):
    client = make(outbox=None)
    ticket = access(client, durable=True)
    assert ticket.stored
    assert client.health().waiting == 0
    assert ticket.wait_recorded(0).entries


def test_closing_sends_what_waits(service: Running, make: MakeClient):
    client = make(limits=Limits(batch_age_s=5))
    tickets = [access(client, number) for number in range(5)]
    head = service.open.head_seq or 0
    client.close()
    assert (service.open.head_seq or 0) >= head + len(tickets)


def test_a_closed_client_takes_nothing_more(make: MakeClient):
    client = make()
    client.close()
    with pytest.raises(Unavailable, match="closed"):
        access(client)


def test_a_program_that_ends_without_closing_stores_what_it_emitted(
    service: Running, make: MakeClient, tmp_path: Path
):
    program = (
        "import sys; from ledger.client import Client\n"
        "url, ledger, key, outbox = sys.argv[1:]\n"
        "c = Client(url, ledger, key, source='crm', outbox=outbox)\n"
        "for n in range(50): c.emit('record.accessed', 'crm:C-1', actor='e1', fields=['a'])\n"
    )
    outbox = tmp_path / "outbox.sqlite"
    dead = "http://127.0.0.1:9"
    subprocess.run(
        [sys.executable, "-c", program, dead, LEDGER, service.emitter, outbox],
        cwd=ROOT,
        check=True,
    )
    client = make()
    client.flush(10)
    assert client.health().recorded == 50


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        {"x": float("nan")},
        {"x": object()},
        {"x": "\ud800"},
        {"\x00": 1},
        {"sequence": 1},
        {"instance": "a"},
    ],
    ids=["nan", "object", "surrogate", "null", "sequence", "instance"],
)
def test_what_can_not_be_an_event_is_refused_where_it_is_emitted(make: MakeClient, data: Any):
    client = make()
    with pytest.raises(Malformed) as caught:
        client.emit_event({"type": "record.accessed", "subject": "crm:C-1", "data": data})
    assert "nan" not in str(caught.value)
    assert client.health().buffered == client.health().waiting == 0


def test_data_that_is_no_object_is_refused_where_it_is_emitted(make: MakeClient):
    with pytest.raises(Malformed):
        make().emit_event({"type": "record.accessed", "subject": "crm:C-1", "data": [1]})


def test_an_event_past_the_limit_is_refused_where_it_is_emitted(make: MakeClient):
    with pytest.raises(TooLarge):
        access(make(), note="x" * 3_000_000)


def test_a_poison_event_is_set_aside_and_those_around_it_are_recorded(make: MakeClient):
    told = []
    client = make(on_refused=told.append)
    before = [access(client, number) for number in range(3)]
    poison = client.emit("record.acessed", "crm:C-1", actor="e1", fields=["phone"])
    after = [access(client, number) for number in range(3)]
    client.flush(10)
    for ticket in before + after:
        assert ticket.wait_recorded(0).entries
    with pytest.raises(Refused, match="422"):
        poison.wait_recorded(0)
    (refused,) = client.refused()
    assert told == [refused]
    assert refused.number == poison.number
    assert refused.status == 422
    assert refused.problem["pointer"].endswith("/type")
    assert json.loads(refused.event)["id"] == poison.id
    assert client.health().refused == 1
    assert client.health().ok


def test_the_service_judges_each_event_on_its_own_so_that_poison_costs_no_request(
    make: MakeClient, tmp_path: Path
):
    client = make(limits=Limits(batch_age_s=0.3, report_every_s=None))
    for number in range(6):
        access(client, number)
        last = client.emit("nothing.known", "crm:C-1")
    last.wait_stored(10)
    client.flush(10)
    assert len(client.refused()) == 6
    path = tmp_path / "receipts.jsonl"
    client.export_receipts(path)
    (line,) = path.read_text().splitlines()
    assert len(json.loads(line)["results"]) == 12


def test_only_poison_is_set_aside_wherever_it_stands(make: MakeClient):
    client = make()
    for number in range(20):
        if number % 4 == 0:
            client.emit("record.accessed", "elsewhere:C-1", actor="e1", fields=["phone"])
        else:
            access(client, number)
    client.flush(20)
    assert [each.status for each in client.refused()] == [403] * 5
    assert client.health().recorded == 15


def test_a_poison_event_survives_a_restart_and_is_never_sent_again_by_itself(make: MakeClient):
    client = make()
    client.emit("nothing.known", "crm:C-1")
    client.flush(10)
    client.close()
    again = make()
    access(again).wait_recorded(10)
    assert len(again.refused()) == 1
    assert again.health().waiting == 0


def test_a_corrected_event_closes_the_gap_in_the_sequence(service: Running, make: MakeClient):
    client = make()
    client.emit("record.acessed", "crm:C-1", actor="e1", fields=["phone"], event_id="typo")
    access(client)
    client.flush(10)
    (refused,) = client.refused()
    event = json.loads(refused.event)
    del event["data"]["sequence"], event["data"]["instance"]
    client.resubmit(refused.number, {**event, "type": "record.accessed"})
    client.flush(10)
    assert client.refused() == []
    receipt = client.core.engine.archive.find(refused.number)
    assert receipt is not None
    assert receipt.id == "typo"
    assert entry(service, receipt.entries[0].seq)["event"]["data"]["sequence"] == 1


def test_a_refused_event_can_be_sent_again_as_it_was_once_it_is_allowed(
    service: Running, make: MakeClient, tmp_path: Path
):
    key = tmp_path / "key"
    key.write_text(new_emitter(service.control, namespaces=["other"]))
    client = make(key=None, key_file=key)
    access(client)
    client.flush(10)
    (refused,) = client.refused()
    assert refused.status == 403
    key.write_text(service.emitter)
    client.resubmit(refused.number)
    client.flush(10)
    assert client.refused() == []
    assert client.health().recorded == 1


def test_a_refused_event_can_be_discarded_and_then_is_gone(make: MakeClient):
    client = make()
    ticket = client.emit("nothing.known", "crm:C-1")
    client.flush(10)
    client.discard(ticket.number)
    assert client.refused() == []
    with pytest.raises(NotFound):
        client.discard(ticket.number)
    with pytest.raises(NotFound):
        client.resubmit(ticket.number)
    with pytest.raises(NotFound):
        ticket.wait_recorded(0)


def test_a_callback_that_fails_stops_nothing(make: MakeClient):
    def fail(_: object) -> None:
        raise RuntimeError

    client = make(on_refused=fail)
    client.emit("nothing.known", "crm:C-1")
    access(client).wait_recorded(10)
    assert client.health().ok


def test_another_event_under_a_used_id_is_set_aside(make: MakeClient):
    client = make()
    event = {
        "id": "twice",
        "type": "record.accessed",
        "subject": "crm:C-1",
        "data": {"actor": {"id": "e1"}, "fields": ["phone"]},
    }
    client.emit_event(event).wait_recorded(10)
    client.emit_event({**event, "subject": "crm:C-2"})
    client.flush(10)
    assert [each.status for each in client.refused()] == [409]


# -- who may have an outbox -------------------------------------------------------------------


def test_a_second_client_of_one_process_is_refused_the_outbox(make: MakeClient):
    make()
    with pytest.raises(Misconfigured, match="another client of this process"):
        make()


def test_a_second_client_is_refused_by_another_name_of_the_file_too(
    make: MakeClient, tmp_path: Path
):
    make()
    (tmp_path / "link").symlink_to(tmp_path / "outbox.sqlite")
    with pytest.raises(Misconfigured, match="another client"):
        make(outbox=tmp_path / "link")


def test_an_outbox_is_for_one_ledger_and_one_instance(make: MakeClient, service: Running):
    make(instance="a").close()
    with pytest.raises(Misconfigured, match="instance"):
        make(instance="b")
    with pytest.raises(Misconfigured, match="ledger"):
        Client(service.url, "other", "ck_x", source="crm", outbox=_path(make))


def _path(make: Any) -> Path:
    client = make(instance="a")
    path: Path = client.core.engine.database.path
    client.close()
    return path


def test_a_file_that_is_no_outbox_is_left_alone(make: MakeClient, tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but longer than a header of SQLite has bytes" * 20)
    before = path.read_bytes()
    with pytest.raises(Misconfigured, match="expected an outbox"):
        make(outbox=path)
    assert path.read_bytes() == before


def test_the_outbox_is_readable_by_its_owner_only(make: MakeClient, tmp_path: Path):
    access(make(), durable=True)
    for path in tmp_path.glob("outbox.sqlite*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_client_from_before_a_fork_says_so_in_the_child(make: MakeClient):
    client = make()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            access(client)
            os.write(write, b"emitted")
        except Misconfigured as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert b"before a fork" in pipe.read()
    assert access(client).wait_recorded(10).entries


@pytest.mark.parametrize(
    "options",
    [
        {"key": None},
        {"key_file": "also"},
        {"source": "with space"},
        {"instance": "1st"},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(make: MakeClient, options: dict[str, Any]):
    with pytest.raises(Misconfigured):
        make(**options)


@pytest.mark.parametrize(
    "limits",
    [
        {"batch_events": 0},
        {"buffer_bytes": -1},
        {"retry_most_s": 0},
        {"emit_timeout_s": -1},
        {"report_every_s": 0},
        {"receipts_kept": 0},
    ],
    ids=str,
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any]):
    with pytest.raises(Misconfigured):
        Limits(**limits)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8420", "ftp://h", "http://me:secret@h"])
def test_an_address_that_is_none_is_refused(url: str):
    with pytest.raises(Misconfigured):
        Client(url, LEDGER, "ck_x", source="crm")


# -- for event loops --------------------------------------------------------------------------


def test_a_coroutine_waits_without_holding_up_the_event_loop(service: Running, tmp_path: Path):
    async def run() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async with AsyncClient(
            service.url,
            LEDGER,
            service.emitter,
            source="crm",
            outbox=tmp_path / "o",
            verifier_key=verifier_key(service),
            limits=QUICK,
        ) as client:
            ticking = asyncio.create_task(tick())
            tickets = await asyncio.gather(
                *(
                    client.emit(
                        "record.accessed",
                        f"crm:C-{number}",
                        actor="e1",
                        fields=["phone"],
                        durable=True,
                    )
                    for number in range(200)
                )
            )
            assert all(ticket.stored for ticket in tickets)
            await client.flush(20)
            ticking.cancel()
            assert client.health().recorded == 200
        return ticks

    assert asyncio.run(run()) > 10


def test_a_ticket_can_be_awaited(service: Running):
    async def run() -> None:
        async with AsyncClient(
            service.url, LEDGER, service.emitter, source="crm", limits=QUICK
        ) as client:
            ticket = await client.emit("record.accessed", "crm:C-1", actor="e1", fields=["a"])
            await ticket
            assert ticket.stored

    asyncio.run(run())


# -- the report on oneself --------------------------------------------------------------------


def test_a_source_reports_what_it_numbered_and_its_report_has_no_number(
    service: Running, make: MakeClient
):
    client = make(instance="reporting")
    for number in range(3):
        access(client, number)
    client.flush(10)
    client.core._heartbeat.report()
    client.close()
    client = make(instance="reporting")
    client.core._heartbeat.report()
    last = access(client)
    seq = last.wait_recorded(10).entries[0].seq
    reports = [entry(service, each)["event"] for each in (seq - 2, seq - 1)]
    for event, count in zip(reports, (3, 0), strict=True):
        assert event["type"] == "ledger.source.reported.v1"
        assert event["data"]["count"] == count
        assert event["data"]["last_sequence"] == 3
        assert event["data"]["instance"] == "reporting"
        assert "sequence" not in event["data"]
    assert entry(service, seq)["event"]["data"]["sequence"] == 4


def test_reports_come_by_themselves(service: Running, make: MakeClient):
    head = service.open.head_seq or 0
    client = make(limits=Limits(batch_age_s=0.0, report_every_s=0.05))
    ticket = access(client)
    while client.health().recorded < 4:
        ticket.wait_recorded(10)
    types = [entry(service, head + each)["event"]["type"] for each in range(1, 5)]
    assert types.count("ledger.source.reported.v1") >= 3


def test_a_credential_that_may_not_report_stops_the_reports(service: Running, make: MakeClient):
    key = new_emitter(service.control, types=["record.accessed"])
    client = make(key=key, limits=Limits(batch_age_s=0.0, report_every_s=0.02))
    while not client.refused():
        access(client).wait_recorded(10)
    refused = client.refused()
    assert len(refused) <= 2
    for _ in range(5):
        access(client).wait_recorded(10)
    client.flush(10)
    assert len(client.refused()) <= 2
