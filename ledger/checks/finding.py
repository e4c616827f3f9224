"""What a check found, how bad it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "bad"]

TAMPERED, SETTINGS, UNAVAILABLE, AMISS = 1, 2, 3, 4
"""Exit codes of what is bad, the gravest first; README.md has the same table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor's."""

    level: Level
    """ok: as it should be; warn: it can wait, but not for ever; bad: it needs people now."""
    check: str
    """What was looked at, such as `signer`."""
    about: str
    """Which one: a ledger, a sink, a file; empty where there is only one."""
    detail: str
    """What was expected and found; never a secret."""
    advice: str = ""
    """What to do; empty where nothing is to be done."""
    code: int = 0
    """Exit code that it asks for; 0 unless it is bad."""


def ok(check: str, detail: str, *, about: str = "") -> Finding:
    """Give a finding that needs nothing."""
    return Finding(level="ok", check=check, about=about, detail=detail)


def warn(check: str, detail: str, advice: str, *, about: str = "") -> Finding:
    """Give a finding that can wait."""
    return Finding(level="warn", check=check, about=about, detail=detail, advice=advice)


def bad(check: str, detail: str, advice: str, *, about: str = "", code: int = AMISS) -> Finding:
    """Give a finding that can't."""
    return Finding(level="bad", check=check, about=about, detail=detail, advice=advice, code=code)


def verdict(findings: list[Finding]) -> int:
    """Give the exit code of all findings: the gravest counts, 0 where nothing is bad."""
    return min((f.code for f in findings if f.level == "bad"), default=0)
