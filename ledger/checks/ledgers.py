"""Checks of one ledger: its signer's memory, its checkpoints, its sinks.

The ledger is opened and not started: nothing is recorded, and nobody's place is taken.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ledger.checks.finding import TAMPERED, bad, ok, warn
from ledger.checks.witnesses import check_witnesses
from ledger.core.merkle import root_at
from ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ledger.anchors.store import FailingRow, NewestRow
    from ledger.checks.finding import Finding
    from ledger.service import Ledger

LATE_S = 3_600.0
"""Age of a sink's newest checkpoint past which something must have gone wrong, if there is
anything newer to anchor; and at least ten of its intervals."""


def check_split_view(ledger: Ledger) -> Iterator[Finding]:
    """Look for evidence that somebody holds another history of the log."""
    for name in ledger.anchoring.split_views():
        yield bad(
            "split view",
            f"{name}: somebody outside holds a checkpoint that contradicts ours",
            "show it to whoever is responsible and to the auditors; nothing is recorded until "
            "people have decided and moved the file away",
            about=ledger.name,
            code=TAMPERED,
        )


def check_signer(ledger: Ledger) -> Iterator[Finding]:
    """Compare the signer's memory with the log."""
    size, _ = ledger.recorder.refresh()
    signed = ledger.recall_signed()
    lost = "put the file back that belongs to this ledger; without it nothing is recorded"
    if signed is None and size == 0:
        yield ok("signer", "nothing recorded, nothing signed", about=ledger.name)
    elif signed is None:
        yield bad("signer", f"empty memory, {size} entries", lost, about=ledger.name)
    elif size < signed.size:
        yield bad(
            "signer",
            f"size {signed.size} was signed, found {size} entries: the database is behind",
            "restore the newer database; numbers are never signed twice",
            about=ledger.name,
        )
    elif root_at(signed.size, ledger.recorder.read_tree) != signed.root:
        yield bad(
            "signer",
            f"another root was signed for size {signed.size}",
            "custody verify says which entry was altered; keep everything as it is",
            about=ledger.name,
            code=TAMPERED,
        )
    else:
        yield ok("signer", f"signed {signed.size} of {size} entries", about=ledger.name)


def check_sinks(ledger: Ledger) -> Iterator[Finding]:
    """Look at each sink: what it has, whether it fails, and whether it is late."""
    newest = {row.sink: row for row in ledger.anchors.newest()}
    failing = {row.sink: row for row in ledger.anchors.failing()}
    for placed in ledger.anchoring.placed:
        name = placed.sink.name
        row, late_s = newest.pop(name, None), max(LATE_S, 10 * placed.interval_s)
        yield _sink(f"{ledger.name}/{name}", row, failing.pop(name, None), late_s, ledger.has_news)
    for name in sorted({*newest, *failing}):
        yield ok("anchor", "no longer in the settings; its evidence stays", about=name)


def _sink(
    about: str,
    newest: NewestRow | None,
    failing: FailingRow | None,
    late_s: float,
    has_news: Callable[[int], bool],
) -> Finding:
    has = f"has size {newest.size} since {_age(newest.anchored)}" if newest else "has nothing"
    if failing is not None:
        detail = f"fails for {_age(failing.since)}: {failing.reason}; {has}"
        return bad("anchor", detail, _ADVICE.get(failing.reason, _ANY_ADVICE), about=about)
    if newest is None:
        return warn("anchor", has, "it gets a checkpoint while the service runs", about=about)
    age_s = (datetime.now(UTC) - newest.anchored).total_seconds()
    if age_s > late_s and has_news(newest.size):
        return warn("anchor", f"{has}, and there is more", "is the service running?", about=about)
    return ok("anchor", has, about=about)


_ANY_ADVICE = "look at the other side, and at the service's log"
_ADVICE = {
    "gone": "the receiver wants no more: take it out of anchors.toml, or ask why; then restart",
    "unreachable": "is it up, is the way open, is the address right?",
    "timeout": "is it overloaded? timeout_s can be raised",
    "untrusted": "its certificate or token leads to no root that the settings name",
    "redirected": "put the address that it redirects to into anchors.toml, if it is the right one",
    "disk": "is there room, and may the service write there?",
}


def _age(since: datetime) -> str:
    """Give how long ago something was, in one unit."""
    seconds = max((datetime.now(UTC) - since).total_seconds(), 0.0)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


CHECKS: tuple[Callable[[Ledger], Iterator[Finding]], ...] = (
    check_split_view,
    check_signer,
    check_sinks,
    check_witnesses,
)
"""What is asked of each ledger, in this order."""


def check_ledger(ledger: Ledger) -> Iterator[Finding]:
    """Ask everything of one ledger; a check that can't be made is a finding too."""
    for check in CHECKS:
        try:
            yield from check(ledger)
        except LedgerError as error:
            name = check.__name__.removeprefix("check_").replace("_", " ")
            yield bad(name, str(error), "see what is said of the database", about=ledger.name)
