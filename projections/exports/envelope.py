"""Write a bundle's manifest: the integrity envelope (FORMAT.md 7.1)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ledger
from projections.views.access_history import AccessHistory

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping

    from projections.exports.scopes import Scope

FORMAT: Final = "custody-ledger/bundle/v0"
REPORT: Final = {"name": "access-history", "version": "1"}
"""What the rows answer: who looked, and why."""
MASKING: Final = "tokenise"
"""Customers and staff stand under UUIDs; nothing sealed is opened."""
VERIFY: Final = "python verify_chain.py BUNDLE.zip --key KEY"
"""How to verify. The key is not named here: it has to come from elsewhere."""
VERIFIER: Final = Path(ledger.__file__).resolve().parent.parent / "scripts" / "verify_chain.py"

_MADE_BY: Final = (
    "completeness.py",
    "recorded.py",
    "views/access_history.py",
    "views/record_state.py",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsOf:
    """The position as of which a bundle speaks."""

    seq: int
    """The checkpoint's size."""
    leaf: bytes
    """Leaf hash of that entry, 32 bytes."""
    note: str
    """The signed checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What is known of a bundle's entries once they are written."""

    seqs: array[int]
    """Their positions, ascending; 8 bytes each."""
    population: int
    """How many of them the report is about."""
    population_sha256: str
    """Hex digest over positions and leaf hashes of those (FORMAT.md 7.1)."""
    gaps: list[dict[str, Any]] | None
    """Numbers that their emitters left out; None where a filter chose the entries."""


def write_envelope(
    origin: str,
    scope: Scope,
    as_of: AsOf,
    written: Written,
    *,
    rows: int,
    read_seq: int,
    digests: Mapping[str, str],
) -> bytes:
    """Give the manifest's bytes.

    Args:
        origin: the ledger's.
        scope: what the bundle is about.
        as_of: where the ledger stood.
        written: what its entries are.
        rows: how many rows the view has of them.
        read_seq: position of the entry that tells of this bundle.
        digests: hex SHA-256 of every other file, by name.
    """
    document = {
        "format": FORMAT,
        "ledger": origin,
        "scope": scope.document(),
        "report": REPORT,
        "parameters": {},
        "as_of": {"seq": as_of.seq, "leaf": as_of.leaf.hex()},
        "population": written.population,
        "population_sha256": written.population_sha256,
        "rows": rows,
        "first_seq": written.seqs[0] if written.seqs else None,
        "last_seq": written.seqs[-1] if written.seqs else None,
        "gaps": written.gaps if scope.holds_every_entry else None,
        "masking": MASKING,
        "projection_version": projection_version(),
        "exclusions": [],
        "completeness": "asserted" if scope.is_chosen else "proved",
        "files": dict(sorted(digests.items())),
        "read_seq": read_seq,
        "verifier_sha256": verifier_sha256(),
        "verify": VERIFY,
    }
    return json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n"


def projection_version() -> str:
    """Name the view and the program that filled it: another may read entries otherwise."""
    place = files("projections")
    digest = sha256()
    for name in _MADE_BY:
        digest.update(place.joinpath(name).read_bytes())
    return f"{AccessHistory.name} sha256:{digest.hexdigest()}"


def verifier_sha256() -> str | None:
    """Give the verifier's digest; None where it isn't there, as in an installed package."""
    return sha256(VERIFIER.read_bytes()).hexdigest() if VERIFIER.exists() else None
