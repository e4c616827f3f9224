"""Say how the client stands, in words that hold no value of any event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Code = Literal[
    "unreachable",  # no answer came
    "unavailable",  # the ledger said it can't, for now
    "unauthenticated",  # the key is no longer valid, or its file can't be read
    "forbidden",  # the credential isn't one for writing here
    "not-found",  # wrong address or ledger
    "not-understood",  # the ledger doesn't take requests of this form
    "garbage",  # an answer that isn't a ledger's
    "unsigned",  # recorded, but no pinned key has signed that yet
    "tampered",  # an answer that the pinned key doesn't vouch for: sending has stopped
    "outbox",  # the outbox can't be written
    "outbox-full",  # its limit is reached
    "fault",  # an error of the client's own
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why something doesn't go on."""

    code: Code
    """Stable, for metrics and alarms."""
    detail: str
    """Words, without any value that was sent or received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """An event that the ledger refused for itself; it is set aside and never sent again alone."""

    number: int
    """Its place in the outbox; names it for `resubmit` and `discard`."""
    id: str
    """The event's id."""
    status: int
    """HTTP status of the refusal."""
    problem: dict[str, Any]
    """The ledger's problem document (RFC 9457): place and expectation."""
    event: bytes
    """The event as sent. It may hold personal values: don't log it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Counts and troubles at one moment."""

    ok: bool
    """Whether nothing is in the way of storing and sending."""
    buffered: int
    """Events in memory that aren't stored yet."""
    waiting: int
    """Events stored that the ledger hasn't acknowledged."""
    waiting_bytes: int
    """Bytes of those, and of the refused ones."""
    oldest_waiting_s: float | None
    """How long the oldest of them has waited."""
    refused: int
    """Events set aside."""
    recorded: int
    """Events acknowledged since the client was made."""
    failures: int
    """Requests that failed, in a row."""
    sending: Trouble | None
    """What keeps events from the ledger."""
    storing: Trouble | None
    """What keeps events from the outbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """Whom to tell, from the client's own threads; they must return soon."""

    refused: Callable[[SetAside], object] | None = None
    """Told of each event that is set aside."""
    trouble: Callable[[Trouble], object] | None = None
    """Told when a trouble begins or becomes another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What an outbox is for."""

    ledger: str
    """Name of the ledger."""
    instance: str | None
    """Name under which events are numbered; None: the outbox's own."""
    path: Path | None
    """The outbox's file; None: memory only."""
