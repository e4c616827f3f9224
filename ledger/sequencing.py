"""Place drafts after a head: numbers, chain, digests, boxes. No I/O but randomness.

A group is built in memory from what is known at one head. Whether it stands is
decided by the compare-and-set of that head (`ledger.appending`).
"""

from __future__ import annotations

import hmac
import json
import os
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from ledger.core.disclosure import (
    NONCE_BYTES,
    box_binding,
    commit,
    context,
    digest,
    length_prefixed,
    seal_box,
)
from ledger.core.entry import build_entry, tail_of, wrap_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from eventsourcing.persistence import StoredEvent

    from ledger.drafts import Draft
    from ledger.identities import Identity, IdentityRow, KeyRow, Name


class Head(NamedTuple):
    """The last entry: whoever moves it on owns the next numbers."""

    seq: int
    leaf: bytes
    recorded: str
    """As in entries; empty before the first."""


class Placed(NamedTuple):
    """Where an entry came to stand."""

    seq: int
    leaf: bytes
    stream: UUID
    version: int
    recorded: str
    repeated: bool


class _Parts(NamedTuple):
    """What an entry holds beside its place."""

    kind: bytes
    emitter: bytes
    sealed: bytes
    event: bytes
    topic: str


@dataclass(slots=True, kw_only=True, eq=False)
class Group:
    """Entries that are to stand together after a head, as columns to insert."""

    origin: bytes
    """The ledger's origin."""
    after: Head
    """The head that this group was built upon."""
    recorded: str
    """The time of the whole group, never before the head's."""
    heads: dict[UUID, tuple[int, bytes | None]]
    """(version, hex leaf) of the streams the group touches, moved on as it grows."""
    streams: list[UUID] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    entries: list[bytes] = field(default_factory=list)
    accepted_keys: list[bytes] = field(default_factory=list)
    accepted_seqs: list[int] = field(default_factory=list)
    box_seqs: list[int] = field(default_factory=list)
    boxes: list[bytes] = field(default_factory=list)
    identity_rows: list[IdentityRow] = field(default_factory=list)
    key_rows: list[KeyRow] = field(default_factory=list)
    new_identities: dict[Name, Identity] = field(default_factory=dict)
    new_keys: dict[UUID, Identity] = field(default_factory=dict)

    @property
    def seq(self) -> int:
        """The last entry's number."""
        return self.after.seq + len(self.entries)

    @property
    def head(self) -> Head:
        """The head once this group stands."""
        return Head(self.seq, self.leaves[-1], self.recorded)

    def place_draft(
        self, draft: Draft, pseudonyms: Mapping[Name, Identity], stream: Identity
    ) -> Placed:
        """Add the entry of one draft to its stream."""
        version, before = self.heads[stream.id]
        sealed, box = sealed_member(
            draft, stream, origin=self.origin, first=version == 0, seq=self.seq + 1
        )
        event = event_member(draft, pseudonyms)
        if box is not None:
            self.box_seqs.append(self.seq + 1)
            self.boxes.append(box)
        kind = b"ledger" if draft.subject is None else b"record"
        parts = _Parts(kind, draft.emitter, sealed, event, draft.type.full)
        return self._add(stream, version + 1, before, parts)

    def place_stored(self, event: StoredEvent, stream: Identity) -> Placed:
        """Add the entry that wraps an aggregate's stored event."""
        _, before = self.heads[stream.id]
        state = wrap_state(event.topic, event.state)
        parts = _Parts(b"aggregate", b'{"by":"ledger"}', b"", state, event.topic)
        return self._add(stream, event.originator_version, before, parts)

    def _add(
        self,
        stream: Identity,
        version: int,
        before: bytes | None,
        parts: _Parts,
    ) -> Placed:
        seq = self.seq + 1
        prev = self.leaves[-1] if self.leaves else self.after.leaf
        entry = build_entry(
            origin=self.origin,
            seq=seq,
            prev=prev.hex().encode(),
            recorded=self.recorded.encode(),
            stream=stream.text,
            kind=parts.kind,
            version=version,
            stream_prev=before,
            emitter=parts.emitter,
            sealed=parts.sealed,
            event=parts.event,
        )
        leaf = sha256(b"\0" + entry).digest()
        self.streams.append(stream.id)
        self.versions.append(version)
        self.topics.append(parts.topic)
        self.leaves.append(leaf)
        self.entries.append(entry)
        self.heads[stream.id] = (version, leaf.hex().encode())
        return Placed(seq, leaf, stream.id, version, self.recorded, False)  # noqa: FBT003


def event_member(draft: Draft, pseudonyms: Mapping[Name, Identity]) -> bytes:
    """Join a draft's event, names replaced by pseudonyms (FORMAT.md 1.5)."""
    part = b"%d" % draft.part
    return b"".join(
        [
            piece if isinstance(piece, bytes) else part if piece is None else pseudonyms[piece].text
            for piece in draft.pieces
        ]
    )


def sealed_member(
    draft: Draft, stream: Identity, *, origin: bytes, first: bool, seq: int
) -> tuple[bytes, bytes | None]:
    """Give the inside of an entry's `sealed` and the box beside it (FORMAT.md 4)."""
    values = draft.sealed
    if first and draft.subject is not None:
        subject = json.dumps(draft.subject.clear, ensure_ascii=False).encode()
        values = [("subject", subject), *values]
    if not values:
        return b"", None
    ctx = context(origin, draft.source, draft.event_id, draft.part)
    committed = commit(stream.key, ctx, values)
    members = [b'"%b":"%b"' % (name.encode(), digest(opened)) for name, opened in committed]
    box = seal_box(
        stream.key,
        ctx,
        box_binding(origin, stream.id.bytes, seq),
        [opened for _, opened in committed],
        os.urandom(NONCE_BYTES),
    )
    return b",".join(members), box


def same_as_recorded(
    draft: Draft,
    pseudonyms: Mapping[Name, Identity],
    stream: Identity,
    *,
    origin: bytes,
    entry: bytes,
    version: int,
) -> bool:
    """Tell whether a repeated event says what its entry says, with the same keys and salts."""
    sealed, _ = sealed_member(draft, stream, origin=origin, first=version == 1, seq=0)
    event = event_member(draft, pseudonyms)
    return hmac.compare_digest(tail_of(entry), b',"sealed":{%b},"event":%b}' % (sealed, event))


_prefixed = lru_cache(maxsize=1024)(length_prefixed)


def accept_key(key: bytes, draft: Draft) -> bytes:
    """Give the 16 bytes by which an event is known for ever (FORMAT.md 4.8)."""
    message = _prefixed(draft.source) + length_prefixed(draft.event_id)
    return hmac.digest(key, message, "sha256")[:16]
