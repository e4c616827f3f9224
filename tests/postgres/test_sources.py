"""The view of sources over a real log, against what a list of the events says."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
import pytest

from ledger.application import log_environment
from ledger.errors import ProjectionStopped, TamperDetected
from projections.queries import ViewReader
from projections.rebuild import rebuild
from projections.recorded import read_entry
from projections.runner import BatchProjectionRunner
from projections.schema import migrate_views
from projections.sources import MAX_LISTED, SourceRow, select_sources, select_sums
from projections.views import source_sequences
from projections.views.source_sequences import SourceSequences
from tests.fixtures.ledgers import an_emitter, an_event, record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger.service import Ledger
    from projections.recorded import RecordedEvent
    from tests.fixtures.ledgers import Place

SOURCES = ("crm", "crm/app", "core")
INSTANCES = (None, "a", "b")


@pytest.fixture
def views(place: Place) -> Place:
    """Give a ledger's place with its views' tables, empty."""
    with place.connect() as connection:
        migrate_views(connection, schema=place.row.schema)
    return place


@pytest.fixture
def reader(views: Place) -> Iterator[ViewReader]:
    made = ViewReader(views.dsn, views.row.schema)
    yield made
    made.close()


def send(ledger: Ledger, *events: dict[str, Any]) -> None:
    record(ledger, *events, emitter=an_emitter(sources=("crm", "core")))


def numbered(source: str, sequence: int | None, instance: str | None = None, **more: Any) -> Any:
    data: dict[str, Any] = {"actor": {"id": "e-1"}, "fields": ["phone"]}
    data |= {} if sequence is None else {"sequence": sequence}
    data |= {} if instance is None else {"instance": instance}
    return an_event(source=source, data=data, **more)


def reported(source: str, count: int, last: int, instance: str | None = None) -> Any:
    data = {"actor": {"id": source, "kind": "service"}, "count": count, "last_sequence": last}
    data |= {"until": "2026-01-01T08:00:00+08:00"}
    data |= {} if instance is None else {"instance": instance}
    return {"id": str(uuid4()), "type": "source.reported", "source": source, "data": data}


def disorder(ledger: Ledger, seed: int, count: int = 300) -> None:
    """Send numbers of several sources with losses, repeats, late ones and restarts."""
    draw = random.Random(seed)
    events: list[Any] = []
    for source in SOURCES:
        for instance in INSTANCES:
            numbers = [n for n in range(count // 9) if draw.random() > 0.2]
            numbers += draw.choices(range(50), k=4) + [10_000] * (draw.random() > 0.7)
            for _ in range(len(numbers)):
                one, other = (draw.randrange(len(numbers)) for _ in "ab")
                if abs(one - other) < 5:
                    numbers[one], numbers[other] = numbers[other], numbers[one]
            events += [numbered(source, number, instance) for number in numbers]
            events += [numbered(source, None, instance)] * 0
            events.append(reported(source, len(numbers), max(numbers) + 2, instance))
    draw.shuffle(events)
    several = numbered("crm", 7, "a", subjects=["crm:C-1", "crm:C-2", "crm:C-3"])
    del several["subject"]
    for at in range(0, len(events), 37):
        send(ledger, *events[at : at + 37])
    send(ledger, several)


def recorded(place: Place) -> list[RecordedEvent]:
    with place.connect() as connection:
        rows = connection.execute("SELECT entry FROM entries ORDER BY seq").fetchall()
    return [read_entry(entry) for (entry,) in rows]


def by_hand(events: list[RecordedEvent]) -> dict[tuple[str, str], dict[str, Any]]:
    """Say what the view must hold, from the whole list at once."""
    told: defaultdict[tuple[str, str], list[RecordedEvent]] = defaultdict(list)
    for event in events:
        if event.by != "ledger" and event.part == 0:
            told[event.source, event.data.get("instance", "")].append(event)
    return {key: summary(mine) for key, mine in told.items()}


def summary(events: list[RecordedEvent]) -> dict[str, Any]:
    numbers = [e.data["sequence"] for e in events if "sequence" in e.data]
    missing = sorted(set(range(min(numbers), max(numbers))) - set(numbers)) if numbers else []
    runs: list[list[int]] = []
    for number in missing:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return {
        "events": sum(e.type != "source.reported" for e in events),
        "reports": sum(e.type == "source.reported" for e in events),
        "numbered": len(numbers),
        "first_sequence": min(numbers, default=None),
        "last_sequence": max(numbers, default=None),
        "latest_sequence": numbers[-1] if numbers else None,
        "missing": len(missing),
        "gaps": len(runs),
        "repeats": len(numbers) - len(set(numbers)),
        "went_back": sum(after < before for before, after in pairwise(numbers)),
        "first_recorded": events[0].recorded,
        "last_recorded": events[-1].recorded,
        "last_seq": events[-1].seq,
        "runs": runs,
    }


def told(rows: list[SourceRow]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (row.state.source, row.state.instance): {
            name: getattr(row.state, name, row.gaps) for name in (*summary_names(), "runs")
        }
        for row in rows
    }


def summary_names() -> list[str]:
    return [
        *("events", "reports", "numbered", "first_sequence", "last_sequence", "latest_sequence"),
        *("missing", "gaps", "repeats", "went_back", "first_recorded", "last_recorded", "last_seq"),
    ]


def contents(place: Place) -> list[str]:
    with place.connect() as connection:
        return [
            row
            for table in ("", "_gaps")
            for (row,) in connection.execute(
                f"SELECT t::text FROM view_source_sequences{table} t ORDER BY 1"
            )
        ]


@pytest.mark.parametrize("seed", range(3))
def test_the_view_says_what_the_whole_list_says(
    views: Place, ledger: Ledger, reader: ViewReader, seed: int
) -> None:
    disorder(ledger, seed)
    rebuild(views.dsn, views.row.schema, ["source_sequences"])
    found = told(select_sources(reader, limit=100))
    assert found == by_hand(recorded(views))
    assert sum(row["missing"] for row in found.values()) > 0
    assert sum(row["repeats"] for row in found.values()) > 0


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1_000])
def test_however_the_log_is_cut_into_batches_the_tables_are_the_same(
    views: Place, ledger: Ledger, size: int
) -> None:
    disorder(ledger, 5, count=120)
    rebuild(views.dsn, views.row.schema, ["source_sequences"])
    before = contents(views)
    events = recorded(views)
    empty(views, gaps=False)
    with BatchProjectionRunner(SourceSequences, environment_of(views)) as runner:
        runner.wait(events[-1].seq, timeout=20)
        runner.stop()
        assert contents(views) == before
        empty(views)
        view = runner.projection.view
        for at in range(0, len(events), size):
            batch = events[at : at + size]
            assert view.record(batch) == batch[-1].seq
    assert contents(views) == before


def test_states_that_are_no_longer_kept_are_read_again(
    views: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    disorder(ledger, 6)
    rebuild(views.dsn, views.row.schema, ["source_sequences"])
    before = contents(views)
    monkeypatch.setattr(source_sequences, "MAX_KEPT", 1)
    monkeypatch.setattr("projections.rebuild.REBUILD_BATCH", 5)
    rebuild(views.dsn, views.row.schema, ["source_sequences"])
    assert contents(views) == before


def test_a_batch_that_fails_or_is_undone_leaves_nothing_behind(
    views: Place, ledger: Ledger
) -> None:
    send(ledger, *(numbered("crm", n) for n in (1, 2, 5, 9, 3, 4)))
    rebuild(views.dsn, views.row.schema, ["source_sequences"])
    after = contents(views)
    events = recorded(views)
    bad = msgspec.structs.replace(events[-1], data={"sequence": "five"})
    with BatchProjectionRunner(SourceSequences, environment_of(views)) as runner:
        runner.stop()
        view = runner.projection.view
        empty(views)
        assert view.record(events[:4]) == 4
        with pytest.raises(TamperDetected):
            view.record([*events[4:-1], bad])
        with view.datastore.transaction(commit=False) as cursor:
            assert view.advance(cursor, events[4:6]) == 6
        assert view.record(events[4:6]) == 6
        assert view.record(events[5:]) == len(events)
    assert contents(views) == after


def environment_of(place: Place) -> dict[str, str]:
    return log_environment(place.dsn, place.row.schema)


def empty(place: Place, *, gaps: bool = True) -> None:
    """Empty the view by hand, as somebody might who thinks of one table only."""
    with place.connect() as connection:
        connection.execute("TRUNCATE view_source_sequences")
        if gaps:
            connection.execute("TRUNCATE view_source_sequences_gaps")
        connection.execute(
            "DELETE FROM view_source_sequences_tracking WHERE application_name <> '__migration__'"
        )


def test_an_event_about_several_subjects_counts_once(
    views: Place, ledger: Ledger, reader: ViewReader
) -> None:
    for number in range(3):
        event = numbered("crm", number, subjects=["crm:C-1", "crm:C-2", "crm:C-3"])
        del event["subject"]
        send(ledger, event)
    rebuild(views.dsn, views.row.schema)
    (row,) = select_sources(reader, limit=10)
    assert (row.state.events, row.state.numbered, row.state.repeats) == (3, 3, 0)
    assert len(recorded(views)) > 9


def test_a_repeated_request_is_no_repeated_number(
    views: Place, ledger: Ledger, reader: ViewReader
) -> None:
    event = numbered("crm", 4)
    for _ in range(3):
        send(ledger, event)
    send(ledger, numbered("crm", 4))
    rebuild(views.dsn, views.row.schema)
    (row,) = select_sources(reader, limit=10)
    assert (row.state.events, row.state.repeats) == (2, 1)
    assert row.state.last_repeat_seq == row.state.last_seq


def test_a_report_tells_what_never_arrived_and_late_arrivals_settle_it(
    views: Place, ledger: Ledger, reader: ViewReader
) -> None:
    def unreceived() -> int | None:
        rebuild(views.dsn, views.row.schema, ["source_sequences"])
        (row,) = select_sources(reader, limit=10)
        return row.unreceived

    send(ledger, *(numbered("crm", n) for n in (1, 2, 5)))
    assert unreceived() is None
    send(ledger, reported("crm", 7, 7))
    assert unreceived() == 4
    send(ledger, numbered("crm", 9), numbered("crm", 4))
    assert unreceived() == 3  # 3, 6 and 7; 8 was not reported
    send(ledger, *(numbered("crm", n) for n in (7, 6, 3)))
    assert unreceived() == 0
    (row,) = select_sources(reader, limit=10)
    assert (row.state.missing, row.gaps) == (1, [[8, 8]])
    assert row.state.report_until == datetime(2026, 1, 1, tzinfo=UTC)


def test_sources_without_numbers_are_held_against_their_sums(
    views: Place, ledger: Ledger, reader: ViewReader
) -> None:
    send(ledger, numbered("crm", None), numbered("crm", None), reported("crm", 3, 0))
    send(ledger, reported("core", 0, 0))
    rebuild(views.dsn, views.row.schema)
    core, crm = select_sources(reader, limit=10)
    assert (core.unreceived, crm.unreceived) == (0, 1)
    assert (core.state.events, core.state.reports) == (0, 1)
    send(ledger, numbered("crm", None))
    rebuild(views.dsn, views.row.schema)
    assert select_sources(reader, limit=10)[1].unreceived == 0


def test_pages_join_and_filters_narrow(views: Place, ledger: Ledger, reader: ViewReader) -> None:
    disorder(ledger, 8)
    send(ledger, numbered("core/quiet", 1), numbered("core/quiet", 2))
    rebuild(views.dsn, views.row.schema)
    everything = select_sources(reader, limit=100)
    keys = [(row.state.source, row.state.instance) for row in everything]
    assert keys == sorted(keys, key=lambda key: [part.encode() for part in key])
    paged, after = [], ("", "")
    while page := select_sources(reader, after=after, limit=3):
        paged += page
        after = (page[-1].state.source, page[-1].state.instance)
    assert [row.state for row in paged] == [row.state for row in everything]
    gaps = select_sources(reader, with_gaps=True, limit=100)
    assert "core/quiet" not in {row.state.source for row in gaps}
    assert len(gaps) == len([row for row in everything if row.state.missing or row.unreceived])
    assert select_sources(reader, silent_for_s=3_600, limit=100) == []
    assert all(0 <= row.silent_s < 600 for row in everything)
    with views.connect() as connection:
        connection.execute(
            "UPDATE view_source_sequences SET last_recorded = now() - interval '2 hours'"
            " WHERE source = 'core/quiet'"
        )
    (quiet,) = select_sources(reader, silent_for_s=3_600, limit=100)
    assert (quiet.state.source, round(quiet.silent_s / 3_600)) == ("core/quiet", 2)


def test_runs_are_all_counted_and_the_first_hundred_listed(
    views: Place, ledger: Ledger, reader: ViewReader
) -> None:
    send(ledger, *(numbered("crm", 2 * n) for n in range(150)))
    rebuild(views.dsn, views.row.schema)
    (row,) = select_sources(reader, limit=10)
    assert (row.state.gaps, len(row.gaps)) == (149, MAX_LISTED)
    assert row.gaps[:2] == [[1, 1], [3, 3]]


def test_sums_are_of_the_first_sources_and_of_all_others_together(
    views: Place, ledger: Ledger, reader: ViewReader
) -> None:
    for number in range(5):
        for sequence in (1, 3 + number):
            send(ledger, numbered(f"crm/{number}", sequence, "a"))
            send(ledger, numbered(f"crm/{number}", sequence, "b"))
    send(ledger, reported("crm/0", 0, 9, "a"))
    rebuild(views.dsn, views.row.schema)
    found = {sums.source: sums.missing for sums in select_sums(reader, 2)}
    assert found == {"crm/0": 1 + 1 + 6, "crm/1": 4, None: 6 + 8 + 10}
    assert {s.source for s in select_sums(reader, 9)} == {f"crm/{n}" for n in range(5)}
    assert all(sums.silent_s >= 0 for sums in select_sums(reader, 2))


def test_a_number_of_another_kind_stops_this_view_and_says_where(
    views: Place, ledger: Ledger
) -> None:
    send(ledger, numbered("crm", 1), numbered("crm", 2))
    events = recorded(views)
    with views.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        entry = connection.execute(
            "SELECT entry FROM entries WHERE seq = %s", (events[-1].seq,)
        ).fetchone()
        assert entry is not None
        spoiled = entry[0].replace(b'"sequence":2', b'"sequence":-2')
        assert json.loads(spoiled)["event"]["data"]["sequence"] == -2
        connection.execute(
            "UPDATE entries SET entry = %s WHERE seq = %s", (spoiled, events[-1].seq)
        )
    with pytest.raises(ProjectionStopped) as caught:
        rebuild(views.dsn, views.row.schema, ["source_sequences"])
    assert (caught.value.view, caught.value.seq) == ("source_sequences", events[-1].seq)
