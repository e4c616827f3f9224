"""Judge a witness that contradicts us: is there a second tree, or is it only wrong or ahead?

What a witness says over HTTP is signed by nobody. A checkpoint that it shows is: by our own
key. If that is of a tree that isn't ours, everybody can see that two were signed; if it is of
ours, the witness is mistaken. Where it shows nothing its word stands against ours: recording
stops all the same, and the evidence says that it proves nothing by itself.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from ledger.core.checkpoint import open_checkpoint
from ledger.core.merkle import root_at
from ledger.errors import CannotVerify, LedgerError, SinkFailed, SplitView, TamperDetected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.anchors.exchange import Answer, Exchange
    from ledger.anchors.sink import Due, Target
    from ledger.core.checkpoint import Checkpoint
    from ledger.core.note import Verifier
    from ledger.witness.protocol import AddCheckpoint

MAX_NOTE_BYTES = 128 * 1024
"""Longest checkpoint that a witness may show."""


class Asked(NamedTuple):
    """One question and its answer."""

    request: AddCheckpoint
    answer: Answer


class Shown(NamedTuple):
    """What the witness showed of our ledger, if anything."""

    checkpoint: Checkpoint | None
    """Signed by our own key; None where nothing such was shown."""
    note: str | None


class Contradiction:
    """One witness's refusal of one checkpoint, to be judged."""

    def __init__(self, name: str, verifiers: Sequence[Verifier], target: Target) -> None:
        self._name = name
        self._verifiers = verifiers
        self._target = target

    def judge(self, exchange: Exchange, due: Due, asked: Asked, size: int) -> LedgerError:
        """Give what to raise: SplitView, or SinkFailed where we are not contradicted.

        Args:
            exchange: to the witness, which is asked what it holds.
            due: our checkpoint.
            asked: the request that was refused, and the refusal.
            size: of the tree that the witness says it has cosigned.

        Raises:
            Unavailable: our own tree can't be read.
        """
        shown = self._ask_what_it_holds(exchange)
        theirs = shown.checkpoint.size if shown.checkpoint else size
        our_root = self._our_root(theirs)
        cleared = shown.checkpoint is not None and shown.checkpoint.root == our_root
        unheard = shown.checkpoint is None and our_root is not None
        if theirs > due.size and (cleared or unheard):
            return SinkFailed("overtaken", "the witness has cosigned more than this checkpoint")
        if cleared:
            return SinkFailed("contradictory", "the witness refuses, and shows a tree of ours")
        return SplitView(
            f"witness {self._name} has cosigned a tree of {theirs} entries that isn't ours",
            evidence={
                "witness": self._name,
                "witness_keys": [by.verifier_key() for by in self._verifiers],
                "proved": shown.checkpoint is not None,
                "ours": due.note,
                "theirs": shown.note,
                "their_size": theirs,
                "our_root_there": None if our_root is None else our_root.hex(),
                "request": asked.request.body().decode(),
                "status": asked.answer.status,
                "answer": asked.answer.body.decode(errors="replace"),
            },
        )

    def _ask_what_it_holds(self, exchange: Exchange) -> Shown:
        """Ask for its newest checkpoint (tlog-witness, "Monitor Retrieval Mechanism")."""
        path = f"/{hashlib.sha256(self._target.origin.encode()).hexdigest()}/checkpoint"
        try:
            answer = exchange.ask("GET", path, None, {}, most_bytes=MAX_NOTE_BYTES)
            note = answer.body.decode() if answer.status == 200 else ""
            found = open_checkpoint(note, self._target.verifier, self._target.origin)
        except (LedgerError, UnicodeDecodeError):
            return Shown(None, None)
        return Shown(found, note)

    def _our_root(self, size: int) -> bytes | None:
        """Give the root of our first `size` entries; None where there are not so many."""
        try:
            return root_at(size, self._target.read_tree)
        except (CannotVerify, TamperDetected):
            return None
