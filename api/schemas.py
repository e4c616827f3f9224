"""Bodies of requests and answers, for small reading routes and for OpenAPI.

Events themselves are not read through these: the taxonomy checks them.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - schemas are built from it
from typing import Annotated, Any, Literal
from uuid import UUID  # noqa: TC003 - schemas are built from it

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Leaf = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="leaf hash, hex")]
Sequence = Annotated[int, Field(ge=1, description="position in the ledger")]


class Question(BaseModel):
    """Base of bodies that are asked: nothing unknown is let through."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """Base of what is answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Event(BaseModel):
    """One event. `GET /v1/event-types` has the members of `data` for each type."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="The emitter's id, unique within its source; repeats are safe.")
    type: str = Field(examples=["record.accessed"])
    subject: str | None = Field(default=None, examples=["crm:C-10023"])
    subjects: list[str] | None = Field(default=None, max_length=1000)
    source: str | None = Field(default=None, description="Default: the credential's first source.")
    time: AwareDatetime | None = Field(default=None, description="Default: the time of arrival.")
    data: dict[str, Any] | None = Field(
        default=None,
        examples=[{"actor": {"id": "e0117"}, "fields": ["phone"], "activity": "support-desk"}],
    )


class EntryReceipt(Answer):
    """Where an entry came to stand."""

    record: UUID
    seq: Sequence
    leaf: Leaf
    version: int
    recorded: datetime


class EventReceipt(Answer):
    """Where an event came to stand: one entry, or `entries`, one for each subject."""

    id: str
    record: UUID | None = None
    seq: Sequence | None = None
    leaf: Leaf | None = None
    version: int | None = None
    recorded: datetime | None = None
    entries: list[EntryReceipt] | None = None
    incomplete: list[str] = Field(description="Pointers of expected members that are missing.")
    repeated: bool = Field(description="Whether it was recorded before.")


class Receipt(EventReceipt):
    """The answer to one event."""

    checkpoint: str | None = Field(description="Signed note that covers the entry.")
    checkpoint_pending: str | None = Field(
        default=None, description="Where the checkpoint will be, if it is still to come."
    )


class Receipts(Answer):
    """The answer to an array of events, in its order."""

    receipts: list[EventReceipt]
    checkpoint: str | None
    checkpoint_pending: str | None = None


class Result(Answer):
    """What became of one event: its receipt, or why it was refused."""

    status: Literal[200, 201, 400, 403, 409, 413, 422, 503]
    receipt: EventReceipt | None = None
    problem: Problem | None = None


class Results(Answer):
    """The answer with `Prefer: handling=lenient`: a result for each event, in the order sent."""

    results: list[Result]
    checkpoint: str | None
    checkpoint_pending: str | None = None


class Problem(BaseModel):
    """A problem document (RFC 9457); it repeats no value of the request."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(pattern="^urn:custody-ledger:problem:[a-z-]+$")
    title: str
    status: int
    detail: str
    pointer: str | None = Field(default=None, description="JSON pointer into the body.")
    parameter: str | None = Field(default=None, description="Parameter of path or query.")
    hint: str | None = Field(default=None, description="What the sender can do.")
    codes: list[str] | None = Field(default=None, description="Why the service is not ready.")


class SubjectQuestion(Question):
    """Whose record is looked for. Subjects stand in bodies, never in a URL."""

    subject: str = Field(min_length=3, max_length=256, examples=["crm:C-10023"])


class RecordFound(Answer):
    """The record of a subject."""

    record: UUID


class EntryFound(Answer):
    """An entry, its bytes exactly as hashed."""

    seq: Sequence
    leaf: Leaf
    entry: dict[str, Any]


class EntryPage(Answer):
    """A page of entries."""

    entries: list[EntryFound]
    next: int | None = Field(description="Send it as `after`; null if there is no more as yet.")


class AsOf(Answer):
    """What an answer rests on: a view, or the entries themselves."""

    basis: Literal["view", "entries"]
    seq: int | None = Field(default=None, description="Last position that is taken into account.")
    lag: int | None = Field(default=None, description="Entries that the view doesn't hold yet.")
    time: str | None = None


class StateFound(Answer):
    """How a record stands, or stood; members that say nothing are left out."""

    as_of: AsOf
    state: dict[str, Any]


class AccessQuestion(Question):
    """Which accesses are wanted; all members narrow it. People stand here, never in a URL."""

    record: UUID | None = None
    subject: str | None = Field(default=None, min_length=3, max_length=256)
    actor: str | None = Field(default=None, min_length=1, max_length=128)
    actor_pseudonym: UUID | None = None
    from_: Time | None = Field(default=None, alias="from", description="Happened then or later.")
    to: Time | None = Field(default=None, description="Happened before.")
    after: int = Field(default=0, ge=0, le=2**63 - 1, description="`next` of the page before.")
    limit: int = Field(default=100, ge=1, le=999)
    names: bool = Field(default=False, description="Whether to give names of staff.")

    @model_validator(mode="after")
    def _name_each_once(self) -> AccessQuestion:
        if self.record is not None and self.subject is not None:
            raise ValueError("expected record or subject, found both")
        if self.actor is not None and self.actor_pseudonym is not None:
            raise ValueError("expected actor or actor_pseudonym, found both")
        return self


class AccessFound(Answer):
    """Who looked at a record, and why; the entry at `seq` is the evidence."""

    seq: Sequence
    leaf: Leaf
    record: UUID | None
    type: str
    time: datetime
    time_given: bool
    recorded: datetime
    actor: UUID | None = Field(description="Pseudonym.")
    actor_name: str | None = Field(default=None, description="Only where asked for.")
    actor_kind: str
    actor_role: str | None
    on_behalf_of: UUID | None = Field(description="Pseudonym.")
    on_behalf_of_name: str | None = Field(default=None, description="Only where asked for.")
    fields: list[str]
    activity: str | None
    purpose: str | None
    legal_basis: str | None
    outcome: str
    source: str
    reason_ref: str | None
    recipient: str | None
    recipient_kind: str | None
    masked: bool | None
    backfill: bool
    incomplete: list[str]
    correction: str | None
    corrected_seq: int | None


class AccessPage(Answer):
    """A page of accesses."""

    rows: list[AccessFound]
    next: int | None = Field(description="Send it as `after`; null if there is no more as yet.")
    as_of: AsOf


class EventTypes(Answer):
    """The taxonomy: types, and the vocabularies of their coded members."""

    types: list[dict[str, Any]]
    vocabularies: dict[str, dict[str, Any]]


class Health(Answer):
    """The process, or the service behind it, is well."""

    status: Literal["up", "ready"]


class KeptCheckpoint(Answer):
    """A checkpoint that is kept for good."""

    size: Sequence
    note: str = Field(description="A C2SP signed note (FORMAT.md 5).")
    signed: datetime = Field(description="When it was stored.")


class KeptCheckpoints(Answer):
    """A page of checkpoints."""

    checkpoints: list[KeptCheckpoint]
    next: int | None = Field(description="`after` of the next page.")


class AnchorEvidence(Answer):
    """What a sink gave back for one checkpoint."""

    size: Sequence
    root: Leaf = Field(description="root of the tree, hex")
    note: str | None = Field(
        description="The checkpoint that the sink was given; without cosignatures."
    )
    anchored: datetime
    seq: int | None = Field(description="The entry that tells of it; null until it stands.")
    media_type: str
    sha256: Leaf = Field(description="of the evidence; the entry's proof_sha256")
    base64: str = Field(description="The evidence's bytes.")


class AnchorFailure(Answer):
    """Since when a sink takes no checkpoint, and why."""

    since: datetime
    reason: str = Field(description="A code, such as `unreachable`.")


class Anchor(Answer):
    """A place outside that takes checkpoints."""

    name: str
    kind: str = Field(description="A code of the vocabulary `anchor_kind`.")
    configured: bool = Field(description="False for one that is no longer in the settings.")
    place: str | None = Field(description="Scheme and host; null for a place on the machine.")
    failing: AnchorFailure | None
    evidence: AnchorEvidence | None


class Witnessed(Answer):
    """How a ledger's witnesses stand together."""

    quorum: int = Field(description="How many must have cosigned a checkpoint for it to count.")
    named: int = Field(description="How many the settings name.")
    working: int = Field(description="How many of those don't fail.")
    size: int = Field(description="Of the newest checkpoint that a quorum cosigned; 0 for none.")
    reached: datetime | None = Field(description="When the last that was needed cosigned it.")
    failing: bool = Field(description="Whether too few work.")


class Anchors(Answer):
    """Every sink of a ledger, by name."""

    sinks: list[Anchor]
    witnessed: Witnessed | None = Field(
        description="Null where there is no witness, or no quorum of them is asked for."
    )
    split_views: list[str] = Field(
        description="Evidence that somebody holds another history; while it lies there, "
        "nothing is recorded."
    )
