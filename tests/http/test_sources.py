"""What is missing of each source, over HTTP and in metrics."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from api import views
from api.schemas_evidence import SourcePage
from ledger.cli import main
from ledger.errors import Unavailable
from projections import sources, sources_cli
from tests.http.support import LEDGER, Running, event, head, new_emitter, problem

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


@pytest.fixture(scope="module")
def filled(service: Running) -> Running:
    """Give a service with four instances that count, one of them with losses."""
    key = new_emitter(service.control, sources=["loans"], namespaces=["crm"])
    for instance in ("a", "b", "c", "d"):
        for number in (1, 2, 6, 6, 4) if instance == "b" else (1, 2, 3):
            data: dict[str, Any] = {"actor": {"id": "e-1"}, "fields": ["phone"]}
            data |= {"sequence": number, "instance": instance}
            assert service.post(event(data=data), key=key).status_code == 201
    report = {"actor": {"id": "loans", "kind": "service"}, "instance": "b", "count": 8}
    report |= {"last_sequence": 8, "until": "2026-01-01T00:00:00Z"}
    sent = {"id": "r-1", "type": "source.reported", "data": report}
    assert service.post(sent, key=key).status_code == 201
    service.record(event())
    service.wait_for_views()
    return service


def page(service: Running, question: str = "") -> SourcePage:
    response = service.get(f"sources{question}")
    assert response.status_code == 200, response.text
    return SourcePage.model_validate_json(response.content)


def test_sources_are_listed_with_what_is_missing_of_them(filled: Running) -> None:
    found = page(filled)
    loans = {row.instance: row for row in found.sources if row.source == "loans"}
    assert set(loans) == {"a", "b", "c", "d"}
    lossy = loans["b"]
    assert lossy.sequence is not None
    assert (lossy.sequence.missing, lossy.sequence.gaps) == (2, [[3, 3], [5, 5]])
    assert (lossy.sequence.repeats, lossy.sequence.went_back) == (1, 1)
    assert lossy.report is not None
    assert (lossy.report.unreceived, lossy.report.agrees) == (4, False)
    assert lossy.events == 5
    assert loans["a"].report is None
    assert 0 <= lossy.silent_s < 600
    assert (found.as_of.basis, found.next) == ("view", None)
    assert "custody" not in {row.source for row in found.sources}


def test_a_look_at_sources_leaves_an_entry(filled: Running) -> None:
    before = head(filled)
    page(filled, "?with_gaps=true&limit=5")
    assert head(filled) == before + 1
    entry = filled.get(f"entries/{before + 1}").json()
    assert entry["event"]["data"]["report"] == "sources"
    assert entry["event"]["data"]["rows"] == 1


def test_pages_join_and_filters_narrow(filled: Running) -> None:
    whole = page(filled)
    paged, question = [], "?limit=2"
    while True:
        part = page(filled, question)
        assert len(part.sources) <= 2
        paged += [(row.source, row.instance) for row in part.sources]
        if part.next is None:
            break
        question = f"?limit=2&after={part.next}"
    assert paged == [(row.source, row.instance) for row in whole.sources]
    assert [row.instance for row in page(filled, "?with_gaps=true").sources] == ["b"]
    assert page(filled, "?silent_for_s=86400").sources == []
    linked = filled.get("sources?limit=1").headers["link"]
    assert linked.startswith(f"</v1/ledgers/{LEDGER}/sources?limit=1&after=")


@pytest.mark.parametrize(
    "question",
    [
        *(f"after={text}" for text in ("none", "!", "WyJhIl0", "WzEsMl0", "WyJcdTAwMDAiLCIiXQ")),
        *(f"silent_for_s={text}" for text in ("-1", "x")),
        *("with_gaps=perhaps", "limit=0", "limit=1001"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(filled: Running, question: str) -> None:
    before = head(filled)
    problem(filled.get(f"sources?{question}"), 422)
    assert head(filled) == before


def test_only_a_reader_of_this_ledger_sees_its_sources(filled: Running) -> None:
    problem(filled.get("sources", key=filled.emitter), 403)
    problem(filled.get("sources", key=filled.other_reader), 404)
    problem(filled.get("sources", key="ck_no"), 401)


# -- metrics -----------------------------------------------------------------------------


@pytest.fixture
def at_once(filled: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """Read sums at every look, as if time had passed."""
    monkeypatch.setattr(views, "SUMS_S", -1.0)
    return filled


def samples(service: Running) -> dict[tuple[str, str], float]:
    text = service.client.get("/metrics").text
    return {
        (sample.name, sample.labels["source"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("custody_source_") and sample.labels["ledger"] == LEDGER
    }


def test_metrics_have_sums_of_each_source(at_once: Running) -> None:
    found = samples(at_once)
    assert found["custody_source_missing_events", "loans"] == 2 + 2
    assert found["custody_source_repeated_numbers", "loans"] == 1
    assert 0 <= found["custody_source_silent_seconds", "loans"] < 600


def test_labels_stay_few_however_many_sources_there_are(
    at_once: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.gauges.MAX_SOURCES", 1)
    assert len({source for _, source in samples(at_once)}) == 2
    assert ("custody_source_missing_events", "other") in samples(at_once)


def test_a_view_that_cannot_be_read_never_fails_the_scrape(
    at_once: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = samples(at_once)["custody_source_missing_events", "loans"]
    errors: list[Exception] = [Unavailable("for a test"), psycopg.OperationalError("for a test")]
    for error in errors:

        def fail(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(views, "select_sums", fail)
        assert samples(at_once)["custody_source_missing_events", "loans"] == before


def test_metrics_are_read_from_the_view_now_and_then_only(
    filled: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    select = sources.select_sums

    def count(*given: Any) -> Any:
        looks.append(1)
        return select(*given)

    monkeypatch.setattr(views, "select_sums", count)
    for _ in range(5):
        samples(filled)
    assert len(looks) <= len(filled.service.ledgers)


def test_what_names_hold_can_stand_in_a_url(filled: Running) -> None:
    key = new_emitter(filled.control, sources=["loans"], namespaces=["crm"])
    for name in ("loans/é 王&=#", "loans/" + "x" * 60):
        sent = filled.post(event(source=name), key=key)
        if sent.status_code == 201:
            continue
        assert sent.status_code == 422, sent.text
    filled.wait_for_views()
    first = page(filled, "?limit=1")
    assert json.loads(filled.get(f"sources?limit=1&after={first.next}").content)["sources"]


# -- the command -------------------------------------------------------------------------


def run(service: Running, folder: Path, *options: str) -> Result:
    path = folder / "reader"
    path.write_text(service.reader)
    where = ["--url", service.url, "--key-file", str(path)]
    return CliRunner().invoke(main, ["sources", LEDGER, *options, *where])


def test_the_command_lists_sources_as_a_table(filled: Running, tmp_path: Path) -> None:
    done = run(filled, tmp_path)
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][:4] == ["source", "instance", "events", "missing"]
    (lossy,) = (cells for cells in lines if cells[:2] == ["loans", "b"])
    assert lossy[2:6] == ["5", "2", "1", "4"]
    assert done.stderr == ""


def test_the_command_narrows_and_follows_pages(
    filled: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources_cli, "PAGE", 1)
    whole = json.loads(run(filled, tmp_path, "--json").stdout)
    assert len(whole) == len(page(filled).sources)
    gaps = json.loads(run(filled, tmp_path, "--json", "--with-gaps").stdout)
    assert [row["instance"] for row in gaps] == ["b"]
    assert json.loads(run(filled, tmp_path, "--json", "--silent-for", "86400").stdout) == []
    assert run(filled, tmp_path, "--silent-for", "0").exit_code == 2
