"""Decide what a witness answers; pure, so that every case can be tried.

Source: C2SP tlog-witness, "add-checkpoint", in its order. Form (400), origin (404) and the
log's signature (403) are checked before, by who knows the keys.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from ledger.core.merkle import EMPTY_ROOT, check_consistency, root_before
from ledger.errors import CannotVerify, TamperDetected

if TYPE_CHECKING:
    from ledger.witness.protocol import AddCheckpoint


class Held(NamedTuple):
    """A checkpoint that the witness has cosigned."""

    size: int
    root: bytes
    """32 bytes."""
    time_s: int
    """POSIX seconds stated by its cosignature."""
    note: str
    """The checkpoint with the log's signatures and the witness's own."""


class Doubt(StrEnum):
    """What a signed checkpoint says against its log."""

    SAME_SIZE = "same-size"
    """Two roots of one size: proof for everybody who has the log's key."""
    FORK = "fork"
    """A larger tree whose own proof shows another root for a size that was cosigned: likewise."""
    UNPROVED = "unproved"
    """A larger tree without a good proof: the log's fault, or of anybody who passed it on."""


class Decision(NamedTuple):
    """An answer's status, and what it rests on."""

    status: int
    """HTTP status; 200 to cosign."""
    reason: str
    """Words for the sender; for 409 they are the size, as the protocol has it."""
    doubt: Doubt | None = None
    """Set where the checkpoint is to be kept as evidence, whatever the status."""


def decide(
    request: AddCheckpoint, newest: Held | None, same_size: Held | None, now_s: int
) -> Decision:
    """Decide on a request whose checkpoint is signed by the log's trusted key.

    Args:
        request: what was sent.
        newest: the largest checkpoint cosigned for the origin; None before the first.
        same_size: the one cosigned at the size of the request's checkpoint, if any.
        now_s: POSIX seconds.
    """
    size, root = request.checkpoint.size, request.checkpoint.root
    held_size = newest.size if newest else 0
    # An old size that fits nothing must not hide that two roots of one size were signed.
    doubt = Doubt.SAME_SIZE if same_size and same_size.root != root else None
    if request.old_size > size:
        return Decision(400, "the old size is above the checkpoint's", doubt)
    if request.old_size != held_size:
        return Decision(409, str(held_size), doubt)
    if doubt:
        return Decision(422, "another root was cosigned at this size", doubt)
    refusal = _check_growth(request, newest)
    if refusal is not None:
        return refusal
    if newest is not None and now_s < newest.time_s:
        # "As of this time the largest tree has this root": an earlier time would contradict
        # what was cosigned before, and a time that the clock doesn't show would be a lie.
        return Decision(503, "the clock stands before the last cosignature")
    return Decision(200, "")


def _check_growth(request: AddCheckpoint, newest: Held | None) -> Decision | None:
    """Give why the checkpoint's tree isn't known to begin with the tree cosigned last."""
    size, root = request.checkpoint.size, request.checkpoint.root
    old_size, old_root = (newest.size, newest.root) if newest else (0, EMPTY_ROOT)
    if size == 0 and root != EMPTY_ROOT:
        return Decision(422, "a tree without leaves has another root")
    try:
        check_consistency(old_size, size, old_root, root, request.proof)
    except TamperDetected as error:
        return Decision(422, str(error), _read_doubt(request))
    return None


def _read_doubt(request: AddCheckpoint) -> Doubt | None:
    """Tell whether a proof that failed itself shows another tree, or shows nothing."""
    size, root = request.checkpoint.size, request.checkpoint.root
    if request.old_size in (0, size):
        return None  # nothing is doubted but the proof, which has no place there
    try:
        root_before(request.old_size, size, root, request.proof)
    except (CannotVerify, TamperDetected):
        return Doubt.UNPROVED
    return Doubt.FORK  # it leads to the new root, and so not to the old one
