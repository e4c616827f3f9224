from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

import pytest

from ledger.anchors.sink import Due, SinkFailed, SplitView
from tests.fixtures.anchors import QUICK, Told
from tests.http.support import LEDGER, Running, event, problem, running
from tests.http.test_health import samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def service(new_database: Callable[[], str]) -> Iterator[Running]:
    """Serve a ledger of this test's own."""
    with running(new_database()) as found:
        yield found


def told_sink(service: Running) -> Told:
    """Put a sink into the running ledger that does what a test says."""
    anchoring = service.open.ledger.anchoring
    sink = Told("hook")
    keeper = anchoring._keepers[0]
    keeper._sink = sink
    keeper._pace = QUICK
    keeper._placed = keeper._placed._replace(sink=sink, shown="https://hook.invalid")
    keeper.standing = keeper.standing._replace(
        sink="hook", kind="webhook", shown="https://hook.invalid"
    )
    return sink


def fail(_due: Due) -> None:
    raise SinkFailed("unreachable", "as a test wants")


def test_any_credential_gets_the_evidence_and_can_check_it(service: Running) -> None:
    service.record(event())
    assert service.open.ledger.anchoring.turn()
    for key in (service.reader, service.emitter):
        response = service.get("anchors", key=key)
        assert response.headers["cache-control"] == "no-store"
        (sink,) = response.json()["sinks"]
        assert (sink["name"], sink["kind"], sink["configured"]) == ("directory", "file", True)
        assert sink["failing"] is None
        assert sink["place"] is None
        evidence = sink["evidence"]
        raw = base64.b64decode(evidence["base64"])
        assert hashlib.sha256(raw).hexdigest() == evidence["sha256"]
        note = hashlib.sha256(evidence["note"].encode()).hexdigest()
        assert raw.decode().startswith(note)
        told = service.get(f"entries/{evidence['seq']}").json()["event"]["data"]
        assert told["proof_sha256"] == evidence["sha256"]
        assert (told["size"], told["root"]) == (evidence["size"], evidence["root"])


def test_an_older_checkpoints_evidence_is_found_by_its_size(service: Running) -> None:
    service.record(event())
    service.open.ledger.anchoring.turn()
    first = service.get("anchors").json()["sinks"][0]["evidence"]
    service.record(event())
    service.open.ledger.anchoring.turn()
    newest = service.get("anchors").json()["sinks"][0]["evidence"]
    assert newest["size"] > first["size"]
    older = service.get("anchors", params={"size": first["size"]}).json()
    assert older["sinks"][0]["evidence"] == first
    none = service.get("anchors", params={"size": first["size"] + 1}).json()
    assert none["sinks"][0]["evidence"] is None
    problem(service.get("anchors", params={"size": 0}), 422)


def test_another_ledgers_credential_sees_nothing(service: Running) -> None:
    problem(service.get("anchors", key=service.other_reader), 404)


def test_a_failing_sink_shows_in_the_answer_and_in_the_metrics(service: Running) -> None:
    sink = told_sink(service)
    sink.act = fail
    service.record(event())
    for _ in range(3):
        service.open.ledger.anchoring.turn()
    found = next(s for s in service.get("anchors").json()["sinks"] if s["name"] == "hook")
    assert found["failing"]["reason"] == "unreachable"
    assert found["place"] == "https://hook.invalid"
    assert found["evidence"] is None
    labels = f"ledger={LEDGER},sink=hook"
    metrics = samples(service.client.get("/metrics").text)
    assert metrics["custody_anchor_failing", labels] == 1
    assert metrics["custody_anchor_size", labels] == 0
    assert ("custody_anchor_age_seconds", labels) not in metrics
    assert service.client.get("/readyz").status_code == 200
    sink.act = lambda _due: None
    service.open.ledger.anchoring.turn()
    metrics = samples(service.client.get("/metrics").text)
    assert metrics["custody_anchor_failing", labels] == 0
    assert metrics["custody_anchor_size", labels] >= 2
    assert 0 <= metrics["custody_anchor_age_seconds", labels] < 60


def test_a_sink_that_was_removed_keeps_its_evidence(service: Running) -> None:
    service.record(event())
    service.open.ledger.anchoring.turn()
    told_sink(service)
    found = {s["name"]: s for s in service.get("anchors").json()["sinks"]}
    assert found["directory"]["configured"] is False
    assert found["directory"]["evidence"] is not None


def test_a_split_view_is_shouted_everywhere(service: Running) -> None:
    def contradict(due: Due) -> None:
        raise SplitView("another root", evidence={"ours": due.note})

    before = samples(service.client.get("/metrics").text)
    assert before["custody_split_view", f"ledger={LEDGER}"] == 0
    told_sink(service).act = contradict
    service.record(event())
    service.open.ledger.anchoring.turn()
    ready = problem(service.client.get("/readyz"), 503)
    assert ready.codes == ["read-only", "split-view"]
    metrics = samples(service.client.get("/metrics").text)
    assert metrics["custody_split_view", f"ledger={LEDGER}"] == 1
    assert metrics["custody_recording", f"ledger={LEDGER}"] == 0
    problem(service.post(event()), 503)
    assert service.get("anchors").json()["split_views"] == ["split-view-2-hook.json"]
    assert service.get("checkpoint").status_code == 200
