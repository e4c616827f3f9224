from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError, StoredEvent

from ledger.core.disclosure import (
    box_binding,
    check_disclosures,
    context,
    open_box,
    pseudonym,
    read_disclosure,
    staff_disclosure,
)
from ledger.errors import Conflict, ReadOnly, Unavailable
from ledger.identities import KeyRow, Wrapping
from ledger.keys.keyring import make_keyring
from ledger.recorder import LedgerRecorder
from ledger.service import Ledger, open_datastore
from ledger.submission import Recorded, Submission
from tests.fixtures.ledgers import (
    Place,
    an_emitter,
    an_event,
    assert_ledger_sound,
    record,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def writer_busy(ledger: Ledger) -> Iterator[None]:
    """Hold the writer up, so that all that is submitted meanwhile is one group."""
    first: Future[Recorded] = Future()
    with ledger.recorder._following.lock:
        drafts = ledger.admit_body(json.dumps(an_event(subject="crm:busy")).encode(), an_emitter())
        ledger.recorder.submit(Submission(events=drafts[1], future=first))
        while not ledger.recorder._queue._ready.empty():
            pass  # until the writer has taken it, and waits for us
        yield
    wait([first], 10)


def submit(ledger: Ledger, *events: dict[str, Any]) -> Future[Recorded]:
    _, drafts = ledger.admit_body(json.dumps(events).encode(), an_emitter())
    future: Future[Recorded] = Future()
    ledger.recorder.submit(Submission(events=drafts, future=future))
    return future


def entry(ledger: Ledger, seq: int) -> dict[str, Any]:
    (row,) = ledger.entries(seq, seq, 1)
    found: dict[str, Any] = json.loads(row.entry)
    return found


def place_of(receipt: dict[str, Any]) -> dict[str, Any]:
    return {name: receipt[name] for name in ("record", "seq", "leaf", "version", "recorded")}


# -- idempotency -------------------------------------------------------------------


def test_an_event_repeated_is_answered_with_its_first_receipt(place: Place, ledger: Ledger):
    sent = an_event()
    first, again = record(ledger, sent), record(ledger, sent)
    assert (first["repeated"], again["repeated"]) == (False, True)
    assert place_of(first) == place_of(again)
    assert again["checkpoint"] is not None
    assert assert_ledger_sound(place) == 2


def test_white_space_and_the_short_name_of_a_type_make_no_other_event(place: Place, ledger: Ledger):
    sent = an_event()
    first = record(ledger, sent)
    spaced = json.dumps({**sent, "type": "ledger.record.accessed.v1"}, indent=3).encode()
    status, answer = asyncio.run(ledger.ingest(b" \n" + spaced, an_emitter()))
    assert status == 200
    assert place_of(json.loads(answer)) == place_of(first)
    assert assert_ledger_sound(place) == 2


def changed(sent: dict[str, Any]) -> dict[str, dict[str, Any]]:
    data = sent["data"]
    return {
        "clear member": {**sent, "data": {**data, "fields": ["email"]}},
        "sealed member": {**sent, "data": {**data, "note": "other words"}},
        "sealed member gone": {**sent, "data": {k: v for k, v in data.items() if k != "note"}},
        "staff known": {**sent, "data": {**data, "actor": {"id": "e0118"}}},
        "staff unknown": {**sent, "data": {**data, "actor": {"id": "e9999"}}},
        "subject known": {**sent, "subject": "crm:C-2"},
        "subject unknown": {**sent, "subject": "crm:C-99"},
        "type": {**sent, "type": "record.collected"},
        "more subjects": {
            **{k: v for k, v in sent.items() if k != "subject"},
            "subjects": ["crm:C-10023", "crm:C-2"],
        },
        "stated time": {**sent, "time": "2026-01-31T09:30:00+08:00"},
        "order of members": dict(reversed(sent.items())),
    }


@pytest.mark.parametrize("change", list(changed(an_event())))
def test_another_event_under_a_used_id_is_a_conflict(place: Place, ledger: Ledger, change: str):
    sent = an_event()
    sent["data"] = {**sent["data"], "note": "words"}
    known = an_event(subject="crm:C-2")
    known["data"] = {**known["data"], "actor": {"id": "e0118"}}
    record(ledger, known)
    record(ledger, sent)
    with pytest.raises(Conflict) as conflict:
        record(ledger, changed(sent)[change])
    assert "C-" not in str(conflict.value)
    assert record(ledger, sent)["repeated"]
    assert assert_ledger_sound(place) == 3


def test_another_credential_of_the_same_source_repeats_the_event(place: Place, ledger: Ledger):
    sent = an_event()
    first = record(ledger, sent)
    again = record(ledger, sent, emitter=an_emitter(credential="ck_bbbbbbbbbb"))
    assert place_of(again) == place_of(first)
    assert entry(ledger, 2)["emitter"]["credential"] == "ck_aaaaaaaaaa"
    assert assert_ledger_sound(place) == 2


def test_the_same_id_from_another_source_is_another_event(place: Place, ledger: Ledger):
    sent = an_event()
    first = record(ledger, sent)
    other = record(ledger, sent, emitter=an_emitter(sources=("shop",)))
    assert other["seq"] == first["seq"] + 1
    assert not other["repeated"]
    assert assert_ledger_sound(place) == 3


def test_two_callers_with_one_event_in_one_group_get_one_entry(place: Place, ledger: Ledger):
    sent = an_event()
    with writer_busy(ledger):
        futures = [submit(ledger, sent) for _ in range(3)]
    placed = [future.result(10).events[0][0] for future in futures]
    assert {p.seq for p in placed} == {3}
    assert [p.repeated for p in placed] == [False, True, True]
    assert assert_ledger_sound(place) == 3
    assert ledger.recorder.queued == 0


def test_two_callers_with_contradicting_events_in_one_group(place: Place, ledger: Ledger):
    sent = an_event()
    with writer_busy(ledger):
        kept = submit(ledger, sent, an_event())
        refused = submit(ledger, an_event(), {**sent, "subject": "crm:C-77"}, an_event())
    assert [p[0].seq for p in kept.result(10).events] == [3, 4]
    with pytest.raises(Conflict):
        refused.result(10)
    assert ledger.find_record("crm:C-77") is None
    assert assert_ledger_sound(place) == 4


def test_a_batch_repeated_in_part_makes_entries_of_the_rest(place: Place, ledger: Ledger):
    old = [an_event() for _ in range(3)]
    record(ledger, *old)
    new = [an_event() for _ in range(2)]
    mixed = [new[0], old[2], old[0], new[1]]
    receipts = record(ledger, *mixed)["receipts"]
    assert [(r["seq"], r["repeated"]) for r in receipts] == [
        (5, False),
        (4, True),
        (2, True),
        (6, False),
    ]
    assert assert_ledger_sound(place) == 6


def test_an_event_about_several_is_repeated_as_a_whole(place: Place, ledger: Ledger):
    sent = an_event(subjects=["crm:C-1", "crm:C-2", "crm:C-3"])
    del sent["subject"]
    first, again = record(ledger, sent), record(ledger, sent)
    assert first["entries"] == again["entries"]
    assert (first["repeated"], again["repeated"]) == (False, True)
    for changed_to in (["crm:C-1", "crm:C-2"], ["crm:C-1", "crm:C-3", "crm:C-2"]):
        with pytest.raises(Conflict):
            record(ledger, {**sent, "subjects": changed_to})
    longer = [*sent["subjects"], "crm:C-4"]
    record(ledger, an_event())
    with pytest.raises(Conflict):
        record(ledger, {**sent, "subjects": longer})
    assert assert_ledger_sound(place) == 5


def test_one_conflict_in_a_batch_keeps_all_of_it_out(place: Place, ledger: Ledger):
    used = an_event()
    record(ledger, used)
    batch = [an_event(subject="crm:C-new"), {**used, "subject": "crm:C-2"}, an_event()]
    with pytest.raises(Conflict):
        record(ledger, *batch)
    assert ledger.find_record("crm:C-new") is None
    assert assert_ledger_sound(place) == 2
    assert not record(ledger, batch[0])["repeated"]


# -- streams and names -------------------------------------------------------------


def test_one_subject_has_one_record_over_requests_groups_and_processes(
    place: Place, ledger: Ledger
):
    other = place.open()
    receipts = [record(writer, an_event()) for writer in (ledger, other, ledger, other)]
    assert len({r["record"] for r in receipts}) == 1
    assert [r["version"] for r in receipts] == [1, 2, 3, 4]
    assert str(other.find_record("crm:C-10023")) == receipts[0]["record"]
    stream = [
        json.loads(row.entry) for row in ledger.stream_entries(UUID(receipts[0]["record"]), 0, 9)
    ]
    assert [e["stream_prev"] for e in stream] == [None, *(r["leaf"] for r in receipts[:-1])]
    assert assert_ledger_sound(place) == 5


def test_the_subject_is_sealed_in_its_records_first_entry_only(ledger: Ledger):
    for _ in range(2):
        record(ledger, an_event())
    assert list(entry(ledger, 2)["sealed"]) == ["subject"]
    assert entry(ledger, 3)["sealed"] == {}


def test_a_person_of_staff_has_one_pseudonym_in_all_records(place: Place, ledger: Ledger):
    data = {"actor": {"id": "e1"}, "fields": ["phone"], "on_behalf_of": "e2"}
    record(ledger, an_event(data=data), an_event(subject="crm:C-2", data=data))
    place.close(ledger)
    ledger = place.open()
    record(ledger, an_event(data={"actor": {"id": "e2"}, "fields": ["phone"]}))
    told = [entry(ledger, seq)["event"]["data"] for seq in (2, 3, 4)]
    assert told[0]["actor"] == told[1]["actor"]
    assert told[0]["on_behalf_of"] == told[2]["actor"]["id"] != told[0]["actor"]["id"]
    first = UUID(told[0]["actor"]["id"])
    assert ledger.find_staff("e1") == first
    assert ledger.staff_names([first]) == {first: "e1"}
    assert first.version == 8
    assert assert_ledger_sound(place) == 4


def test_a_pseudonym_is_bound_to_the_name_it_stands_for(place: Place, ledger: Ledger):
    record(ledger, an_event())
    found = ledger.find_staff("e0117")
    assert found is not None
    with place.connect() as connection:
        row = connection.execute(
            "SELECT id, epoch, wrapped, name_box FROM keys WHERE id = %s", (found,)
        ).fetchone()
    assert row is not None
    key = Wrapping(ledger.keyring).open_key(KeyRow(*row)).key
    assert pseudonym(staff_disclosure(key, "e0117")) == found
    assert pseudonym(staff_disclosure(key, "e0118")) != found


def test_boxes_open_to_what_the_digests_say(place: Place, ledger: Ledger):
    sent = an_event()
    sent["data"] = {**sent["data"], "note": {"b": 1.50, "a": "中"}, "personal": {"ph.one": "1"}}
    receipt = record(ledger, sent)
    stream = UUID(receipt["record"])
    with place.connect() as connection:
        ((box,),) = connection.execute("SELECT box FROM boxes WHERE seq = 2").fetchall()
        row = connection.execute(
            "SELECT id, epoch, wrapped, name_box FROM keys WHERE id = %s", (stream,)
        ).fetchone()
    assert row is not None
    key = Wrapping(ledger.keyring).open_key(KeyRow(*row)).key
    origin = ledger.origin.encode()
    ctx = context(origin, b"crm", sent["id"].encode(), 0)
    disclosures = open_box(key, ctx, box_binding(origin, stream.bytes, 2), box)
    sealed = entry(ledger, 2)["sealed"]
    check_disclosures(list(sealed.values()), disclosures)
    assert list(sealed) == ["subject", "data.note", "~1"]
    assert [read_disclosure(d) for d in disclosures] == [
        ("subject", "crm:C-10023"),
        ("data.note", {"b": 1.5, "a": "中"}),
        ("data.personal.ph~1one", "1"),
    ]


def test_no_table_holds_a_key_or_a_name_in_clear(place: Place, ledger: Ledger):
    sent = an_event(subject="crm:Frieda-Muster")
    sent["data"] = {"actor": {"id": "agent-smithers"}, "fields": ["phone"], "note": "a-secret-note"}
    receipt = record(ledger, sent)
    wrapping = Wrapping(ledger.keyring)
    with place.connect() as connection:
        tables = [
            name
            for (name,) in connection.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = %s",
                (place.row.schema,),
            )
        ]
        assert {"entries", "keys", "identities", "boxes"} <= set(tables)
        copies = []
        for table in tables:
            with connection.cursor().copy(f"COPY {table} TO STDOUT (FORMAT binary)") as copy:
                copies.append(b"".join(bytes(part) for part in copy))
        rows = connection.execute("SELECT id, epoch, wrapped, name_box FROM keys").fetchall()
    whole = b"".join(copies)
    assert receipt["record"].encode() in whole
    secrets = [wrapping.open_key(KeyRow(*row)).key for row in rows]
    assert len(set(secrets)) == len(rows) == 3  # the record's, the agent's, the opening's stream
    keyring = ledger.keyring
    for secret in (*secrets, keyring.lookup, keyring.signing, *keyring.epochs.values()):
        assert secret not in whole
    for clear in (b"Muster", b"smithers", b"a-secret"):
        assert clear not in whole


def test_types_without_subject_go_on_in_their_stream_after_a_restart(place: Place, ledger: Ledger):
    def granted() -> dict[str, Any]:
        data = {"actor": {"id": "e1"}, "grantee": "e2", "role": "clerk", "scope_text": "all"}
        return an_event(type="access.granted", subject=None, data=data)

    record(ledger, granted())
    place.close(ledger)
    ledger = place.open()
    other = place.open()
    versions = [record(w, granted())["version"] for w in (ledger, ledger, other, other, ledger)]
    assert versions == [2, 3, 4, 5, 6]
    assert assert_ledger_sound(place) == 7


# -- what other processes did meanwhile --------------------------------------------


def test_a_repeat_of_another_processs_event_comes_with_a_checkpoint_that_covers_it(
    place: Place, ledger: Ledger
):
    from ledger.core.checkpoint import open_checkpoint

    other = place.open()
    for writer, repeater in ((ledger, other), (other, ledger)):
        record(repeater, an_event())
        sent = [an_event() for _ in range(3)]
        record(writer, *sent)
        receipt = record(repeater, sent[2])
        assert receipt["repeated"]
        note = open_checkpoint(receipt["checkpoint"], ledger.signer.verifier, ledger.origin)
        assert note.size >= receipt["seq"]


def test_an_aggregates_next_version_is_no_conflict_where_another_process_wrote_the_last(
    place: Place, ledger: Ledger
):
    other = place.open()
    stream = uuid4()
    writers = [ledger, other, other, ledger, other]
    for version, writer in enumerate(writers, 1):
        writer.recorder.insert_events([StoredEvent(stream, version, "topic", b"{}")])
    for writer in (ledger, other):
        with pytest.raises(IntegrityError):
            writer.recorder.insert_events([StoredEvent(stream, 5, "topic", b"{}")])
    assert assert_ledger_sound(place) == 6


# -- aggregates --------------------------------------------------------------------


class Hold(Aggregate):
    @event("Placed")
    def __init__(self, ground: str) -> None:
        self.ground = ground
        self.lifted = False

    @event("Lifted")
    def lift(self) -> None:
        self.lifted = True


class Holds(Application[UUID]):
    """An application of the library, on the ledger's own recorder."""

    def __init__(self, recorder: LedgerRecorder) -> None:
        self._shared = recorder
        super().__init__()

    def construct_recorder(self) -> LedgerRecorder:
        return self._shared


def test_aggregates_are_chained_in_the_same_log(place: Place, ledger: Ledger):
    holds = Holds(ledger.recorder)
    hold = Hold(ground="dispute")
    holds.save(hold)
    record(ledger, an_event())
    hold.lift()
    holds.save(hold)
    again: Hold = Holds(ledger.recorder).repository.get(hold.id)
    assert (again.ground, again.lifted, again.version) == ("dispute", True, 2)
    kinds = [entry(ledger, seq)["stream_kind"] for seq in (2, 3, 4)]
    assert kinds == ["aggregate", "record", "aggregate"]
    assert entry(ledger, 4)["stream_prev"] == ledger.entries(2, 2, 1)[0].leaf.hex()
    assert assert_ledger_sound(place) == 4


def test_two_who_change_one_aggregate_at_once_are_not_both_saved(place: Place, ledger: Ledger):
    holds = Holds(ledger.recorder)
    hold = Hold(ground="dispute")
    holds.save(hold)
    one: Hold = holds.repository.get(hold.id)
    two: Hold = holds.repository.get(hold.id)
    one.lift()
    two.lift()
    holds.save(one)
    with pytest.raises(IntegrityError):
        holds.save(two)
    assert assert_ledger_sound(place) == 3


def test_two_versions_of_one_aggregate_in_one_group_are_not_both_saved(
    place: Place, ledger: Ledger
):
    stream = uuid4()
    futures: list[Future[Recorded]] = [Future(), Future()]
    with writer_busy(ledger):
        for future in futures:
            stored = [StoredEvent(stream, 1, "topic", b"{}")]
            ledger.recorder.submit(Submission(stored=stored, future=future))
    assert futures[0].result(10).stored == [3]
    assert isinstance(futures[1].exception(10), IntegrityError)
    assert assert_ledger_sound(place) == 3


# -- the writer --------------------------------------------------------------------


def test_a_submission_that_the_database_refuses_is_alone_in_it(place: Place, ledger: Ledger):
    with place.connect() as connection:
        connection.execute(
            "ALTER TABLE entries ADD CHECK (topic <> 'ledger.record.exported.v1') NOT VALID"
        )
    events = [an_event(subject=f"crm:C-{n}") for n in range(16)]
    events[5]["type"] = events[11]["type"] = "record.exported"
    with writer_busy(ledger):
        futures = [submit(ledger, sent) for sent in events]
    failed = [n for n, future in enumerate(futures) if future.exception(10) is not None]
    assert failed == [5, 11]
    assert all(isinstance(futures[n].exception(), Conflict) for n in failed)
    stand = [f.result().events[0][0].seq for n, f in enumerate(futures) if n not in failed]
    assert stand == list(range(3, 17))
    assert ledger.find_record("crm:C-5") is None
    assert assert_ledger_sound(place) == 16
    assert record(ledger, {**events[5], "type": "record.accessed"})["seq"] == 17


def test_time_never_goes_back_in_the_log_when_the_clock_does(place: Place):
    times = iter([5, 3, 4, 6])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    datastore = open_datastore(place.dsn, place.row.schema)
    recorder = LedgerRecorder(
        datastore,
        keyring=make_keyring(place.row.origin),
        clock=lambda: start + timedelta(hours=next(times)),
    )
    stream = uuid4()
    for version in range(4):
        recorder.insert_events([StoredEvent(stream, version, "topic", b"{}")])
    recorder.close()
    datastore.close()
    with place.connect() as connection:
        rows = connection.execute("SELECT entry FROM entries ORDER BY seq").fetchall()
    hours = [json.loads(raw)["recorded"][11:13] for (raw,) in rows]
    assert hours == ["05", "05", "05", "06"]
    assert assert_ledger_sound(place) == 4


def test_a_stopped_recorder_refuses_what_waits_and_what_comes(place: Place, ledger: Ledger):
    before = assert_ledger_sound(place)
    with writer_busy(ledger):
        waiting = submit(ledger, an_event())
        ledger.recorder.stop_recording("people must decide")
    with pytest.raises(ReadOnly, match="people must decide") as refusal:
        waiting.result(10)
    assert refusal.value.retry_after_s >= 60
    for _ in range(2):
        with pytest.raises(ReadOnly, match="people must decide"):
            record(ledger, an_event())
    assert assert_ledger_sound(place) == before
    assert ledger.recorder.queued == 0


def test_refusals_of_a_stopped_recorder_keep_no_request_alive(ledger: Ledger):
    ledger.recorder.stop_recording("people must decide")
    for _ in range(20):
        with pytest.raises(ReadOnly):
            submit(ledger, an_event())
    assert ledger.recorder.stopped is not None
    assert ledger.recorder.stopped.__traceback__ is None


def test_past_its_bound_the_queue_sends_callers_away_and_takes_them_later(
    place: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ledger.recorder.MAX_QUEUED", 2)
    sent = [an_event() for _ in range(5)]
    with writer_busy(ledger):
        taken = [submit(ledger, event) for event in sent[:2]]
        for event_ in sent[2:]:
            with pytest.raises(Unavailable) as refusal:
                submit(ledger, event_)
            assert refusal.value.retry_after_s == 1
    assert [future.result(10).events[0][0].seq for future in taken] == [3, 4]
    assert [record(ledger, event_)["seq"] for event_ in sent[2:]] == [5, 6, 7]
    assert assert_ledger_sound(place) == 7


def test_many_callers_at_once_leave_nothing_counted_as_waiting(place: Place, ledger: Ledger):
    def call(number: int) -> None:
        futures.extend(submit(ledger, an_event(subject=f"crm:C-{number}")) for _ in range(40))

    futures: list[Future[Recorded]] = []
    threads = [threading.Thread(target=call, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seqs = [future.result(10).events[0][0].seq for future in futures]
    assert sorted(seqs) == list(range(2, 322))
    place.close(ledger)
    assert ledger.recorder.queued == 0
    place.open()
    assert assert_ledger_sound(place) == 321


def test_callers_who_went_away_do_not_harm_the_writer(place: Place, ledger: Ledger):
    with writer_busy(ledger):
        submit(ledger, an_event()).cancel()
        loop = asyncio.new_event_loop()
        _, drafts = ledger.admit_body(json.dumps(an_event()).encode(), an_emitter())
        gone = Submission(events=drafts, future=loop.create_future(), loop=loop)
        ledger.recorder.submit(gone)
        loop.run_until_complete(asyncio.sleep(0))  # one turn hands it over to the writer
        loop.close()
    assert record(ledger, an_event())["seq"] == 5
    assert assert_ledger_sound(place) == 5


def test_what_is_submitted_while_it_closes_is_answered(place: Place, ledger: Ledger):
    stop = threading.Event()
    outcomes: list[Future[Recorded]] = []

    def call() -> None:
        while not stop.is_set():
            try:
                outcomes.append(submit(ledger, an_event()))
            except Unavailable:
                return

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    record(ledger, an_event())
    place.close(ledger)
    stop.set()
    for thread in threads:
        thread.join()
    seqs = sorted(future.result(5).events[0][0].seq for future in outcomes)
    assert len(seqs) == len(set(seqs))
    place.open()
    assert assert_ledger_sound(place) == len(seqs) + 2


def test_names_known_to_a_group_that_did_not_stand_are_not_remembered(place: Place, ledger: Ledger):
    with place.connect() as connection:
        connection.execute(
            "ALTER TABLE entries ADD CONSTRAINT c CHECK (topic <> 'ledger.record.accessed.v1')"
        )
        with pytest.raises(Conflict):
            record(ledger, an_event())
        connection.execute("ALTER TABLE entries DROP CONSTRAINT c")
    record(ledger, an_event())
    place.close(ledger)
    again = replace(place, opened=[])
    reopened = again.open()
    assert record(reopened, an_event())["version"] == 2
    assert assert_ledger_sound(again) == 3
    again.close(reopened)
