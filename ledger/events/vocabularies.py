"""Load the closed vocabularies whose codes stand in clear in an entry.

The data is `vocabularies.toml`, beside this module. Codes are only ever added,
and a code's meaning never changes: entries that used it can't be rewritten.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ledger.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Name one word of a vocabulary in both languages."""

    code: str
    """The word as it stands in an event."""
    zh: str
    """Chinese label."""
    en: str
    """English label."""
    dpv: str | None = None
    """Term of the W3C Data Privacy Vocabulary, where there is one."""
    law: str | None = None
    """Article that the code stands for, where there is one."""
    flags: frozenset[str] = frozenset()
    """What rules look for: sensitive, unmasked, plaintext, inside, side …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Hold the only words that a coded member may use."""

    name: str
    """Name by which kinds refer to it, such as `purpose`."""
    zh: str
    """Chinese label."""
    en: str
    """English label."""
    codes: Mapping[str, Code]
    """Code to its description, in the order of the document."""

    def flagged(self, flag: str) -> frozenset[str]:
        """Return the codes that bear a flag, such as every sensitive data category."""
        return frozenset(code.code for code in self.codes.values() if flag in code.flags)


def read_package_toml(name: str) -> dict[str, Any]:
    """Parse one of this package's TOML files.

    Raises:
        Misconfigured: the file is absent or is not TOML.
    """
    try:
        return tomllib.loads(files("ledger.events").joinpath(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{name}: expected a TOML file in the package ledger.events") from error


def _vocabulary(name: str, table: Mapping[str, Any]) -> Vocabulary:
    """Build one vocabulary from its TOML table."""
    codes = {
        code: Code(
            code=code,
            zh=entry["zh"],
            en=entry["en"],
            dpv=entry.get("dpv"),
            law=entry.get("law"),
            flags=frozenset(entry.get("flags", ())),
        )
        for code, entry in table["codes"].items()
    }
    return Vocabulary(name=name, zh=table["zh"], en=table["en"], codes=MappingProxyType(codes))


def _load() -> Mapping[str, Vocabulary]:
    """Build every vocabulary of the package's file."""
    try:
        tables = read_package_toml("vocabularies.toml")
        return MappingProxyType({name: _vocabulary(name, table) for name, table in tables.items()})
    except KeyError as error:
        raise Misconfigured(f"vocabularies.toml: expected a member {error}") from error


VOCABULARIES: Final = _load()
"""Every vocabulary, by name."""


def describe_vocabularies(names: Iterable[str] | None = None) -> dict[str, dict[str, object]]:
    """Describe vocabularies for `GET /v1/event-types`, JSON-ready.

    Args:
        names: the vocabularies wanted; None is all of them.
    """
    wanted = VOCABULARIES if names is None else names
    return {name: _describe(VOCABULARIES[name]) for name in wanted}


def _describe(vocabulary: Vocabulary) -> dict[str, object]:
    """Describe one vocabulary with its labels and codes."""
    codes = {code.code: _describe_code(code) for code in vocabulary.codes.values()}
    return {"zh": vocabulary.zh, "en": vocabulary.en, "codes": codes}


def _describe_code(code: Code) -> dict[str, object]:
    """Describe one code, leaving out what it has not."""
    described: dict[str, object] = {"zh": code.zh, "en": code.en}
    if code.dpv is not None:
        described["dpv"] = code.dpv
    if code.law is not None:
        described["law"] = code.law
    if code.flags:
        described["flags"] = sorted(code.flags)
    return described
