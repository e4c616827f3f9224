from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cloudevents import join_event
from api.media import PLAIN, Sent, read_headers
from ledger.admission import MAX_EVENT_BYTES, admit
from ledger.bodies import MAX_BODY_BYTES, MAX_ENTRIES, Form, split
from ledger.core.strict_json import check_strict
from ledger.errors import Malformed, NotJson, TooLarge
from tests.fixtures.ledgers import ORIGIN, an_emitter, an_event

WHITE = b" \t\r\n"


# -- cutting --------------------------------------------------------------------------


@given(st.lists(st.sampled_from([b"{}", b" ", b"\t", b"\r", b"\n", b"\r\n", b'"a"', b"\xff"])))
def test_lines_are_cut_at_line_feeds_and_nowhere_else(parts: list[bytes]):
    body = b"".join(parts)
    expected = [line.strip(WHITE) for line in body.split(b"\n") if line.strip(WHITE)]
    assert split(body, Form.LINES) == (True, expected)


@given(st.binary(max_size=200))
def test_any_bytes_are_cut_into_lines(body: bytes):
    many, lines = split(body, Form.LINES)
    assert many
    assert all(line and b"\n" not in line for line in lines)


@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.text(max_size=5) | st.integers(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
            max_leaves=5,
        )
    ),
    st.sampled_from([None, 1]),
)
def test_an_array_is_cut_into_its_items_as_sent(items: list[Any], indent: int | None):
    body = json.dumps(items, indent=indent, ensure_ascii=False).encode()
    for form in (Form.JSON, Form.BATCH):
        many, found = split(body, form)
        assert many
        assert [json.loads(raw) for raw in found] == items
        assert all(raw.strip(WHITE) in body for raw in found)


@pytest.mark.parametrize("form", [Form.JSON, Form.BATCH])
def test_an_array_may_have_as_many_items_as_the_limit(form: Form):
    for item in (b"0", b'{"a":[1,2,3]}', b"[" + b"0," * 200 + b"0]"):
        body = b"[%b]" % b",".join([item] * MAX_ENTRIES)
        assert len(split(body, form)[1]) == MAX_ENTRIES
        with pytest.raises(TooLarge):
            split(body[:-1] + b",0]", form)


def test_what_could_take_minutes_or_gigabytes_is_refused_in_a_moment():
    started = time.monotonic()
    zeros = b"0," * 10_000_000
    for body in (
        b"[" + zeros + b"0]",
        b"[[" + zeros + b"0",
        b"[[" + zeros + b"x]]",
        b"[" * 9_000_000,
    ):
        with pytest.raises((TooLarge, NotJson)) as refusal:
            split(body, Form.JSON)
        assert isinstance(refusal.value, TooLarge) or refusal.value.hint is not None
    with pytest.raises(TooLarge):
        split(b" " * (MAX_BODY_BYTES + 1), Form.LINES)
    assert time.monotonic() < started + 20


def test_an_event_past_its_size_is_not_even_read():
    with pytest.raises(TooLarge):
        admit(b"\xff" * (MAX_EVENT_BYTES + 1), an_emitter(), origin=ORIGIN.encode())


# -- what headers say ------------------------------------------------------------------


def test_what_nearly_everybody_sends_is_told_at_once():
    for said in ([], [(b"content-type", b"application/json")]):
        headers = [(b"host", b"a"), (b"content-length", b"7"), *said, (b"accept", b"*/*")]
        assert read_headers(headers, MAX_BODY_BYTES) is PLAIN


def test_a_length_past_the_limit_is_refused_whatever_else_is_said():
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"8")]
    with pytest.raises(TooLarge):
        read_headers(headers, 7)


@given(
    st.lists(st.tuples(st.sampled_from([b"id", b"type", b"subject", b"x1"]), st.text()), max_size=4)
)
def test_headers_of_any_text_come_out_as_they_went_in_or_are_refused(
    attributes: list[tuple[bytes, str]],
):
    from urllib.parse import quote

    headers = tuple((b"ce-" + name, quote(value, safe="").encode()) for name, value in attributes)
    names = [name for name, _ in attributes]
    try:
        joined = join_event(Sent(Form.EVENT, attributes=headers), b'{"a": 1.50}')
    except Malformed:
        assert len(set(names)) != len(names)
        return
    found = json.loads(joined)
    assert found.pop("data") == {"a": 1.5}
    assert found == {name.decode(): value for name, value in attributes}
    assert b'"data":{"a": 1.50}' in joined


@given(st.binary(max_size=40))
def test_headers_of_any_bytes_make_one_json_object_or_are_refused(value: bytes):
    try:
        joined = join_event(Sent(Form.EVENT, attributes=((b"ce-subject", value),)), b"")
    except Malformed:
        return
    assert set(json.loads(joined)) == {"subject"}


@given(st.binary(max_size=40) | st.sampled_from([b'{},"id":"b"', b'{}}{"a":1', b"1]", b'"\\']))
def test_data_of_any_bytes_stays_within_its_member(body: bytes):
    sent = Sent(Form.EVENT, attributes=((b"ce-id", b"a"),))
    try:
        joined = join_event(sent, body)
    except NotJson:
        return
    found = check_strict(joined)
    assert found["id"] == "a"
    assert set(found) <= {"id", "data"}


# -- as CloudEvents -----------------------------------------------------------------------


def drafts_of(*, cloud: bool, **changes: Any) -> Any:
    raw = json.dumps({**an_event(), **changes}).encode()
    return admit(raw, an_emitter(), origin=ORIGIN.encode(), cloud=cloud)


def test_null_is_absent_in_a_cloudevent_only():
    (draft,) = drafts_of(cloud=True, specversion="1.0", time=None, source=None, other=None)
    assert draft.source == b"crm"
    assert draft.sealed == []
    for name in ("time", "source", "data"):
        with pytest.raises(Malformed):
            drafts_of(cloud=False, **{name: None})


def test_only_a_cloudevent_has_to_say_its_version():
    assert drafts_of(cloud=False)
    assert drafts_of(cloud=False, specversion="1.0")
    for cloud in (True, False):
        with pytest.raises(Malformed) as refusal:
            drafts_of(cloud=cloud, specversion="1.1")
        assert refusal.value.pointer == "/specversion"
    with pytest.raises(Malformed) as refusal:
        drafts_of(cloud=True)
    assert refusal.value.pointer == "/specversion"


@pytest.mark.parametrize(
    ("media_type", "sealed"),
    [
        ("application/json", False),
        ("application/json; charset=utf-8", True),
        ("Application/JSON", True),
        ("text/json", True),
        ("application/vnd.crm+json", True),
        ("application/vnd.crm+json;v=1", True),
    ],
)
def test_any_json_type_is_taken_and_only_the_plain_one_stands_in_clear(
    media_type: str, *, sealed: bool
):
    (draft,) = drafts_of(cloud=False, datacontenttype=media_type)
    assert [name for name, _ in draft.sealed] == (["datacontenttype"] if sealed else [])


@pytest.mark.parametrize(
    "media_type",
    ["", "json", "text/plain", "application/jsonl", "a/b+jsonx", "a" * 300 + "/json", 7],
)
def test_data_that_is_not_json_is_refused(media_type: Any):
    with pytest.raises(Malformed) as refusal:
        drafts_of(cloud=False, datacontenttype=media_type)
    assert refusal.value.pointer == "/datacontenttype"
