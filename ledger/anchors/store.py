"""Keep what sinks gave back, and which of them fail, in the ledger's schema.

Evidence is stored before the entry that tells of it. Each step can be the last before a
crash; the next process finds where it was:

1. the sink answered             nothing is known here: the checkpoint is brought there again
2. evidence stored, `seq` null   the entry is made from the row, under an id made from the
                                 row, so that it is made once however often this is repeated
3. the entry stands              repeating it gives the entry that is there
4. `seq` entered                 done
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - rows are built from it
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg.sql import SQL, Identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg.sql import Composable

    from ledger.anchors.sink import Anchored, Due

    Read = Callable[[Any, Sequence[Any]], list[tuple[Any, ...]]]
    """Runs one autocommitted query; raises Unavailable where the database can't be reached."""


SELECT_NAMES = """
WITH RECURSIVE names AS (
    (SELECT sink FROM {anchors} ORDER BY sink LIMIT 1)
    UNION ALL
    SELECT (SELECT sink FROM {anchors} WHERE sink > names.sink ORDER BY sink LIMIT 1)
    FROM names WHERE names.sink IS NOT NULL
)"""
"""Each sink that has something, by one look into the index for each: a sink that is asked
every minute has half a million rows after a year."""


class EvidenceRow(NamedTuple):
    """What a sink gave back for one checkpoint."""

    sink: str
    """The sink's name."""
    size: int
    """Entries that the checkpoint covers."""
    kind: str
    """Code of the vocabulary `anchor_kind`."""
    root: bytes
    """The tree's root, 32 bytes."""
    media_type: str
    """What the evidence is."""
    evidence: bytes
    """The sink's bytes."""
    anchored: datetime
    """When they were stored, by the database's clock."""
    seq: int | None
    """Position of the entry that tells of it; None until it stands."""
    note: str | None
    """The checkpoint, as it is kept."""


class FailingRow(NamedTuple):
    """A sink that fails."""

    sink: str
    """The sink's name."""
    kind: str
    """Code of the vocabulary `anchor_kind`."""
    since: datetime
    """When it began to."""
    reason: str
    """Code of the newest failure."""
    seq: int | None
    """Position of the entry that tells of it; None until it stands."""


class NewestRow(NamedTuple):
    """The newest checkpoint that a sink has."""

    sink: str
    """The sink's name."""
    kind: str
    """Code of the vocabulary `anchor_kind`."""
    size: int
    """Entries that it covers."""
    anchored: datetime
    """When it was anchored."""


class AnchorStore:
    """The tables `anchors` and `failing_sinks` of one ledger."""

    def __init__(self, schema: str, read: Read) -> None:
        self._read = read
        names = ("anchors", "failing_sinks", "checkpoints", "entries", "tree_nodes")
        self._parts: dict[str, Composable] = {name: Identifier(schema, name) for name in names}
        self._parts["names"] = SQL(SELECT_NAMES).format(anchors=self._parts["anchors"])

    def _rows(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        return self._read(SQL(query).format(**self._parts), params)

    def read_tree(self, level: int, first: int, count: int) -> list[bytes]:
        """Give stored hashes of the tree: leaves at level 0, else nodes (FORMAT.md 3.3).

        Not by the recorder's connection: a sink that proves something delays no entry.
        """
        if level == 0:
            query = "SELECT leaf FROM {entries} WHERE seq > %s AND seq <= %s ORDER BY seq"
            return [leaf for (leaf,) in self._rows(query, first, first + count)]
        query = (
            "SELECT hash FROM {tree_nodes} WHERE idx >= %s AND idx < %s AND level = %s ORDER BY idx"
        )
        return [node for (node,) in self._rows(query, first, first + count, level)]

    # -- evidence --------------------------------------------------------------

    def newest(self) -> list[NewestRow]:
        """Give the newest checkpoint of each sink that has one, by name."""
        rows = self._rows(
            "{names} SELECT a.sink, a.kind, a.size, a.anchored FROM names, LATERAL"
            " (SELECT * FROM {anchors} WHERE sink = names.sink ORDER BY size DESC LIMIT 1) a"
            " ORDER BY a.sink"
        )
        return [NewestRow(*row) for row in rows]

    def evidence(self, sink: str | None = None, size: int | None = None) -> list[EvidenceRow]:
        """Give what one sink or each of them gave back: for one size, or newest."""
        rows = self._rows(
            "{names} SELECT a.sink, a.size, a.kind, a.root, a.media_type, a.evidence,"
            " a.anchored, a.seq, c.note FROM names, LATERAL"
            " (SELECT * FROM {anchors} WHERE sink = names.sink"
            " AND (%s::bigint IS NULL OR size = %s) ORDER BY size DESC LIMIT 1) a"
            " LEFT JOIN {checkpoints} c USING (size)"
            " WHERE %s::text IS NULL OR a.sink = %s ORDER BY a.sink",
            size,
            size,
            sink,
            sink,
        )
        return [EvidenceRow(*row) for row in rows]

    def newest_witnessed(self, sinks: Sequence[str], quorum: int) -> tuple[int, datetime] | None:
        """Give the newest size that so many of some sinks have, and when the last of them had."""
        rows = self._rows(
            "SELECT size, (array_agg(anchored ORDER BY anchored))[%s] FROM {anchors}"
            " WHERE kind = 'witness' AND sink = ANY(%s) GROUP BY size HAVING count(*) >= %s"
            " ORDER BY size DESC LIMIT 1",
            quorum,
            list(sinks),
            quorum,
        )
        return (rows[0][0], rows[0][1]) if rows else None

    def untold(self, sink: str) -> list[EvidenceRow]:
        """Give a sink's evidence that no entry tells of yet, oldest first."""
        rows = self._rows(
            "SELECT sink, size, kind, root, media_type, evidence, anchored, seq, NULL"
            " FROM {anchors} WHERE sink = %s AND seq IS NULL ORDER BY size",
            sink,
        )
        return [EvidenceRow(*row) for row in rows]

    def keep(self, sink: str, kind: str, due: Due, anchored: Anchored) -> None:
        """Store evidence, and keep its checkpoint for good; what is there already stays.

        Signature lines that came with it join the checkpoint's note: witnesses that were asked
        for one size cosign one note, in whatever order they answer. Those of evidence that is
        there already don't: many readers refuse a note with two lines by one key.

        Raises:
            Unavailable: nobody knows whether it is stored; doing it again is harmless.
        """
        self._rows(
            "WITH given AS (INSERT INTO {anchors} (sink, size, kind, root, media_type, evidence)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING size)"
            " INSERT INTO {checkpoints} (size, note, kept) VALUES (%s, %s, true)"
            " ON CONFLICT (size) DO UPDATE SET kept = true, note = {checkpoints}.note ||"
            " CASE WHEN EXISTS (SELECT FROM given) THEN %s ELSE '' END RETURNING size",
            sink,
            due.size,
            kind,
            due.root,
            anchored.media_type,
            anchored.evidence,
            due.size,
            due.note + anchored.lines,
            anchored.lines,
        )

    def told(self, sink: str, size: int, seq: int) -> None:
        """Enter the position of the entry that tells of it."""
        self._rows(
            "UPDATE {anchors} SET seq = %s WHERE sink = %s AND size = %s AND seq IS NULL"
            " RETURNING size",
            seq,
            sink,
            size,
        )

    # -- failures --------------------------------------------------------------

    def failing(self) -> list[FailingRow]:
        """Give the sinks that fail, by name."""
        rows = self._rows(
            "SELECT sink, kind, since, reason, seq FROM {failing_sinks} ORDER BY sink"
        )
        return [FailingRow(*row) for row in rows]

    def fails(self, sink: str, kind: str, reason: str) -> FailingRow:
        """Remember that a sink fails; since when stays as it was first said."""
        (row,) = self._rows(
            "INSERT INTO {failing_sinks} AS f (sink, kind, since, reason)"
            " VALUES (%s, %s, now(), %s) ON CONFLICT (sink)"
            " DO UPDATE SET reason = excluded.reason, kind = excluded.kind"
            " RETURNING sink, kind, since, reason, seq",
            sink,
            kind,
            reason,
        )
        return FailingRow(*row)

    def failure_told(self, sink: str, seq: int) -> None:
        """Enter the position of the entry that tells of it."""
        self._rows("UPDATE {failing_sinks} SET seq = %s WHERE sink = %s RETURNING sink", seq, sink)

    def recovered(self, sink: str) -> None:
        """Forget that a sink failed."""
        self._rows("DELETE FROM {failing_sinks} WHERE sink = %s RETURNING sink", sink)
