"""Say what an entry lacks of what its type expects, as its receipt said it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ledger.events.taxonomy import TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from projections.recorded import RecordedEvent

    Present = Callable[[RecordedEvent], bool]


def incomplete_members(event: RecordedEvent) -> tuple[str, ...]:
    """List expected members that are missing, in the taxonomy's order, then `source`, `time`.

    A sealed member is there although it can't be read; a type that nobody knows
    expects nothing.
    """
    groups = _groups(event.type)
    missing = [name for name, choices in groups if not any(has(event) for has in choices)]
    if not event.source_given:
        missing.append("source")
    if not event.time_given:
        missing.append("time")
    return tuple(missing)


@lru_cache(maxsize=256)
def _groups(type_name: str) -> tuple[tuple[str, tuple[Present, ...]], ...]:
    event_type = TYPES.get(type_name)
    if event_type is None:
        return ()
    return tuple(
        (group[0].removesuffix(".*"), tuple(_present(path) for path in group))
        for group in event_type.expected
    )


def _present(path: str) -> Present:
    """Build the test whether a member stands in an entry, clear or sealed."""
    if path.isidentifier():
        sealed = f"data.{path}"
        return lambda event: path in event.data or sealed in event.sealed
    pattern = re.escape(path).replace(r"\[\]", r"\.[0-9]+").replace(r"\.\*", r"\..+")
    matches = re.compile(rf"data\.{pattern}").fullmatch
    steps = path.removesuffix(".*").split(".")
    return lambda event: _holds(event.data, steps) or any(map(matches, event.sealed))


def _holds(value: Any, steps: list[str]) -> bool:
    for place, step in enumerate(steps):
        if not isinstance(value, dict) or (name := step.removesuffix("[]")) not in value:
            return False
        value = value[name]
        if name != step:
            return isinstance(value, list) and any(_holds(v, steps[place + 1 :]) for v in value)
    return True
