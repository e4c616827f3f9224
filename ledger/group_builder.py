"""Place one submission after another into a group, each as a whole or not at all.

Nothing is read or written here: what is known of repeats, names and streams was looked up
before, and whether the group stands is decided after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from eventsourcing import persistence

from ledger.errors import Conflict
from ledger.identities import Identity
from ledger.sequencing import Placed, same_as_recorded
from ledger.submission import Recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from eventsourcing.persistence import StoredEvent

    from ledger.core.merkle import RightEdge
    from ledger.drafts import Draft
    from ledger.group_lookup import Found, RepeatedRow
    from ledger.identities import Name, Wrapping
    from ledger.sequencing import Group
    from ledger.submission import Submission


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attempt:
    """A group that is sent to the database, with what its submissions are told if it stands."""

    group: Group
    """The entries; none where all were repeats or refused."""
    edge: RightEdge
    """The tree's edge before the group; after it, once the group was sent."""
    answers: list[tuple[Submission, Recorded]]
    """Where each submission's entries stand, still without a checkpoint."""
    refused: list[tuple[Submission, Exception]]
    """Conflicts with the log as the group knew it: true only if the group stands."""
    deferred: list[Submission]
    """Repeats of what this very group makes: they belong into the next."""


class GroupBuilder:
    """Places submissions into one group."""

    def __init__(
        self,
        group: Group,
        found: Found,
        wrapping: Wrapping,
        stream_of: Callable[[Draft], UUID],
    ) -> None:
        self.group = group
        self.found = found
        self.wrapping = wrapping
        self.stream_of = stream_of

    def place_all(self, submissions: Iterable[Submission], edge: RightEdge) -> Attempt:
        """Sort out repeats and conflicts, and place the rest; `edge` becomes the attempt's."""
        attempt = Attempt(group=self.group, edge=edge, answers=[], refused=[], deferred=[])
        placed_keys: set[bytes] = set()
        for submission in submissions:
            if submission.outcome is not None:
                continue
            if not placed_keys.isdisjoint(submission.keys):
                attempt.deferred.append(submission)  # repeats one of this group: next time
                continue
            try:
                attempt.answers.append((submission, self._place(submission)))
                placed_keys.update(submission.keys)
            except (Conflict, persistence.IntegrityError) as error:
                attempt.refused.append((submission, error))  # holds if the group stands
        return attempt

    def _place(self, submission: Submission) -> Recorded:
        """Place all of a submission, or raise before anything of it is placed."""
        repeats = self.found.repeats
        pairs = list(zip(submission.keys, submission.events, strict=True))
        answers: dict[bytes, list[Placed]] = {}
        for index, (key, drafts) in enumerate(pairs):
            if key in repeats:
                pointer = "" if submission.first is None else f"/{submission.first + index}"
                answers[key] = self._repeated(drafts, repeats[key], pointer)
        self._check_versions(submission.stored)
        for key, drafts in pairs:
            if key not in answers:
                self.group.accepted_keys.append(key)
                self.group.accepted_seqs.append(self.group.seq + 1)
                answers[key] = [self._draft(draft) for draft in drafts]
        stored = [self._stored(event) for event in submission.stored]
        events = [answers[key] for key in submission.keys]
        return Recorded(events=events, stored=stored, checkpoint=None)

    # -- repeats ---------------------------------------------------------------

    def _repeated(
        self, drafts: Sequence[Draft], rows: Sequence[RepeatedRow], pointer: str
    ) -> list[Placed]:
        if len(rows) != len(drafts):
            raise _other(pointer)
        placed = []
        for draft, row in zip(drafts, rows, strict=True):
            if not self._is_same(draft, row):
                raise _other(pointer)
            start = row.entry.index(b',"recorded":"') + 13
            recorded = row.entry[start : start + 27].decode()
            placed.append(
                Placed(row.seq, row.leaf, row.stream, row.version, recorded, repeated=True)
            )
        return placed

    def _is_same(self, draft: Draft, row: RepeatedRow) -> bool:
        if not self._all_known(draft):
            return False
        stream = self._stream(draft)
        return stream.id == row.stream and same_as_recorded(
            draft,
            self.found.identities,
            stream,
            origin=self.group.origin,
            entry=row.entry,
            version=row.version,
        )

    def _all_known(self, draft: Draft) -> bool:
        known = self.found.identities
        return (draft.subject is None or draft.subject in known) and all(
            name in known for name in draft.others
        )

    # -- new entries -----------------------------------------------------------

    def _draft(self, draft: Draft) -> Placed:
        identities = self.found.identities
        if draft.subject is not None and draft.subject not in identities:
            self._introduce(draft.subject)
        for name in draft.others:
            if name not in identities:
                self._introduce(name)
        return self.group.place_draft(draft, identities, self._stream(draft))

    def _introduce(self, name: Name) -> None:
        identity, row, key_row = self.wrapping.new(name)
        self.found.identities[name] = self.group.new_identities[name] = identity
        self.group.identity_rows.append(row)
        self.group.key_rows.append(key_row)
        self.group.heads[identity.id] = (0, None)

    def _stream(self, draft: Draft) -> Identity:
        if draft.subject is not None:
            return self.found.identities[draft.subject]
        stream_id = self.stream_of(draft)
        if stream_id not in self.found.keys:
            identity, row = self.wrapping.stream(stream_id)
            self.found.keys[stream_id] = self.group.new_keys[stream_id] = identity
            self.group.key_rows.append(row)
        return self.found.keys[stream_id]

    # -- aggregates ------------------------------------------------------------

    def _check_versions(self, stored: Sequence[StoredEvent]) -> None:
        """Refuse versions that aren't each stream's next: optimistic concurrency."""
        moved: dict[UUID, int] = {}
        for event in stored:
            stream = UUID(str(event.originator_id))
            version, before = self.group.heads[stream]
            last = moved.get(stream, version if before is not None else None)
            allowed = (0, 1) if last is None else (last + 1,)
            if event.originator_version not in allowed:
                raise persistence.IntegrityError(
                    f"stream {stream}: expected version {allowed[-1]}, "
                    f"found {event.originator_version}"
                )
            moved[stream] = event.originator_version

    def _stored(self, event: StoredEvent) -> int:
        stream = UUID(str(event.originator_id))
        identity = Identity(id=stream, text=str(stream).encode(), key=b"")
        return self.group.place_stored(event, identity).seq


def _other(pointer: str) -> Conflict:
    return Conflict(
        "another event was recorded with this source and id",
        pointer=pointer,
        hint="give every event an id of its own; repeat an event only unchanged",
    )
