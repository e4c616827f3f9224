"""Emitters' own types, and populations, from a request to what readers are answered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from api.schemas import EventTypes
from tests.http.support import Running, bearer, event, new_emitter, problem, running
from tests.unit.test_custom_types import FILE, NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def service(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    types: Path = tmp_path_factory.mktemp("types") / "types.toml"
    types.write_text(FILE, encoding="utf-8")
    with running(new_database(), LEDGER_TYPES=str(types)) as found:
        yield found


def redeemed(**changes: Any) -> dict[str, Any]:
    data = {"actor": {"id": "e0117"}, "points": 7, "card": "6222 0000"}
    return {**event(type=NAME, data=data), **changes}


def types_of(service: Running, query: str = "") -> list[dict[str, Any]]:
    response = service.client.get(f"/v1/event-types{query}", headers=bearer(service.emitter))
    return EventTypes.model_validate_json(response.content).types


def test_registered_types_are_listed_last_for_those_who_may_write_them(service: Running) -> None:
    for query in ("", "?for=service", "?for=person"):
        listed = types_of(service, query)
        assert [each["type"] for each in listed].index(NAME) == len(listed) - 1
        assert listed[-1]["members"]["points"]["storage"] == "clear"
    assert NAME not in [each["type"] for each in types_of(service, "?for=ledger")]


def test_the_first_entries_tell_of_the_file_of_types(service: Running) -> None:
    entries = [service.get(f"entries/{seq}").json()["event"] for seq in (1, 2)]
    assert entries[0]["type"] == "ledger.ledger.opened.v1"
    assert entries[1]["type"] == "ledger.ledger.operated.v1"
    assert entries[1]["data"]["detail"] == {"setting": "types"}
    assert entries[1]["data"]["content_sha256"] == service.service.custom.sha256


def test_views_go_on_past_types_they_know_nothing_of(service: Running) -> None:
    subject = "crm:views"
    first = service.record(event(type="record.collected", subject=subject))
    own = service.record(redeemed(subject=subject))
    service.record(redeemed(subject=None, type="com.example.shop.opened"))
    last = service.record(event(subject=subject))
    assert own["record"] == first["record"]
    service.wait_for_views()
    assert all(view.condition != "failed" for view in service.open.views.standing())
    for query in ("", f"?seq={last['seq']}"):
        found = service.get(f"records/{first['record']}/state{query}").json()["state"]
        assert (found["status"], found["version"]) == ("active", 3)
        assert found["last_access"]["seq"] == last["seq"]
    rows = service.ask("accesses/query", {"subject": subject}).json()["rows"]
    assert [row["seq"] for row in rows] == [last["seq"]]
    entries = service.get(f"records/{first['record']}/entries").json()["entries"]
    assert entries[1]["entry"]["event"]["type"] == NAME


def test_what_is_not_registered_stands_in_no_entry(service: Running) -> None:
    receipt = service.record(redeemed())
    raw = service.get(f"entries/{receipt['seq']}").content
    assert json.loads(raw)["event"]["data"]["points"] == 7
    assert b"6222" not in raw


def test_a_credential_for_some_types_writes_only_those_of_its_own(service: Running) -> None:
    key = new_emitter(service.control, types=[NAME])
    assert service.post(redeemed(), key=key).status_code == 201
    problem(service.post(event(), key=key), 403)
    found = problem(service.post(redeemed(type="com.example.zhang.wei"), key=key), 403)
    assert (found.pointer, "zhang" in found.detail) == ("/type", False)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("record.accessed.v1", "did you mean record.accessed?"),
        ("ledger.record.acessed.v1", "did you mean record.accessed?"),
        ("com.example", "see GET /v1/event-types"),
        ("com.example.13800138000", "see GET /v1/event-types"),
        ("Com.Example.Points", "see GET /v1/event-types"),
    ],
)
def test_a_name_that_can_not_be_a_type_is_answered_with_a_hint(
    service: Running, name: str, hint: str
) -> None:
    found = problem(service.post(redeemed(type=name)), 422)
    assert (found.pointer, found.hint) == ("/type", hint)


def test_a_population_is_an_access_of_no_record(service: Running) -> None:
    population = {"count": 40, "digest": "zhang", "query": "SELECT zhang"}
    data = {"actor": {"id": "e-bulk"}, "fields": ["phone"], "population": population}
    sent = event(subject=None, data=data)
    receipt = service.record(sent)
    raw = service.get(f"entries/{receipt['seq']}").content
    assert b"zhang" not in raw
    assert json.loads(raw)["event"]["data"]["population"] == {"count": 40}
    service.wait_for_views()
    (row,) = service.ask("accesses/query", {"actor": "e-bulk"}).json()["rows"]
    assert (row["seq"], row["record"]) == (receipt["seq"], None)
    data["population"] = {}
    assert problem(service.post(event(subject=None, data=data)), 422).pointer == "/subject"
