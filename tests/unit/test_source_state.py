"""Numbers of a source against what a set of them would say, whatever order they come in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise, permutations
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import TamperDetected
from projections.recorded import RecordedEvent
from projections.views.source_state import Gaps, SourceState, number_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_state() -> SourceState:
    return SourceState(source="crm", instance="", first_recorded=NOW, last_recorded=NOW, last_seq=0)


def expected(numbers: list[int]) -> tuple[int, int, int, int, list[tuple[int, int]]]:
    """Count with nothing but the whole list: missing, repeats, steps back, runs."""
    met = set(numbers)
    missing = sorted(set(range(min(met), max(met))) - met)
    runs: list[tuple[int, int]] = []
    for number in missing:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    back = sum(after < before for before, after in pairwise(numbers))
    return len(missing), len(numbers) - len(met), back, len(runs), runs


def check(numbers: list[int]) -> None:
    state, gaps = a_state(), Gaps()
    for seq, number in enumerate(numbers, 1):
        state.count(number, seq, gaps)
    missing, repeats, back, count, runs = expected(numbers)
    assert (state.missing, state.repeats, state.went_back) == (missing, repeats, back)
    assert (state.gaps, sorted(gaps.new), gaps.gone) == (count, runs, set())
    assert (state.first_sequence, state.last_sequence) == (min(numbers), max(numbers))
    assert (state.latest_sequence, state.numbered) == (numbers[-1], len(numbers))


@pytest.mark.parametrize("numbers", [range(5), [0, 2, 4, 5], [3, 3, 5], [9, 1, 1, 5], [7]])
def test_every_order_of_arrival_gives_the_same_gaps(numbers: list[int]) -> None:
    for order in permutations(numbers):
        check(list(order))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=80))
def test_any_order_with_repeats_gives_what_a_set_would(numbers: list[int]) -> None:
    check(numbers)


def test_the_largest_numbers_make_one_gap() -> None:
    state, gaps = a_state(), Gaps()
    for number in (0, 2**53 - 1, 2**52):
        state.count(number, number + 1, gaps)
    assert state.missing == 2**53 - 3
    assert sorted(gaps.new) == [(1, 2**52 - 1), (2**52 + 1, 2**53 - 2)]


def test_gaps_tell_what_is_new_and_what_is_gone() -> None:
    gaps = Gaps([(5, 9), (20, 20)])
    assert gaps.fill(20) == 0
    assert gaps.fill(7) == 2
    assert gaps.fill(7) is None
    assert gaps.fill(4) is None
    gaps.add(30, 31)
    assert gaps.fill(31) == 1
    assert gaps.gone == {(5, 9), (20, 20)}
    assert gaps.new == {(5, 6), (8, 9), (30, 30)}


def an_event(**changes: Any) -> RecordedEvent:
    given_: dict[str, Any] = {
        "seq": 1,
        "leaf": bytes(32),
        "recorded": NOW,
        "stream": uuid4(),
        "stream_kind": "record",
        "version": 1,
        "by": "service",
        "credential": None,
        "type": "record.accessed",
        "event_id": "e",
        "source": "crm",
        "part": 0,
        "time": NOW,
        "time_given": True,
        "source_given": True,
        "sealed": frozenset(),
        "data": {},
    }
    return RecordedEvent(**{**given_, **changes})


def test_lateness_is_of_those_that_say_when_and_were_not_imported() -> None:
    state = a_state()
    for late_s in (0, 30, 60, 61, 3_601, 86_401, -4, -6):
        state.meet(an_event(time=NOW - timedelta(seconds=late_s)))
    state.meet(an_event(time=NOW - timedelta(days=900), data={"backfill": True}))
    state.meet(an_event(time_given=False))
    assert (state.events, state.timed, state.backfill) == (10, 8, 1)
    assert (state.late_minute, state.late_hour, state.late_day, state.ahead) == (3, 2, 1, 1)
    assert state.late_max_ms == 86_401_000
    assert state.late_ms == (30 + 60 + 61 + 3_601 + 86_401) * 1000


def test_sums_stop_before_the_database_would() -> None:
    state = a_state()
    for _ in range(3):
        state.late_ms = max(state.late_ms, 2**62 - 5)
        state.meet(an_event(time=NOW - timedelta(days=300_000)))
    assert state.late_ms == 2**62


@pytest.mark.parametrize("value", [-1, 2**53, 1.0, True, "5", None, [5]])
def test_a_number_of_another_kind_is_never_passed_over(value: Any) -> None:
    with pytest.raises(TamperDetected):
        number_of({"sequence": value}, "sequence")


@pytest.mark.parametrize("spoil", ["count", "last_sequence", "until"])
def test_a_report_that_lacks_something_is_never_passed_over(spoil: str) -> None:
    data = {"count": 1, "last_sequence": 1, "until": "2026-01-01T00:00:00Z"}
    state = a_state()
    state.meet(an_event(type="source.reported", data=data))
    assert (state.events, state.reports, state.reported_total) == (0, 1, 1)
    del data[spoil]
    with pytest.raises(TamperDetected):
        state.meet(an_event(type="source.reported", data=data))
