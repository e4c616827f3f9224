"""Guess which type or member a misspelt name meant, for the words of a refusal."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Final

from ledger.events.event_type import TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ledger.events.event_type import EventType

_MAX_NAME_CHARS: Final = 128
_LIKENESS: Final = 0.6
_STRICT_LIKENESS: Final = 0.9
_VERSION: Final = re.compile(r"\.v[0-9]+$")
_INDEX: Final = re.compile(r"\[[0-9]*\]")


def _bare(name: str) -> str:
    """Drop what tells spellings apart but not names: case, points, underscores."""
    return "".join(char for char in name.lower() if char.isalnum())


def _closest(name: str, candidates: Mapping[str, str]) -> tuple[float, str] | None:
    """Return the best likeness and what its candidate stands for.

    Args:
        name: a bare name.
        candidates: bare name to what it stands for.
    """
    matcher = SequenceMatcher(None, b=name, autojunk=False)
    best: tuple[float, str] | None = None
    for bare, meaning in candidates.items():
        matcher.set_seq1(bare)
        if matcher.real_quick_ratio() < _LIKENESS or matcher.quick_ratio() < _LIKENESS:
            continue
        likeness = matcher.ratio()
        if likeness >= _LIKENESS and (best is None or likeness > best[0]):
            best = (likeness, meaning)
    return best


def _types_by_bare_name() -> dict[str, str]:
    """Map every type's name and aliases, bare, to its short name."""
    aliases = {_bare(alias): name for name, known in TYPES.items() for alias in known.aliases}
    return {**aliases, **{_bare(name): name for name in TYPES}}


_TYPES_BY_BARE_NAME: Final = _types_by_bare_name()


def nearest_type(name: str) -> str | None:
    """Return the short name that is closest to a misspelt one, None if none is close.

    Short, full, camel-case and underscored spellings are read alike, and a lone
    verb or another noun ("accessed", "customer.viewed") is tried on a record.
    """
    stem = _VERSION.sub("", name[:_MAX_NAME_CHARS])
    readings = sorted({_bare(stem), _bare(stem.removeprefix("ledger."))})
    found = [match for bare in readings if (match := _closest(bare, _TYPES_BY_BARE_NAME))]
    if not found or "." not in stem:
        on_record = _closest("record" + _bare(stem.rpartition(".")[2]), _TYPES_BY_BARE_NAME)
        # Half of "record…" is alike whatever follows, so the guess has to be nearly exact.
        if on_record is not None and on_record[0] >= _STRICT_LIKENESS:
            found.append(on_record)
    return max(found)[1] if found else None


def nearest_member(event_type: EventType, path: str) -> str | None:
    """Return the path of a type's member that is closest to a misspelt one."""
    candidates: dict[str, str] = {}
    for known in event_type.members:
        candidates.setdefault(_bare(known), known)
        # "actor" alone means the first member below it: actor.id.
        candidates.setdefault(_bare(known.partition(".")[0]), known)
    match = _closest(_bare(_INDEX.sub("", path[:_MAX_NAME_CHARS])), candidates)
    return None if match is None else match[1]
