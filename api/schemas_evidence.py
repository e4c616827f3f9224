"""Bodies of requests for evidence to take away, and of answers about sources."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - schemas are built from it
from typing import Annotated, Literal
from uuid import UUID  # noqa: TC003 - schemas are built from it

from pydantic import Field, model_validator

from api.schemas import Answer, AsOf, Question, Sequence, Time

Position = Annotated[int, Field(ge=1, le=2**63 - 1)]
Subject = Annotated[str, Field(min_length=3, max_length=256)]
AccessType = Literal["record.accessed", "record.exported", "record.used", "record.shared"]


class AccessesWanted(Question):
    """Which accesses to export; all members narrow it. People stand here, never in a URL."""

    record: UUID | None = None
    subject: Subject | None = None
    actor: str | None = Field(default=None, min_length=1, max_length=256, description="Staff.")
    actor_pseudonym: UUID | None = None
    type: AccessType | None = None
    from_time: Time | None = Field(default=None, description="Happened then or later.")
    to_time: Time | None = Field(default=None, description="Happened before.")

    @model_validator(mode="after")
    def _name_each_once(self) -> AccessesWanted:
        if self.record is not None and self.subject is not None:
            raise ValueError("expected record or subject, found both")
        if self.actor is not None and self.actor_pseudonym is not None:
            raise ValueError("expected actor or actor_pseudonym, found both")
        return self


class ExportQuestion(Question):
    """What to export: a whole record, a whole range, or accesses, of which from and to are free.

    Subjects and names of staff never stand in a URL.
    """

    record: UUID | None = None
    subject: Subject | None = None
    accesses: AccessesWanted | None = None
    from_: Position | None = Field(default=None, alias="from", description="First position.")
    to: Position | None = Field(default=None, description="Last position.")

    @model_validator(mode="after")
    def _name_one_thing(self) -> ExportQuestion:
        ends = (self.from_, self.to)
        ranged = self.accesses is None and ends != (None, None)
        named = (self.record, self.subject, self.accesses)
        if sum((ranged, *(thing is not None for thing in named))) != 1:
            raise ValueError("expected one of: record; subject; accesses; from and to")
        if ranged and None in ends:
            raise ValueError("expected from and to")
        if (self.from_ or 1) > (self.to or 2**63 - 1):
            raise ValueError("expected from not after to")
        return self


class SourceNumbers(Answer):
    """What is known of the numbers (`sequence`) of an instance that gives them."""

    first: int
    last: int = Field(description="The greatest number met.")
    numbered: int = Field(description="Events that had a number.")
    missing: int = Field(description="Numbers between first and last that no event had.")
    gap_count: int = Field(description="Runs of missing numbers.")
    gaps: list[list[int]] = Field(description="The first 100 of those runs: [first, last].")
    repeats: int = Field(description="Events with a number that another event had.")
    last_repeat_seq: int | None = Field(description="Entry of the newest of those.")
    went_back: int = Field(description="Events with a lower number than the one before.")
    last_back_seq: int | None = Field(description="Entry of the newest of those.")


class SourceLateness(Answer):
    """How long after they happened events were recorded, without those imported later."""

    timed: int = Field(description="Events that say when they happened.")
    mean_s: float | None
    max_s: float
    over_minute: int
    over_hour: int
    over_day: int
    ahead: int = Field(description="Recorded over 5 s before they say that they happened.")


class SourceReport(Answer):
    """The newest report of a source on itself (`source.reported`), against what was received."""

    seq: Sequence
    recorded: datetime
    reports: int = Field(description="How many there were.")
    count: int = Field(description="Events sent since the report before.")
    last_sequence: int
    until: datetime
    unreceived: int = Field(description="Events that it tells of and that are not here.")
    agrees: bool = Field(description="Whether there are none of those.")


class SourceFound(Answer):
    """How one instance of a source stands."""

    source: str
    instance: str | None
    events: int
    first_recorded: datetime
    last_recorded: datetime
    last_seq: Sequence
    silent_s: float = Field(description="Seconds since anything of it was recorded.")
    backfill: int
    incomplete: int
    sequence: SourceNumbers | None = Field(description="Null if it numbers nothing.")
    late: SourceLateness
    report: SourceReport | None


class SourcePage(Answer):
    """A page of sources."""

    sources: list[SourceFound]
    next: str | None = Field(description="Send it as `after`; null if there is no more as yet.")
    as_of: AsOf
