from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.entry import (
    ZERO_LEAF,
    build_entry,
    entry_bound,
    format_time,
    ledger_stream,
    tail_of,
    unwrap_state,
    wrap_state,
)
from ledger.core.strict_json import check_strict
from ledger.errors import TamperDetected

MEMBERS = [
    "v",
    "ledger",
    "seq",
    "prev",
    "recorded",
    "stream",
    "stream_kind",
    "version",
    "stream_prev",
    "emitter",
    "sealed",
    "event",
]
RECORDED = b"2026-01-31T01:30:00.000000Z"
EMITTER = b'{"by":"ledger"}'
FIRST: dict[str, Any] = {
    "seq": 1,
    "prev": ZERO_LEAF.hex().encode(),
    "recorded": RECORDED,
    "stream": str(UUID(int=1)).encode(),
    "version": 1,
    "stream_prev": None,
}

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def entry_of(event: bytes, *, sealed: bytes = b"", kind: bytes = b"record", **place: Any) -> bytes:
    return build_entry(
        origin=b"custody.local/test",
        kind=kind,
        emitter=EMITTER,
        sealed=sealed,
        event=event,
        **{**FIRST, **place},
    )


def test_an_entry_is_one_line_of_json_with_its_members_in_order():
    raw = entry_of(b'{"id":"a"}', sealed=b'"subject":"x"')
    assert raw.count(b"\n") == 0
    entry: dict[str, Any] = json.loads(raw)
    assert list(entry) == MEMBERS
    assert entry["v"] == 0
    assert entry["prev"] == "0" * 64
    assert entry["stream_prev"] is None
    assert entry["sealed"] == {"subject": "x"}
    assert entry["event"] == {"id": "a"}


def test_the_tail_is_what_the_sender_determined_whatever_the_event_contains():
    event = b'{"a":",\\"sealed\\":{","sealed":{"seq":1}}'
    later: dict[str, Any] = {"seq": 9, "prev": b"a" * 64, "version": 4, "stream_prev": b"b" * 64}
    tails = {
        tail_of(entry_of(event, sealed=b'"x":"y"')),
        tail_of(entry_of(event, sealed=b'"x":"y"', **later)),
    }
    assert tails == {b',"sealed":{"x":"y"},"event":' + event + b"}"}


def test_no_entry_is_longer_than_its_bound():
    far: dict[str, Any] = {"seq": 2**63 - 1, "version": 2**63 - 1, "stream_prev": b"f" * 64}
    for place, kind in ((far, b"aggregate"), ({}, b"record")):
        raw = entry_of(b'{"id":"a"}', kind=kind, sealed=b'"a":"b"', **place)
        bound = entry_bound(
            origin=b"custody.local/test", emitter=EMITTER, sealed_bytes=7, event_bytes=10
        )
        assert len(raw) <= bound < len(raw) + 200


def test_time_is_written_with_six_digits_in_utc():
    assert format_time(datetime(2026, 1, 31, 1, 30, tzinfo=UTC)) == RECORDED
    moment = datetime(2026, 1, 31, 1, 30, 0, 42, tzinfo=UTC)
    assert format_time(moment) == b"2026-01-31T01:30:00.000042Z"


def test_the_stream_of_a_type_without_subject_can_be_computed_by_anyone():
    url = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
    expected = uuid5(url, "custody.local/a#ledger.ledger.read.v1")
    assert ledger_stream("custody.local/a", "ledger.ledger.read.v1") == expected


STATES = st.one_of(
    st.binary(max_size=30),
    st.dictionaries(TEXT, st.integers() | TEXT | st.none(), max_size=4).map(
        lambda value: json.dumps(value, separators=(",", ":")).encode()
    ),
    st.dictionaries(TEXT, st.integers() | TEXT, max_size=3).map(lambda v: json.dumps(v).encode()),
)


@given(TEXT, STATES)
def test_an_aggregates_state_comes_back_byte_for_byte_in_strict_json(topic: str, state: bytes):
    topic = topic.replace("\x00", "")
    raw = entry_of(wrap_state(topic, state), kind=b"aggregate")
    event = check_strict(raw)["event"]
    assert unwrap_state(raw, topic) == state
    assert event["topic"] == topic
    assert list(event)[1] in {"state", "state_b64"}
    if "state_b64" in event:
        assert base64.b64decode(event["state_b64"]) == state


@pytest.mark.parametrize(
    ("state", "member"),
    [
        (b"{}", "state"),
        (b'{"a":1.50,"b":"\\u4e2d"}', "state"),
        (b'{"a": 1}', "state_b64"),
        (b"[]", "state_b64"),
        (b'{"a":1,"a":2}', "state_b64"),
        (b'{"a":"\\u0000"}', "state_b64"),
        (b'{"a":NaN}', "state_b64"),
        (b'{"d":' + b"[" * 30 + b"]" * 30 + b"}", "state"),
        (b'{"d":' + b"[" * 31 + b"]" * 31 + b"}", "state_b64"),
        (b'{"a":1}}', "state_b64"),
        (b"\xff", "state_b64"),
        (b"", "state_b64"),
    ],
)
def test_a_state_stands_as_json_only_where_every_reader_agrees_on_it(state: bytes, member: str):
    raw = entry_of(wrap_state("t", state), kind=b"aggregate")
    assert list(json.loads(raw)["event"]) == ["topic", member]
    check_strict(wrap_state("t", state))  # the event's levels are counted from itself
    assert unwrap_state(raw, "t") == state


def test_a_state_of_another_topic_or_shape_is_noticed():
    raw = entry_of(wrap_state("t", b"{}"), kind=b"aggregate")
    with pytest.raises(TamperDetected):
        unwrap_state(raw, "u")
    with pytest.raises(TamperDetected):
        unwrap_state(entry_of(b'{"topic":"t","other":{}}'), "t")
    with pytest.raises(TamperDetected):
        unwrap_state(entry_of(b'{"topic":"t","state_b64":"!"}'), "t")
