from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresTrackingRecorder

from ledger.application import LedgerFactory, LedgerLog, log_environment
from ledger.errors import NotFound, ProjectionStopped, Unavailable
from ledger.events.taxonomy import TYPES, EventType, Writer
from projections.catalogue import VIEWS
from projections.cli import rebuild as rebuild_command
from projections.queries import ViewReader
from projections.rebuild import rebuild
from projections.recorded import read_entry
from projections.runner import BatchProjectionRunner, ViewProjection
from projections.schema import migrate_views
from projections.supervisor import ViewSupervisor
from projections.views.access_history import AccessHistory
from projections.views.record_fold import state_at
from projections.views.record_states import RecordStates
from tests.fixtures.ledgers import an_emitter, an_event, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventsourcing.utils import EnvType

    from ledger.service import Ledger
    from projections.view import View
    from tests.fixtures.ledgers import Place

TIMEOUT_S = 20.0


@pytest.fixture
def views(place: Place) -> Place:
    """Give a ledger's place with its views' tables, empty."""
    with place.connect() as connection:
        migrate_views(connection, schema=place.row.schema)
    return place


@pytest.fixture
def reader(views: Place) -> Iterator[ViewReader]:
    made = ViewReader(views.dsn, views.row.schema)
    yield made
    made.close()


def supervisor_of(place: Place) -> ViewSupervisor:
    return ViewSupervisor(place.dsn, place.row.schema)


def environment_of(place: Place) -> dict[str, str]:
    return log_environment(place.dsn, place.row.schema)


def head_of(place: Place) -> int:
    with place.connect() as connection:
        row = connection.execute("SELECT max(seq) FROM entries").fetchone()
    assert row is not None
    return int(row[0])


def catch_up(place: Place) -> None:
    with supervisor_of(place) as supervisor:
        supervisor.wait(head_of(place), timeout_s=TIMEOUT_S)


def digest_of(place: Place) -> str:
    """Hash every row of every view and its position."""
    digest = sha256()
    with place.connect() as connection:
        for view in VIEWS:
            for table in (f"view_{view}", f"view_{view}_tracking"):
                for (row,) in connection.execute(f"SELECT t::text FROM {table} t ORDER BY 1"):
                    digest.update(row.encode() + b"\n")
    return digest.hexdigest()


def counts_of(place: Place) -> tuple[int, int]:
    with place.connect() as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM view_access_history),"
            " (SELECT count(*) FROM view_record_state)"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def empty(place: Place) -> None:
    with place.connect() as connection:
        for view in VIEWS:
            connection.execute(f"TRUNCATE view_{view}")
            connection.execute(
                f"DELETE FROM view_{view}_tracking WHERE application_name <> '__migration__'"
            )


def tell_a_story(ledger: Ledger, *, subjects: int = 7, rounds: int = 3) -> None:
    """Record a bit of everything that changes a view."""
    events = []
    actor = {"actor": {"id": "e0117"}}
    for number in range(subjects):
        subject = f"crm:C-{number}"
        share = str(uuid4())
        recipient = {"id": "P-7", "kind": "processor"}
        told: list[tuple[str, dict[str, Any]]] = [
            ("record.collected", {"fields": ["phone"], "data_categories": ["contact"]}),
            ("consent.given", {"purposes": ["service", "marketing"], "kind": "general"}),
            *[("record.accessed", {"fields": ["phone"], "note": "13800138000"})] * rounds,
            ("record.shared", {"fields": ["phone"], "recipient": recipient}),
            ("share.closed", {"share_ref": share, "result": "deleted"}),
            ("record.restricted", {"state": "on", "ground": "dispute"}),
            ("record.linked", {"other": "crm:C-999"}),
            ("record.accessed", {"fields": ["phone"], "outcome": "denied"}),
        ]
        for type_name, data in told:
            event = an_event(type=type_name, subject=subject, data={**actor, **data})
            if type_name == "record.shared":
                event["id"] = share
            events.append(event)
    record(ledger, *events)


def insert_entry(place: Place, entry: bytes, *, seq: int, stream: UUID, version: int) -> None:
    """Put bytes into the log past the recorder, as somebody with the owner's rights could."""
    with place.connect() as connection:
        connection.execute(
            "INSERT INTO entries VALUES (%s, %s, %s, 'x', %s, %s)",
            (seq, stream, version, sha256(b"\0" + entry).digest(), entry),
        )


@contextmanager
def open_view(place: Place, view_class: type[View]) -> Iterator[View]:
    env: EnvType = environment_of(place)
    factory = LedgerFactory(BatchProjectionRunner._construct_env(f"view_{view_class.name}", env))
    yield factory.tracking_recorder(view_class)
    factory.close()


def test_views_follow_the_log_and_say_how_far_they_have_come(
    views: Place, ledger: Ledger, reader: ViewReader
):
    assert {(p.view, p.position) for p in reader.select_positions()} == {(v, 0) for v in VIEWS}
    with supervisor_of(views) as supervisor:
        for _ in range(3):
            tell_a_story(ledger, subjects=2)
            head = head_of(views)
            supervisor.wait(head, timeout_s=TIMEOUT_S)
            assert {(p.position, p.lag) for p in reader.select_positions()} == {(head, 0)}
        assert {(s.condition, s.lag(head + 3)) for s in supervisor.status()} == {("running", 3)}
    assert {s.condition for s in supervisor.status()} == {"stopped"}


def test_the_state_now_is_the_fold_of_the_records_entries(
    views: Place, ledger: Ledger, reader: ViewReader
):
    tell_a_story(ledger)
    catch_up(views)
    for number in range(7):
        stream = ledger.find_record(f"crm:C-{number}")
        assert stream is not None
        events = [read_entry(row.entry) for row in ledger.stream_entries(stream, 0, 100)]
        state = reader.select_state(stream)
        assert state == state_at(events)
        assert state is not None
        assert (state.status, state.version, state.shares) == ("restricted", len(events), [])
        assert state.last_access is not None
        assert state.last_access.actor == ledger.find_staff("e0117")
    assert reader.select_state(uuid4()) is None


def test_every_event_that_the_ledger_accepts_can_be_folded(
    views: Place, ledger: Ledger, reader: ViewReader
):
    everybody = an_emitter(namespaces=("*",))
    for event_type in TYPES.values():
        event = full_event(event_type)
        if Writer.SERVICE in event_type.writers:
            record(ledger, event, emitter=everybody)
        elif Writer.LEDGER in event_type.writers:
            ledger.append_own(event_type.name, event["data"], subject=event.get("subject"))
        else:
            record(ledger, event, emitter=an_emitter(by=Writer.PERSON, namespaces=("*",)))
    scope = {"actor": {"id": "e1"}, "kind": "training", "result": "passed", "scope": {"n": 7}}
    odd = an_event(type="control.performed", data=scope)
    with_infinity = json.dumps(odd).replace('"n": 7', '"n": 1e999').encode()
    asyncio.run(ledger.ingest(with_infinity, everybody))
    with supervisor_of(views) as supervisor:
        supervisor.wait(head_of(views), timeout_s=TIMEOUT_S)
        assert {s.condition for s in supervisor.status()} == {"running"}
    types = {row.type for row in reader.select_accesses(limit=100)}
    assert types == {"record.accessed", "record.exported", "record.used", "record.shared"}


def full_event(event_type: EventType) -> dict[str, Any]:
    """Give an event with every member that its type has, each with its kind's example."""
    data: dict[str, Any] = {}
    for path, kind in event_type.members.items():
        place, names = data, path.replace(".*", ".phone").split(".")
        for name in names[:-1]:
            if name.endswith("[]"):
                place = place.setdefault(name[:-2], [{}])[0]
            else:
                place = place.setdefault(name, {})
        place[names[-1]] = json.loads(kind.example)
    event = an_event(type=event_type.name, data=data, time="2026-01-31T09:30:00.123456789-23:59")
    if event_type.subject == "none":
        del event["subject"]
    return event


def test_accesses_are_found_by_record_person_and_time_a_page_at_a_time(
    views: Place, ledger: Ledger, reader: ViewReader
):
    day = datetime(2026, 3, 1, tzinfo=UTC)
    for number in range(12):
        happened = (day + timedelta(hours=number)).isoformat()
        data = {"actor": {"id": f"e{number % 2}"}, "fields": ["phone"], "purpose": "service"}
        record(ledger, an_event(subject=f"crm:C-{number % 3}", time=happened, data=data))
    catch_up(views)
    everything = reader.select_accesses(limit=100)
    assert [row.seq for row in everything] == sorted(row.seq for row in everything)
    assert len(everything) == 12
    stream, person = ledger.find_record("crm:C-1"), ledger.find_staff("e1")
    both = reader.select_accesses(record=stream, actor=person, limit=100)
    assert [row.time.hour for row in both] == [1, 7]
    assert {(row.record, row.actor) for row in both} == {(stream, person)}
    span = {"from_time": day + timedelta(hours=2), "to_time": day + timedelta(hours=5)}
    assert [row.time.hour for row in reader.select_accesses(**span, limit=100)] == [2, 3, 4]
    pages, after = [], 0
    while page := reader.select_accesses(after_seq=after, limit=5):
        pages += page
        after = page[-1].seq
    assert pages == everything
    first = everything[0]
    entry = ledger.entries(first.seq, first.seq, 1)[0]
    assert first.leaf == entry.leaf
    assert (first.purpose, first.outcome, first.source) == ("service", "success", "crm")
    assert (first.actor_kind, first.fields, first.time_given) == ("person", ["phone"], True)
    assert first.incomplete == ["reason_ref", "grant_ref", "masked", "source"]


def test_a_correction_marks_the_access_before_it_and_never_one_after_it(
    views: Place, ledger: Ledger, reader: ViewReader
):
    seq = record(ledger, an_event())["seq"]
    correction = {"actor": {"id": "e2"}, "correction": "did_not_happen"}
    for target in (seq, seq + 4, seq + 100):
        data = {**correction, "target_seq": target}
        record(ledger, an_event(type="event.corrected", data=data))
    later = [record(ledger, an_event())["seq"] for _ in range(2)]
    catch_up(views)
    marks = {r.seq: (r.correction, r.corrected_seq) for r in reader.select_accesses(limit=9)}
    assert marks == {seq: ("did_not_happen", seq + 1), **dict.fromkeys(later, (None, None))}


def test_no_view_holds_what_was_sealed(views: Place, ledger: Ledger):
    tell_a_story(ledger)
    catch_up(views)
    with views.connect() as connection:
        for view in VIEWS:
            text = str(connection.execute(f"SELECT t::text FROM view_{view} t").fetchall())
            assert not any(secret in text for secret in ("13800138000", "C-1", "e0117"))


def test_folding_in_batches_gives_what_folding_one_by_one_gives(views: Place, ledger: Ledger):
    tell_a_story(ledger)
    catch_up(views)
    in_batches = digest_of(views)
    empty(views)
    log = LedgerLog(environment_of(views))
    for view_class in VIEWS.values():
        with open_view(views, view_class) as view:
            projection = ViewProjection(view)
            for notification in log.recorder.select_notifications(1, 1000):
                projection.process_event(notification, Tracking(log.name, notification.id))
    log.close()
    assert digest_of(views) == in_batches


def test_a_rebuild_gives_the_same_content(views: Place, ledger: Ledger):
    tell_a_story(ledger)
    catch_up(views)
    before = digest_of(views)
    with views.connect() as connection:
        connection.execute("UPDATE view_record_state SET status = 'erased'")
        connection.execute("DELETE FROM view_access_history WHERE seq % 2 = 0")
    assert digest_of(views) != before
    rebuilt = rebuild(views.dsn, views.row.schema)
    assert (rebuilt.views, rebuilt.entries) == (tuple(VIEWS), head_of(views))
    assert digest_of(views) == before


def test_views_work_on_the_oldest_supported_server(place_15: Place):
    with place_15.connect() as connection:
        migrate_views(connection, schema=place_15.row.schema)
    tell_a_story(place_15.open())
    catch_up(place_15)
    before = digest_of(place_15)
    rebuild(place_15.dsn, place_15.row.schema)
    assert digest_of(place_15) == before


def test_one_view_is_rebuilt_alone_and_an_unknown_one_refused(views: Place, ledger: Ledger):
    tell_a_story(ledger)
    catch_up(views)
    before = digest_of(views)
    assert rebuild(views.dsn, views.row.schema, ["access_history"]).views == ("access_history",)
    assert digest_of(views) == before
    with pytest.raises(NotFound):
        rebuild(views.dsn, views.row.schema, ["nothing"])


def test_a_rebuild_by_command_says_what_it_did(
    views: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    tell_a_story(ledger)
    monkeypatch.setenv("LEDGER_DATABASE_URL", views.dsn)
    result = CliRunner().invoke(rebuild_command, ["test"], catch_exceptions=False)
    assert f"rebuilt {', '.join(VIEWS)}: {head_of(views)} entries" in result.output
    named = CliRunner().invoke(rebuild_command, ["test", "--view", "access_history", "--json"])
    assert '"access_history"' in named.output
    assert isinstance(CliRunner().invoke(rebuild_command, ["other"]).exception, NotFound)


def test_a_service_goes_on_after_a_rebuild_beside_it(views: Place, ledger: Ledger):
    tell_a_story(ledger, subjects=40)
    with supervisor_of(views) as supervisor:
        for _ in range(3):
            rebuild(views.dsn, views.row.schema)
            tell_a_story(ledger, subjects=3)
        supervisor.wait(head_of(views), timeout_s=TIMEOUT_S)
    followed = digest_of(views)
    rebuild(views.dsn, views.row.schema)
    assert digest_of(views) == followed


def test_an_interrupted_rebuild_leaves_what_its_position_says_and_is_gone_on_with(
    views: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    tell_a_story(ledger)
    catch_up(views)
    whole = digest_of(views)
    monkeypatch.setattr("projections.rebuild.REBUILD_BATCH", 20)

    def interrupt(seq: int) -> None:
        if seq == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(views.dsn, views.row.schema, on_progress=interrupt)
    with views.connect() as connection:
        row = connection.execute("SELECT max(seq) FROM view_access_history").fetchone()
        position = connection.execute(
            "SELECT notification_id FROM view_access_history_tracking"
            " WHERE application_name = 'LedgerLog'"
        ).fetchone()
    assert row is not None
    assert position == (40,)
    assert row[0] <= 40
    catch_up(views)
    assert digest_of(views) == whole


def test_two_rebuilds_at_once_are_refused(
    views: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    tell_a_story(ledger)
    monkeypatch.setattr("projections.rebuild.LOCK_WAIT_MS", 50)
    refusals: list[BaseException] = []

    def again(_seq: int) -> None:
        with pytest.raises(Unavailable, match="being rebuilt") as refusal:
            rebuild(views.dsn, views.row.schema)
        refusals.append(refusal.value)

    rebuild(views.dsn, views.row.schema, on_progress=again)
    assert refusals


def test_several_runners_at_once_do_no_harm(views: Place, ledger: Ledger):
    supervisors = [supervisor_of(views) for _ in range(3)]
    for supervisor in supervisors:
        supervisor.start()
    for _ in range(5):
        tell_a_story(ledger, subjects=10)
    for supervisor in supervisors:
        supervisor.wait(head_of(views), timeout_s=TIMEOUT_S)
        supervisor.stop()
    together = digest_of(views)
    rebuild(views.dsn, views.row.schema)
    assert digest_of(views) == together


def test_processes_that_take_turns_fold_what_one_alone_folds(views: Place, ledger: Ledger):
    for _ in range(3):
        tell_a_story(ledger, subjects=2)
    catch_up(views)
    alone = digest_of(views)
    empty(views)
    events = [read_entry(row.entry) for row in ledger.entries(1, 1000, 1000)]
    for view_class in VIEWS.values():
        with open_view(views, view_class) as one, open_view(views, view_class) as other:
            turns = [one, other, one, one, other] * len(events)
            position = 0
            while position < len(events):
                view = turns.pop()
                # Each begins with entries that were folded already.
                found = view.record(events[max(position - 2, 0) : position + 5])
                assert found is not None
                position = found
    assert digest_of(views) == alone


def test_a_fold_that_was_rolled_back_leaves_no_trace(
    views: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    tell_a_story(ledger)
    events = [read_entry(row.entry) for row in ledger.entries(1, 1000, 1000)]
    for view_class in VIEWS.values():
        with open_view(views, view_class) as view:
            assert view.record(events[:20]) == 20
            with monkeypatch.context() as patch:
                patch.setattr(view, "_insert_tracking", lambda *_: 1 // 0)
                with pytest.raises(ZeroDivisionError):
                    view.record(events[20:])
            assert view.position() == 20
            assert view.record(events[20:]) == len(events)
    folded = digest_of(views)
    rebuild(views.dsn, views.row.schema)
    assert digest_of(views) == folded


FOLLOW = """
import sys
from projections.supervisor import ViewSupervisor
import ledger.log
ledger.log.BATCH = 10
supervisor = ViewSupervisor(sys.argv[1], sys.argv[2])
supervisor.start()
supervisor.wait(int(sys.argv[3]), timeout_s=60)
supervisor.stop()
"""


def test_each_entry_is_folded_exactly_once_though_the_process_is_killed(
    views: Place, ledger: Ledger, reader: ViewReader
):
    for _ in range(10):
        tell_a_story(ledger, subjects=20)
    head = head_of(views)
    seen = [0]
    while seen[-1] < head:
        arguments = [views.dsn, views.row.schema, str(head)]
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(FOLLOW), *arguments])
        goal = min(seen[-1] + head // 4, head)
        while (now := min(p.position for p in reader.select_positions())) < goal:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(now)
    assert len(seen) > 3
    catch_up(views)
    survived = digest_of(views)
    rebuild(views.dsn, views.row.schema)
    assert digest_of(views) == survived


def test_views_go_on_after_their_connections_were_cut(views: Place, ledger: Ledger):
    with supervisor_of(views) as supervisor:
        for _ in range(4):
            tell_a_story(ledger, subjects=20)
            with psycopg.connect(views.dsn, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        supervisor.wait(head_of(views), timeout_s=TIMEOUT_S)
    followed = digest_of(views)
    rebuild(views.dsn, views.row.schema)
    assert digest_of(views) == followed


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "no entry": lambda entry: entry[:0] + b'{"seq":1}',
    "cut short": lambda entry: entry[:-2],
    "another position": lambda entry: entry.replace(b'"seq":', b'"seq":1', 1),
    "another version": lambda entry: entry.replace(b'"version":', b'"version":7', 1),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_view_stops_at_a_broken_entry_and_says_where(views: Place, ledger: Ledger, kind: str):
    tell_a_story(ledger)
    last = ledger.entries(head_of(views), head_of(views), 1)[0]
    good = read_entry(last.entry)
    seq = last.seq + 1
    entry = BROKEN[kind](last.entry)
    insert_entry(views, entry, seq=seq, stream=good.stream, version=good.version + 1)
    insert_entry(views, last.entry, seq=seq + 1, stream=good.stream, version=good.version + 2)
    assert_stopped(views, seq)


@pytest.mark.parametrize("caught_up", [True, False])
def test_a_view_stops_at_a_hole_in_the_log(views: Place, ledger: Ledger, *, caught_up: bool):
    record(ledger, an_event())
    if caught_up:
        catch_up(views)
    last = ledger.entries(head_of(views), head_of(views), 1)[0]
    seq, stream = last.seq + 2, read_entry(last.entry).stream
    entry = renumbered(last.entry, seq=seq, version=2)
    insert_entry(views, entry, seq=seq, stream=stream, version=2)
    with supervisor_of(views) as supervisor:
        wait_for_failure(supervisor)
        for status in supervisor.status():
            assert (status.failed_at, status.position) == (seq, last.seq)
            reason = f"TamperDetected: expected entry {last.seq + 1} next, it is missing"
            assert status.reason == reason


def renumbered(entry: bytes, *, seq: int, version: int) -> bytes:
    """Give an entry another place, in its bytes."""
    entry = re.sub(rb'"seq":\d+', b'"seq":%d' % seq, entry, count=1)
    return re.sub(rb'"version":\d+', b'"version":%d' % version, entry, count=1)


def test_a_member_of_another_kind_stops_only_the_views_that_need_it(views: Place, ledger: Ledger):
    record(ledger, an_event())
    last = ledger.entries(head_of(views), head_of(views), 1)[0]
    event = read_entry(last.entry)
    seq = last.seq + 1
    entry = renumbered(last.entry, seq=seq, version=2)
    entry = entry.replace(b'"fields":["phone"]', b'"fields":"phone"')
    insert_entry(views, entry, seq=seq, stream=event.stream, version=2)
    with supervisor_of(views) as supervisor:
        wait_for_failure(supervisor, "access_history")
        states, accesses, *_ = supervisor.status()
        assert (accesses.condition, accesses.failed_at) == ("failed", seq)
        assert accesses.reason == "TamperDetected: member fields: expected an array of strings"
        assert accesses.position == last.seq
        assert states.condition == "running"
        with pytest.raises(Unavailable, match="failed"):
            supervisor.wait(seq + 1, timeout_s=TIMEOUT_S)


def assert_stopped(place: Place, seq: int) -> None:
    """Check that both views hold all before an entry, nothing after, and stay stopped."""
    for _ in range(2):
        with supervisor_of(place) as supervisor:
            wait_for_failure(supervisor)
            for status in supervisor.status():
                assert (status.condition, status.failed_at) == ("failed", seq)
                assert status.position == seq - 1
                assert status.reason is not None
                assert status.reason.startswith("TamperDetected: expected")
    before = counts_of(place)
    with pytest.raises(ProjectionStopped, match=f"stopped at entry {seq}: TamperDetected"):
        rebuild(place.dsn, place.row.schema)
    assert counts_of(place) == before


def wait_for_failure(supervisor: ViewSupervisor, *views: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not all(
        s.condition == "failed" for s in supervisor.status() if s.view in (views or VIEWS)
    ):
        assert time.monotonic() < deadline, supervisor.status()
        time.sleep(0.01)


def test_a_status_names_no_value_when_the_database_refuses_a_row(views: Place, ledger: Ledger):
    record(ledger, an_event())
    with views.connect() as connection:
        connection.execute("ALTER TABLE view_access_history ADD CHECK (activity <> 'support-desk')")
    with supervisor_of(views) as supervisor:
        wait_for_failure(supervisor, "access_history")
        status = supervisor.status()[1]
    assert (status.failed_at, status.reason) == (2, "IntegrityError (SQLSTATE 23514)")


def test_a_view_waits_where_there_is_no_database(views: Place):
    nowhere = replace(views, dsn="host=/nonexistent dbname=x user=x")
    with supervisor_of(nowhere) as supervisor:
        deadline = time.monotonic() + TIMEOUT_S
        while {s.condition for s in supervisor.status()} != {"waiting"}:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert {s.reason for s in supervisor.status()} == {"OperationalError"}
    assert {s.condition for s in supervisor.status()} == {"stopped"}


def test_a_runner_that_finds_a_view_taken_leaves_it_alone(views: Place, ledger: Ledger):
    tell_a_story(ledger)
    with open_view(views, RecordStates) as view, psycopg.connect(views.dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (view.lock_key,))
        with supervisor_of(views) as supervisor:
            deadline = time.monotonic() + TIMEOUT_S
            while supervisor.status()[0].condition != "paused":
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert view.position() == 0
            other.rollback()
            supervisor.wait(head_of(views), timeout_s=TIMEOUT_S)


def test_the_environment_of_the_process_changes_nothing(
    views: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    for name in ("LEDGERLOG", "VIEW_RECORD_STATE", "VIEW_ACCESS_HISTORY"):
        monkeypatch.setitem(os.environ, f"{name}_POSTGRES_DBNAME", "elsewhere")
        monkeypatch.setitem(os.environ, f"{name}_PERSISTENCE_MODULE", "eventsourcing.popo")
    monkeypatch.setitem(os.environ, "MAPPER_TOPIC", "no.such:thing")
    tell_a_story(ledger)
    catch_up(views)


def test_tracking_tables_have_the_shape_that_the_library_makes(views: Place):
    with open_view(views, AccessHistory) as view:
        theirs = PostgresTrackingRecorder(view.datastore, tracking_table_name="stock")
        theirs.create_table()
    describe = (
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns"
        " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position"
    )
    key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass"
    with views.connect() as connection:
        found = [
            (
                connection.execute(describe, (views.row.schema, table)).fetchall(),
                connection.execute(key, (table,)).fetchall(),
                connection.execute(f"SELECT * FROM {table}").fetchall(),
            )
            for table in ("stock", *(f"view_{view}_tracking" for view in VIEWS))
        ]
    assert found[1:] == found[:1] * len(VIEWS)


def test_no_thread_is_left_behind(views: Place, ledger: Ledger):
    tell_a_story(ledger)
    before = set(threading.enumerate())
    catch_up(views)
    deadline = time.monotonic() + TIMEOUT_S
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, set(threading.enumerate()) - before
        time.sleep(0.02)
