"""What an admitted event is before it has a place: drafts of entries, and who wrote them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from ledger.events.taxonomy import TYPES, EventType, Writer
from ledger.identities import Name

PART = None
"""Stands in a draft's pieces where the index of the entry's subject goes."""

Piece: TypeAlias = bytes | Name | None
"""Bytes of an event, somebody to be replaced by a pseudonym, or `PART`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitter:
    """Who hands events in, and what they may hand in."""

    credential: str
    """Public identifier of the credential."""
    by: Writer
    """Whether a service, a person or the ledger itself writes."""
    sources: tuple[str, ...]
    """Prefixes that an event's source must have; the first is the default source."""
    namespaces: tuple[str, ...]
    """Namespaces that subjects may have; `*` allows any."""
    types: frozenset[str]
    """Short names of the types allowed, own ones too; empty allows all that `by` may write."""
    allowed: frozenset[str] = field(init=False, repr=False)
    """Short names of the taxonomy's types that this emitter may write, all told."""
    member: bytes = field(init=False, repr=False)
    """The entry's `emitter` for an event that states its source (FORMAT.md 1.4)."""
    member_with_source: bytes = field(init=False, repr=False)
    """The entry's `emitter` for an event that leaves its source to the credential."""

    def __post_init__(self) -> None:
        own = frozenset(t.name for t in TYPES.values() if self.by in t.writers)
        object.__setattr__(self, "allowed", own & self.types if self.types else own)
        parts = [f'"by":"{self.by.value}"']
        if self.by is not Writer.LEDGER:
            parts.append(f'"credential":"{self.credential}"')
        object.__setattr__(self, "member", ("{" + ",".join(parts) + "}").encode())
        parts.append(f'"source":"{self.sources[0]}"')
        object.__setattr__(self, "member_with_source", ("{" + ",".join(parts) + "}").encode())

    def may_write_own(self, event_type: EventType) -> bool:
        """Tell whether this emitter may write a type that is no one's but emitters'."""
        return (
            event_type.custom
            and self.by in event_type.writers
            and (not self.types or event_type.name in self.types)
        )


def stream_name(event_type: EventType, source: bytes) -> str:
    """Name the stream of an event that names no subject (FORMAT.md 2.1).

    One of a type that is about a record only counts those it can't name: it belongs to its
    source. Any other belongs to its type.
    """
    if event_type.subject == "required":
        return f"source:{source.decode()}"
    return event_type.full


@dataclass(slots=True, kw_only=True, eq=False)
class Draft:
    """One entry to be: everything but its place, its pseudonyms and its digests."""

    type: EventType
    """What happened."""
    source: bytes
    """Effective source."""
    event_id: bytes
    """The emitter's id of the event."""
    part: int
    """Index of this entry's subject among the event's subjects."""
    of: int
    """How many entries the event makes."""
    subject: Name | None
    """Whom it is about; None where it names nobody."""
    stream_name: str
    """What the stream's UUID is made of where there is no subject (FORMAT.md 2.1)."""
    pieces: list[Piece]
    """The event's bytes, with names to be replaced by pseudonyms."""
    sealed: list[tuple[str, bytes]]
    """(path, value as compact JSON) of what is sealed, in the sender's order."""
    emitter: bytes
    """The entry's `emitter` member."""
    incomplete: tuple[str, ...]
    """Pointers of expected members that are missing."""
    bound: int
    """Most bytes the entry can have, wherever it is placed."""
    others: list[Name]
    """Everybody else named in the pieces: staff, and records that this one is linked to."""
