from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import TamperDetected
from projections.completeness import incomplete_members
from projections.recorded import RecordedEvent, read_entry
from projections.views.record_fold import fold, state_at
from projections.views.record_states import decode_state

if TYPE_CHECKING:
    from projections.views.record_state import RecordState

RECORD = UUID("a5c281be-a9f7-4971-852b-5829932b442b")
OTHER = UUID("b5c281be-a9f7-4971-852b-5829932b442b")
ACTOR = UUID("a9ab8cf6-f69e-81c4-9727-f9fadc43eb45")
START = datetime(2026, 1, 1, 9, 0, tzinfo=UTC)


def an_entry(event: dict[str, Any], **changes: Any) -> bytes:
    """Write an entry as FORMAT.md 1.2 has it, its event's type in full form."""
    entry: dict[str, Any] = {
        "v": 0,
        "ledger": "custody.local/test/0a1b2c3d",
        "seq": 1,
        "prev": "0" * 64,
        "recorded": "2026-01-01T09:00:01.000000Z",
        "stream": str(RECORD),
        "stream_kind": "record",
        "version": 1,
        "stream_prev": None,
        "emitter": {"by": "service", "credential": "ck_aaaaaaaaaa", "source": "crm"},
        "sealed": {},
    }
    event = {"id": "e-1", **event, "type": f"ledger.{event['type']}.v1"}
    return json.dumps({**entry, **changes, "event": event}, separators=(",", ":")).encode()


class Story:
    """Tell a record's entries one after another, an hour apart and ten positions apart."""

    def __init__(self) -> None:
        self.events: list[RecordedEvent] = []

    def tell(self, type_name: str, **data: Any) -> Story:
        version = len(self.events) + 1
        now = START + timedelta(hours=version)
        event = {
            "id": f"e-{version}",
            "type": type_name,
            "time": data.pop("at", now).isoformat(),
            "data": {"actor": {"id": str(ACTOR)}, **data},
        }
        recorded = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        entry = an_entry(event, seq=version * 10, version=version, recorded=recorded)
        self.events.append(read_entry(entry))
        return self

    @property
    def state(self) -> RecordState:
        state = state_at(self.events)
        assert state is not None
        return state


def collected() -> Story:
    fields = ["phone", "address"]
    return Story().tell("record.collected", fields=fields, data_categories=["contact"])


def test_an_entry_is_read_with_what_the_ledger_and_the_emitter_said():
    data = {"actor": {"id": str(ACTOR)}, "fields": ["phone"], "backfill": True}
    time = "2025-12-31T23:30:00.1234567+08:00"
    entry = an_entry({"type": "record.accessed", "time": time, "data": data, "part": 2, "of": 3})
    event = read_entry(entry)
    assert event.leaf == sha256(b"\0" + entry).digest()
    assert (event.seq, event.stream, event.version, event.part) == (1, RECORD, 1, 2)
    assert (event.type, event.event_id, event.source) == ("record.accessed", "e-1", "crm")
    assert event.time == datetime(2025, 12, 31, 15, 30, 0, 123456, tzinfo=UTC)
    assert event.recorded == datetime(2026, 1, 1, 9, 0, 1, tzinfo=UTC)
    assert (event.time_given, event.source_given, event.backfill) == (True, False, True)
    assert event.data == data


def test_without_a_time_an_event_happened_when_it_was_recorded():
    event = read_entry(an_entry({"type": "record.accessed", "data": {}}))
    assert event.time == event.recorded
    assert not event.time_given


def test_a_source_of_the_events_own_wins_over_the_credentials_default():
    event = read_entry(an_entry({"type": "record.accessed", "source": "crm/web", "data": {}}))
    assert (event.source, event.source_given) == ("crm/web", True)


def test_types_and_members_that_nobody_knows_are_read_and_change_nothing():
    story = collected().tell("cn.example.thing.v9", fields=5, purposes={"x": [None]}, actor=7)
    assert story.events[-1].data["fields"] == 5
    before = state_at(story.events[:1])
    assert before is not None
    assert story.state == msgspec.structs.replace(before, version=2, last_seq=20)


def test_a_v2_of_a_known_type_is_not_taken_for_v1():
    entry = an_entry({"type": "record.erased", "data": {}}).replace(b".v1", b".v2")
    assert read_entry(entry).type == "ledger.record.erased.v2"
    state = fold(None, read_entry(entry))
    assert state.erased is None


def test_an_aggregates_entry_is_read_without_looking_into_its_state():
    entry = an_entry({"type": "x"}, stream_kind="aggregate", version=0)
    start = entry.index(b',"event":') + 9
    state = b'{"topic":"a:B","state":{"type":"ledger.record.erased.v1","n":1e999}}}'
    event = read_entry(entry[:start] + state)
    assert (event.type, event.data, event.stream_kind) == ("", {}, "aggregate")


def test_a_number_past_what_a_double_holds_fails_no_view():
    entry = an_entry({"type": "control.performed", "data": {"scope": {"n": 7}}})
    assert read_entry(entry.replace(b'"n":7', b'"n":1e999')).data["scope"]["n"] == float("inf")


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{}",
        b"null",
        b"[1]",
        an_entry({"type": "record.accessed"})[:-1],
        an_entry({"type": "record.accessed"}, stream="no-uuid"),
        an_entry({"type": "record.accessed"}, stream_kind="other"),
        an_entry({"type": "record.accessed"}, seq="1"),
        an_entry({"type": "record.accessed"}, recorded="yesterday"),
        an_entry({"type": "record.accessed", "time": "noon"}),
        an_entry({"type": "record.accessed", "time": "2026-01-01T09:00:00"}),
        an_entry({"type": "record.accessed", "data": [1]}),
        an_entry({"type": "record.accessed"}).replace(b"e-1", b"\xff"),
    ],
)
def test_bytes_that_are_no_entry_are_refused(broken: bytes):
    with pytest.raises(TamperDetected):
        read_entry(broken)


def test_a_refusal_never_repeats_what_it_read():
    with pytest.raises(TamperDetected) as refusal:
        read_entry(an_entry({"type": "record.accessed", "time": "13800138000"}))
    assert "138" not in str(refusal.value)


@given(st.binary(max_size=60), st.integers(0, 500))
def test_damaged_entries_are_read_or_refused_and_nothing_else(noise: bytes, where: int):
    entry = an_entry({"type": "record.accessed", "data": {"fields": ["phone"]}})
    damaged = entry[:where] + noise + entry[where + len(noise) :]
    with suppress(TamperDetected):
        read_entry(damaged)


def test_a_record_that_is_only_looked_at_was_never_collected():
    state = Story().tell("record.accessed", fields=["phone"]).state
    assert state.status == "never_collected"
    assert state.last_access is not None
    assert (state.last_access.seq, state.last_access.actor) == (10, ACTOR)
    assert (state.first_seq, state.last_seq, state.version) == (10, 10, 1)


def test_fields_are_held_from_collection_and_update_until_erasure():
    story = collected().tell("record.updated", fields=["email"])
    assert story.state.status == "active"
    assert story.state.fields == ["address", "email", "phone"]
    assert story.state.categories == ["contact"]
    story.tell("record.erased", scope="fields", fields=["phone"])
    assert (story.state.status, story.state.fields) == ("active", ["address", "email"])
    story.tell("record.erased", scope="backups")
    assert story.state.fields == ["address", "email"]
    story.tell("record.erased")
    assert (story.state.status, story.state.fields, story.state.categories) == ("erased", [], [])


def test_an_erasure_that_names_fields_and_no_scope_erases_those_fields():
    assert collected().tell("record.erased", fields=["phone"]).state.fields == ["address"]


def test_collecting_again_begins_anew():
    story = collected().tell("record.erased").tell("record.collected", fields=["name"])
    assert (story.state.status, story.state.fields) == ("active", ["name"])
    assert story.state.erased is None


def test_an_update_after_an_erasure_shows_as_it_stands():
    story = collected().tell("record.erased").tell("record.updated", fields=["phone"])
    assert (story.state.status, story.state.fields) == ("erased", ["phone"])


@pytest.mark.parametrize("outcome", ["denied", "failed"])
def test_what_was_only_tried_changes_nothing(outcome: str):
    story = collected()
    before = story.state
    for type_name in ("record.erased", "record.accessed", "record.updated", "record.deidentified"):
        story.tell(type_name, outcome=outcome, fields=["email"], scope="whole", method="drop")
    assert story.state == msgspec.structs.replace(before, version=5, last_seq=50)


def test_a_deidentified_record_is_identified_again_by_collection():
    story = collected().tell("record.deidentified", method="tokenise", reversible=True)
    assert story.state.status == "deidentified"
    assert story.state.deidentified is not None
    assert story.state.deidentified.reversible is True
    assert story.tell("record.collected", fields=["phone"]).state.status == "active"


def test_a_restriction_is_lifted_only_by_the_name_it_was_set_with():
    story = collected().tell("record.restricted", state="on", ground="legal_hold", hold_ref="H-1")
    assert story.state.status == "restricted"
    story.tell("record.restricted", state="off", ground="legal_hold")
    assert story.state.status == "restricted"
    story.tell("record.restricted", state="off", hold_ref="H-1")
    assert story.state.status == "active"


def test_consent_stands_by_purpose():
    story = collected().tell("consent.given", purposes=["marketing", "service"], kind="separate")
    story.tell("consent.withdrawn", purposes=["marketing"], status="refused")
    consents = story.state.consents
    assert {purpose: c.state for purpose, c in consents.items()} == {
        "marketing": "refused",
        "service": "given",
    }
    assert consents["service"].kind == "separate"
    assert consents["marketing"].since.seq == 30


def test_a_share_is_outstanding_until_it_is_closed_by_its_events_id_or_its_own_reference():
    recipient = {"id": "P-7", "kind": "processor"}
    story = collected().tell("record.shared", recipient=recipient, fields=["phone"])
    story.tell("record.shared", recipient=recipient, fields=["phone"], share_ref="S-1")
    due = "2026-06-30"
    story.tell("record.shared", recipient=recipient, fields=["address"], return_due=due)
    assert [share.since.seq for share in story.state.shares] == [20, 30, 40]
    assert story.state.shares[2].return_due == due
    story.tell("share.closed", share_ref="e-2", result="deleted")
    story.tell("share.closed", share_ref="S-1", result="returned")
    assert [share.event_id for share in story.state.shares] == ["e-4"]
    story.tell("share.closed", share_ref="e-4", result="returned", outcome="failed")
    assert len(story.state.shares) == 1


def test_records_are_linked_and_parted():
    story = collected().tell("record.linked", other=str(OTHER), ground="same_person")
    assert story.state.links[str(OTHER)].linked
    story.tell("record.unlinked", other=str(OTHER))
    assert not story.state.links[str(OTHER)].linked


def test_imported_history_never_takes_the_place_of_what_came_after_it():
    story = collected().tell("consent.withdrawn", purposes=["marketing"])
    story.tell("record.accessed", fields=["phone"])
    story.tell("record.restricted", state="off", hold_ref="H-1")
    before = story.state
    old = {"backfill": True, "at": START - timedelta(days=900)}
    story.tell("consent.given", purposes=["marketing"], **old)
    story.tell("record.accessed", fields=["phone"], **old)
    story.tell("record.erased", **old)
    story.tell("record.deidentified", method="drop", **old)
    story.tell("record.restricted", state="on", hold_ref="H-1", **old)
    assert story.state == msgspec.structs.replace(before, version=9, last_seq=90)


def test_imported_history_is_taken_where_nothing_stands_in_its_way():
    old = {"backfill": True, "at": START - timedelta(days=900)}
    story = Story().tell("record.updated", fields=["phone"])
    story.tell("record.collected", fields=["phone"], **old)
    assert story.state.status == "active"
    assert story.state.collected is not None
    assert story.state.last_change is not None
    assert story.state.last_change.seq == 10


def test_a_correction_is_listed_and_the_fold_stands():
    story = collected().tell("event.corrected", target_seq=10, correction="did_not_happen")
    assert [(c.target_seq, c.correction) for c in story.state.corrections] == [
        (10, "did_not_happen")
    ]
    assert story.state.status == "active"


def test_a_state_is_told_as_of_a_position_or_a_recorded_time():
    story = collected().tell("record.updated", fields=["email"]).tell("record.erased")
    states = [state_at(story.events, seq=seq) for seq in (9, 10, 29, 30, 99)]
    assert [state and state.version for state in states] == [None, 1, 2, 3, 3]
    at_second = story.events[1].recorded
    assert state_at(story.events, time=at_second) == state_at(story.events, seq=20)
    before = state_at(story.events, time=at_second - timedelta(microseconds=1))
    assert before is not None
    assert before.version == 1


@pytest.mark.parametrize("left_out", [0, 1])
def test_a_fold_notices_an_entry_that_is_left_out(left_out: int):
    events = collected().tell("record.updated", fields=["email"]).tell("record.erased").events
    with pytest.raises(TamperDetected, match="expected version"):
        state_at(events[:left_out] + events[left_out + 1 :])


@pytest.mark.parametrize(
    ("type_name", "data"),
    [
        ("record.collected", {"fields": "phone"}),
        ("record.collected", {"fields": [1]}),
        ("record.accessed", {"actor": "e0117"}),
        ("record.accessed", {"actor": {"id": "e0117"}}),
        ("record.linked", {}),
        ("record.linked", {"other": "crm:C-1"}),
        ("event.corrected", {"target_seq": "1"}),
        ("consent.given", {"purposes": None}),
    ],
)
def test_a_member_that_is_not_of_its_kind_stops_the_fold(type_name: str, data: dict[str, Any]):
    with pytest.raises(TamperDetected, match="expected"):
        fold(None, read_entry(an_entry({"type": type_name, "data": data})))


def test_a_state_survives_being_stored():
    story = collected().tell("consent.given", purposes=["service"], kind="general")
    story.tell("record.shared", recipient={"id": "P-7", "kind": "court"}, fields=["phone"])
    story.tell("record.restricted", state="on", ground="dispute", until="2027-01-01")
    story.tell("record.linked", other=str(OTHER))
    story.tell("destruction.certified", method="shred", covers=["backups"])
    assert decode_state(msgspec.json.encode(story.state)) == story.state


def test_what_an_access_lacks_is_listed_as_its_receipt_listed_it():
    bare = read_entry(an_entry({"type": "record.accessed", "data": {}}))
    expected = ("reason_ref", "grant_ref", "masked", "activity", "source", "time")
    assert incomplete_members(bare) == expected
    data = {"reason_ref": "T-1", "grant_ref": "G-1", "masked": False, "purpose": "service"}
    full = {"type": "record.accessed", "source": "crm", "time": "2026-01-01T09:00:00Z"}
    assert incomplete_members(read_entry(an_entry({**full, "data": data}))) == ()


def test_sealed_members_count_as_there():
    sealed = {"data.destination": "x", "data.file_sha256": "x"}
    event = read_entry(an_entry({"type": "record.exported", "data": {}}, sealed=sealed))
    assert incomplete_members(event) == ("format", "masking", "activity", "source", "time")
    updated = {"data.personal.phone.from": "x"}
    event = read_entry(an_entry({"type": "record.updated", "data": {}}, sealed=updated))
    assert "personal" not in incomplete_members(event)
    event = read_entry(an_entry({"type": "record.updated", "data": {}}))
    assert "personal" in incomplete_members(event)


def test_members_inside_arrays_count_as_there():
    evidence = {"evidence": [{"sha256": "0a" * 32}]}
    bare, shown = (
        read_entry(an_entry({"type": "control.performed", "data": data})) for data in ({}, evidence)
    )
    assert "document_sha256" in incomplete_members(bare)
    assert "document_sha256" not in incomplete_members(shown)
