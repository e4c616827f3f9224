from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from api.schemas import AccessPage, EntryPage, RecordFound, StateFound
from ledger.core.checkpoint import open_checkpoint
from tests.http.support import Running, bearer, event, head, problem

LINK = re.compile(r'<([^>]+)>; rel="next"')


def collected(subject: str, **changes: Any) -> dict[str, Any]:
    data = {"actor": {"id": "e0001"}, "fields": ["name", "phone"]}
    return event(type="record.collected", subject=subject, data=data, **changes)


def record_of(service: Running, subject: str) -> str:
    return str(service.ask("records/lookup", {"subject": subject}).json()["record"])


@pytest.fixture(scope="module")
def filled(service: Running) -> Running:
    """Record some events of some records, of several people."""
    for number in range(5):
        sent = [collected(f"crm:R-{number}")]
        for person in ("e0117", "e0118", "e0117"):
            data = {"actor": {"id": person}, "fields": ["phone"], "note": "about 13800138000"}
            sent.append(event(subject=f"crm:R-{number}", data=data))
        assert service.post(sent).status_code == 201
    return service


def test_a_subject_leads_to_its_record_and_stands_in_no_url(filled: Running) -> None:
    response = filled.ask("records/lookup", {"subject": "crm:R-1"})
    found = RecordFound.model_validate_json(response.content)
    entries = filled.get(f"records/{found.record}/entries").json()["entries"]
    assert {entry["entry"]["stream"] for entry in entries} == {str(found.record)}


def test_a_subject_never_met_has_no_record_and_gets_none(filled: Running) -> None:
    for _ in range(2):
        found = problem(filled.ask("records/lookup", {"subject": "crm:nobody"}), 404)
        assert found.pointer == "/subject"


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({}, 422, "/subject"),
        ({"subject": 1}, 422, "/subject"),
        ({"subject": "crm:R-1", "more": 1}, 422, "/more"),
        ([], 422, None),
        (b'{"subject":"a:b","subject":"a:c"}', 400, "/subject"),
        (b"{", 400, None),
        (b'{"subject":"%b"}' % (b"x" * 70_000), 413, None),
    ],
)
def test_a_question_that_is_not_one_is_refused_with_its_place(
    filled: Running, body: Any, status: int, pointer: str | None
) -> None:
    assert problem(filled.ask("records/lookup", body), status).pointer == pointer


def test_a_question_in_another_media_type_is_a_415(filled: Running) -> None:
    headers = {**bearer(filled.reader), "Content-Type": "text/plain"}
    response = filled.client.post(filled.path("records/lookup"), content=b"{}", headers=headers)
    problem(response, 415)


def test_entries_are_embedded_byte_for_byte(filled: Running) -> None:
    page = filled.get("entries", params={"limit": 1000}).content
    shown = EntryPage.model_validate_json(page)
    stored = filled.open.ledger.entries(1, shown.entries[-1].seq, 1000)
    assert [entry.seq for entry in shown.entries] == [row.seq for row in stored]
    for row in stored:
        item = b'{"seq":%d,"leaf":"%b","entry":%b}' % (row.seq, row.leaf.hex().encode(), row.entry)
        assert item in page


def test_lines_hash_to_a_chain(filled: Running) -> None:
    accept = {"Accept": "application/x-ndjson"}
    response = filled.get("entries", headers=accept, params={"limit": 1000})
    assert response.headers["content-type"] == "application/x-ndjson"
    before = "0" * 64
    for line in response.content.splitlines():
        assert json.loads(line)["prev"] == before
        before = hashlib.sha256(b"\0" + line).hexdigest()


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_pages_follow_each_other_without_gap_or_repeat_while_events_come_in(
    filled: Running, accept: str
) -> None:
    last = head(filled)
    seqs: list[int] = []
    url = f"{filled.path('entries')}?limit=7&to={last}"
    while True:
        assert filled.post(event()).status_code == 201
        headers = {**bearer(filled.reader), "Accept": accept}
        response = filled.client.get(url, headers=headers)
        if accept == "application/json":
            seqs += [entry["seq"] for entry in response.json()["entries"]]
        else:
            seqs += [json.loads(line)["seq"] for line in response.content.splitlines()]
        link = LINK.fullmatch(response.headers.get("link", ""))
        if accept == "application/json":
            assert (response.json()["next"] is None) == (link is None)
        if link is None:
            break
        url = link[1]
    assert seqs == list(range(1, last + 1))


def test_from_and_to_bound_a_range(filled: Running) -> None:
    page = filled.get("entries", params={"from": 3, "to": 5}).json()
    assert [entry["seq"] for entry in page["entries"]] == [3, 4, 5]
    assert page["next"] is None


def test_one_entry_comes_with_its_leaf(filled: Running) -> None:
    response = filled.get("entries/2")
    leaf = hashlib.sha256(b"\0" + response.content).hexdigest()
    assert response.headers["custody-leaf"] == leaf
    assert response.headers["cache-control"] == "no-store"
    problem(filled.get("entries/999999"), 404)


@pytest.mark.parametrize(
    ("rest", "parameter"),
    [
        ("entries/0", "seq"),
        ("entries/first", "seq"),
        ("entries?limit=0", "limit"),
        ("entries?limit=1001", "limit"),
        ("entries?from=x", "from"),
        ("entries?after=99999999999999999999", "after"),
        ("records/crm:R-1/entries", "record"),
        ("records/13800138000/state", "record"),
    ],
)
def test_a_wrong_parameter_is_named_and_not_repeated(
    filled: Running, rest: str, parameter: str
) -> None:
    response = filled.get(rest)
    assert problem(response, 422).parameter == parameter
    assert "R-1" not in response.text
    assert "13800138000" not in response.text


def test_a_records_entries_are_bound_to_each_other(filled: Running) -> None:
    record = record_of(filled, "crm:R-2")
    entries: list[Any] = []
    after = None
    while True:
        params = {"limit": 3} if after is None else {"limit": 3, "after": after}
        page = filled.get(f"records/{record}/entries", params=params).json()
        entries += page["entries"]
        after = page["next"]
        if after is None:
            break
    assert [e["entry"]["version"] for e in entries] == [1, 2, 3, 4]
    assert [e["entry"]["stream_prev"] for e in entries] == [
        None,
        *(e["leaf"] for e in entries[:-1]),
    ]


def test_a_record_of_nobody_is_a_404(filled: Running) -> None:
    problem(filled.get(f"records/{uuid4()}/entries"), 404)
    problem(filled.get(f"records/{uuid4()}/state"), 404)


def test_a_records_state_is_the_views_now_and_the_entries_then(filled: Running) -> None:
    subject = "crm:S-1"
    first = filled.record(collected(subject))
    data = {"actor": {"id": "e0001"}, "ground": "subject_request", "scope": "whole"}
    second = filled.record(event(type="record.erased", subject=subject, data=data))
    filled.wait_for_views()
    rest = f"records/{first['record']}/state"
    now = StateFound.model_validate_json(filled.get(rest).content)
    assert (now.state["status"], now.as_of.basis) == ("erased", "view")
    assert now.as_of.seq is not None
    assert now.as_of.seq >= second["seq"]
    then = StateFound.model_validate_json(filled.get(rest, params={"seq": first["seq"]}).content)
    assert (then.state["status"], then.state["version"]) == ("active", 1)
    assert (then.as_of.basis, then.as_of.seq) == ("entries", first["seq"])
    timed = filled.get(rest, params={"time": second["recorded"]}).json()
    assert timed["state"]["status"] == "erased"
    problem(filled.get(rest, params={"seq": first["seq"] - 1}), 404)


def test_no_state_is_told_of_the_future_or_of_two_moments(filled: Running) -> None:
    rest = f"records/{record_of(filled, 'crm:R-0')}/state"
    problem(filled.get(rest, params={"seq": 10**9}), 404)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    problem(filled.get(rest, params={"time": tomorrow}), 422)
    problem(filled.get(rest, params={"time": "2026"}), 422)
    problem(filled.get(rest, params={"time": tomorrow, "seq": 1}), 422)


def accesses(service: Running, **question: Any) -> AccessPage:
    service.wait_for_views()
    response = service.ask("accesses/query", question)
    assert response.status_code == 200, response.text
    return AccessPage.model_validate_json(response.content)


def test_who_looked_at_a_record_is_told_by_pseudonym(filled: Running) -> None:
    page = accesses(filled, subject="crm:R-3")
    assert [row.type for row in page.rows] == ["record.accessed"] * 3
    assert page.rows[0].actor == page.rows[2].actor != page.rows[1].actor
    assert all(row.actor_name is None for row in page.rows)
    assert page == accesses(filled, record=record_of(filled, "crm:R-3")).model_copy(
        update={"as_of": page.as_of}
    )


def test_names_of_staff_come_only_where_they_are_asked_for(filled: Running) -> None:
    page = accesses(filled, subject="crm:R-3", names=True)
    assert [row.actor_name for row in page.rows] == ["e0117", "e0118", "e0117"]


def test_what_one_person_looked_at_is_found_by_name_or_pseudonym(filled: Running) -> None:
    by_name = accesses(filled, actor="e0118").rows
    pseudonym = str(by_name[0].actor)
    assert len({row.record for row in by_name}) == 5
    assert by_name == accesses(filled, actor_pseudonym=pseudonym).rows
    assert problem(filled.ask("accesses/query", {"actor": "nobody"}), 404).pointer == "/actor"
    found = problem(filled.ask("accesses/query", {"subject": "crm:nobody"}), 404)
    assert found.pointer == "/subject"


def test_pages_of_accesses_are_complete(filled: Running) -> None:
    whole = accesses(filled, limit=999).rows
    found: list[Any] = []
    after: int | None = 0
    while after is not None:
        page = accesses(filled, limit=4, after=after)
        found += page.rows
        after = page.next
    assert found[: len(whole)] == whole


def test_times_bound_accesses(filled: Running) -> None:
    time = "2020-01-01T08:00:00+08:00"
    filled.record(event(subject="crm:T-1", time=time))
    asked = {"subject": "crm:T-1", "from": "2020-01-01T00:00:00Z"}
    assert len(accesses(filled, **asked).rows) == 1
    assert not accesses(filled, **asked, to="2020-01-01T00:00:00Z").rows


@pytest.mark.parametrize(
    ("question", "pointer"),
    [
        ({"subject": "crm:R-1", "record": str(uuid4())}, None),
        ({"actor": "e1", "actor_pseudonym": str(uuid4())}, None),
        ({"record": "R-1"}, "/record"),
        ({"from": "yesterday"}, "/from"),
        ({"to": 1700000000}, "/to"),
        ({"to": "1700000000"}, "/to"),
        ({"limit": 1000}, "/limit"),
        ({"limit": "10"}, "/limit"),
        ({"names": "yes"}, "/names"),
    ],
)
def test_a_wrong_question_about_accesses_is_refused(
    filled: Running, question: Any, pointer: str | None
) -> None:
    assert problem(filled.ask("accesses/query", question), 422).pointer == pointer


def test_every_look_at_evidence_leaves_an_entry_without_names(filled: Running) -> None:
    record = record_of(filled, "crm:R-4")
    looks = [
        lambda: filled.get("entries", params={"limit": 2}),
        lambda: filled.get("entries/1"),
        lambda: filled.get(f"records/{record}/entries"),
        lambda: filled.get(f"records/{record}/state", params={"seq": head(filled)}),
        lambda: filled.ask("accesses/query", {"subject": "crm:R-4", "actor": "e0117"}),
        lambda: filled.ask("records/lookup", {"subject": "crm:R-4"}),
    ]
    for look in looks:
        before = head(filled)
        assert look().status_code == 200
        assert head(filled) == before + 1
        entry = filled.open.ledger.entries(before + 1, before + 1, 1)[0].entry
        document = json.loads(entry)
        assert document["event"]["type"] == "ledger.ledger.read.v1"
        assert "data.query" in document["sealed"]
        assert b"R-4" not in entry
        assert b"e0117" not in entry


def test_a_page_with_nothing_in_it_leaves_no_entry(filled: Running) -> None:
    before = head(filled)
    assert filled.get("entries", params={"from": before + 1}).json()["entries"] == []
    assert head(filled) == before


def test_the_checkpoint_is_signed_and_covers_what_was_acknowledged(filled: Running) -> None:
    receipt = filled.post(event()).json()
    for key in (filled.emitter, filled.reader):
        response = filled.get("checkpoint", key=key)
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        ledger = filled.open.ledger
        checkpoint = open_checkpoint(response.text, ledger.signer.verifier, ledger.origin)
        assert checkpoint.size >= receipt["seq"]
