"""What the figures say of themselves is what was measured."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from scripts.benchmarks.__main__ import GROUPS
from scripts.benchmarks.figures import Value, as_json, compare, percentile, skipped


def test_a_ratio_is_the_median_of_pairs_taken_in_turn():
    turns: list[str] = []
    rates = iter([100.0, 300.0, 200.0])

    def product() -> float:
        turns.append("product")
        return next(rates)

    def bare() -> float:
        turns.append("bare")
        return 400.0

    ratio = compare("work", 0.5, product, bare, rounds=3)
    assert turns == ["product", "bare"] * 3
    assert (ratio.ratio, ratio.spread, ratio.met) == (0.5, (0.25, 0.75), True)
    assert ratio.line() == "work: 0.50 (0.25 to 0.75), aim 0.5 met; 200 against 400 a second"


@pytest.mark.parametrize(
    ("value", "aim", "most", "said"),
    [
        (4.2, 5, True, "proof: 4.2 ms, aim at most 5 met"),
        (5.7, 5, True, "proof: 5.7 ms, aim at most 5 missed"),
        (1234, 1_000, False, "proof: 1,234 ms, aim at least 1,000 met"),
        (999, 1_000, False, "proof: 999 ms, aim at least 1,000 missed"),
        (1, None, False, "proof: 1 ms"),
    ],
)
def test_a_value_says_whether_its_aim_was_met(
    value: float, aim: float | None, said: str, *, most: bool
):
    figure = Value(name="proof", value=value, unit="ms", aim=aim, most=most)
    assert figure.line() == said
    assert figure.met is ("missed" not in said)
    assert as_json(figure)["value"] == value


def test_a_percentile_is_what_that_share_does_not_pass():
    values = [float(n) for n in range(100, 0, -1)]
    assert percentile(values, 0.5) == 51
    assert percentile(values, 0.99) == 100
    assert percentile([7.0], 0.99) == 7


def test_what_was_left_out_is_said():
    figure = skipped("bundle in a browser", "no browser")
    assert figure.line() == "bundle in a browser: not measured, no browser"


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_measures_in_the_one_way(group: str):
    module = import_module(f"scripts.benchmarks.{group}")
    assert list(inspect.signature(module.measure).parameters) == ["place", "options"]
