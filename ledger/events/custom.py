"""Know an emitter's own types of event: any reverse-DNS name, its data sealed whole.

A TOML file (`LEDGER_TYPES`) may register some of them, with labels and with members that
stand otherwise than sealed; it has the members' syntax of `taxonomy.toml`:

    [types."com.example.points.redeemed"]
    zh = "积分兑换"
    en = "Points redeemed"
    [types."com.example.points.redeemed".members]
    points = "int"
    [types."com.example.points.redeemed".labels]
    points = ["积分", "Points"]

A type is best registered before its first event: a repeat is compared with its entry, and
what was sealed in that does not stand in clear now.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ledger.errors import Misconfigured
from ledger.events.event_type import (
    COMMON,
    COMMON_LABELS,
    TYPES,
    EventType,
    Label,
    Writer,
    first_name,
)
from ledger.events.kinds import kind_named

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_TYPE_CHARS: Final = 128
"""Most characters of an emitter's own type."""

_NAME = re.compile(r"[a-z][a-z0-9-]*(?:\.[a-z0-9][a-z0-9_-]*){2,}")
_DIGITS = re.compile(r"[0-9]{8}")
_STEP = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
_PATH = re.compile(rf"({_STEP})(?:(\[\])?\.(?:(\*)|{_STEP}))?")
_NOUNS = frozenset(name.partition(".")[0] for name in TYPES)
_PARTS = frozenset({"zh", "en", "members", "labels"})
_WRITERS = frozenset({Writer.SERVICE, Writer.PERSON})


def is_custom_name(name: str) -> bool:
    """Tell whether a type can be an emitter's own: reverse DNS, at least three labels.

    The first is never a noun of the taxonomy: `record.accessed.v1` is a misspelling that
    would otherwise be recorded as something that no view looks at.
    """
    return (
        len(name) <= MAX_TYPE_CHARS
        and _NAME.fullmatch(name) is not None
        and not _DIGITS.search(name)
        and name.partition(".")[0] not in _NOUNS
    )


class CustomTypes:
    """The emitters' own types that one service knows of, and all that it doesn't."""

    def __init__(self, registered: Mapping[str, EventType], sha256: str | None = None) -> None:
        """Keep what a file registers.

        Args:
            registered: types by name.
            sha256: of the file; None where there is none.
        """
        self.registered = MappingProxyType(dict(registered))
        self.sha256 = sha256

    def find(self, name: str) -> EventType | None:
        """Give an emitter's own type, None for a name that can't be one."""
        return self.registered.get(name) or _unregistered(name)


@lru_cache(maxsize=1024)
def _unregistered(name: str) -> EventType | None:
    return _custom_type(name, {}) if is_custom_name(name) else None


UNREGISTERED: Final = CustomTypes({})
"""No type is registered: data of emitters' own types is sealed whole."""


def load_custom_types(path: Path | None) -> CustomTypes:
    """Read the file that registers emitters' own types.

    Raises:
        Misconfigured: it can't be read, or something in it is not as it must be.
    """
    if path is None:
        return UNREGISTERED
    try:
        raw = path.read_bytes()
        document = tomllib.loads(raw.decode())
    except (OSError, ValueError) as error:
        raise Misconfigured(f"LEDGER_TYPES: expected a TOML file at {path}: {error}") from error
    try:
        _check_names("file", document, frozenset({"types"}))
        registered = {name: _registered(name, table) for name, table in document["types"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Misconfigured(f'LEDGER_TYPES: expected [types."…"] tables: {error}') from error
    return CustomTypes(registered, hashlib.sha256(raw).hexdigest())


def _registered(name: str, table: Mapping[str, Any]) -> EventType:
    place = f'type "{name}"'
    if not is_custom_name(name):
        raise Misconfigured(f"LEDGER_TYPES: {place}: expected a reverse-DNS name of three labels")
    _check_names(place, table, _PARTS)
    members, labels = table.get("members", {}), table.get("labels", {})
    _check_members(place, members)
    _check_names(f"{place}, labels", labels, frozenset(members))
    for label in ([table["zh"], table["en"]], *labels.values()):
        texts = label if isinstance(label, list) else []
        if len(texts) != 2 or not all(isinstance(text, str) and text for text in texts):
            raise Misconfigured(f"LEDGER_TYPES: {place}: expected a Chinese and an English label")
    return _custom_type(name, table)


def _check_names(place: str, table: Mapping[str, Any], known: frozenset[str]) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise Misconfigured(
            f"LEDGER_TYPES: {place}: expected only {', '.join(sorted(known)) or 'nothing'}, "
            f"found {unknown[0]}"
        )


def _check_members(place: str, members: Mapping[str, str]) -> None:
    """Refuse members that the walk over an event could not tell apart."""
    common = {first_name(path) for path in COMMON}
    shapes: dict[str, tuple[str | None, str | None, bool]] = {}
    for path, spec in members.items():
        match = _PATH.fullmatch(path)
        if match is None or _DIGITS.search(path):
            raise Misconfigured(
                f"LEDGER_TYPES: {place}: {path}: expected a name, name.name, name[].name or name.*"
            )
        if match[1] in common:
            raise Misconfigured(f"LEDGER_TYPES: {place}: {path}: every type has this member")
        shape = (match[2], match[3], "." in path)
        if shapes.setdefault(match[1], shape) != shape or (match[2] and match[3]):
            raise Misconfigured(f"LEDGER_TYPES: {place}: {path}: found {match[1]} in two shapes")
        _check_kind(f"LEDGER_TYPES: {place}: {path}", spec, every=match[3] is not None)


def _check_kind(place: str, spec: str, *, every: bool) -> None:
    if every and spec != "text":
        raise Misconfigured(f"{place}: expected text")
    try:
        kind_named(spec)
    except Misconfigured as error:
        raise Misconfigured(f"{place}: expected a kind as in FORMAT.md section 8") from error


def _custom_type(name: str, table: Mapping[str, Any]) -> EventType:
    """Build a type; its name is both the short and the full form."""
    own: dict[str, str] = table.get("members", {})
    labels = {path: (path, path) for path in own} | table.get("labels", {})
    return EventType(
        name=name,
        full=name,
        zh=table.get("zh", name),
        en=table.get("en", name),
        writers=_WRITERS,
        subject="optional",
        required=(),
        required_any=(),
        expected=(),
        members=MappingProxyType({**{path: kind_named(own[path]) for path in own}, **COMMON}),
        labels=MappingProxyType({**{path: Label(*labels[path]) for path in own}, **COMMON_LABELS}),
        own=frozenset(own),
        aliases=(),
        service_first=False,
        crud=None,
    )
