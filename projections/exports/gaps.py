"""Notice numbers that an emitter gave to no event: entries that may never have been sent."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from projections.recorded import RecordedEvent

MAX_LISTED = 100
"""Most gaps that are listed of one source; how many numbers are missing is counted in full."""


class SequenceGaps:
    """The `sequence` numbers met so far, by source and instance.

    Kept as runs of consecutive numbers, so memory grows with the gaps, not with the
    entries. Order doesn't matter, and a number that stands twice counts once.
    """

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], list[list[int]]] = {}

    def meet(self, event: RecordedEvent) -> None:
        """Take an entry's number into account, where it has one."""
        number = event.data.get("sequence")
        if type(number) is int:
            instance = event.data.get("instance")
            key = (event.source, instance if type(instance) is str else "")
            _add(self._runs.setdefault(key, []), number)

    def listed(self) -> list[dict[str, Any]]:
        """Give what is known of each source that numbers its events, sorted (FORMAT.md 7.4)."""
        return [
            {
                "source": source,
                "instance": instance or None,
                "first": runs[0][0],
                "last": runs[-1][1],
                "missing": sum(after[0] - before[1] - 1 for before, after in pairwise(runs)),
                "gaps": [
                    [before[1] + 1, after[0] - 1]
                    for before, after in pairwise(runs[: MAX_LISTED + 1])
                ],
            }
            for (source, instance), runs in sorted(self._runs.items())
        ]


def _add(runs: list[list[int]], number: int) -> None:
    """Put a number into disjoint runs `[first, last]` in ascending order."""
    if runs and number == runs[-1][1] + 1:  # what nearly every event does
        runs[-1][1] = number
        return
    place = bisect_left(runs, number, key=lambda run: run[1])
    if place < len(runs) and runs[place][0] <= number:
        return
    runs.insert(place, [number, number])
    if place + 1 < len(runs) and runs[place + 1][0] == number + 1:
        runs[place][1] = runs.pop(place + 1)[1]
    if place and runs[place - 1][1] == number - 1:
        runs[place - 1][1] = runs.pop(place)[1]
