"""Bounds of the client: memory, disk, patience. All are stated, none is silent."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.errors import Misconfigured

MAX_EVENT_BYTES = 2 * 1024 * 1024
"""Most bytes of one event; what the ledger takes is smaller (README.md, "Limits")."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Most bytes that are read of an answer."""
MAX_BATCH_ENTRIES = 5_000
"""Most entries that one request asks for; an event makes one for each of its subjects."""
RECEIPTS_WITHOUT_FILE = 10_000
"""Events whose receipts are kept where there is no outbox file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the client holds, how long it waits, how it sends.

    Raises:
        Misconfigured: a number makes no sense.
    """

    buffer_events: int = 10_000
    """Events in memory that aren't in the outbox yet; past it `emit` waits, then raises."""
    buffer_bytes: int = 16 * 1024 * 1024
    """Bytes of events in memory that aren't in the outbox yet; past it likewise."""
    emit_timeout_s: float = 5.0
    """How long `emit` waits for room before it raises `Unavailable`."""
    outbox_bytes: int = 1024 * 1024 * 1024
    """Bytes of events that wait in the outbox, refused ones included; past it nothing is
    stored, so that the buffer fills and `emit` raises. Without a file at most 64 MiB."""
    batch_events: int = 500
    """Most events of one request."""
    batch_bytes: int = 4 * 1024 * 1024
    """Most bytes of events of one request; a larger event goes alone."""
    batch_age_s: float = 0.05
    """How long an event waits for others before it is sent."""
    retry_first_s: float = 0.5
    """Longest first pause after a failure; it doubles with each further one."""
    retry_most_s: float = 60.0
    """Longest pause of all; a `Retry-After` is honoured beyond it, up to an hour."""
    request_timeout_s: float = 60.0
    """How long one request may take in all."""
    report_every_s: float | None = 3_600.0
    """How often a `source.reported` is emitted; None: never. It waits while
    the ledger is away."""
    receipts_kept: int | None = None
    """Events whose receipts are kept, newest first; None: all, 0.3 to 0.6 kB an event. Without
    a file at most 10,000."""

    def __post_init__(self) -> None:
        kept = 1 if self.receipts_kept is None else self.receipts_kept
        counts = (self.buffer_events, self.buffer_bytes, self.outbox_bytes, kept)
        times = (self.retry_first_s, self.retry_most_s, self.request_timeout_s)
        if min(*counts, self.batch_events, self.batch_bytes) < 1 or min(times) <= 0:
            raise Misconfigured("limits: expected numbers above zero")
        if min(self.batch_age_s, self.emit_timeout_s) < 0:
            raise Misconfigured("limits: expected times of zero or more")
        if self.report_every_s is not None and self.report_every_s <= 0:
            raise Misconfigured("limits: expected report_every_s above zero, or None")
