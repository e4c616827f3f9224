"""Describe the event types: JSON for `GET /v1/event-types`, a table for FORMAT.md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from ledger.events.event_type import TYPES, Writer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ledger.events.event_type import EventType
    from ledger.events.kinds import Kind

_STANDS_AS: Final = {
    "clear": "clear",
    "sealed": "sealed for the customer",
    "staff": "sealed for staff",
    "record": "the other record's pseudonym",
}


def types_for(writer: Writer | None = None) -> list[EventType]:
    """Return the types that a writer may write, the ones a developer needs first."""
    allowed = [known for known in TYPES.values() if writer is None or writer in known.writers]
    if writer is Writer.SERVICE:
        allowed.sort(key=lambda known: not known.service_first)
    return allowed


def describe(types: Iterable[EventType], *, common: bool = False) -> list[dict[str, object]]:
    """Describe types for a developer, JSON-ready.

    Args:
        types: the types, in the order wanted.
        common: whether to repeat the members common to every type in each of
            them; what a type requires or expects is always there.
    """
    return [_describe_type(event_type, common=common) for event_type in types]


def _describe_type(event_type: EventType, *, common: bool) -> dict[str, object]:
    """Describe one type."""
    tiers = _tiers(event_type)
    members = {
        path: _describe_member(event_type, path, tiers)
        for path in event_type.members
        if common or path in event_type.own or path in tiers
    }
    return {
        "type": event_type.name,
        "full": event_type.full,
        "zh": event_type.zh,
        "en": event_type.en,
        "writers": sorted(event_type.writers),
        "subject": event_type.subject,
        "service_first": event_type.service_first,
        "crud": event_type.crud,
        "required": list(event_type.required),
        "required_any": [list(group) for group in event_type.required_any],
        "expected": [list(group) for group in event_type.expected],
        "members": members,
        "smallest": smallest_content(event_type),
    }


def _tiers(event_type: EventType) -> dict[str, str]:
    """Map each path that is required or expected to its tier."""
    tiers = {path: "expected" for group in event_type.expected for path in group}
    tiers |= {path: "required_any" for group in event_type.required_any for path in group}
    return tiers | dict.fromkeys(event_type.required, "required")


def _describe_member(event_type: EventType, path: str, tiers: dict[str, str]) -> dict[str, str]:
    """Describe one member of a type."""
    kind, label = event_type.members[path], event_type.labels[path]
    described = {
        "zh": label.zh,
        "en": label.en,
        "tier": tiers.get(path, "optional"),
        "kind": kind.name,
        "storage": kind.storage,
        "expects": kind.expects,
    }
    if kind.vocabulary is not None:
        described["vocabulary"] = kind.vocabulary
    return described


def smallest_content(event_type: EventType) -> dict[str, Any]:
    """Build the `data` of the smallest event of a type, from its kinds' examples.

    It holds what is required and the first of each group of alternatives.
    """
    content: dict[str, Any] = {}
    for path in (*event_type.required, *(group[0] for group in event_type.required_any)):
        *parents, last = path.split(".")
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = json.loads(event_type.members[path].example)
    return content


def clear_sealed_table() -> str:
    """Render FORMAT.md's Markdown table: for every type and member, how it stands in an entry."""
    lines = [
        "| type | member | kind | in the entry |",
        "|---|---|---|---|",
    ]
    common: dict[str, Kind] = {}
    for event_type in TYPES.values():
        common |= {p: k for p, k in event_type.members.items() if p not in event_type.own}
    lines += [_row("*every type*", path, kind) for path, kind in common.items()]
    for event_type in TYPES.values():
        lines += [
            _row(f"`{event_type.name}`", path, kind)
            for path, kind in event_type.members.items()
            if path in event_type.own
        ]
    return "\n".join(lines) + "\n"


def _row(type_cell: str, path: str, kind: Kind) -> str:
    """Render one member's row."""
    name = kind.name if kind.vocabulary is None else f"{kind.name}:{kind.vocabulary}"
    return f"| {type_cell} | `{path}` | {name} | {_STANDS_AS[kind.storage]} |"
