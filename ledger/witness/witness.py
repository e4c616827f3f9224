"""The witness at work: checks who asks, decides, remembers, cosigns, in this order.

The state is durable before a cosignature leaves: killed at any moment, a witness knows of
every checkpoint that anybody can hold with its name under it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from ledger.core.note import SignatureType, open_note, parse_verifier, signature_line
from ledger.errors import CannotVerify, Malformed, Misconfigured, TamperDetected
from ledger.witness.decision import Decision, Doubt, Held, decide
from ledger.witness.protocol import SIZE_TYPE, lines_by, parse_add_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledger.core.note import Signer, Verifier
    from ledger.witness.evidence import EvidenceDirectory
    from ledger.witness.protocol import AddCheckpoint
    from ledger.witness.store import WitnessStore

_LOG = logging.getLogger("ledger.witness")

TEXT_TYPE = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What goes back over HTTP."""

    status: int
    body: str
    media_type: str = TEXT_TYPE


class Witness:
    """One key, one state, any number of logs."""

    def __init__(
        self,
        signer: Signer,
        store: WitnessStore,
        evidence: EvidenceDirectory,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._signer = signer
        self._store = store
        self._evidence = evidence
        self._clock = clock

    def watch(self, verifier_key: str, origin: str | None = None) -> str:
        """Cosign for a log from now on; give its origin, which is the key's name unless said.

        Raises:
            Malformed, CannotVerify: it isn't a verifier key known here.
            Misconfigured: it isn't a log's key.
        """
        verifier = parse_verifier(verifier_key)
        if verifier.kind is not SignatureType.ED25519:
            raise Misconfigured("log's key: expected type 01, Ed25519; found a cosigner's")
        found = verifier.name if origin is None else origin
        self._store.watch(found, verifier.verifier_key())
        return found

    def add_checkpoint(self, body: bytes) -> Answer:
        """Cosign the checkpoint in a request's body, or say why not (C2SP tlog-witness).

        Raises:
            Unavailable: the state can't be read or kept; nothing was cosigned.
        """
        try:
            request = parse_add_checkpoint(body)
        except Malformed as error:
            return Answer(400, f"{error.detail}\n")
        keys = [parse_verifier(key) for key in self._store.log_keys(request.checkpoint.origin)]
        if not keys:
            return Answer(404, "this log is not watched here\n")
        try:
            signed_by = [good.verifier for good in open_note(request.note, keys).signatures]
        except (TamperDetected, CannotVerify):
            return Answer(403, "expected a good signature by the log's key\n")
        shown = f"{request.checkpoint.text()}\n{''.join(lines_by(request.note, signed_by))}"
        return self._decide(request, shown)

    def _decide(self, request: AddCheckpoint, shown: str) -> Answer:
        origin, size = request.checkpoint.origin, request.checkpoint.size
        with self._store.turn():
            now_s = int(self._clock())  # read in the turn, or a later one could be before it
            newest = self._store.newest(origin)
            same_size = self._store.at_size(origin, size)
            decision = decide(request, newest, same_size, now_s)
            if decision.status == 200:
                line = signature_line(request.checkpoint.text(), self._signer, time_s=now_s)
                held = Held(size, request.checkpoint.root, now_s, shown + line)
                self._store.keep(origin, held)
        # Killed before the turn's end, nobody has the line; killed here, the log asks again
        # and is told the new size. The line leaves only after the turn is durable.
        if decision.status == 200:
            return Answer(200, line)
        held_then = same_size if decision.doubt is Doubt.SAME_SIZE else newest
        if decision.doubt and held_then:
            self._shout(decision.doubt, request, held_then, shown, now_s)
        return _refusal(decision)

    def _shout(
        self, doubt: Doubt, request: AddCheckpoint, held: Held, shown: str, now_s: int
    ) -> None:
        """Keep what contradicts, and say so where operators look."""
        origin, size = request.checkpoint.origin, request.checkpoint.size
        try:
            path = self._evidence.keep(doubt, request, held, shown=shown, now_s=now_s)
        except OSError as error:
            _LOG.critical("evidence against %s was NOT kept: %s", origin, error.strerror)
            return
        if path is None:
            return
        if doubt is Doubt.UNPROVED:
            _LOG.warning("%s: size %d came without a good proof: %s", origin, size, path)
        else:
            _LOG.critical(
                "%s SIGNED TWO TREES: size %d against %d: %s", origin, size, held.size, path
            )

    def newest_note(self, origin_hash: str) -> str | None:
        """Give the newest cosigned checkpoint of the log with this hex SHA-256 of its origin."""
        for origin in self._store.origins():
            if hashlib.sha256(origin.encode()).hexdigest() == origin_hash:
                newest = self._store.newest(origin)
                return newest.note if newest else None
        return None

    @property
    def verifier(self) -> Verifier:
        """The key under which others check the cosignatures."""
        return self._signer.verifier


def _refusal(decision: Decision) -> Answer:
    media_type = SIZE_TYPE if decision.status == 409 else TEXT_TYPE
    return Answer(decision.status, f"{decision.reason}\n", media_type)
