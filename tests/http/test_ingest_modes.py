"""Every way in: media types, codings, and each event on its own."""

from __future__ import annotations

import gzip
import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from api.encodings import zstd
from api.schemas import Results
from tests.http.support import Running, bearer, event, head, new_emitter, problem

if TYPE_CHECKING:
    import httpx

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
LINES = "application/x-ndjson"
LENIENT = {"Prefer": "handling=lenient"}
DATA = {"actor": {"id": "e0117"}, "fields": ["phone"]}
COMPRESS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "zstd": zstd.compress}


def send(
    service: Running,
    body: bytes,
    media_type: str | None = None,
    *,
    key: str | None = None,
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
) -> httpx.Response:
    said = [*bearer(key or service.emitter).items()]
    if media_type is not None:
        said.append(("Content-Type", media_type))
    said += headers.items() if isinstance(headers, dict) else headers or []
    return service.client.post(service.path("events"), content=body, headers=said)


def cloud(**changes: Any) -> dict[str, Any]:
    return {"specversion": "1.0", **event(), **changes}


def lines(*events: Any) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in events)


def stored(service: Running, receipt: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = service.get(f"entries/{receipt['seq']}").json()
    return found


def binary(**attributes: str) -> dict[str, str]:
    """Give the headers of an event in binary mode."""
    sent = event()
    given = {"specversion": "1.0", "id": sent["id"], "type": sent["type"], "subject": "crm:C-1"}
    return {f"ce-{name}": value for name, value in {**given, **attributes}.items() if value}


# -- CloudEvents in the body -----------------------------------------------------------


def test_a_structured_cloudevent_is_recorded_as_sent(service: Running) -> None:
    sent = cloud(source="crm/web", time="2026-01-31T09:30:00Z", datacontenttype="application/json")
    response = send(service, json.dumps(sent).encode(), f"{STRUCTURED}; charset=UTF-8")
    assert response.status_code == 201, response.text
    kept = stored(service, response.json())["event"]
    assert (kept["specversion"], kept["datacontenttype"]) == ("1.0", "application/json")
    assert (kept["source"], kept["time"]) == (sent["source"], sent["time"])


def test_a_batch_is_recorded_in_its_order_and_an_empty_one_is_valid(service: Running) -> None:
    sent = [cloud() for _ in range(3)]
    response = send(service, json.dumps(sent).encode(), BATCH)
    assert response.status_code == 201
    assert [r["id"] for r in response.json()["receipts"]] == [e["id"] for e in sent]
    empty = send(service, b" [ ] ", BATCH)
    assert (empty.status_code, empty.json()) == (200, {"receipts": [], "checkpoint": None})


def test_the_same_event_in_each_form_is_one_event(service: Running) -> None:
    sent = cloud(source="crm", datacontenttype="application/json")
    seqs = set()
    for media_type, body in (
        ("application/json", json.dumps(sent)),
        (STRUCTURED, json.dumps(sent)),
        (BATCH, json.dumps([sent])),
        (LINES, json.dumps(sent)),
    ):
        answer = send(service, body.encode(), media_type).json()
        seqs.add(answer.get("receipts", [answer])[0]["seq"])
    headers = {f"ce-{n}": sent[n] for n in ("specversion", "id", "source", "type", "subject")}
    data = json.dumps(sent["data"]).encode()
    # In binary mode members stand in one order, and an event is sent again as it was first.
    found = send(service, data, "application/json", headers=headers)
    assert len(seqs) == 1
    assert found.status_code == 409


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"specversion": None}, "/specversion"),
        ({"specversion": "0.3"}, "/specversion"),
        ({"specversion": 1.0}, "/specversion"),
        ({"datacontenttype": "application/xml"}, "/datacontenttype"),
        ({"datacontenttype": "application/json\n"}, "/datacontenttype"),
        ({"datacontenttype": 7}, "/datacontenttype"),
        ({"data_base64": "e30="}, "/data_base64"),
        ({"data": "text"}, "/data"),
        ({"time": "2026-01-31"}, "/time"),
        ({"time": "2026-02-30T00:00:00Z"}, "/time"),
        ({"source": "billing"}, "/source"),
        ({"source": ""}, "/source"),
        ({"id": ""}, "/id"),
    ],
)
def test_a_wrong_attribute_of_a_cloudevent_is_named(
    service: Running, changes: dict[str, Any], pointer: str
) -> None:
    before = head(service)
    sent = cloud(**changes)
    status = 403 if changes.get("source") else 422
    found = problem(send(service, json.dumps(sent).encode(), STRUCTURED), status)
    assert found.pointer == pointer
    found = problem(send(service, json.dumps([cloud(), sent]).encode(), BATCH), status)
    assert found.pointer == f"/1{pointer}"
    assert head(service) == before


def test_an_attribute_that_is_null_is_as_if_absent(service: Running) -> None:
    sent = cloud(source=None, time=None, dataschema=None, extension=None, subjects=None)
    response = send(service, json.dumps(sent).encode(), STRUCTURED)
    assert response.status_code == 201, response.text
    kept = stored(service, response.json())
    assert not {"time", "source", "dataschema", "extension"} & kept["event"].keys()
    assert list(kept["sealed"]) in (["subject"], [])


def test_attributes_that_nobody_knows_are_sealed(service: Running) -> None:
    sent = cloud(
        subject="crm:E-1",
        dataschema="https://example.com/schema",
        sequence="0007",
        partitionkey="zhang",
        datacontenttype="application/vnd.crm+json",
    )
    response = send(service, json.dumps(sent).encode(), STRUCTURED)
    assert response.status_code == 201, response.text
    raw = service.get(f"entries/{response.json()['seq']}").content
    sealed = {"subject", "dataschema", "sequence", "partitionkey", "datacontenttype"}
    assert set(json.loads(raw)["sealed"]) == sealed
    assert b"zhang" not in raw
    assert b"vnd.crm" not in raw


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"[]", STRUCTURED, 422),
        (b"{}", BATCH, 422),
        (b'"x"', BATCH, 422),
        (b"", BATCH, 400),
        (b"", STRUCTURED, 400),
        (b"[", BATCH, 400),
        (b"[{},]", BATCH, 400),
    ],
)
def test_a_body_that_is_not_what_its_type_says_is_refused(
    service: Running, body: bytes, media_type: str, status: int
) -> None:
    problem(send(service, body, media_type), status)


# -- CloudEvents in headers ------------------------------------------------------------


def test_a_binary_cloudevent_is_put_together_from_headers_and_data(service: Running) -> None:
    headers = binary(source="crm/web", time="2026-01-31T09:30:00+08:00", traceparent="00-ab-cd-01")
    data = b'{ "actor": {"id": "e0117"}, "fields": ["phone"], "sequence": 7, "instance": "a" }'
    response = send(service, data, "application/json; charset=utf-8", headers=headers)
    assert response.status_code == 201, response.text
    entry = stored(service, response.json())
    assert list(entry["event"]) == [
        "specversion",
        "id",
        "source",
        "type",
        "time",
        "datacontenttype",
        "data",
    ]
    assert entry["event"]["data"]["sequence"] == 7
    assert "traceparent" in entry["sealed"]
    again = send(
        service,
        data,
        "application/json",
        headers=list(reversed(headers.items())),
    )
    assert (again.status_code, again.json()["repeated"]) == (200, True)


@pytest.mark.parametrize("encoded", ["crm:%E5%BC%A0%E4%B8%89", '"crm:%E5%BC%A0%E4%B8%89"'])
def test_a_subject_in_a_header_is_percent_decoded_once(service: Running, encoded: str) -> None:
    response = send(service, json.dumps(DATA).encode(), headers=binary(subject=encoded))
    assert response.status_code == 201, response.text
    found = service.ask("records/lookup", {"subject": "crm:张三"})
    assert found.json()["record"] == response.json()["record"]


def test_quotes_and_backslashes_around_a_header_are_undone(service: Running) -> None:
    headers = binary(subject=r'"crm:a \"b\" %2541"')
    response = send(service, json.dumps(DATA).encode(), headers=headers)
    assert response.status_code == 201, response.text
    found = service.ask("records/lookup", {"subject": 'crm:a "b" %41'})
    assert found.json()["record"] == response.json()["record"]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"specversion": ""}, "/specversion"),
        ({"specversion": "0.3"}, "/specversion"),
        ({"subject": "crm:%E5%BC"}, "/subject"),
        ({"subject": "crm:%ZZ"}, "/subject"),
        ({"subject": "crm:%"}, "/subject"),
        ({"subject": "crm:%ED%A0%80"}, "/subject"),
        ({"subject": "crm:%00"}, "/subject"),
        ({"subject": "crm:" + "x" * 253}, "/subject"),
        ({"type": ""}, "/type"),
        ({"id": ""}, "/id"),
        ({"data": "{}"}, "/data"),
        ({"datacontenttype": "application/json"}, "/datacontenttype"),
        ({"data_base64": "e30="}, None),
        ({"subjects": "crm:A-1"}, "/subjects"),
    ],
)
def test_a_wrong_header_is_named_and_never_repeated(
    service: Running,
    changes: dict[str, str],
    pointer: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = head(service)
    caplog.set_level(logging.DEBUG)
    response = send(service, json.dumps(DATA).encode(), headers=binary(**changes))
    status = 400 if changes.get("subject") == "crm:%00" else 422
    assert problem(response, status).pointer == pointer
    assert head(service) == before
    for value in filter(None, changes.values()):
        if len(value) > 4:
            assert value not in response.text
            assert not any(value in line.getMessage() for line in caplog.records)


def test_a_header_with_raw_bytes_past_ascii_is_refused(service: Running) -> None:
    headers = [(n.encode(), v.encode()) for n, v in binary(subject="crm:张三").items()]
    headers += [(n.encode(), v.encode()) for n, v in bearer(service.emitter).items()]
    response = service.client.post(
        service.path("events"), content=json.dumps(DATA).encode(), headers=headers
    )
    assert problem(response, 422).pointer == "/subject"


def test_an_attribute_in_two_headers_is_refused(service: Running) -> None:
    headers = [*binary().items(), ("ce-subject", "crm:C-2")]
    found = problem(send(service, json.dumps(DATA).encode(), headers=headers), 422)
    assert found.pointer == "/subject"


@pytest.mark.parametrize(
    "body",
    [
        b'{},"type":"record.erased"',
        b'{}}{"data":{}',
        b"{} {}",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b"\xff",
        b"\xef\xbb\xbf{}",
    ],
)
def test_data_in_binary_mode_reaches_no_further_than_itself(service: Running, body: bytes) -> None:
    found = problem(send(service, body, headers=binary()), 400)
    assert found.pointer is not None
    assert found.pointer.startswith("/data")


@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_a_binary_cloudevent_needs_no_data_where_its_type_needs_none(
    service: Running, body: bytes
) -> None:
    headers = binary(type="com.example.door.opened")
    assert send(service, body, headers=headers).status_code == 201
    found = problem(send(service, body, headers=binary()), 422)
    assert found.pointer == "/data/actor/id"


def test_headers_beside_a_structured_cloudevent_are_left_alone(service: Running) -> None:
    sent = cloud()
    headers = binary(id="another", subject="crm:another")
    response = send(service, json.dumps(sent).encode(), STRUCTURED, headers=headers)
    assert response.json()["id"] == sent["id"]


# -- lines -----------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", [LINES, "application/jsonl"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n \t\n", b"\r\n\r\n"])
def test_lines_are_events_and_white_lines_are_none(
    service: Running, media_type: str, end: bytes
) -> None:
    sent = [event() for _ in range(3)]
    body = end + end.join(json.dumps(each).encode() for each in sent)
    for content in (body, body[len(end) :] + end):
        response = send(service, content, media_type)
        assert response.status_code in {200, 201}
        assert [r["id"] for r in response.json()["receipts"]] == [e["id"] for e in sent]


@pytest.mark.parametrize("body", [b"", b"\n", b"\r\n \t\r\n"])
def test_no_line_is_no_event(service: Running, body: bytes) -> None:
    response = send(service, body, LINES)
    assert (response.status_code, response.json()["receipts"]) == (200, [])


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (b"\xef\xbb\xbf{}", 400),
        (b"{}\r{}", 400),
        (b"{} {}", 400),
        (b'{"id":', 400),
        (b"[]", 422),
        (b"null", 422),
        (b"\x1e{}", 400),
        (b"\x00", 400),
        (b"\xff\xfe", 400),
    ],
)
def test_a_bad_line_is_named_by_its_index(service: Running, bad: bytes, status: int) -> None:
    before = head(service)
    good = json.dumps(event()).encode()
    found = problem(send(service, b"\n%b\n\n%b\n%b" % (good, bad, good), LINES), status)
    assert (found.pointer or "").startswith("/1")
    assert head(service) == before


# -- each on its own -------------------------------------------------------------------


def results(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["preference-applied"] == "handling=lenient"
    Results.model_validate_json(response.content, strict=False)
    found: list[dict[str, Any]] = response.json()["results"]
    return found


POISON: list[tuple[Any, int, str]] = [
    ({"id": 1}, 422, "/type"),
    ([], 422, ""),
    ({**event(), "type": "record.acessed"}, 422, "/type"),
    ({**event(), "type": "policy.published", "subject": None}, 403, "/type"),
    ({**event(), "subject": "hr:E-1"}, 403, "/subject"),
    ({**event(), "data": {**DATA, "note": "n" * 70_000}}, 413, "/data/note"),
    ({**event(), "data": {"deep": json.loads("[" * 40 + "]" * 40)}}, 400, "/data/deep"),
]


@pytest.mark.parametrize("media_type", ["application/json", BATCH, LINES])
def test_a_poison_event_never_blocks_the_others(service: Running, media_type: str) -> None:
    before = head(service)
    sent: list[Any] = []
    for poison, _, _ in POISON:
        cloudy = {"specversion": "1.0", **poison} if isinstance(poison, dict) else poison
        sent += [cloud(), cloudy]
    body = lines(*sent) if media_type == LINES else json.dumps(sent).encode()
    response = send(service, body, media_type, headers=LENIENT)
    assert response.status_code == 201
    found = results(response)
    assert [item["status"] for item in found] == [
        status for _, expected, _ in POISON for status in (201, expected)
    ]
    for index, (_, status, pointer) in enumerate(POISON):
        document = found[2 * index + 1]["problem"]
        assert document["status"] == status
        assert document["pointer"].startswith(f"/{2 * index + 1}{pointer}")
        assert found[2 * index]["receipt"]["id"] == sent[2 * index]["id"]
    seqs = [item["receipt"]["seq"] for item in found if "receipt" in item]
    assert seqs == list(range(before + 1, before + 1 + len(POISON)))
    size = int(response.json()["checkpoint"].split("\n")[1])
    assert size >= seqs[-1]


def test_without_the_preference_the_poison_events_index_is_told(service: Running) -> None:
    before = head(service)
    for poison, status, pointer in POISON:
        found = problem(service.post([event(), event(), poison]), status)
        assert (found.pointer or "").startswith(f"/2{pointer}")
    assert head(service) == before


def test_broken_lines_never_block_the_others(service: Running) -> None:
    good = [event(), event()]
    broken = [b"{", b"\xff", b'{"id":NaN}', b"x" * 100_000, b"[" * 100_000]
    body = lines(good[0]) + b"\n".join(broken) + b"\n" + lines(good[1])
    found = results(send(service, body, LINES, headers=LENIENT))
    assert [item["status"] for item in found] == [201, *[400] * len(broken), 201]
    assert [item["problem"]["pointer"][:2] for item in found[1:-1]] == [
        "/1",
        "/2",
        "/3",
        "/4",
        "/5",
    ]


def test_an_id_twice_in_a_lenient_request_is_recorded_once(service: Running) -> None:
    sent = event()
    other = {**sent, "subject": "crm:other"}
    found = results(send(service, lines(sent, sent, other), LINES, headers=LENIENT))
    assert [item["status"] for item in found] == [201, 422, 422]
    assert found[1]["problem"]["pointer"] == "/1/id"


def test_repeats_and_conflicts_are_told_apart_item_by_item(service: Running) -> None:
    first, second, third = event(), event(), event()
    service.post([first, second])
    changed = {**second, "data": {**DATA, "fields": ["address"]}}
    response = send(service, lines(first, changed, third), LINES, headers=LENIENT)
    assert response.status_code == 201
    assert [item["status"] for item in results(response)] == [200, 409, 201]
    assert results(response)[1]["problem"]["pointer"] == "/1"
    assert problem(send(service, lines(first, event(), changed), LINES), 409).pointer == "/2"
    assert problem(send(service, json.dumps(changed).encode()), 409).pointer is None
    again = send(service, lines(first, changed), LINES, headers=LENIENT)
    assert again.status_code == 200
    assert [item["status"] for item in results(again)] == [200, 409]
    assert again.json()["checkpoint"] is not None


def test_one_event_alone_has_one_result_and_an_empty_array_none(service: Running) -> None:
    (found,) = results(send(service, json.dumps(event()).encode(), headers=LENIENT))
    assert found["status"] == 201
    (found,) = results(send(service, b'{"id":1}', headers=LENIENT))
    assert (found["status"], found["problem"]["pointer"]) == (422, "/type")
    empty = send(service, b"[]", headers=LENIENT)
    assert (empty.status_code, results(empty)) == (200, [])
    assert empty.json()["checkpoint"] is None


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"[{}", "application/json", 400),
        (b'[{"id":NaN}]', "application/json", 400),
        (b"{}", BATCH, 422),
        (b"[" + b"0," * 10_000 + b"0]", "application/json", 413),
        (b"0\n" * 10_001, LINES, 413),
        (b"", "text/plain", 415),
    ],
)
def test_a_request_that_is_wrong_as_a_whole_is_a_problem_even_if_lenient(
    service: Running, body: bytes, media_type: str, status: int
) -> None:
    response = send(service, body, media_type, headers=LENIENT)
    problem(response, status)
    assert "preference-applied" not in response.headers


def test_a_ledger_that_records_nothing_refuses_a_lenient_request_as_a_whole(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ledger.errors import ReadOnly

    monkeypatch.setattr(service.open.ledger.recorder, "stopped", ReadOnly("for a test"))
    response = send(service, lines(event(), {"id": 1}), LINES, headers=LENIENT)
    problem(response, 503)
    assert response.headers["retry-after"]


@pytest.mark.parametrize(
    ("prefer", "lenient"),
    [
        ("handling=lenient", True),
        ("Handling = Lenient", True),
        ('handling="lenient"', True),
        ("respond-async, handling=lenient; foo=bar", True),
        ('foo="a, handling=strict", handling=lenient', True),
        ("handling=strict", False),
        ("handling=strict, handling=lenient", False),
        ('foo="handling=lenient"', False),
        ('foo="a, handling=lenient"', False),
        ("lenient", False),
        ("", False),
        ("a," * 8_000, False),
        ('"' * 16_000, False),
        ("," * 16_000 + "handling=lenient", True),
    ],
)
def test_a_preference_is_read_as_its_standard_says(
    service: Running, prefer: str, *, lenient: bool
) -> None:
    response = send(service, json.dumps(event()).encode(), headers={"Prefer": prefer})
    assert response.status_code == 201
    assert ("results" in response.json()) == lenient


def test_preferences_in_several_headers_are_one_list(service: Running) -> None:
    headers = [("Prefer", "respond-async"), ("Prefer", "handling=lenient")]
    response = send(service, json.dumps(event()).encode(), headers=headers)
    assert "results" in response.json()


def test_a_large_lenient_request_is_recorded_in_its_order(service: Running) -> None:
    before = head(service)
    sent: list[Any] = [event(subject=f"crm:L-{n % 97}") for n in range(4_000)]
    for index in range(7, 4_000, 500):
        sent[index] = {"id": 1}
    found = results(send(service, lines(*sent), LINES, headers=LENIENT))
    seqs = [item["receipt"]["seq"] for item in found if item["status"] == 201]
    assert seqs == list(range(before + 1, before + 1 + 4_000 - 8))
    assert [i for i, item in enumerate(found) if item["status"] == 422] == [*range(7, 4_000, 500)]


def test_refusals_are_counted_one_by_one(service: Running) -> None:
    def counted(reason: str) -> float:
        sample = service.service.metrics.registry.get_sample_value(
            "custody_requests_refused_total", {"ledger": "demo", "reason": reason}
        )
        return sample or 0.0

    before = [counted(reason) for reason in ("malformed", "forbidden", "unsupported-media-type")]
    send(
        service,
        lines(event(), {"id": 1}, {"id": 2}, {**event(), "subject": "hr:1"}),
        LINES,
        headers=LENIENT,
    )
    send(service, b"", "text/plain")
    after = [counted(reason) for reason in ("malformed", "forbidden", "unsupported-media-type")]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1, 1]


# -- codings ---------------------------------------------------------------------------


@pytest.mark.parametrize("coding", [*COMPRESS, "GZIP", "Zstd"])
def test_a_compressed_body_is_recorded(service: Running, coding: str) -> None:
    compress = COMPRESS[coding.lower()]
    headers = {"Content-Encoding": coding}
    small, many = event(), [event() for _ in range(3_000)]
    response = send(service, compress(json.dumps(small).encode()), headers=headers)
    assert response.status_code == 201, response.text
    response = send(service, compress(lines(*many)), LINES, headers=headers)
    assert response.status_code == 201, response.text
    assert [r["id"] for r in response.json()["receipts"]] == [e["id"] for e in many]
    data = compress(json.dumps(DATA).encode())
    assert send(service, data, headers={**headers, **binary()}).status_code == 201
    assert service.service.bodies.held_bytes == 0


@pytest.mark.parametrize(
    "coding", ["br", "deflate", "compress", "gzip, gzip", "gzip, identity", "zstd;q=1", "gzip,"]
)
def test_another_coding_or_several_are_a_415_that_says_what_is_read(
    service: Running, coding: str
) -> None:
    response = send(service, b"{}", headers={"Content-Encoding": coding})
    problem(response, 415)
    assert response.headers["accept-encoding"] == "gzip, zstd, identity"


def test_codings_in_two_headers_are_refused(service: Running) -> None:
    headers = [("Content-Encoding", "gzip"), ("Content-Encoding", "zstd")]
    problem(send(service, b"", headers=headers), 415)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_what_is_not_one_whole_stream_is_a_400(service: Running, coding: str) -> None:
    before = head(service)
    whole = COMPRESS[coding](json.dumps(event()).encode())
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x10
    for body in (
        b"",
        b"{}",
        whole[:-1],
        whole[: len(whole) // 2],
        whole + b"\n",
        whole + whole,
        whole + b"\0" * 100_000,
        COMPRESS[coding](whole),
        bytes(flipped),
    ):
        problem(send(service, body, headers={"Content-Encoding": coding}), 400)
    other = COMPRESS["zstd" if coding == "gzip" else "gzip"](b"{}")
    problem(send(service, other, headers={"Content-Encoding": coding}), 400)
    assert head(service) == before
    assert service.service.bodies.held_bytes == 0


# -- what sources say ------------------------------------------------------------------


def test_imported_history_is_marked_and_does_not_take_the_place_of_what_is_newer(
    service: Running,
) -> None:
    subject = "crm:B-1"
    new = event(subject=subject, time="2026-01-31T09:30:00Z")
    service.post(new)
    old = event(
        subject=subject, time="2020-01-31T09:30:00Z", data={**DATA, "backfill": True, "sequence": 1}
    )
    receipt = service.record(old)
    assert stored(service, receipt)["event"]["data"]["backfill"] is True
    state = service.get(f"records/{receipt['record']}/state?seq={receipt['seq']}").json()["state"]
    assert state["last_access"]["seq"] == receipt["seq"] - 1
    service.wait_for_views()
    rows = service.ask("accesses/query", {"subject": subject}).json()["rows"]
    assert [row["backfill"] for row in sorted(rows, key=lambda r: r["seq"])] == [False, True]


@pytest.mark.parametrize("value", [-1, 1.5, "7", True, None, 2**53, []])
def test_a_sequence_is_a_number_from_0(service: Running, value: Any) -> None:
    found = problem(service.post(event(data={**DATA, "sequence": value})), 422)
    assert found.pointer == "/data/sequence"


def test_a_source_reports_how_much_it_sent(service: Running) -> None:
    report = {
        "id": "report-1",
        "type": "source.reported",
        "source": "crm/web",
        "data": {
            "actor": {"id": "crm", "kind": "service"},
            "instance": "a",
            "count": 7,
            "last_sequence": 7,
            "until": "2026-01-31T09:30:00Z",
        },
    }
    entry = stored(service, service.record(report))
    assert entry["stream_kind"] == "ledger"
    assert entry["event"]["data"]["last_sequence"] == 7


def test_a_credential_is_asked_for_before_a_body_is_expanded(service: Running) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    response = service.client.post(
        service.path("events"), content=bomb, headers={"Content-Encoding": "gzip"}
    )
    problem(response, 401)
    key = new_emitter(service.control, types=["record.accessed"])
    assert send(service, json.dumps(event()).encode(), key=key).status_code == 201


def test_every_byte_of_a_percent_encoded_subject_is_kept(service: Running) -> None:
    subject = "crm:!#$&'()*+,-./:;<=>?@[]^_`{|}~ \"%20é中😀"
    headers = binary(subject=quote(subject, safe=""))
    response = send(service, json.dumps(DATA).encode(), headers=headers)
    assert response.status_code == 201, response.text
    found = service.ask("records/lookup", {"subject": subject})
    assert found.json()["record"] == response.json()["record"]
