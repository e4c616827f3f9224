from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import MAX_SOURCES, Metrics
from ledger.errors import ReadOnly
from tests.http.support import LEDGER, OTHER, Running, bearer, event, problem, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def read_only(service: Running) -> Iterator[Running]:
    """Stop recording for one test."""
    service.open.ledger.recorder.stopped = ReadOnly("stopped for a test", retry_after_s=300)
    yield service
    service.open.ledger.recorder.stopped = None


def samples(text: str) -> dict[tuple[str, str], float]:
    """Give each sample's value by name and labels."""
    return {
        (sample.name, ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_health_and_readiness_are_open_to_anybody(service: Running) -> None:
    assert service.client.get("/healthz").json() == {"status": "up"}
    assert service.client.get("/readyz").json() == {"status": "ready"}


def test_a_read_only_ledger_takes_nothing_in_and_is_not_ready(read_only: Running) -> None:
    response = read_only.post(event())
    found = problem(response, 503)
    assert found.type == "urn:custody-ledger:problem:read-only"
    assert response.headers["retry-after"] == "300"
    ready = problem(read_only.client.get("/readyz"), 503)
    assert ready.codes == ["read-only"]
    assert read_only.client.get("/healthz").status_code == 200


def test_evidence_is_not_shown_while_looking_at_it_leaves_no_entry(read_only: Running) -> None:
    problem(read_only.get("entries"), 503)
    assert read_only.get("checkpoint").status_code == 200


def test_an_unreachable_database_is_not_ready(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.service, "_dsn", "host=/nowhere dbname=none")
    monkeypatch.setattr(service.service, "_looked", (float("-inf"), True))
    found = problem(service.client.get("/readyz"), 503)
    assert found.codes == ["database-unreachable"]
    monkeypatch.undo()


def test_metrics_measure_what_was_done(service: Running) -> None:
    service.post([event() for _ in range(3)])
    service.post(event(type="record.acessed"))
    service.wait_for_views()
    response = service.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(response.text)
    of_ledger = f"ledger={LEDGER}"
    assert found["custody_head_seq", of_ledger] == service.open.head_seq
    assert found["custody_checkpoint_size", of_ledger] == service.open.head_seq
    assert found["custody_checkpoint_age_seconds", of_ledger] >= 0
    assert found["custody_queue_entries", of_ledger] == 0
    assert found["custody_recording", of_ledger] == 1
    assert found["custody_append_seconds_count", of_ledger] >= 1
    assert found["custody_group_entries_sum", of_ledger] >= 3
    assert found["custody_requests_refused_total", f"{of_ledger},reason=malformed"] >= 1
    assert found["custody_events_incomplete_total", f"{of_ledger},source=crm"] >= 3
    assert found["custody_disk_free_bytes", ""] > 0
    for view in ("record_state", "access_history"):
        assert found["custody_view_lag_entries", f"{of_ledger},view={view}"] == 0
        assert found["custody_view_failed", f"{of_ledger},view={view}"] == 0
    route = "method=POST,route=/v1/ledgers/{ledger}/events,status=201"
    assert found["custody_requests_total", route] >= 1


def test_a_repeat_is_not_counted_as_incomplete_again(service: Running) -> None:
    def count() -> float:
        text = service.client.get("/metrics").text
        return samples(text)["custody_events_incomplete_total", f"ledger={LEDGER},source=crm"]

    sent = event()
    service.post(sent)
    before = count()
    service.post(sent)
    assert count() == before


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
def test_metrics_that_come_through_a_proxy_need_a_reader_and_show_its_ledger_only(
    service: Running, header: str
) -> None:
    forwarded = {header: "for=127.0.0.1"}
    problem(service.client.get("/metrics", headers=forwarded), 401)
    emitter = {**forwarded, **bearer(service.emitter)}
    problem(service.client.get("/metrics", headers=emitter), 403)
    reader = {**forwarded, **bearer(service.reader)}
    text = service.client.get("/metrics", headers=reader).text
    assert f'ledger="{LEDGER}"' in text
    assert OTHER not in text
    assert "custody_disk_free_bytes" not in text


def test_labels_stay_few_whoever_sends() -> None:
    metrics = Metrics()
    receipt = b'{"id":"a","incomplete":["/time"],"repeated":false}'
    for number in range(MAX_SOURCES + 50):
        metrics.recorded("demo", f"source-{number}", receipt, 0.001)
        metrics.answered("other", f"METHOD{number}", 404)
    found = samples(metrics.render().decode())
    assert sum(name == "custody_events_incomplete_total" for name, _ in found) == MAX_SOURCES + 1
    assert found["custody_events_incomplete_total", "ledger=demo,source=other"] == 50
    assert found["custody_requests_total", "method=other,route=other,status=404"] == 250


def test_a_view_that_fails_is_not_hidden(new_database: Callable[[], str]) -> None:
    dsn = new_database()
    with running(dsn) as service:
        service.record(event())
        service.wait_for_views()
        with psycopg.connect(dsn, autocommit=True) as connection:
            # As an attacker would who owns the database: no trigger fires.
            connection.execute("SET session_replication_role = replica")
            connection.execute("UPDATE ledger_demo.entries SET entry = '{}' WHERE seq = 1")
            connection.execute("TRUNCATE ledger_demo.view_access_history_tracking")
        service.record(event())
        deadline = time.monotonic() + 10
        while service.client.get("/readyz").status_code == 200:
            assert time.monotonic() < deadline, "the view's failure does not show"
            time.sleep(0.02)
        assert problem(service.client.get("/readyz"), 503).codes == ["view-failed"]
        found = samples(service.client.get("/metrics").text)
        assert found["custody_view_failed", f"ledger={LEDGER},view=access_history"] == 1
        assert found["custody_view_failed", f"ledger={LEDGER},view=record_state"] == 0
        assert service.post(event()).status_code == 201
