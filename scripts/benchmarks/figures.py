"""Figures: ratios of rates taken in turn, and values in some unit."""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """What the product did in the time that bare work of the same kind took."""

    name: str
    """What was compared: product / bare work."""
    ratio: float
    """Median of the pairs' ratios."""
    spread: tuple[float, float]
    """Smallest and largest of them."""
    aim: float | None
    """Least ratio that the product set itself; None says that it set none."""
    product_per_s: float
    """Median of the product's rates."""
    bare_per_s: float
    """Median of the bare work's rates."""
    pairs: int
    """How many pairs were taken."""

    @property
    def met(self) -> bool:
        """Whether the aim was reached."""
        return self.aim is None or self.ratio >= self.aim

    def line(self) -> str:
        """Say it in a line."""
        low, high = self.spread
        aim = "" if self.aim is None else f"aim {self.aim:g} {_verdict(self.met)}; "
        return (
            f"{self.name}: {self.ratio:.2f} ({low:.2f} to {high:.2f}), {aim}"
            f"{self.product_per_s:,.0f} against {self.bare_per_s:,.0f} a second"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A figure that is not a ratio."""

    name: str
    """What was measured."""
    value: float
    """The figure."""
    unit: str
    """Its unit, such as `MB` or `ms`."""
    aim: float | None = None
    """Bound that the product set itself; None says that it set none."""
    most: bool = False
    """Whether the aim is the most allowed; else it is the least."""

    @property
    def met(self) -> bool:
        """Whether the aim was reached."""
        if self.aim is None:
            return True
        return self.value <= self.aim if self.most else self.value >= self.aim

    def line(self) -> str:
        """Say it in a line."""
        value = f"{self.value:,.0f}" if self.value >= 100 else f"{self.value:.3g}"
        if self.aim is None:
            return f"{self.name}: {value} {self.unit}"
        bound = "at most" if self.most else "at least"
        return f"{self.name}: {value} {self.unit}, aim {bound} {self.aim:,} {_verdict(self.met)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A figure that can't be had here."""

    name: str
    """What would have been measured."""
    reason: str
    """Why it was not."""

    def line(self) -> str:
        """Say it in a line."""
        return f"{self.name}: not measured, {self.reason}"


Figure: TypeAlias = Ratio | Value | Skipped


def skipped(name: str, reason: str) -> Skipped:
    """Leave a figure out, and say so."""
    return Skipped(name=name, reason=reason)


def compare(
    name: str,
    aim: float | None,
    product: Callable[[], float],
    bare: Callable[[], float],
    *,
    rounds: int,
) -> Ratio:
    """Take pairs of rates in turn and give the median of their ratios."""
    pairs = [(product(), bare()) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    return Ratio(
        name=name,
        ratio=statistics.median(ratios),
        spread=(ratios[0], ratios[-1]),
        aim=aim,
        product_per_s=statistics.median(a for a, _ in pairs),
        bare_per_s=statistics.median(b for _, b in pairs),
        pairs=rounds,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Give the value that a share of all values does not pass, such as 0.99."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def show(figure: Figure) -> None:
    """Print a figure as it comes, beside what goes to standard output."""
    print(figure.line(), file=sys.stderr, flush=True)


def as_json(figure: Figure) -> dict[str, Any]:
    """Give a figure as JSON has it."""
    return asdict(figure)


def _verdict(met: bool) -> str:  # noqa: FBT001 - the word for it
    return "met" if met else "missed"
