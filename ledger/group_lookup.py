"""Read what a group needs and isn't known: repeats, identities, stream heads.

At most three round trips for a whole group, and none for what memory has. What is found
holds at the head it was read at: the compare-and-set of that head decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from ledger.core.entry import ledger_stream
from ledger.identities import IdentityRow, KeyRow, Wrapping
from ledger.sequencing import accept_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from ledger.drafts import Draft
    from ledger.identities import Identity, Name
    from ledger.keys.keyring import Keyring
    from ledger.known import Known
    from ledger.log import LogReader
    from ledger.submission import Submission


class RepeatedRow(NamedTuple):
    """A row of `entries` whose event is handed in again."""

    seq: int
    stream: UUID
    version: int
    leaf: bytes
    entry: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What memory and database told of a group's submissions."""

    identities: dict[Name, Identity]
    """Names that have a pseudonym already."""
    keys: dict[UUID, Identity]
    """Streams that have a key already."""
    heads: dict[UUID, tuple[int, bytes | None]]
    """(version, hex leaf) of each stream; (0, None) before its first entry."""
    repeats: dict[bytes, list[RepeatedRow]]
    """Entries of events that were accepted before, by accept key."""


class GroupLookup:
    """Looks up what a group's submissions touch."""

    def __init__(self, log: LogReader, known: Known, keyring: Keyring) -> None:
        self._log = log
        self._known = known
        self._wrapping = Wrapping(keyring)
        self._origin = keyring.origin
        self._accept_key = keyring.accept_key

    def find(self, connection: psycopg.Connection[Any], submissions: Sequence[Submission]) -> Found:
        """Look up repeats, and what of identities and streams isn't known.

        Fills in the submissions' accept keys.

        Raises:
            CannotVerify: a key that was read can't be opened.
            psycopg.Error: something could not be read.
        """
        self._fill_keys(submissions)
        keys = [key for submission in submissions for key in submission.keys]
        known = self._known.identities
        names = _names_of(submissions)
        identities = {name: known[name] for name in names if name in known}
        lookups = {self._wrapping.lookup(name): name for name in names if name not in known}
        accepted, rows = self._select_known(connection, keys, list(lookups))
        found = Found(identities=identities, keys={}, heads={}, repeats={})
        streams, keyed = self._streams_of(submissions, identities)
        ids = {lookups[row.lookup]: self._wrapping.open_identity(row) for row in rows}
        self._find_streams(connection, found, streams, keyed, ids)
        found.repeats.update(self._select_repeats(connection, submissions, accepted))
        return found

    def stream_of(self, draft: Draft) -> UUID:
        """Give the stream of a draft without subject: that of its type or source."""
        return _ledger_stream(self._origin, draft.stream_name)

    def _fill_keys(self, submissions: Sequence[Submission]) -> None:
        for submission in submissions:
            if len(submission.keys) != len(submission.events):
                submission.keys = [accept_key(self._accept_key, d[0]) for d in submission.events]

    def _select_known(
        self, connection: psycopg.Connection[Any], keys: list[bytes], lookups: list[bytes]
    ) -> tuple[dict[bytes, int], list[IdentityRow]]:
        """Read accepted events' first positions, and the rows of names."""
        if not keys and not lookups:
            return {}, []
        query = self._log.sql(
            "SELECT key, seq, NULL FROM {accepted} WHERE key = ANY(%b::bytea[])"
            " UNION ALL SELECT lookup, epoch, wrapped FROM {identities}"
            " WHERE lookup = ANY(%b::bytea[])"
        )
        cursor = connection.cursor(binary=True)
        accepted: dict[bytes, int] = {}
        rows = []
        for key, number, wrapped in cursor.execute(query, (keys, lookups), prepare=True):
            if wrapped is None:
                accepted[key] = number
            else:
                rows.append(IdentityRow(key, number, wrapped))
        return accepted, rows

    def _streams_of(
        self, submissions: Sequence[Submission], identities: dict[Name, Identity]
    ) -> tuple[set[UUID], set[UUID]]:
        """Give all streams that are touched, and those of them that have keys of their own."""
        streams: set[UUID] = set()
        keyed: set[UUID] = set()
        for submission in submissions:
            streams.update(UUID(str(e.originator_id)) for e in submission.stored)
            for drafts in submission.events:
                for draft in drafts:
                    if draft.subject is None:
                        keyed.add(self.stream_of(draft))
                    elif draft.subject in identities:
                        streams.add(identities[draft.subject].id)
        return streams | keyed, keyed

    def _find_streams(
        self,
        connection: psycopg.Connection[Any],
        found: Found,
        streams: set[UUID],
        keyed: set[UUID],
        ids: dict[Name, UUID],
    ) -> None:
        """Complete `found` with heads and keys, from memory where it has them."""
        heads, keys = self._known.heads, self._known.keys
        found.heads.update({stream: heads[stream] for stream in streams if stream in heads})
        found.keys.update({stream: keys[stream] for stream in streams if stream in keys})
        # Other writers' entries tell of a stream's head, never of its key.
        keyed = keyed.difference(keys)
        missing = [s for s in (*streams, *ids.values()) if s not in found.heads or s in keyed]
        if not missing:
            return
        self._select_streams(connection, found, missing)
        keys.remember({stream: found.keys[stream] for stream in keyed if stream in found.keys})
        named = {name: found.keys[id_] for name, id_ in ids.items() if id_ in found.keys}
        found.identities.update(named)
        self._known.identities.remember(named)

    def _select_streams(
        self, connection: psycopg.Connection[Any], found: Found, missing: list[UUID]
    ) -> None:
        """Read heads and keys of streams into `found`."""
        query = self._log.sql(
            "SELECT id, NULL, NULL, epoch, wrapped, name_box FROM {keys} WHERE id = ANY(%b)"
            " UNION ALL SELECT stream, version, leaf, NULL, NULL, NULL FROM {stream_heads}"
            " WHERE stream = ANY(%b)"
        )
        found.heads.update(dict.fromkeys(missing, (0, None)))
        cursor = connection.cursor(binary=True)
        for row in cursor.execute(query, (missing, missing), prepare=True):
            stream, version, leaf, epoch, wrapped, name_box = row
            if wrapped is None:
                found.heads[stream] = (version, leaf.hex().encode())
            else:
                opened = self._wrapping.open_key(KeyRow(stream, epoch, wrapped, name_box))
                found.keys[stream] = opened

    def _select_repeats(
        self,
        connection: psycopg.Connection[Any],
        submissions: Sequence[Submission],
        accepted: dict[bytes, int],
    ) -> dict[bytes, list[RepeatedRow]]:
        """Read the entries of events that were accepted before, by accept key."""
        if not accepted:
            return {}
        wanted = {
            key: range(accepted[key], accepted[key] + len(drafts))
            for submission in submissions
            for key, drafts in zip(submission.keys, submission.events, strict=True)
            if key in accepted
        }
        query = self._log.sql(
            "SELECT seq, stream, version, leaf, entry FROM {entries} WHERE seq = ANY(%b)"
        )
        seqs = sorted({seq for span in wanted.values() for seq in span})
        cursor = connection.cursor(binary=True)
        rows = {row[0]: RepeatedRow(*row) for row in cursor.execute(query, (seqs,), prepare=True)}
        return {key: [rows[s] for s in span if s in rows] for key, span in wanted.items()}


_ledger_stream = lru_cache(maxsize=4096)(ledger_stream)


def _names_of(submissions: Sequence[Submission]) -> set[Name]:
    names: set[Name] = set()
    for submission in submissions:
        for drafts in submission.events:
            names.update(drafts[0].others)
            names.update([draft.subject for draft in drafts if draft.subject is not None])
    return names
