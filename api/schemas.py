"""Bodies of requests and answers, for small reading routes and for OpenAPI.

Events themselves are not read through these: the taxonomy checks them.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - schemas are built from it
from typing import Annotated, Any, Literal
from uuid import UUID  # noqa: TC003 - schemas are built from it

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

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


class EventTypes(Answer):
    """The taxonomy: types, and the vocabularies of their coded members."""

    types: list[dict[str, Any]]
    vocabularies: dict[str, dict[str, Any]]


class Health(Answer):
    """The process, or the service behind it, is well."""

    status: Literal["up", "ready"]
