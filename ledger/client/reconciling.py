"""Compare the kept receipts with the ledger: nothing acknowledged may be missing or altered.

1. Among the receipts alone: one subject has one record.
2. Every entry that a receipt names stands at its position, byte for byte (its leaf is computed
   here from the bytes that the ledger gives), and is about the event that was sent.
3. The newest checkpoint held from receipts is a beginning of the ledger's present one.

What it can't tell: whether the ledger holds events that were never sent, and whether entries
nobody here has a receipt for are whole. `scripts/verify_chain.py` checks the whole log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ledger.client.exchange import Exchange
from ledger.core.merkle import check_consistency, leaf_hash
from ledger.core.note import decode_base64
from ledger.errors import CannotVerify, Malformed, TamperDetected, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from uuid import UUID

    from ledger.client.archive import Kept
    from ledger.client.core import Core

_SPAN = 1_000


class SplitSubject(NamedTuple):
    """A subject whose receipts name more than one record."""

    records: tuple[UUID, ...]
    """The records' UUIDs."""
    seqs: tuple[int, ...]
    """The entries that the receipts name."""


@dataclass(slots=True, kw_only=True)
class Reconciliation:
    """What the comparison found."""

    checked: int = 0
    """How many entries were compared."""
    missing: list[int] = field(default_factory=list)
    """Positions at which the ledger gives nothing, though it acknowledged an entry there."""
    altered: list[int] = field(default_factory=list)
    """Positions whose bytes don't hash to the acknowledged leaf."""
    other: list[int] = field(default_factory=list)
    """Positions whose entry is about another event, or in another record, than acknowledged."""
    split: list[SplitSubject] = field(default_factory=list)
    """Subjects with more than one record."""
    contradiction: str | None = None
    """How the present checkpoint contradicts the one held, if it does."""
    not_checked: list[str] = field(default_factory=list)
    """What could not be compared, and why."""
    waiting: int = 0
    """Events that are still to be acknowledged."""
    refused: int = 0
    """Events set aside, which the ledger doesn't hold."""

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts the receipts; `not_checked` says what that rests on."""
        found = (self.missing, self.altered, self.other, self.split, self.contradiction)
        return not any(found)

    def require_ok(self) -> None:
        """Check that nothing contradicts the receipts.

        Raises:
            TamperDetected: something does.
        """
        if not self.ok:
            raise TamperDetected(
                f"receipts and ledger differ: {len(self.missing)} entries are missing, "
                f"{len(self.altered)} altered, {len(self.other)} about something else, "
                f"{len(self.split)} subjects have several records; "
                f"checkpoints: {self.contradiction or 'no contradiction'}"
            )


def reconcile(core: Core, key: str | Path) -> Reconciliation:
    """Compare, with a reader's key; each page that is read leaves an entry in the ledger.

    Raises:
        CannotVerify: the ledger doesn't let this key read, or gives no sound answer.
    """
    setting, engine = core.setting, core.engine
    found = Reconciliation(waiting=engine.outbox.waiting, refused=engine.outbox.refused)
    found.split = [
        SplitSubject(tuple(records), tuple(seqs))
        for records, seqs in engine.archive.split_subjects()
    ]
    exchange = Exchange(
        setting.url, setting.ledger, key, timeout_s=core.limits.request_timeout_s, tls=setting.tls
    )
    try:
        for span in _spans(engine.archive.entries()):
            _compare(span, _read(exchange, span[0].seq, span[-1].seq), found)
        _compare_checkpoints(core, exchange, found)
    except (Unavailable, Unauthenticated) as error:
        raise CannotVerify(f"reconciling: {error}") from error
    finally:
        exchange.close()
    return found


def _spans(entries: Iterator[Kept]) -> Iterator[list[Kept]]:
    """Group entries that one page of the ledger can hold."""
    span: list[Kept] = []
    for entry in entries:
        if span and entry.seq >= span[0].seq + _SPAN:
            yield span
            span = []
        span.append(entry)
    if span:
        yield span


def _read(exchange: Exchange, first: int, last: int) -> dict[int, bytes]:
    """Give the entries' bytes by position, as far as the ledger has them."""
    found: dict[int, bytes] = {}
    while first <= last:
        path = f"entries?from={first}&to={last}&limit={_SPAN}"
        answer = exchange.get(path, "application/x-ndjson")
        if answer.status != 200:
            raise CannotVerify(f"reading entries: expected 200, found HTTP {answer.status}")
        try:
            page = {int(json.loads(line)["seq"]): line for line in answer.body.split(b"\n") if line}
        except (ValueError, KeyError, TypeError) as error:
            raise CannotVerify("reading entries: expected an entry on each line") from error
        page = {seq: line for seq, line in page.items() if first <= seq <= last}
        if not page:
            break
        found.update(page)
        first = max(page) + 1
    return found


def _compare(span: list[Kept], lines: dict[int, bytes], found: Reconciliation) -> None:
    for kept in span:
        found.checked += 1
        line = lines.get(kept.seq)
        if line is None:
            found.missing.append(kept.seq)
        elif leaf_hash(line) != kept.leaf:
            found.altered.append(kept.seq)
        elif not _is_about(json.loads(line), kept):
            found.other.append(kept.seq)


def _is_about(entry: Any, kept: Kept) -> bool:
    return bool(entry["event"].get("id") == kept.id and entry["stream"] == str(kept.record))


def _compare_checkpoints(core: Core, exchange: Exchange, found: Reconciliation) -> None:
    held = core.engine.archive.newest
    if held is None:
        found.not_checked.append("checkpoints: no key is pinned, or no receipt was signed yet")
        return
    answer = exchange.get("checkpoint")
    if answer.status != 200:
        found.not_checked.append(f"checkpoints: the newest one was answered HTTP {answer.status}")
        return
    try:
        newest = core.pinned.open(answer.body.decode())
        proof = _proof(exchange, held.size, newest.size)
        if proof is None:
            found.not_checked.append("checkpoints: the ledger gave no consistency proof")
        else:
            check_consistency(held.size, newest.size, held.root, newest.root, proof)
    except (TamperDetected, Malformed, UnicodeDecodeError) as error:
        found.contradiction = str(error)


def _proof(exchange: Exchange, old: int, new: int) -> list[bytes] | None:
    """Give the consistency proof from a held size to the newest; None if there is none to have."""
    if old >= new:
        return []
    answer = exchange.get(f"consistency?from={old}&to={new}")
    if answer.status != 200:
        return None
    return [decode_base64("consistency proof", line) for line in answer.body.decode().splitlines()]
