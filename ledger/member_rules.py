"""Arrange a type's members as rules to walk an event's `data` by (FORMAT.md 1.5, 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from ledger.paths import pointer_to

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ledger.events.taxonomy import EventType, Kind


@dataclass(frozen=True, slots=True)
class MemberRule:
    """A member with a kind of its own."""

    kind: Kind
    """What it may hold and how it is kept."""
    storage: str
    """`clear`, `sealed`, `staff` or `record`."""
    accepts: Callable[[bytes], object]
    """The kind's quick look at compact JSON bytes."""
    prefix: bytes
    """`"name":` as written into the entry."""
    path: str
    """Path in the taxonomy, such as `actor.id`."""
    at: str
    """Path in the event, such as `data.actor.id`."""


@dataclass(frozen=True, slots=True)
class ObjectRule:
    """A member that is an object."""

    opening: bytes
    """`"name":{` as written into the entry."""
    at: str
    """Path in the event, such as `data.actor`."""
    rules: Mapping[str, Rule]
    """Its members."""


@dataclass(frozen=True, slots=True)
class ArrayRule:
    """A member that is an array of objects."""

    opening: bytes
    """`"name":[` as written into the entry."""
    at: str
    """Path in the event, such as `data.evidence`."""
    kinds: Mapping[str, Kind]
    """Kinds of each object's members."""
    name: str
    """Its name, such as `evidence`."""


@dataclass(frozen=True, slots=True)
class SealedRule:
    """A member that is an object whose every member is sealed on its own."""

    at: str
    """Path in the event, such as `data.personal`."""
    path: str
    """Path in the taxonomy, such as `personal.*`."""


Rule: TypeAlias = MemberRule | ObjectRule | ArrayRule | SealedRule


@lru_cache(maxsize=1024)
def rules_of(event_type: EventType) -> ObjectRule:
    """Give the rules of a type's `data`."""
    root: dict[str, Rule] = {}
    for path, kind in event_type.members.items():
        head, _, rest = path.partition(".")
        if rest == "*":
            root[head] = SealedRule(f"data.{head}", path)
        elif head.endswith("[]"):
            name = head[:-2]
            before = root.get(name)
            kinds = dict(before.kinds) if isinstance(before, ArrayRule) else {}
            root[name] = ArrayRule(_open(name, b"["), f"data.{name}", {**kinds, rest: kind}, name)
        elif rest:
            within = root.get(head)
            members = dict(within.rules) if isinstance(within, ObjectRule) else {}
            members[rest] = member_rule(kind, rest, path, f"data.{path}")
            root[head] = ObjectRule(_open(head, b"{"), f"data.{head}", members)
        else:
            root[head] = member_rule(kind, head, path, f"data.{path}")
    return ObjectRule(b'"data":{', "data", root)


def item_rule(rule: ArrayRule, index: int) -> ObjectRule:
    """Give the rules of one object in an array."""
    at = f"{rule.at}.{index}"
    members = {
        name: member_rule(kind, name, f"{rule.name}[].{name}", f"{at}.{name}")
        for name, kind in rule.kinds.items()
    }
    return ObjectRule(b"{", at, members)


def member_rule(kind: Kind, name: str, path: str, at: str) -> MemberRule:
    """Give the rule of a member with a kind."""
    return MemberRule(kind, kind.storage, kind.accepts, _open(name, b""), path, at)


@lru_cache(maxsize=4096)
def tiers_of(
    event_type: EventType, present: frozenset[str]
) -> tuple[tuple[str, str] | None, tuple[str, ...]]:
    """Give the first thing required and missing, and pointers of what is expected and missing."""
    missing = event_type.missing(present)
    incomplete = tuple(pointer_to("data." + path) for path in event_type.incomplete(present))
    if not missing:
        return None, incomplete
    return (" or ".join(missing[0]), pointer_to("data." + missing[0][0])), incomplete


def _open(name: str, bracket: bytes) -> bytes:
    return b'"%b":%b' % (name.encode(), bracket)
