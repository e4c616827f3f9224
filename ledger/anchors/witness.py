"""Have a witness cosign checkpoints (C2SP tlog-witness, "add-checkpoint", the log's side).

A witness is asked from the size that it cosigned last. What it answers counts only by a
signature under its pinned key, and by a time near ours. Every witness is a sink of its own;
those that are asked for the same checkpoint cosign the same note, and a quorum of them is
counted there.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from ledger.anchors.exchange import make_exchange
from ledger.anchors.sink import Anchored
from ledger.anchors.witness_conflict import Asked, Contradiction
from ledger.core.merkle import check_consistency, prove_consistency, root_at
from ledger.core.note import SignatureType, parse_verifier
from ledger.errors import CannotVerify, Malformed, SinkFailed, TamperDetected, Unavailable
from ledger.witness.protocol import SIZE_TYPE, AddCheckpoint, parse_size, read_cosignatures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ledger.anchors.exchange import Answer, Exchange
    from ledger.anchors.sink import Due, Target
    from ledger.anchors.table import SinkTable
    from ledger.core.note import Verifier
    from ledger.witness.protocol import Cosignature

_LOG = logging.getLogger("ledger.anchors")

MAX_SKEW_S = 300
"""How far a cosignature's time may be from ours; an older one may be a replay."""
MAX_ANSWER_BYTES = 128 * 1024
"""Longest answer taken: 16 signatures of post-quantum size fit easily."""
MAX_ASKED = 6
"""How often one checkpoint is shown in one go: sizes may move while others ask too."""
NOTE_TYPE = "text/plain; charset=utf-8"
_VERIFIER_KEY = r"[^+\s]+\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+"
_REFUSALS = {
    400: ("bad_request", "the witness can't read our request"),
    403: ("key_not_trusted", "the witness doesn't trust our key"),
    404: ("not_watched", "the witness doesn't watch this ledger, or is not there"),
    408: ("busy", "the witness found our request too slow"),
    413: ("bad_request", "our request is too long for the witness"),
    429: ("busy", "the witness asks us to wait"),
}


def make_witness(table: SinkTable, target: Target) -> WitnessSink:
    """Make a sink from `url` (what stands before `/add-checkpoint`) and `keys`.

    HTTP without TLS will do, since what a witness gives is signed. But who sits on the way
    can keep cosignatures back, and can pretend that the witness contradicts us.

    Raises:
        Misconfigured: a value isn't what it should be, or a key isn't a witness's.
    """
    keys = table.texts("keys", _VERIFIER_KEY)
    if keys is None:
        raise table.wrong("keys", "the witness's verifier keys, found none")
    if "?" in table.text("url"):
        raise table.wrong("url", "a URL without a query")
    try:
        verifiers = [parse_verifier(key) for key in keys]
    except (Malformed, CannotVerify) as error:
        raise table.wrong("keys", f"verifier keys of witnesses; {error}") from None
    if any(by.kind is not SignatureType.COSIGNATURE for by in verifiers):
        raise table.wrong("keys", "keys of type 04, cosignature/v1; found a log's")
    exchange = make_exchange(table, plain=True)
    return WitnessSink(
        name=table.text("name"), verifiers=verifiers, exchange=exchange, target=target
    )


class WitnessSink:
    """One witness, asked on behalf of one ledger; one thread at a time."""

    kind = "witness"

    def __init__(
        self,
        *,
        name: str,
        verifiers: Sequence[Verifier],
        exchange: Exchange,
        target: Target,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.verifiers = tuple(verifiers)
        self._exchange = exchange
        self._target = target
        self._clock = clock
        self._held: int | None = None

    def close(self) -> None:
        """Let the connection go."""
        self._exchange.close()

    def anchor(self, due: Due) -> Anchored:
        """Get a checkpoint cosigned; the evidence is our note with the witness's lines.

        Raises:
            SinkFailed: it wasn't, for now.
            SplitView: the witness holds a tree that isn't ours.
        """
        try:
            lines = "".join(one.line for one in self._cosign(due))
        except SinkFailed:
            raise
        except Unavailable as error:
            raise SinkFailed("own_database", f"no proof: {error}") from error
        return Anchored((due.note + lines).encode(), NOTE_TYPE, lines)

    def _cosign(self, due: Due) -> list[Cosignature]:
        old_size = self._held if self._held is not None and self._held <= due.size else 0
        doubted = False
        for _ in range(MAX_ASKED):
            asked = self._ask(due, old_size)
            status = asked.answer.status
            if status == 200:
                return self._take(due, asked)
            if status == 409:
                old_size = self._go_on_from(due, asked)
            elif status == 422 and old_size and not doubted:
                # It may have moved since, or forgotten: what it holds now must contradict us.
                old_size, doubted = 0, True
            elif status == 422 and old_size:
                raise self._judge(due, asked, old_size)
            else:
                raise _failure(asked.answer)
        raise SinkFailed("bad_answer", "the witness names another size each time")

    def _ask(self, due: Due, old_size: int) -> Asked:
        try:
            proof = prove_consistency(old_size, due.size, self._target.read_tree)
            if old_size:
                # Whoever is told that this proof is wrong must know that it is right.
                old_root = root_at(old_size, self._target.read_tree)
                check_consistency(old_size, due.size, old_root, due.root, proof)
        except (CannotVerify, TamperDetected) as error:
            raise SinkFailed("own_tree", f"no proof from our own tree: {error}") from error
        request = AddCheckpoint(old_size=old_size, proof=tuple(proof), note=due.note)
        headers = {"Content-Type": NOTE_TYPE}
        answer = self._exchange.ask(
            "POST", "/add-checkpoint", request.body(), headers, most_bytes=MAX_ANSWER_BYTES
        )
        return Asked(request, answer)

    def _take(self, due: Due, asked: Asked) -> list[Cosignature]:
        """Check what the witness gave before it counts."""
        text = asked.request.checkpoint.text()
        try:
            found = read_cosignatures(text, asked.answer.body, self.verifiers)
        except Malformed as error:
            raise SinkFailed("bad_answer", f"witness: {error.detail}") from error
        except TamperDetected as error:
            raise SinkFailed("bad_signature", "the witness's signature is not good") from error
        except CannotVerify as error:
            raise SinkFailed("other_key", "the witness signs with a key not pinned") from error
        now_s = self._clock()
        if any(abs(one.time_s - now_s) > MAX_SKEW_S for one in found):
            raise SinkFailed("bad_time", f"the witness's time isn't within {MAX_SKEW_S} s of ours")
        self._held = due.size
        return found

    def _go_on_from(self, due: Due, asked: Asked) -> int:
        """Give the size to prove from, which the witness named."""
        try:
            size = parse_size(asked.answer.body)
        except Malformed as error:
            raise SinkFailed("bad_answer", error.detail) from error
        if asked.answer.media_type != SIZE_TYPE:
            raise SinkFailed("bad_answer", f"expected a size as {SIZE_TYPE}")
        if size > due.size or size == due.size == asked.request.old_size:
            # The second is how version 1.0 of the protocol says that the roots differ.
            raise self._judge(due, asked, size)
        if size == asked.request.old_size:
            raise SinkFailed("bad_answer", "the witness names the size that we asked from")
        if self._held is not None and size < self._held:
            _LOG.error(
                "witness %s cosigned size %d and knows of %d only: it has lost its state",
                self.name,
                self._held,
                size,
            )
        self._held = size
        return size

    def _judge(self, due: Due, asked: Asked, size: int) -> Exception:
        self._held = None
        contradiction = Contradiction(self.name, self.verifiers, self._target)
        return contradiction.judge(self._exchange, due, asked, size)


def _failure(answer: Answer) -> SinkFailed:
    code, detail = _REFUSALS.get(
        answer.status, ("bad_answer", "the witness's answer makes no sense")
    )
    if answer.status >= 500:
        code, detail = "unavailable", "the witness can't answer now"
    return SinkFailed(
        code, f"{detail} (status {answer.status})", retry_after_s=answer.retry_after_s
    )
