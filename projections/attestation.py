"""Apply a filter to entries' bytes anew, and say what that gave (FORMAT.md 7.7, 7.8).

Nothing here knows of a database, of a view, or of the program that chose a bundle's entries:
whoever replays a range would else only repeat its mistakes. What is read are the entries as
they stand in `entries.jsonl`, after their hashes were checked.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from ledger.core.note import encode_base64
from ledger.errors import Malformed, TamperDetected

HEADER: Final = "custody-ledger attestation v0"
ACCESS_TYPES: Final = ("record.accessed", "record.exported", "record.used", "record.shared")
"""Short names of the types that a filter chooses among."""

_FULL_NAMES: Final = {f"ledger.{name}.v1": name for name in ACCESS_TYPES}
_MARKS: Final = tuple(f'"type":"{name}"'.encode() for name in _FULL_NAMES)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which accesses are wanted; None narrows nothing. The fields stand in the format's order.

    Raises:
        Malformed: a member isn't written as FORMAT.md 7.7 says.
    """

    record: str | None = None
    """UUID of the record."""
    actor: str | None = None
    """Pseudonym of who looked."""
    type: str | None = None
    """Short name of the type."""
    from_time: str | None = None
    """Happened then or later; UTC, microseconds."""
    to_time: str | None = None
    """Happened before; UTC, microseconds."""

    def __post_init__(self) -> None:
        for name, value in self.document().items():
            pattern = _TIME if name.endswith("_time") else _UUID
            right = value in ACCESS_TYPES if name == "type" else bool(pattern.fullmatch(value))
            if not right or (pattern is _TIME and name != "type" and _instant(value) is None):
                raise Malformed(f"filter: {name} isn't written as FORMAT.md 7.7 says")

    def document(self) -> dict[str, str]:
        """Give the members that are there, in the format's order."""
        members = ((each.name, getattr(self, each.name)) for each in fields(self))
        return {name: value for name, value in members if value is not None}

    def text(self) -> str:
        """Write it as an attestation has it: compact JSON."""
        return json.dumps(self.document(), separators=(",", ":"))

    def matches(self, entry: bytes) -> bool:
        """Tell whether an entry is an access that this filter lets pass.

        Raises:
            TamperDetected: the bytes aren't an entry.
        """
        # The ledger writes `type` itself, without escapes: most entries needn't be read.
        if not any(mark in entry for mark in _MARKS):
            return False
        try:
            return self._lets_pass(json.loads(entry))
        except (ValueError, KeyError, AttributeError, RecursionError) as error:
            raise TamperDetected(f"expected an entry, found {type(error).__name__}") from error

    def _lets_pass(self, entry: dict[str, Any]) -> bool:
        event = entry["event"]
        name = _FULL_NAMES.get(event.get("type"))
        if entry["stream_kind"] == "aggregate" or name is None:
            return False
        if self.record is not None and (entry["stream_kind"], entry["stream"]) != (
            "record",
            self.record,
        ):
            return False
        if self.type not in {None, name}:
            return False
        if self.actor not in {None, event.get("data", {}).get("actor", {}).get("id")}:
            return False
        return self._covers(event.get("time", entry["recorded"]))

    def _covers(self, time: str) -> bool:
        moment = _instant(time)
        if moment is None:
            raise ValueError("expected a time with its offset")
        first, end = _instant(self.from_time), _instant(self.to_time)
        return (first is None or first <= moment) and (end is None or moment < end)


def _instant(time: str | None) -> datetime | None:
    """Read a time; digits after the sixth of a second are dropped (FORMAT.md 7.7)."""
    if time is None:
        return None
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.astimezone(UTC)


def parse_filter(document: object) -> Filter:
    """Read a filter from a manifest's `scope`, or from what somebody wrote.

    Raises:
        Malformed: it isn't written as FORMAT.md 7.7 says.
    """
    if not isinstance(document, dict) or not all(type(v) is str for v in document.values()):
        raise Malformed("filter: expected a JSON object of strings")
    known = [each.name for each in fields(Filter)]
    if list(document) != [name for name in known if name in document]:
        raise Malformed(f"filter: expected members in this order: {', '.join(known)}")
    return Filter(**document)


@dataclass(slots=True)
class Population:
    """Accesses met so far: how many, and the digest over their positions and leaves."""

    count: int = 0
    """How many."""
    _digest: Any = field(default_factory=sha256)

    def add(self, seq: int, leaf: bytes) -> None:
        """Take the next one, by ascending position."""
        self.count += 1
        self._digest.update(f"{seq} {leaf.hex()}\n".encode())

    @property
    def digest(self) -> str:
        """Hex SHA-256: `population_sha256` (FORMAT.md 7.1)."""
        return str(self._digest.hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """What somebody who replayed a whole range says of the accesses in it."""

    origin: str
    """The ledger's."""
    first: int
    """Position of the first entry replayed."""
    last: int
    """Position of the last entry replayed."""
    size: int
    """Size of the checkpoint that covers the last one."""
    root: bytes
    """Root of that checkpoint, 32 bytes."""
    filter: Filter
    """Which accesses were looked for."""
    count: int
    """How many there are."""
    digest: str
    """Hex digest over them."""

    def text(self) -> str:
        """Write the text that is signed (FORMAT.md 7.8)."""
        return (
            f"{HEADER}\n{self.origin}\nrange {self.first} {self.last}\n"
            f"checkpoint {self.size} {encode_base64(self.root)}\n"
            f"filter {self.filter.text()}\ncount {self.count}\ndigest {self.digest}\n"
        )
