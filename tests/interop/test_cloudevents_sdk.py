"""CloudEvents' own SDK is the sender here: its idea of the modes, not ours, over real HTTP."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from cloudevents.core.bindings.http import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.conversion import to_binary as older_to_binary
from cloudevents.v1.conversion import to_json
from cloudevents.v1.conversion import to_structured as older_to_structured
from cloudevents.v1.http import CloudEvent as OlderEvent

from tests.http.support import Running, bearer, problem, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

DATA = {"actor": {"id": "e0117"}, "fields": ["phone"], "sequence": 7, "instance": "a"}
FORMAT = JSONFormat()
SUBJECTS = [
    "crm:张三",
    'crm:a "quoted" b',
    "crm:100%",
    "crm:%41",
    "crm:😀 é",
    "crm:a+b/c?d=e&f#g",
]
BATCH = {"content-type": "application/cloudevents-batch+json"}


@pytest.fixture(scope="module")
def service(new_database: Callable[[], str]) -> Iterator[Running]:
    with running(new_database()) as found:
        yield found


def an_event(event_id: str, **attributes: Any) -> CloudEvent:
    given = {
        "id": event_id,
        "type": "record.accessed",
        "source": "crm/web",
        "subject": "crm:C-10023",
        "time": datetime(2026, 1, 31, 9, 30, 0, 123456, tzinfo=UTC),
        "datacontenttype": "application/json",
        **attributes,
    }
    return CloudEvent({name: value for name, value in given.items() if value is not None}, DATA)


def send(service: Running, headers: dict[str, str], body: bytes) -> httpx.Response:
    return service.client.post(
        service.path("events"), content=body, headers={**bearer(service.emitter), **headers}
    )


def entry_of(service: Running, receipt: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = service.get(f"entries/{receipt['seq']}").json()
    return found


@pytest.mark.parametrize("write", [to_structured, to_binary])
def test_what_the_sdk_sends_is_recorded_and_its_repeat_is_known(
    service: Running, write: Callable[..., Any]
) -> None:
    sent = an_event(f"sdk-{write.__name__}")
    message = write(sent, FORMAT)
    response = send(service, dict(message.headers), message.body)
    assert response.status_code == 201, response.text
    again = send(service, dict(message.headers), message.body)
    assert (again.status_code, again.json()["leaf"]) == (200, response.json()["leaf"])
    kept = entry_of(service, response.json())["event"]
    assert kept["id"] == sent.get_id()
    assert kept["type"] == "ledger.record.accessed.v1"
    assert kept["source"] == "crm/web"
    assert datetime.fromisoformat(kept["time"]) == sent.get_time()
    assert (kept["specversion"], kept["datacontenttype"]) == ("1.0", "application/json")
    assert (kept["data"]["sequence"], kept["data"]["instance"]) == (7, "a")


def test_a_batch_of_the_sdks_events_is_recorded_in_its_order(service: Running) -> None:
    sent = [an_event(f"sdk-batch-{number}", subject=f"crm:B-{number}") for number in range(20)]
    body = b"[" + b",".join(FORMAT.write(each) for each in sent) + b"]"
    response = send(service, BATCH, body)
    assert response.status_code == 201, response.text
    assert [r["id"] for r in response.json()["receipts"]] == [each.get_id() for each in sent]
    assert send(service, BATCH, b"[]").json()["receipts"] == []


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("write", [to_structured, to_binary])
def test_a_subject_arrives_as_it_was_meant_in_each_mode(
    service: Running, subject: str, write: Callable[..., Any]
) -> None:
    sent = an_event(f"{write.__name__}-{SUBJECTS.index(subject)}", subject=subject)
    message = write(sent, FORMAT)
    response = send(service, dict(message.headers), message.body)
    assert response.status_code == 201, response.text
    found = service.ask("records/lookup", {"subject": subject})
    assert found.json()["record"] == response.json()["record"]


@pytest.mark.parametrize("write", [to_structured, to_binary])
def test_extensions_of_the_sdk_are_sealed_and_stand_nowhere_in_clear(
    service: Running, write: Callable[..., Any]
) -> None:
    sent = an_event(
        f"ext-{write.__name__}",
        subject=f"crm:ext-{write.__name__}",
        dataschema="https://example.com/zhang",
        partitionkey="zhang",
        sequence="zhang-7",
        sampledrate=30,
        important=True,
    )
    message = write(sent, FORMAT)
    response = send(service, dict(message.headers), message.body)
    assert response.status_code == 201, response.text
    raw = service.get(f"entries/{response.json()['seq']}").content
    sealed = {"subject", "dataschema", "partitionkey", "sequence", "sampledrate", "important"}
    assert set(json.loads(raw)["sealed"]) == sealed
    assert b"zhang" not in raw


@pytest.mark.parametrize("write", [to_structured, to_binary])
def test_what_the_sdk_fills_in_by_itself_is_enough(
    service: Running, write: Callable[..., Any]
) -> None:
    sent = CloudEvent(
        {"type": "record.accessed", "source": "crm", "subject": "crm:C-1"}, DATA
    )  # id, time and specversion are the SDK's
    message = write(sent, FORMAT)
    response = send(service, dict(message.headers), message.body)
    assert response.status_code == 201, response.text
    assert response.json()["id"] == sent.get_id()


@pytest.mark.parametrize("write", [to_structured, to_binary])
def test_a_time_with_another_offset_is_the_same_moment(
    service: Running, write: Callable[..., Any]
) -> None:
    moment = datetime(2026, 1, 31, 17, 30, tzinfo=timezone(timedelta(hours=8)))
    message = write(an_event(f"offset-{write.__name__}", time=moment), FORMAT)
    response = send(service, dict(message.headers), message.body)
    assert response.status_code == 201, response.text
    kept = entry_of(service, response.json())["event"]["time"]
    assert datetime.fromisoformat(kept) == moment


def test_bytes_as_data_are_refused_since_they_would_be_base64(service: Running) -> None:
    sent = an_event("bytes")
    message = to_structured(CloudEvent(dict(sent.get_attributes()), b"\x00\x01"), FORMAT)
    response = send(service, dict(message.headers), message.body)
    assert problem(response, 422).pointer == "/data_base64"


@pytest.mark.parametrize("write", [older_to_structured, older_to_binary])
def test_the_sdks_older_interface_is_understood_too(
    service: Running, write: Callable[..., Any]
) -> None:
    sent = OlderEvent(
        {
            "type": "record.accessed",
            "source": "crm",
            "subject": "crm:C-1",
            "datacontenttype": "application/json",
        },
        DATA,
    )
    headers, body = write(sent)
    response = send(service, dict(headers), body)
    assert response.status_code == 201, response.text
    batch = b"[" + to_json(OlderEvent({**sent.get_attributes(), "id": write.__name__}, DATA)) + b"]"
    assert send(service, BATCH, batch).status_code == 201


@pytest.mark.parametrize("write", [to_structured, to_binary])
def test_an_own_type_under_a_reverse_dns_name_is_recorded(
    service: Running, write: Callable[..., Any]
) -> None:
    sent = CloudEvent(
        {
            "id": f"own-{write.__name__}",
            "type": "com.example.points.redeemed",
            "source": "crm",
            "datacontenttype": "application/json",
        },
        {"points": 7, "shop": "Chaoyang"},
    )
    message = write(sent, FORMAT)
    response = send(service, dict(message.headers), message.body)
    assert response.status_code == 201, response.text
    entry = entry_of(service, response.json())
    assert entry["event"]["type"] == "com.example.points.redeemed"
    assert list(entry["sealed"]) == ["data.points", "data.shop"]
