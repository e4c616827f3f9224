"""The outbox under every answer that a network, a proxy or a false ledger can give.

An event leaves it by a receipt that can be believed, or by a refusal of its own; by nothing
else.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ledger.client import Client, Limits
from ledger.client import exchange as exchange_module
from ledger.client.answers import Answer, read_answer, retry_after_s
from ledger.client.backoff import MAX_RETRY_AFTER_S, Backoff
from ledger.client.outbox import Waiting
from ledger.errors import CannotVerify, Malformed, Refused, TamperDetected, Unavailable
from tests.http.answering import Answering, answering, new_signer, ok, problem
from tests.http.support import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

QUICK = Limits(
    batch_age_s=0.0, retry_first_s=0.01, retry_most_s=0.05, request_timeout_s=5, report_every_s=None
)


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering() as found:
        yield found


@pytest.fixture
def make(server: Answering, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def open_client(url: str | None = None, **options: Any) -> Client:
        given: dict[str, Any] = {
            "key": "ck_test",
            "source": "crm",
            "outbox": tmp_path / "outbox.sqlite",
            "verifier_key": server.verifier_key,
            "limits": QUICK,
        }
        made.append(Client(url or server.url, "test", **{**given, **options}))
        return made[-1]

    yield open_client
    for client in made:
        client.close(0.5)


def emit(client: Client, count: int = 1, event_type: str = "record.accessed") -> list[Any]:
    return [
        client.emit(event_type, f"crm:C-{number}", actor="e1", fields=["phone"])
        for number in range(count)
    ]


def wait_for(condition: Callable[[], object], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


def assert_all_taken_once_in_order(server: Answering, tickets: list[Any]) -> None:
    assert server.ids == [ticket.id for ticket in tickets]


# -- what doesn't refuse an event, whatever it says ---------------------------------------------

HTML = {"Content-Type": "text/html"}
JSON = {"Content-Type": "application/json"}


def truncated(_: list[Any]) -> Any:
    return 201, {**JSON, "Content-Length": "5000", "Connection": "close"}, b'{"receipts":['


def receipts_of(change: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """Answer with receipts in which something is wrong."""

    def answer(events: list[Any]) -> Any:
        right = [
            {
                "id": event["id"],
                "record": "5f0f6c3e-0000-4000-8000-000000000000",
                "seq": 1 + index,
                "leaf": "0a" * 32,
                "version": 1,
                "recorded": "2026-01-31T09:30:00.000000Z",
                "incomplete": [],
                "repeated": False,
            }
            for index, event in enumerate(events)
        ]
        return ok(change(right))

    return answer


def with_receipt(**changes: Any) -> Callable[[list[Any]], Any]:
    return receipts_of(
        lambda right: {"receipts": [{**right[0], **changes}, *right[1:]], "checkpoint": None}
    )


KEEPING: dict[str, Callable[[list[Any]], Any]] = {
    "connection broken": lambda _: None,
    "answer cut off": truncated,
    "200 in HTML": lambda _: (200, HTML, b"<html>Welcome to the hotel's network</html>"),
    "200 empty": lambda _: (200, JSON, b""),
    "200 null": lambda _: ok(None),
    "200 array": lambda _: ok([]),
    "200 deep": lambda _: (200, JSON, b"[" * 100_000),
    "204": lambda _: (204, {}, b""),
    "302 to elsewhere": lambda _: (302, {"Location": "http://127.0.0.1:9/"}, b""),
    "no receipts": receipts_of(lambda _: {"receipts": [], "checkpoint": None}),
    "too few receipts": receipts_of(lambda r: {"receipts": r[:-1], "checkpoint": None}),
    "too many receipts": receipts_of(lambda r: {"receipts": r + r, "checkpoint": None}),
    "receipts in another order": receipts_of(lambda r: {"receipts": r[::-1], "checkpoint": None}),
    "receipts without checkpoint": receipts_of(lambda r: {"receipts": r}),
    "checkpoint of another kind": receipts_of(lambda r: {"receipts": r, "checkpoint": 7}),
    "results without receipt": receipts_of(
        lambda r: {"results": [{"status": 201} for _ in r], "checkpoint": None}
    ),
    "results without status": receipts_of(lambda r: {"results": r, "checkpoint": None}),
    "results of an odd status": receipts_of(
        lambda r: {"results": [{"status": [422]} for _ in r], "checkpoint": None}
    ),
    "receipt of another event": with_receipt(id="other"),
    "receipt at no place": with_receipt(seq=0),
    "receipt at a truth": with_receipt(seq=True),
    "receipt with half a leaf": with_receipt(leaf="0a"),
    "receipt with no record": with_receipt(record="crm:C-1"),
    "400 in HTML": lambda _: (400, HTML, b"<html>"),
    "422 in HTML": lambda _: (422, HTML, b"<html>"),
    "409 without body": lambda _: (409, {}, b""),
    "401": lambda _: problem(401),
    "403": lambda _: problem(403),
    "403 with a pointer to nothing": lambda _: problem(403, "/99/type"),
    "404": lambda _: problem(404),
    "405": lambda _: problem(405),
    "408": lambda _: problem(408),
    "415": lambda _: problem(415),
    "418": lambda _: problem(418),
    "429": lambda _: problem(429),
    "500": lambda _: problem(500),
    "501": lambda _: problem(501),
    "502 in HTML": lambda _: (502, HTML, b"<html>"),
    "503": lambda _: problem(503),
    "503 with a pointer": lambda _: problem(503, "/0/type"),
    "599": lambda _: (599, {}, b""),
}


@pytest.mark.parametrize("name", KEEPING)
def test_events_are_kept_and_sent_again_after(
    server: Answering, make: Callable[..., Client], name: str
):
    server.script = [KEEPING[name]] * 3
    client = make(verifier_key=())
    tickets = emit(client, 3)
    client.flush(10)
    assert client.refused() == []
    assert_all_taken_once_in_order(server, tickets)
    assert [ticket.wait_recorded(0).id for ticket in tickets] == server.ids
    assert client.health().ok


def test_events_are_kept_after_a_checkpoint_that_is_none(
    server: Answering, make: Callable[..., Client]
):
    server.script = [receipts_of(lambda right: {"receipts": right, "checkpoint": "x"})] * 2
    client = make()
    tickets = emit(client, 3)
    client.flush(10)
    assert len(server.requests) == 3
    assert_all_taken_once_in_order(server, tickets)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("connection broken", "unreachable"),
        ("200 in HTML", "garbage"),
        ("302 to elsewhere", "garbage"),
        ("401", "unauthenticated"),
        ("403", "forbidden"),
        ("404", "not-found"),
        ("415", "not-understood"),
        ("503", "unavailable"),
    ],
)
def test_health_tells_what_holds_events_up(
    server: Answering, make: Callable[..., Client], name: str, code: str
):
    told: list[Any] = []
    server.always = KEEPING[name]
    client = make(on_trouble=told.append)
    emit(client, 2)
    wait_for(lambda: client.health().failures >= 3)
    health = client.health()
    assert not health.ok
    assert health.sending is not None
    assert health.sending.code == code
    assert health.waiting == 2
    assert [each.code for each in told] == [code]
    server.always = None
    client.flush(10)
    assert client.health().ok


def test_a_redirect_is_not_followed_so_that_the_key_goes_nowhere_else(
    server: Answering, make: Callable[..., Client]
):
    with answering() as other:
        server.script = [lambda _: (307, {"Location": f"{other.url}/v1/"}, b"")]
        client = make()
        emit(client)
        client.flush(10)
        assert other.headers == []


def test_an_answer_without_end_is_given_up(
    server: Answering, make: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exchange_module, "MAX_ANSWER_BYTES", 100_000)
    server.script = [lambda events: (201, JSON, b" " * 1_000_000 + server.take(events)[2])]
    client = make()
    emit(client)
    client.flush(10)
    assert len(server.requests) == 2


def test_an_answer_that_comes_in_drops_is_given_up(server: Answering, make: Callable[..., Client]):
    """Each drop is in time; all of them together aren't."""

    def dripping(events: list[Any]) -> Any:
        server.drop_bytes = 20
        return server.take(events)

    def whole(events: list[Any]) -> Any:
        server.drop_bytes = 65_536
        return server.take(events)

    server.script = [dripping, whole]
    client = make(limits=replace(QUICK, request_timeout_s=0.3))
    emit(client)
    client.flush(10)
    assert len(server.requests) == 2


def test_a_server_that_is_too_slow_is_given_up_and_what_it_did_is_not_done_twice(
    server: Answering, make: Callable[..., Client]
):
    def slowly(events: list[Any]) -> Any:
        answer = server.take(events)
        time.sleep(0.5)
        return answer

    server.script = [slowly, slowly]
    client = make(limits=Limits(batch_age_s=0, retry_first_s=0.01, request_timeout_s=0.2))
    tickets = emit(client, 3)
    client.flush(10)
    assert_all_taken_once_in_order(server, tickets)
    assert tickets[0].wait_recorded(0).repeated


# -- pauses ------------------------------------------------------------------------------------


def test_retry_after_is_waited_for(server: Answering, make: Callable[..., Client]):
    server.script = [lambda _: problem(503, Retry_After="1")]
    client = make()
    emit(client)
    client.flush(10)
    assert server.times[1] - server.times[0] >= 1.0


def test_pauses_double_up_to_a_bound_and_begin_anew_after_a_success():
    backoff = Backoff(0.5, 60.0, lambda: 1.0)
    assert [backoff.failed() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    backoff.succeeded()
    assert backoff.failed() == 0.5


def test_pauses_are_drawn_between_nothing_and_the_bound():
    assert Backoff(8.0, 60.0, lambda: 0.0).failed() == 0.0
    assert Backoff(8.0, 60.0, lambda: 0.25).failed() == 2.0


def test_a_pause_is_never_shorter_than_asked_nor_longer_than_an_hour_and_a_bound():
    assert Backoff(1.0, 60.0, lambda: 0.5).failed(30.0) == 30.5
    assert Backoff(1.0, 60.0, lambda: 0.0).failed(1e9) == MAX_RETRY_AFTER_S


def test_an_hour_without_a_ledger_costs_few_requests():
    backoff = Backoff(0.5, 60.0, iter([0.5] * 10_000).__next__)
    passed_s = tries = 0
    while passed_s < 3_600:
        passed_s += backoff.failed()
        tries += 1
    assert 100 < tries < 140


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), ("7", 7.0), (" 12 ", 12.0), ("soon", None), ("-1", None), ("9" * 50, 999999999)],
)
def test_retry_after_in_seconds(value: str | None, expected: float | None):
    assert retry_after_s(value) == expected


def test_retry_after_as_a_date():
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    far = retry_after_s("Fri, 01 Jan 2100 00:00:00 GMT")
    assert far is not None
    assert far > 1e9


# -- poison ------------------------------------------------------------------------------------


@pytest.mark.parametrize("lenient", [True, False])
def test_poison_is_set_aside_wherever_it_stands(
    server: Answering, make: Callable[..., Client], *, lenient: bool
):
    server.lenient = lenient
    client = make()
    good = emit(client, 2)
    bad = emit(client, 1, "poison.sent")
    good += emit(client, 3)
    bad += emit(client, 1, "poison.sent")
    client.flush(10)
    assert_all_taken_once_in_order(server, good)
    assert [each.id for each in client.refused()] == [ticket.id for ticket in bad]
    with pytest.raises(Refused):
        bad[0].wait_recorded(0)


def test_every_request_asks_for_results_per_event(server: Answering, make: Callable[..., Client]):
    client = make()
    emit(client)
    client.flush(10)
    assert server.headers[0]["Prefer"] == "handling=lenient"


def test_poison_that_is_not_named_is_found_by_sending_less(
    server: Answering, make: Callable[..., Client]
):
    def refuse(events: list[Any]) -> Any:
        found = any("poison" in event["type"] for event in events)
        return problem(422) if found else server.take(events)

    server.always = refuse
    client = make(limits=Limits(batch_age_s=0.2, retry_first_s=0.01, report_every_s=None))
    good = emit(client, 6)
    bad = emit(client, 1, "poison.sent")
    good += emit(client, 6)
    client.flush(10)
    assert_all_taken_once_in_order(server, good)
    assert [each.id for each in client.refused()] == [bad[0].id]
    assert client.health().failures == 0


def test_a_proxys_limit_of_size_makes_requests_smaller_and_sets_one_large_event_aside(
    server: Answering, make: Callable[..., Client]
):
    def proxy(events: list[Any]) -> Any:
        if len(json.dumps(events)) > 1_200:
            return 413, HTML, b"<html>413</html>"
        return server.take(events)

    server.always = proxy
    client = make(limits=Limits(batch_age_s=0.2, retry_first_s=0.01, report_every_s=None))
    good = emit(client, 20)
    bad = client.emit("record.accessed", "crm:C-1", actor="e1", fields=["a"], note="x" * 2_000)
    good += emit(client, 3)
    client.flush(10)
    assert_all_taken_once_in_order(server, good)
    assert [(each.id, each.status) for each in client.refused()] == [(bad.id, 413)]


def test_an_item_that_is_to_come_again_keeps_only_itself(
    server: Answering, make: Callable[..., Client]
):
    def one_later(events: list[Any]) -> Any:
        status, headers, body = server.take(
            [event for event in events if "1" not in event["subject"]]
        )
        document = json.loads(body)
        results = iter(document["results"])
        document["results"] = [
            {"status": 503, "problem": {}} if "1" in event["subject"] else next(results)
            for event in events
        ]
        return status, headers, json.dumps(document).encode()

    server.script = [one_later]
    client = make(limits=Limits(batch_age_s=0.2, retry_first_s=0.01, report_every_s=None))
    tickets = emit(client, 3)
    tickets[-1].wait_stored(10)
    client.flush(10)
    assert sorted(server.ids) == sorted(ticket.id for ticket in tickets)
    assert [len(request) for request in server.requests] == [3, 1]
    assert client.refused() == []


def test_events_with_many_subjects_go_in_requests_that_make_few_enough_entries(
    server: Answering, make: Callable[..., Client]
):
    def many(events: list[Any]) -> Any:
        assert sum(len(event["subjects"]) for event in events) <= 5_000
        return problem(503) if len(events) > 100 else server.take([])

    server.always = many
    client = make(limits=Limits(batch_age_s=0.5, retry_first_s=0.01, report_every_s=None))
    for _ in range(12):
        client.emit("record.exported", subjects=[f"crm:C-{each}" for each in range(1_000)])
    wait_for(lambda: server.requests)
    assert len(server.requests[0]) == 5


def test_an_answer_is_never_read_into_refusing_an_event_that_it_does_not_name():
    sent = [Waiting(number, f"id-{number}", 1, b"{}") for number in range(3)]
    for status in range(100, 600):
        for pointer in (None, "", "/", "/3", "/x/0", "0", "/-1", "/00/type"):
            code, headers, body = problem(status, pointer)
            lower = {name.lower(): value for name, value in headers.items()}
            verdict = read_answer(Answer(code, lower, body), sent)
            assert not verdict.recorded
            assert not verdict.refused, (status, pointer)
            assert verdict.trouble or verdict.fewer


# -- keys --------------------------------------------------------------------------------------


def test_an_expired_key_keeps_events_and_a_new_one_in_its_file_is_taken_without_a_restart(
    server: Answering, make: Callable[..., Client], tmp_path: Path
):
    path = tmp_path / "key"
    path.write_text("Authorization: Bearer ck_old\n")

    def by_key(events: list[Any]) -> Any:
        valid = server.headers[-1]["Authorization"] == "Bearer ck_new"
        return server.take(events) if valid else problem(401)

    server.always = by_key
    client = make(key=None, key_file=path)
    tickets = emit(client, 2)
    wait_for(lambda: client.health().failures >= 2)
    assert client.health().sending.code == "unauthenticated"  # type: ignore[union-attr]
    path.unlink()
    wait_for(lambda: "can't be read" in client.health().sending.detail)  # type: ignore[union-attr]
    path.write_text("ck_new")
    client.flush(10)
    assert_all_taken_once_in_order(server, tickets)


# -- receipts that can't be believed -----------------------------------------------------------


def forged(server: Answering, **changes: Any) -> Callable[[list[Any]], Any]:
    """Answer as the ledger, with another checkpoint."""

    def answer(events: list[Any]) -> Any:
        document = json.loads(server.take(events)[2])
        document["checkpoint"] = server.note(**changes)
        return ok(document)

    return answer


def assert_stopped(server: Answering, client: Client, tickets: list[Any], reason: str) -> None:
    with pytest.raises(TamperDetected, match=reason):
        client.flush(10)
    asked = len(server.requests)
    with pytest.raises(TamperDetected):
        tickets[-1].wait_recorded(10)
    emit(client)
    time.sleep(0.1)
    assert len(server.requests) == asked, "it went on sending to who isn't the ledger"
    health = client.health()
    assert health.sending is not None
    assert health.sending.code == "tampered"
    assert health.waiting == len(tickets) + 1
    assert client.refused() == []
    ((why, line),) = client.evidence()
    assert reason in why
    assert json.loads(line)["checkpoint"]


def test_a_receipt_of_another_key_stops_sending_and_keeps_events_and_evidence(
    server: Answering, make: Callable[..., Client]
):
    server.script = [forged(server, signer=new_signer())]
    client = make()
    tickets = emit(client, 1)
    assert_stopped(server, client, tickets, "doesn't vouch")
    client.close()
    again = make()
    again.flush(10)
    assert len(server.ids) == 2
    assert len(again.evidence()) == 1


def test_a_receipt_whose_signature_was_changed_stops_sending(
    server: Answering, make: Callable[..., Client]
):
    def change(events: list[Any]) -> Any:
        document = json.loads(server.take(events)[2])
        note = document["checkpoint"]
        document["checkpoint"] = note.replace(f"\n{server.edge.size}\n", "\n9\n", 1)
        return ok(document)

    server.script = [change]
    client = make()
    assert_stopped(server, client, emit(client, 1), "doesn't vouch")


def test_a_checkpoint_that_does_not_cover_the_entry_stops_sending(
    server: Answering, make: Callable[..., Client]
):
    server.script = [forged(server, size=2)]
    client = make(limits=replace(QUICK, batch_age_s=0.2))
    tickets = emit(client, 3)
    tickets[-1].wait_stored(10)
    assert_stopped(server, client, tickets, "cover entry 3")


def test_two_roots_of_one_size_stop_sending(server: Answering, make: Callable[..., Client]):
    client = make()
    emit(client, 2)
    client.flush(10)
    tickets = emit(client)

    def split(events: list[Any]) -> Any:
        document = json.loads(server.take(events)[2])
        receipt = document["results"][0]["receipt"]
        receipt.update(seq=2, repeated=True)
        document["checkpoint"] = server.note(size=2, root=b"\7" * 32)
        return ok(document)

    server.script = [split]
    assert_stopped(server, client, tickets, "different roots")


def test_a_number_that_is_given_out_again_stops_sending(
    server: Answering, make: Callable[..., Client]
):
    client = make()
    emit(client, 2)
    client.flush(10)

    def again(events: list[Any]) -> Any:
        document = json.loads(server.take(events)[2])
        document["results"][0]["receipt"]["seq"] = 1
        return ok(document)

    server.script = [again]
    assert_stopped(server, client, emit(client), "said to be new")


def test_two_leaves_at_one_place_stop_sending_even_where_no_key_is_pinned(
    server: Answering, make: Callable[..., Client]
):
    client = make(verifier_key=())
    emit(client, 2)
    client.flush(10)

    def other_leaf(events: list[Any]) -> Any:
        document = json.loads(server.take(events)[2])
        document["results"][0]["receipt"].update(seq=1, repeated=True)
        return ok(document)

    server.script = [other_leaf]
    assert_stopped(server, client, emit(client), "another leaf")


def test_either_of_two_pinned_keys_will_do(server: Answering, make: Callable[..., Client]):
    other = new_signer()
    client = make(verifier_key=[other.verifier.verifier_key(), server.verifier_key])
    emit(client)
    client.flush(10)
    server.script = [forged(server, signer=other)]
    emit(client)
    client.flush(10)
    assert client.health().ok


def pending(server: Answering) -> Callable[[list[Any]], Any]:
    def answer(events: list[Any]) -> Any:
        document = json.loads(server.take(events)[2])
        return ok({**document, "checkpoint": None, "checkpoint_pending": "/v1/x"})

    return answer


def test_events_stay_until_a_pinned_key_has_signed_for_them(
    server: Answering, make: Callable[..., Client]
):
    server.always = pending(server)
    client = make()
    (ticket,) = emit(client)
    wait_for(lambda: client.health().failures >= 2)
    assert client.health().sending.code == "unsigned"  # type: ignore[union-attr]
    assert client.health().waiting == 1
    with pytest.raises(Unavailable):
        ticket.wait_recorded(0)
    server.always = None
    client.flush(10)
    assert server.ids == [ticket.id]
    assert ticket.wait_recorded(0).repeated


def test_where_no_key_is_pinned_a_receipt_that_is_to_be_signed_later_will_do(
    server: Answering, make: Callable[..., Client]
):
    server.always = pending(server)
    client = make(verifier_key=())
    emit(client)
    client.flush(10)
    assert client.health().ok


@pytest.mark.parametrize("key", ["", "not a key", "a+00000000+AQ=="])
def test_a_verifier_key_that_is_none_is_refused(make: Callable[..., Client], key: str):
    with pytest.raises((Malformed, CannotVerify)):
        make(verifier_key=key)


# -- bounds ------------------------------------------------------------------------------------


def test_memory_stays_bounded_under_a_dead_server_and_nothing_is_dropped_silently(
    make: Callable[..., Client],
):
    port = free_port()
    limits = Limits(
        buffer_events=50,
        outbox_bytes=20_000,
        emit_timeout_s=1.0,
        retry_first_s=0.01,
        retry_most_s=0.05,
        report_every_s=None,
    )
    url = f"http://127.0.0.1:{port}"
    client = make(url=url, outbox=None, limits=limits, verifier_key=())
    taken: list[Any] = []
    with pytest.raises(Unavailable, match=r"more is not allowed.*limit of bytes"):
        emit_without_end(client, taken)
    health = client.health()
    assert health.storing is not None
    assert health.storing.code == "outbox-full"
    assert health.buffered == 50
    assert health.buffered + health.waiting == len(taken)
    assert health.waiting_bytes <= 20_000
    with answering(port) as late:
        client.flush(20)
        assert_all_taken_once_in_order(late, taken)
    assert client.health().ok


def emit_without_end(client: Client, taken: list[Any]) -> None:
    while True:
        taken += emit(client)


def test_emit_waits_for_room_before_it_gives_up(server: Answering, make: Callable[..., Client]):
    limits = Limits(
        buffer_events=5, outbox_bytes=3_000, batch_age_s=0, emit_timeout_s=10, report_every_s=None
    )
    client = make(limits=limits)
    tickets = emit(client, 200)
    client.flush(10)
    assert_all_taken_once_in_order(server, tickets)


def test_receipts_past_the_limit_are_dropped_oldest_first(
    make: Callable[..., Client], tmp_path: Path
):
    limits = Limits(receipts_kept=5, batch_age_s=0, batch_events=1, report_every_s=None)
    client = make(limits=limits)
    tickets = emit(client, 20)
    client.flush(10)
    assert [ticket.number for ticket in tickets if _has_receipt(client, ticket)] == list(
        range(16, 21)
    )
    assert client.export_receipts(tmp_path / "receipts.jsonl") == 5


def _has_receipt(client: Client, ticket: Any) -> bool:
    return client.core.engine.archive.find(ticket.number) is not None


def test_the_receipts_file_holds_every_answer_as_received(
    server: Answering, make: Callable[..., Client], tmp_path: Path
):
    client = make()
    emit(client, 5)
    client.flush(10)
    emit(client, 5, "poison.sent")
    server.lenient = False
    emit(client, 5)
    client.flush(10)
    path = tmp_path / "receipts.jsonl"
    lines = client.export_receipts(path)
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(documents) == lines
    found = [
        receipt["id"]
        for document in documents
        for receipt in document.get("receipts")
        or [each["receipt"] for each in document["results"] if "receipt" in each]
    ]
    assert found == server.ids
    assert all(server.verifier_key.split("+")[0] in each["checkpoint"] for each in documents)
    assert path.stat().st_mode & 0o777 == 0o600


def test_kept_receipts_do_not_tell_whom_they_are_about(make: Callable[..., Client], tmp_path: Path):
    client = make()
    client.emit("record.accessed", "crm:Li-Na", actor="e1", fields=["a"], note="her dog bites")
    client.flush(10)
    client.close()
    for path in tmp_path.glob("outbox.sqlite*"):
        content = path.read_bytes()
        assert b"Li-Na" not in content
        assert b"dog bites" not in content
