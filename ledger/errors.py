"""The one tree of errors that the ledger raises.

::

    LedgerError
    ├── Refused                 the request can't be accepted as it stands
    │   ├── Malformed           its members are not what is required (422)
    │   │   └── NotJson         its bytes are not strict JSON (400)
    │   ├── TooLarge            it is past a stated limit (413/422)
    │   ├── Unauthenticated     it bears no valid credential (401)
    │   ├── Forbidden           it is outside the sender's rights (403)
    │   ├── NotFound            what it names does not exist here (404)
    │   └── Conflict            it contradicts what is recorded (409)
    ├── Unavailable             the ledger can't record or answer now (503)
    │   ├── ReadOnly            it must not record until people have decided
    │   └── SinkFailed          a checkpoint could not be anchored somewhere now
    ├── TamperDetected          evidence contradicts itself or what was pinned
    │   └── SplitView           two checkpoints of this ledger contradict each other
    ├── CannotVerify            something needed for a verdict is absent
    ├── ProjectionStopped       a view met an entry that it can't fold
    └── Misconfigured           settings, keys or files make no sense together

`TamperDetected`, `CannotVerify` and `Refused` are siblings on purpose: not being
able to check is never the same as having checked. Messages say what, where,
expected and actual, and never repeat a value that a person or service sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class LedgerError(Exception):
    """Base of every error that the ledger raises on purpose."""


class Refused(LedgerError):
    """Say that a request can't be accepted, and where in it the reason stands."""

    def __init__(self, detail: str, *, pointer: str = "", hint: str | None = None) -> None:
        """Keep the place as a JSON pointer (RFC 6901) beside the words.

        Args:
            detail: what was expected and what was found, without any value sent.
            pointer: JSON pointer into the request's body; "" is the whole body.
            hint: what the sender can do about it.
        """
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.hint = hint


class Malformed(Refused):
    """Say that bytes or members are not what the format requires."""


class NotJson(Malformed):
    """Say that bytes are not strict JSON: two readers could read them differently."""


class TooLarge(Refused):
    """Say that a stated limit was passed."""


class Unauthenticated(Refused):
    """Say that no valid credential came with the request."""


class Forbidden(Refused):
    """Say that the credential has no right to do this."""


class NotFound(Refused):
    """Say that what the request names does not exist in this ledger."""


class Conflict(Refused):
    """Say that the request contradicts what is already recorded."""


class Unavailable(LedgerError):
    """Say that the ledger can't record or answer at the moment."""

    def __init__(self, detail: str, *, retry_after_s: int = 1) -> None:
        """Keep after how many seconds another try makes sense."""
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class ReadOnly(Unavailable):
    """Say that recording is stopped until people have decided how to go on."""


class SinkFailed(Unavailable):
    """Say that a sink did not anchor a checkpoint, in a code that an entry can hold."""

    def __init__(
        self, code: str, detail: str, *, final: bool = False, retry_after_s: int = 0
    ) -> None:
        """Keep the code beside the words.

        Args:
            code: `[a-z][a-z0-9_]{0,31}`, such as `refused`; it stands in the log for ever.
            detail: what was expected and found; no URL, no secret, nothing that was answered.
            final: whether trying again makes no sense until people have changed something.
            retry_after_s: seconds that the other side asked for; 0 where it did not.
        """
        super().__init__(detail, retry_after_s=retry_after_s)
        self.code = code
        self.final = final


class TamperDetected(LedgerError):
    """Say that evidence contradicts itself or what was pinned."""


class SplitView(TamperDetected):
    """Say that somebody outside holds a checkpoint that contradicts ours, and prove it."""

    def __init__(self, detail: str, *, evidence: Mapping[str, Any]) -> None:
        """Keep what is written to a file before anything else happens.

        Args:
            detail: what contradicts what.
            evidence: ready for JSON: both checkpoints as notes, request and answer.
        """
        super().__init__(detail)
        self.detail = detail
        self.evidence = evidence


class CannotVerify(LedgerError):
    """Say that something needed for a verdict is absent; never a kind of success."""


class Misconfigured(LedgerError):
    """Say that settings, keys or files make no sense together."""


class ProjectionStopped(LedgerError):
    """Say which view met an entry that it can't fold, where, and why; it skips nothing."""

    def __init__(self, view: str, seq: int, reason: str) -> None:
        """Keep the parts for `/readyz` and metrics.

        Args:
            view: the view's name.
            seq: position of the entry.
            reason: class of the error and words without any value.
        """
        super().__init__(f"view {view} stopped at entry {seq}: {reason}")
        self.view = view
        self.seq = seq
        self.reason = reason
