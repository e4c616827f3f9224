"""Check of one ledger's witnesses together: whether enough of them cosign."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.checks.finding import bad, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger.checks.finding import Finding
    from ledger.service import Ledger


def check_witnesses(ledger: Ledger) -> Iterator[Finding]:
    """Count the witnesses that work against the quorum that the settings ask for."""
    found = ledger.anchoring.witnessed()
    if found is None:
        return
    detail = (
        f"{found.working} of {found.named} work, {found.quorum} are needed; "
        f"a quorum has cosigned size {found.size}"
    )
    if found.failing:
        yield bad("witnesses", detail, "see above which fail, and why", about=ledger.name)
    elif not found.size:
        advice = "they get a checkpoint while the service runs"
        yield warn("witnesses", detail, advice, about=ledger.name)
    else:
        yield ok("witnesses", detail, about=ledger.name)
