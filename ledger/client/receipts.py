"""Read receipts, and check that the pinned key vouches for them.

What a receipt must hold to be believed (README.md, "Receipts"): it names the event that was
sent; its checkpoint is signed by a pinned key and covers its entries; a fresh entry stands
after everything that a checkpoint covered before; no place has two leaves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ledger.core.checkpoint import open_checkpoint
from ledger.core.note import parse_verifier
from ledger.errors import CannotVerify, Malformed, TamperDetected

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ledger.core.checkpoint import Checkpoint
    from ledger.core.note import Verifier

_LEAF = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where one entry of an event came to stand."""

    record: UUID
    """The record's UUID."""
    seq: int
    """Position in the ledger."""
    leaf: bytes
    """Leaf hash, 32 bytes."""
    version: int
    """Place within the record's stream."""
    recorded: str
    """Time of sequencing, as the ledger wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the ledger acknowledged of one event."""

    id: str
    """The event's id."""
    entries: tuple[Entry, ...]
    """One for each subject, in their order."""
    incomplete: tuple[str, ...]
    """Pointers of expected members that were missing."""
    repeated: bool
    """Whether it was recorded before."""


def read_receipt(document: Any, event_id: str, entries: int) -> Receipt:
    """Read one receipt of an event that makes so many entries.

    Raises:
        Malformed: it isn't one, or is about another event.
    """
    try:
        if document["id"] != event_id:
            raise Malformed("receipt: expected the id that was sent")
        found = tuple(_read_entry(each) for each in document.get("entries") or [document])
        receipt = Receipt(
            id=event_id,
            entries=found,
            incomplete=tuple(map(str, document.get("incomplete", ()))),
            repeated=bool(document.get("repeated", False)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Malformed("receipt: expected id, record, seq, leaf, version, recorded") from error
    if len(found) != entries:
        raise Malformed(f"receipt: expected {entries} entries, found {len(found)}")
    return receipt


def _read_entry(document: Any) -> Entry:
    seq, version, leaf = document["seq"], document["version"], document["leaf"]
    if type(seq) is not int or seq < 1 or type(version) is not int:
        raise ValueError
    if not _LEAF.fullmatch(leaf):
        raise ValueError
    return Entry(
        record=UUID(document["record"]),
        seq=seq,
        leaf=bytes.fromhex(leaf),
        version=version,
        recorded=str(document["recorded"]),
    )


class Pinned:
    """The keys that receipts must be signed by; none: nothing is checked, and health says so."""

    def __init__(self, verifier_keys: Sequence[str]) -> None:
        """Read the keys.

        Raises:
            Malformed: one isn't a verifier key.
            CannotVerify: one is of a kind that isn't known here.
        """
        self.verifiers: tuple[Verifier, ...] = tuple(map(parse_verifier, verifier_keys))

    def open(self, note: str) -> Checkpoint:
        """Give a checkpoint, once a pinned key's signature on it is good.

        Raises:
            Malformed: it isn't well formed.
            TamperDetected: no pinned key signed it, or it is another log's.
        """
        reason: TamperDetected | CannotVerify = CannotVerify("no key is pinned")
        for verifier in self.verifiers:
            try:
                return open_checkpoint(note, verifier, verifier.name)
            except (TamperDetected, CannotVerify) as error:
                reason = error
        raise TamperDetected(f"the pinned key doesn't vouch for a receipt: {reason}") from reason

    def check(
        self, note: str, receipts: Iterable[Receipt], newest: Checkpoint | None
    ) -> Checkpoint:
        """Check an answer's checkpoint against its receipts and the newest one held before.

        Raises:
            Malformed: the checkpoint isn't well formed.
            TamperDetected: it is not signed as pinned, doesn't cover an entry, contradicts
                the newest one, or a fresh entry stands where that one left no room.
        """
        checkpoint = self.open(note)
        held = 0 if newest is None else newest.size
        if newest is not None and held == checkpoint.size and newest.root != checkpoint.root:
            raise TamperDetected(f"two checkpoints of size {held} have different roots")
        for receipt in receipts:
            for entry in receipt.entries:
                if entry.seq > checkpoint.size:
                    raise TamperDetected(
                        f"a checkpoint of size {checkpoint.size} is said to cover entry {entry.seq}"
                    )
                if not receipt.repeated and entry.seq <= held:
                    raise TamperDetected(
                        f"entry {entry.seq} is said to be new, but a signed "
                        f"checkpoint covered {held} entries before"
                    )
        return checkpoint
