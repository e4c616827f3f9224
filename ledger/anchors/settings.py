"""Which places outside take a ledger's checkpoints: the directory, and those named in a file.

The file is TOML: tables `[[sink]]` with `kind`, `name`, optionally `ledgers` and
`interval_s`, and what the kind needs. It is read whole and strictly at every start, for
every ledger: a place that is misspelt must not be noticed on the day it is needed.
"""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ledger.anchors.directory import DirectorySink
from ledger.anchors.quorum import require_own_keys
from ledger.anchors.sink import Target
from ledger.anchors.table import SinkTable
from ledger.core.note import SignatureType, Verifier
from ledger.errors import Misconfigured
from ledger.events.patterns import is_ref

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ledger.anchors.sink import Sink
    from ledger.config import Settings

KINDS: Final[Mapping[str, str]] = {
    "directory": "ledger.anchors.directory:make_directory",
    "webhook": "ledger.anchors.webhook:make_webhook",
    "timestamp": "ledger.anchors.timestamp:make_timestamp",
    "witness": "ledger.anchors.witness:make_witness",
}
"""What makes a sink of each kind; loaded when the file names one."""

OWN = "directory"
"""Name of the sink that every ledger has."""

MAX_SINKS = 32
_NOBODY = Target(
    "nobody",
    "nobody.invalid",
    Verifier(name="nobody.invalid", kind=SignatureType.ED25519, public_key=bytes(32)),
    lambda _level, _first, _count: [],
)
_NAME = r"[a-z][a-z0-9-]{0,31}"
_LEDGER = r"[a-z][a-z0-9_]{0,39}"
_LEAST_INTERVAL_S = 0.1
_MOST_INTERVAL_S = 604_800


class Placed(NamedTuple):
    """A sink of one ledger, as the settings want it."""

    sink: Sink
    """Takes the checkpoints."""
    interval_s: float
    """Least seconds between two of them."""
    shown: str | None
    """What may be told of where it is: scheme and host; None for a place on this machine."""


def make_sinks(settings: Settings, target: Target) -> list[Placed]:
    """Make every sink of a ledger, its directory first.

    Raises:
        Misconfigured: the file, or a file it names, is not what it should be; says where.
    """
    directory = DirectorySink(OWN, settings.anchor_dir / target.ledger, target)
    sinks = [Placed(directory, settings.anchor_interval_s, None)]
    path = anchors_file(settings)
    for table in [] if path is None else _read_tables(path):
        placed = _make(table, settings.anchor_interval_s, target)
        if placed is not None:
            sinks.append(placed)
    require_own_keys(placed.sink for placed in sinks)
    return sinks


def check_file(settings: Settings) -> list[str]:
    """Read the file without using it; give the names of its sinks.

    Raises:
        Misconfigured: as `make_sinks` says.
    """
    path = anchors_file(settings)
    names = []
    for table in [] if path is None else _read_tables(path):
        placed = _make(table, settings.anchor_interval_s, _NOBODY)
        names.append(table.text("name"))
        if placed is not None:
            placed.sink.close()
    return names


def named_ledgers(settings: Settings) -> set[str]:
    """Give the names of the ledgers that some sink is for.

    Raises:
        Misconfigured: as `make_sinks` says.
    """
    path = anchors_file(settings)
    tables = [] if path is None else _read_tables(path)
    return {name for table in tables for name in table.texts("ledgers", _LEDGER) or ()}


def anchors_file(settings: Settings) -> Path | None:
    """Give the file that names sinks; None where there need be none.

    Raises:
        Misconfigured: the file that LEDGER_ANCHORS names isn't there.
    """
    if settings.anchors_file is not None:
        if not settings.anchors_file.is_file():
            raise Misconfigured(f"LEDGER_ANCHORS: expected a file {settings.anchors_file}")
        return settings.anchors_file
    path = settings.home / "anchors.toml"
    return path if path.exists() else None


def read_quorum(settings: Settings) -> int:
    """Give how many witnesses must have cosigned a checkpoint for it to count; 0 for none.

    Raises:
        Misconfigured: as `make_sinks` says.
    """
    path = anchors_file(settings)
    return 0 if path is None else _quorum(path, _load(path))


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise Misconfigured(f"{path}: expected a readable file: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # Only the place: the line may hold a secret.
        place = re.search(r"\(at (line \d+, column \d+|end of document)\)", str(error))
        raise Misconfigured(f"{path}: expected TOML {place[0] if place else ''}".strip()) from None
    unknown = sorted(set(document) - {"sink", "witnesses"})
    if unknown:
        raise Misconfigured(f"{path}: expected [[sink]] and [witnesses], found {unknown[0]}")
    return document


def _quorum(path: Path, document: Mapping[str, Any]) -> int:
    found = document.get("witnesses", {})
    if not isinstance(found, dict):
        raise Misconfigured(f"{path}, witnesses: expected a table")
    table = SinkTable(found, where=f"{path}, [witnesses]", directory=path.parent)
    witnesses = [t for t in document.get("sink", []) if t.get("kind") == "witness"]
    quorum = table.number("quorum", default=0, least=1, most=max(len(witnesses), 1))
    table.finish()
    if quorum and (not quorum.is_integer() or not witnesses):
        raise table.wrong("quorum", "a whole number of the witnesses that are named")
    return int(quorum)


def _read_tables(path: Path) -> list[SinkTable]:
    """Read the file's tables; each has a name of its own and a kind that is known."""
    document = _load(path)
    found = document.get("sink", [])
    if not isinstance(found, list) or not all(isinstance(values, dict) for values in found):
        raise Misconfigured(f"{path}, sink: expected tables [[sink]]")
    if len(found) > MAX_SINKS:
        raise Misconfigured(f"{path}: expected at most {MAX_SINKS} sinks, found {len(found)}")
    _quorum(path, document)
    names = {OWN}
    tables = []
    for number, values in enumerate(found, 1):
        table = SinkTable(values, where=f"{path}, [[sink]] {number}", directory=path.parent)
        name = table.text("name", _NAME)
        if not is_ref(b'"%b"' % name.encode()):
            raise table.wrong("name", "no more than 7 digits in a row")
        if name in names:
            raise table.wrong("name", f"a name of its own, {OWN} excepted")
        names.add(name)
        table.where += f" ({name})"
        tables.append(table)
    return tables


def _make(table: SinkTable, interval_s: float, target: Target) -> Placed | None:
    """Make a sink; None where it isn't for this ledger.

    It is made all the same, so that a fault shows whichever ledger it is for.
    """
    kind = table.text("kind")
    if kind not in KINDS:
        raise table.wrong("kind", f"one of {', '.join(KINDS)}")
    ledgers = table.texts("ledgers", _LEDGER)
    interval_s = table.number(
        "interval_s", default=interval_s, least=_LEAST_INTERVAL_S, most=_MOST_INTERVAL_S
    )
    module, _, attribute = KINDS[kind].partition(":")
    make: Callable[[SinkTable, Target], Sink] = getattr(import_module(module), attribute)
    sink = make(table, target)
    table.finish()
    if ledgers is not None and target.ledger not in ledgers:
        sink.close()
        return None
    return Placed(sink, interval_s, table.shown)
