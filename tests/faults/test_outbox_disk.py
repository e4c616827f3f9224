"""The outbox's disk is full, or the ledger away for an hour: nothing is lost, all is said."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ledger.client import AsyncClient, Client, Limits
from ledger.client.archive import Archive
from ledger.client.database import Database
from ledger.client.outbox import Outbox
from ledger.errors import Unavailable
from tests.http.answering import Answering, answering
from tests.http.support import LEDGER, free_port, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
LIMITS = Limits(
    batch_age_s=0.0,
    retry_first_s=0.01,
    retry_most_s=0.05,
    emit_timeout_s=0.3,
    buffer_events=200,
    report_every_s=None,
)


def open_client(server: Answering, outbox: Path, **options: Any) -> Client:
    given: dict[str, Any] = {"verifier_key": server.verifier_key, "limits": LIMITS, **options}
    return Client(server.url, "test", "ck_test", source="crm", outbox=outbox, **given)


def fill(client: Client) -> list[Any]:
    """Emit until there is no room; give the tickets of what was taken."""
    taken: list[Any] = []
    with pytest.raises(Unavailable, match="more is not allowed"):
        emit_without_end(client, taken)
    return taken


def emit_without_end(client: Client, taken: list[Any]) -> None:
    while True:
        ticket = client.emit("record.accessed", "crm:C-1", actor="e1", fields=["a"], note="x" * 500)
        taken.append(ticket)


def assert_whole(server: Answering, tickets: list[Any]) -> None:
    assert server.ids == [ticket.id for ticket in tickets]
    sequences = [event["data"]["sequence"] for request in server.requests for event in request]
    assert set(sequences) == set(range(1, len(tickets) + 1))


def set_pages(client: Client, count: int) -> None:
    """Let the file grow to so many pages and no more, as a full disk would."""
    client.core.engine.database.rows(f"PRAGMA max_page_count = {count}")


def test_on_a_full_disk_emit_raises_and_with_room_all_that_was_taken_is_recorded(tmp_path: Path):
    with answering() as server:
        told: list[Any] = []
        outbox = tmp_path / "outbox.sqlite"
        with open_client(server, outbox, on_trouble=told.append) as client:
            server.always = lambda _: None
            set_pages(client, 80)
            taken = fill(client)
            health = client.health()
            assert health.storing is not None
            assert health.storing.code == "outbox"
            assert "SQLITE_FULL" in health.storing.detail
            assert not health.ok
            with pytest.raises(Unavailable, match="SQLITE_FULL"):
                taken[-1].wait_stored(5)
            assert not taken[-1].stored
            assert taken[0].stored
            set_pages(client, 1_000_000)
            server.always = None
            client.flush(20)
            assert client.health().ok
            assert_whole(server, taken)


def test_what_was_stored_before_the_disk_was_full_survives_and_numbers_go_on(tmp_path: Path):
    with answering() as server:
        outbox = tmp_path / "outbox.sqlite"
        client = open_client(server, outbox)
        server.always = lambda _: None
        set_pages(client, 80)
        taken = fill(client)
        stored = [ticket for ticket in taken if ticket.stored]
        with pytest.raises(Unavailable, match="are lost"):
            client.close(0.2)
        server.always = None
        with open_client(server, outbox) as again:
            again.flush(20)
            assert_whole(server, stored)
            again.emit("record.accessed", "crm:C-1", actor="e1", fields=["a"])
            again.flush(20)
        assert server.requests[-1][0]["data"]["sequence"] == len(stored) + 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 6 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_really_full_disk_empties_by_itself_once_the_ledger_answers(small_disk: Path):
    """Nobody makes room: acknowledging alone must be able to."""
    with answering() as server, open_client(server, small_disk / "outbox.sqlite") as client:
        server.always = lambda _: None
        taken = fill(client)
        assert client.health().storing is not None
        assert shutil.disk_usage(small_disk).free < 400_000
        server.always = None
        client.flush(30)
        assert_whole(server, taken)
        client.emit("record.accessed", "crm:C-1", actor="e1", durable=True)
        client.flush(10)
        assert client.health().ok


def test_where_even_the_kept_room_is_gone_events_stay_until_there_is_some(small_disk: Path):
    with answering() as server, open_client(server, small_disk / "outbox.sqlite") as client:
        arrived, room = threading.Event(), threading.Event()

        def take_when_full(events: list[Any]) -> Any:
            arrived.set()
            room.wait(10)
            return server.take(events)

        server.always = take_when_full
        tickets = [client.emit("record.accessed", f"crm:C-{n}", actor="e1") for n in range(150)]
        tickets[-1].wait_stored(10)
        assert arrived.wait(10)
        client.core.engine.database.reserve.lend()
        ballast = fill_disk(small_disk / "ballast")
        room.set()
        deadline = time.monotonic() + 10
        while client.health().failures < 2:
            assert time.monotonic() < deadline
            fill_disk(ballast)
            time.sleep(0.01)
        trouble = client.health().sending
        assert trouble is not None
        assert trouble.code == "outbox"
        ballast.unlink()
        client.flush(20)
        assert server.ids == [ticket.id for ticket in tickets]
        assert [ticket.wait_recorded(0).id for ticket in tickets] == server.ids


def fill_disk(path: Path) -> Path:
    """Write to a file until nothing more goes in."""
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    return path


def test_a_commit_is_flushed_to_the_disk_and_what_is_deleted_is_overwritten(tmp_path: Path):
    with answering() as server, open_client(server, tmp_path / "outbox.sqlite") as client:
        database = client.core.engine.database
        assert database.row("PRAGMA journal_mode") == ("wal",)
        assert database.row("PRAGMA synchronous") == (2,)
        assert database.row("PRAGMA secure_delete") == (1,)


@pytest.mark.parametrize("owner", [Outbox, Archive], ids=["storing", "noting"])
def test_a_commit_that_says_it_failed_but_is_on_the_disk_is_not_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type
):
    """An error of the disk while it flushes leaves open what is there after it."""
    commit = Database.transaction
    failing: list[str] = []

    @contextmanager
    def transaction(self: Database) -> Iterator[Any]:
        with commit(self) as connection:
            yield connection
        if failing:
            raise Unavailable(failing.pop())

    monkeypatch.setattr(Database, "transaction", transaction)
    name = "_number" if owner is Outbox else "keep"
    original = getattr(owner, name)
    told = 0

    def telling(*arguments: Any) -> Any:
        nonlocal told
        told += 1
        if told in {2, 3}:
            failing.append("made up")
        return original(*arguments)

    monkeypatch.setattr(owner, name, telling)
    with answering() as server, open_client(server, tmp_path / "outbox.sqlite") as client:
        tickets = []
        for number in range(20):
            ticket = client.emit("record.accessed", f"crm:C-{number}", actor="e1")
            tickets.append(ticket)
            time.sleep(0.02)
        client.flush(20)
        assert told > 3
        assert_whole(server, tickets)
        assert len(set(server.ids)) == sum(len(request) for request in server.requests)
        assert [ticket.wait_recorded(0).id for ticket in tickets] == server.ids
        health = client.health()
        assert health.ok
        assert health.waiting == health.buffered == 0
        asked = len(server.requests)
        time.sleep(0.2)
        assert len(server.requests) == asked


def test_an_outbox_that_can_not_be_made_is_said_at_once(tmp_path: Path):
    with answering() as server:
        with pytest.raises(Unavailable, match="can't be made"):
            open_client(server, tmp_path / "nowhere" / "outbox.sqlite")
        # What was begun is undone, so that the right place can be given.
        open_client(server, tmp_path / "outbox.sqlite").close()


LIMITED = """
import resource, signal, sys
from ledger.client import Client, Limits
from ledger.errors import Unavailable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limits = Limits(emit_timeout_s=0.2, buffer_events=100, report_every_s=None)
client = Client(sys.argv[1], "test", "ck_x", source="crm", outbox=sys.argv[2], limits=limits)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
stored = 0
try:
    while True:
        client.emit("record.accessed", "crm:C-1", actor="e1", fields=["a"], durable=True)
        stored += 1
except Unavailable:
    print(stored, flush=True)
import os
os._exit(0)
"""


def test_under_a_limit_of_file_size_what_was_stored_is_still_there(tmp_path: Path):
    outbox = tmp_path / "outbox.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "http://127.0.0.1:9", outbox],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    stored = int(done.stdout)
    assert stored > 10
    with answering() as server, open_client(server, outbox) as client:
        client.flush(20)
        assert len(server.ids) >= stored


# -- the ledger is away ------------------------------------------------------------------------


def test_a_ledger_that_comes_late_gets_everything_in_order(
    new_database: Callable[[], str], tmp_path: Path
):
    """Nobody listens at first; the emitter goes on, is closed and opened again meanwhile."""
    outbox = tmp_path / "outbox.sqlite"
    dead = f"http://127.0.0.1:{free_port()}"
    for _ in range(3):
        with Client(dead, LEDGER, "ck_x", source="crm", outbox=outbox, limits=LIMITS) as client:
            for number in range(400):
                client.emit("record.accessed", f"crm:C-{number}", actor="e1", fields=["a"])
                if number % 100 == 99:
                    client.emit(
                        "record.accessed", "crm:C-1", actor="e1", fields=["a"], durable=True
                    )
            with pytest.raises(Unavailable):
                client.flush(0.1)
    with running(new_database()) as service:
        key = service.open.ledger.signer.verifier.verifier_key()
        with Client(
            service.url,
            LEDGER,
            service.emitter,
            source="crm",
            outbox=outbox,
            verifier_key=key,
            limits=LIMITS,
        ) as client:
            waiting = client.health().waiting
            assert waiting == 3 * 404
            client.flush(30)
            assert client.health().recorded == waiting
            found = client.reconcile(service.reader)
            assert found.ok
            assert found.checked == waiting
        pages = [
            service.get("entries", params={"after": after, "limit": 1000}).json()["entries"]
            for after in (0, 1000)
        ]
        numbers = [
            entry["entry"]["event"]["data"]["sequence"]
            for page in pages
            for entry in page
            if "sequence" in entry["entry"]["event"]["data"]
        ]
        assert numbers == list(range(1, waiting + 1))


def test_a_ledger_that_comes_late_is_found_without_a_restart(tmp_path: Path):
    port = free_port()
    with answering() as other:
        signer = other.signer
    client = Client(
        f"http://127.0.0.1:{port}",
        "test",
        "ck_x",
        source="crm",
        limits=LIMITS,
        outbox=tmp_path / "outbox.sqlite",
        verifier_key=signer.verifier.verifier_key(),
    )
    tickets = [client.emit("record.accessed", f"crm:C-{n}", actor="e1") for n in range(50)]
    deadline = time.monotonic() + 10
    while client.health().failures < 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with answering(port, signer=signer) as late, client:
        client.flush(10)
        assert late.ids == [ticket.id for ticket in tickets]


def test_while_the_ledger_is_away_no_reports_pile_up(tmp_path: Path):
    limits = Limits(batch_age_s=0, retry_first_s=0.01, retry_most_s=0.02, report_every_s=0.05)
    with Client(
        "http://127.0.0.1:9",
        "test",
        "ck_x",
        source="crm",
        limits=limits,
        outbox=tmp_path / "outbox.sqlite",
    ) as client:
        client.emit("record.accessed", "crm:C-1", actor="e1")
        time.sleep(0.5)
        assert client.health().waiting <= 2


def test_a_coroutine_is_told_of_a_full_disk_too(tmp_path: Path):
    async def run() -> None:
        with answering() as server:
            async with AsyncClient(
                server.url,
                "test",
                "ck_test",
                source="crm",
                outbox=tmp_path / "outbox.sqlite",
                verifier_key=server.verifier_key,
                limits=LIMITS,
            ) as client:
                server.always = lambda _: None
                client.core.engine.database.rows("PRAGMA max_page_count = 30")
                with pytest.raises(Unavailable):
                    await emit_awaiting(client)
                client.core.engine.database.rows("PRAGMA max_page_count = 100000")
                server.always = None
                await client.flush(10)
                assert client.health().ok

    asyncio.run(run())


async def emit_awaiting(client: AsyncClient) -> None:
    while True:
        await client.emit("record.accessed", "crm:C-1", actor="e1", note="x" * 500, durable=True)
