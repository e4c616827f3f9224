"""What is the state of this record? The answer's shape; `record_fold` makes it."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads annotations
from typing import Literal
from uuid import UUID  # noqa: TC003 - msgspec reads annotations

import msgspec

Status = Literal["never_collected", "active", "restricted", "deidentified", "erased"]
"""The strongest that holds, the last first; the state's members tell the rest."""

ACCESSES = frozenset({"record.accessed", "record.exported", "record.used", "record.shared"})
"""Types by which somebody came to know a record's values, within or outside the company."""


class _Frozen(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Compact JSON: members that say nothing are left out."""


class Moment(_Frozen, frozen=True, kw_only=True):
    """Say which entry something rests on, when it happened and who did it."""

    seq: int
    """Position of the entry."""
    time: datetime
    """When it happened, UTC."""
    actor: UUID | None = None
    """Pseudonym of who did it."""


class Consent(_Frozen, frozen=True, kw_only=True):
    """Say how consent to one purpose stands."""

    state: str
    """`given`, or a code of `consent_status`: `withdrawn`, `refused`, `expired`."""
    since: Moment
    """The entry that made it so."""
    kind: str | None = None
    """Code of `consent_kind`."""
    expires: str | None = None
    """Date or time, as sent."""
    notice_ref: str | None = None
    """The notice it rests on."""
    consent_ref: str | None = None
    """The emitter's own reference."""


class Share(_Frozen, frozen=True, kw_only=True):
    """Describe values that were given to a recipient and not reported back."""

    since: Moment
    """The entry of the share."""
    event_id: str
    """What `share.closed` names as its `share_ref`."""
    recipient: str | None = None
    """The recipient's reference."""
    recipient_kind: str | None = None
    """Code of `recipient_kind`."""
    fields: list[str] = []
    """Names of the fields given."""
    share_ref: str | None = None
    """Another name that `share.closed` may use."""
    agreement_ref: str | None = None
    """The agreement it rests on."""
    return_due: str | None = None
    """Date or time, as sent."""


class Restriction(_Frozen, frozen=True, kw_only=True):
    """Say whether one restriction or hold is in force."""

    state: str
    """`on` or `off`; a lifted one is kept, so that imported history can't revive it."""
    since: Moment
    """The entry that made it so."""
    ground: str | None = None
    """Code of `restriction_ground`."""
    until: str | None = None
    """Date or time, as sent; passing it lifts nothing, an entry does."""


class Link(_Frozen, frozen=True, kw_only=True):
    """Say whether another record is taken for the same person's."""

    linked: bool
    """False once the two were parted again."""
    since: Moment
    """The entry that made it so."""
    ground: str | None = None
    """Code of `link_ground`."""


class Treatment(_Frozen, frozen=True, kw_only=True):
    """Describe the last de-identification of the whole record, or its certified destruction."""

    since: Moment
    """The entry."""
    method: str | None = None
    """Code of the method."""
    reversible: bool | None = None
    """Whether a de-identification can be undone."""
    covers: list[str] = []
    """Codes of what a destruction covered."""


class Correction(_Frozen, frozen=True, kw_only=True):
    """Say that an entry of this record was declared wrong; the fold still rests on it."""

    target_seq: int
    """Position of the entry that is corrected."""
    correction: str | None
    """Code of `correction`."""
    since: Moment
    """The entry that says so."""


class RecordState(_Frozen, frozen=True, kw_only=True):
    """Everything the log says about how one record stands."""

    record: UUID
    """The record's UUID."""
    status: Status
    """How it stands, in one word."""
    version: int
    """How many entries this rests on: versions 1 … n of the record's stream."""
    first_seq: int
    """Position of the record's first entry."""
    last_seq: int
    """Position of the last entry folded."""
    fields: list[str] = []
    """Names of the fields held, sorted."""
    categories: list[str] = []
    """Codes of the data categories held, sorted; named ones only, not by activity."""
    consents: dict[str, Consent] = {}
    """How consent stands, by purpose."""
    shares: list[Share] = []
    """Shares outstanding, in order."""
    restrictions: dict[str, Restriction] = {}
    """Restrictions by hold reference, else request reference, else ground, else ""."""
    links: dict[str, Link] = {}
    """Other records, by UUID, as this record's own entries name them."""
    collected: Moment | None = None
    """Last collection."""
    erased: Moment | None = None
    """Last erasure of the whole record that no collection followed."""
    deidentified: Treatment | None = None
    """Last de-identification of the whole record that no collection followed."""
    destroyed: Treatment | None = None
    """Last certificate of destruction."""
    last_access: Moment | None = None
    """Last time its values became known to somebody (`ACCESSES`)."""
    last_change: Moment | None = None
    """Last collection, update, de-identification or erasure."""
    corrections: list[Correction] = []
    """Entries declared wrong, in order."""
