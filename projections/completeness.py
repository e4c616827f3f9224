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
    if _is_plain(event.type):
        given = (event.source_given, event.time_given)
        return _missing_names(event.type, tuple(event.data), event.sealed, given)
    groups = _groups(event.type)
    missing = [name for name, choices in groups if not any(has(event) for has in choices)]
    return (*missing, *_missing_attributes((event.source_given, event.time_given)))


# Every entry comes here, for more than one view, and most have the same names as others.
@lru_cache(maxsize=4096)
def _missing_names(
    type_name: str, names: tuple[str, ...], sealed: frozenset[str], given: tuple[bool, bool]
) -> tuple[str, ...]:
    """List what is missing where that depends on the names of members only."""
    event_type = TYPES.get(type_name)
    there = {*names, *(name.removeprefix("data.") for name in sealed if name.startswith("data."))}
    groups = () if event_type is None else event_type.expected
    missing = [group[0] for group in groups if there.isdisjoint(group)]
    return (*missing, *_missing_attributes(given))


def _missing_attributes(given: tuple[bool, bool]) -> tuple[str, ...]:
    return tuple(
        name for name, is_given in zip(("source", "time"), given, strict=True) if not is_given
    )


@lru_cache(maxsize=256)
def _is_plain(type_name: str) -> bool:
    event_type = TYPES.get(type_name)
    return event_type is None or all(p.isidentifier() for g in event_type.expected for p in g)


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
