"""Know every event type: who writes it, and what each of its members is.

The data is `taxonomy.toml`, beside this module; its types are v1, additions stay
v1, and a breaking change becomes a v2 beside it. A path names a member inside
`data`: `actor.id` is nested, `evidence[].sha256` is in an array of objects, and
`personal.*` stands for every member under `personal`, each sealed on its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from ledger.errors import Misconfigured
from ledger.events.kinds import Kind, kind_named
from ledger.events.vocabularies import read_package_toml

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

Subject: TypeAlias = Literal["required", "optional", "none"]
"""Whether an event of a type is about a record."""


class Writer(StrEnum):
    """Say who writes an event."""

    SERVICE = "service"
    PERSON = "person"
    LEDGER = "ledger"


class Label(NamedTuple):
    """Name something in both languages of the reports."""

    zh: str
    en: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventType:
    """Describe one type of event. There is one object for each, so each is equal to itself only."""

    name: str
    """Short form, such as `record.accessed`; an emitter's own type has no other."""
    full: str
    """Full form, such as `ledger.record.accessed.v1`; it stands in the entry."""
    zh: str
    """Chinese label."""
    en: str
    """English label."""
    writers: frozenset[Writer]
    """Who has the right to write it; others are refused."""
    subject: Subject
    """Whether it is about a record."""
    required: tuple[str, ...]
    """Paths without which the event is refused."""
    required_any: tuple[tuple[str, ...], ...]
    """Groups of paths; without one of each group the event is refused."""
    expected: tuple[tuple[str, ...], ...]
    """Groups of paths; a group without any is listed as incomplete, by its first path."""
    members: Mapping[str, Kind]
    """Path to kind, the type's own members first, then the common ones."""
    labels: Mapping[str, Label]
    """Path to label, for each of `members`."""
    own: frozenset[str]
    """Paths that the type lists itself; the others are common to every type."""
    aliases: tuple[str, ...]
    """Names that people try for it; never accepted, only answered with this type."""
    service_first: bool
    """Whether it is one of the six that a developer of a service needs."""
    crud: str | None
    """The operation of a program that it stands for, if there is one."""

    @property
    def custom(self) -> bool:
        """Whether it is an emitter's own, unknown to the taxonomy."""
        return self.full == self.name

    def missing(self, present: Container[str]) -> tuple[tuple[str, ...], ...]:
        """Return the required groups of which no path is present, each a reason to refuse."""
        groups = (*((path,) for path in self.required), *self.required_any)
        return _absent(groups, present)

    def incomplete(self, present: Container[str]) -> tuple[str, ...]:
        """Return what a receipt lists as incomplete: expected, accepted without.

        Args:
            present: the paths of the event's members, as `members` writes them.
        """
        return tuple(group[0].removesuffix(".*") for group in _absent(self.expected, present))


def _absent(
    groups: tuple[tuple[str, ...], ...], present: Container[str]
) -> tuple[tuple[str, ...], ...]:
    """Keep the groups of which no path is present."""
    return tuple(group for group in groups if not any(path in present for path in group))


def _common_beside(own: Mapping[str, str], common: Mapping[str, str]) -> dict[str, str]:
    """Leave out the common members whose first name a type uses for its own."""
    taken = {first_name(path) for path in own}
    return {path: kind for path, kind in common.items() if first_name(path) not in taken}


def first_name(path: str) -> str:
    """Return the member of `data` in which a path begins."""
    return path.partition(".")[0].removesuffix("[]")


def _groups(listed: list[str | list[str]]) -> tuple[tuple[str, ...], ...]:
    """Write a single path as a group of one."""
    return tuple((entry,) if isinstance(entry, str) else tuple(entry) for entry in listed)


def _event_type(name: str, table: Mapping[str, Any], document: Mapping[str, Any]) -> EventType:
    """Build one type from its table, the common members and the glossary of labels."""
    own: dict[str, str] = table.get("members", {})
    specs = {**own, **_common_beside(own, document["common"])}
    glossary = {**document["labels"], **table.get("labels", {})}
    return EventType(
        name=name,
        full=f"ledger.{name}.v1",
        zh=table["zh"],
        en=table["en"],
        writers=frozenset(Writer(writer) for writer in table["writers"]),
        subject=table["subject"],
        required=tuple(table["required"]),
        required_any=_groups(table.get("required_any", [])),
        expected=_groups(table["expected"]),
        members=MappingProxyType({path: kind_named(spec) for path, spec in specs.items()}),
        labels=MappingProxyType({path: Label(*glossary[path]) for path in specs}),
        own=frozenset(own),
        aliases=tuple(table.get("aliases", ())),
        service_first=table.get("service_first", False),
        crud=table.get("crud"),
    )


def _load() -> Iterator[tuple[str, EventType]]:
    """Build every type of the package's file, in its order.

    Raises:
        Misconfigured: the file lacks something, or names a kind that does not exist.
    """
    for name, table in _DOCUMENT["types"].items():
        try:
            yield name, _event_type(name, table, _DOCUMENT)
        except (KeyError, ValueError, TypeError) as error:
            raise Misconfigured(f"taxonomy.toml: type {name}: {error}") from error


_DOCUMENT: Final = read_package_toml("taxonomy.toml")

COMMON: Final[Mapping[str, Kind]] = MappingProxyType(
    {path: kind_named(spec) for path, spec in _DOCUMENT["common"].items()}
)
"""Members that every type allows, by path."""

COMMON_LABELS: Final[Mapping[str, Label]] = MappingProxyType(
    {path: Label(*_DOCUMENT["labels"][path]) for path in COMMON}
)
"""Their labels, by path."""

TYPES: Final[Mapping[str, EventType]] = MappingProxyType(dict(_load()))
"""Every type, by its short name."""

_BY_ANY_NAME: Final = {**TYPES, **{event_type.full: event_type for event_type in TYPES.values()}}


def find_type(name: str) -> EventType | None:
    """Return the type of this short or full name, None if there is none."""
    return _BY_ANY_NAME.get(name)
