from __future__ import annotations

import gzip
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from api.schemas import Receipt, Receipts
from tests.http.support import Running, bearer, event, head, new_emitter, problem


def test_the_smallest_useful_event_is_recorded_and_its_receipt_says_where(
    service: Running,
) -> None:
    response = service.post(event(id="smallest"))
    assert response.status_code == 201
    receipt = Receipt.model_validate_json(response.content, strict=False)
    assert (receipt.id, receipt.repeated) == ("smallest", False)
    assert "/time" in receipt.incomplete
    assert receipt.checkpoint is not None
    assert receipt.checkpoint.startswith("ledger.test/demo/0a1b2c3d\n")
    entry = service.get(f"entries/{receipt.seq}").content
    assert hashlib.sha256(b"\0" + entry).hexdigest() == receipt.leaf


def test_a_repeat_is_answered_200_with_the_first_receipt(service: Running) -> None:
    sent = event()
    first, second = service.post(sent), service.post(sent)
    assert (first.status_code, second.status_code) == (201, 200)
    assert {**second.json(), "checkpoint": ""} == {
        **first.json(),
        "checkpoint": "",
        "repeated": True,
    }


def test_another_event_under_the_same_id_is_a_conflict(service: Running) -> None:
    sent = event()
    service.post(sent)
    before = head(service)
    other = {**sent, "data": {**sent["data"], "fields": ["address"]}}
    found = problem(service.post(other), 409)
    assert found.type == "urn:custody-ledger:problem:conflict"
    assert head(service) == before


def test_an_array_is_recorded_in_its_order(service: Running) -> None:
    sent = [event() for _ in range(5)]
    response = service.post(sent)
    assert response.status_code == 201
    receipts = Receipts.model_validate_json(response.content, strict=False).receipts
    assert [r.id for r in receipts] == [e["id"] for e in sent]
    seqs = [r.seq for r in receipts if r.seq is not None]
    assert seqs == list(range(seqs[0], seqs[0] + 5))


def test_an_empty_array_records_nothing(service: Running) -> None:
    before = head(service)
    response = service.post([])
    assert (response.status_code, response.json()["receipts"]) == (200, [])
    assert head(service) == before


def test_one_bad_event_in_an_array_keeps_all_of_it_out(service: Running) -> None:
    before = head(service)
    bad = event(data={"actor": {"id": "e0117"}})
    found = problem(service.post([event(), bad, event()]), 422)
    assert found.pointer == "/1/data/fields"
    assert head(service) == before


def test_several_subjects_make_an_entry_each(service: Running) -> None:
    sent = event(subjects=["crm:A-1", "crm:A-2", "crm:A-3"])
    del sent["subject"]
    response = service.post(sent)
    receipt = Receipt.model_validate_json(response.content, strict=False)
    assert receipt.entries is not None
    assert len({e.record for e in receipt.entries}) == 3
    rows = [service.get(f"entries/{e.seq}").json()["event"] for e in receipt.entries]
    assert [(row["part"], row["of"]) for row in rows] == [(0, 3), (1, 3), (2, 3)]


def test_a_misspelt_type_is_answered_with_the_nearest_name(service: Running) -> None:
    found = problem(service.post(event(type="record.acessed")), 422)
    assert (found.pointer, found.hint) == ("/type", "did you mean record.accessed?")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"", None),
        (b"{", None),
        (b"\xff{}", None),
        (b'{"id":1,"id":2}', "/id"),
        (b'{"id":NaN}', "/id"),
        (b'{"id":"\\u0000"}', "/id"),
        (b'{"id":"\\ud800"}', "/id"),
        (b"[" * 40 + b"]" * 40, "/0" * 33),
        (b"[{},", "/1"),
        (b"{} {}", None),
    ],
)
def test_what_is_not_strict_json_is_a_400(
    service: Running, body: bytes, pointer: str | None
) -> None:
    found = problem(service.post(body), 400)
    assert found.type == "urn:custody-ledger:problem:not-json"
    assert found.pointer == pointer


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"type": None}, "/type"),
        ({"subject": None}, "/subject"),
        ({"subject": "C-10023"}, "/subject"),
        ({"subjects": ["crm:A-1"]}, "/subjects"),
        ({"id": "13800138000"}, "/id"),
        ({"time": "yesterday"}, "/time"),
        ({"data": []}, "/data"),
        ({"data": {"actor": {}, "fields": ["phone"]}}, "/data/actor/id"),
        ({"data": {"actor": {"id": "e1"}, "fields": "phone"}}, "/data/fields"),
    ],
)
def test_a_wrong_member_is_a_422_with_its_place(
    service: Running, changes: dict[str, Any], pointer: str
) -> None:
    assert problem(service.post(event(**changes)), 422).pointer == pointer


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"subject": "hr:E-1"}, "/subject"),
        ({"source": "billing"}, "/source"),
        ({"source": "crmx"}, "/source"),
        ({"type": "policy.published", "subject": None}, "/type"),
        ({"type": "ledger.read"}, "/type"),
    ],
)
def test_what_is_outside_a_credentials_rights_is_a_403(
    service: Running, changes: dict[str, Any], pointer: str
) -> None:
    before = head(service)
    assert problem(service.post(event(**changes)), 403).pointer == pointer
    assert head(service) == before


def test_a_credential_for_some_types_writes_no_other(service: Running) -> None:
    key = new_emitter(service.control, types=["record.accessed"])
    data = {"actor": {"id": "e1"}, "fields": ["phone"]}
    assert service.post(event(), key=key).status_code == 201
    problem(service.post(event(type="record.updated", data=data), key=key), 403)


def test_a_source_below_the_credentials_is_its_own(service: Running) -> None:
    assert service.post(event(source="crm/web")).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/xml"},
        {"Content-Type": "application/cloudevents+xml"},
        {"Content-Type": "application/vnd.custody+json"},
        {"Content-Type": "application/json; charset=gbk"},
        {"Content-Type": "application/x-ndjson; header=present"},
        {"Content-Type": "application/json, application/json"},
        {"Content-Type": "text/plain", "ce-specversion": "1.0"},
        {"Content-Type": "application/x-ndjson", "ce-specversion": "1.0"},
    ],
)
def test_another_media_type_is_a_415(service: Running, headers: dict[str, str]) -> None:
    body = gzip.compress(json.dumps(event()).encode())
    response = service.client.post(
        service.path("events"), content=body, headers={**bearer(service.emitter), **headers}
    )
    problem(response, 415)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/json"},
        {"Content-Type": "Application/JSON; charset=UTF-8"},
        {"Content-Encoding": "identity"},
    ],
)
def test_json_is_read_with_or_without_saying_so(service: Running, headers: dict[str, str]) -> None:
    body = json.dumps(event()).encode()
    response = service.client.post(
        service.path("events"), content=body, headers={**bearer(service.emitter), **headers}
    )
    assert response.status_code == 201


def test_64_clients_at_once_get_a_number_each_and_no_number_is_left_out(
    service: Running,
) -> None:
    before = head(service)

    def one(number: int) -> list[int]:
        found = []
        with httpx.Client(base_url=service.url, headers=bearer(service.emitter)) as client:
            for part in range(4):
                sent = event(id=f"many-{number}-{part}", subject=f"crm:M-{number % 7}")
                response = client.post(service.path("events"), json=sent)
                assert response.status_code == 201, response.text
                found.append(response.json()["seq"])
        return found

    with ThreadPoolExecutor(64) as pool:
        seqs = [seq for found in pool.map(one, range(64)) for seq in found]
    assert sorted(seqs) == list(range(before + 1, before + 257))
