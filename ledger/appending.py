"""The one statement that sequences entries: it moves the head and inserts what depends on it.

The UPDATE succeeds only while the head is still (seq, leaf) as the group was built upon;
every insert reads FROM moved and so inserts nothing otherwise. Two writers meet on the row
lock of the one head row: the second waits for the first's commit, finds the head moved
(READ COMMITTED looks at the row again), and changes nothing. No lock is held across a round
trip, since the statement is autocommitted: the transaction begins and ends inside it. A
rollback leaves no hole, since numbers come from the head and not from a sequence. Success
proves that no other writer came between, hence that every cached stream head and accepted
id this group relied on was current.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import psycopg
    from psycopg.sql import Composed

    from ledger.core.merkle import TileNode
    from ledger.group_builder import Attempt
    from ledger.log import LogReader
    from ledger.sequencing import Group


class Appender:
    """Sends groups to the database, and recognises those that arrived."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._statements: dict[tuple[bool, ...], Composed] = {}

    def append(self, connection: psycopg.Connection[Any], attempt: Attempt) -> bool:
        """Move the head and insert everything; False if the head was another, and nothing was done.

        The attempt's edge is extended by its leaves either way.

        Raises:
            psycopg.Error: refused, or the answer was lost: then it may stand or not.
        """
        group = attempt.group
        nodes = attempt.edge.extend(group.leaves)
        params = _required_columns(group)
        optional = _optional_columns(group, nodes)
        for columns in optional:
            params += columns
        statement = self._statement(tuple(map(bool, optional)))
        row = connection.cursor(binary=True).execute(statement, params, prepare=True).fetchone()
        return row is not None and row[0] == 1

    def landed(
        self, connection: psycopg.Connection[Any], unanswered: Iterable[Attempt]
    ) -> Attempt | None:
        """Give the attempt that stands in the log, looked for by (seq, leaf) of its last entry."""
        query = self._log.sql("SELECT leaf FROM {entries} WHERE seq = %b")
        for attempt in unanswered:
            head = attempt.group.head
            row = connection.execute(query, (head.seq,)).fetchone()
            if row is not None and row[0] == head.leaf:
                return attempt
        return None

    def _statement(self, used: tuple[bool, ...]) -> Composed:
        if used not in self._statements:
            self._statements[used] = self._log.sql(_moving_and_inserting(used))
        return self._statements[used]


def _required_columns(group: Group) -> list[Any]:
    """Give the parameters of `_MOVE_AND_INSERT`, in its order."""
    last = {stream: group.heads[stream] for stream in group.streams}
    return [
        *group.head,
        group.after.seq,
        group.after.leaf,
        group.after.seq,
        *(group.streams, group.versions, group.topics, group.leaves, group.entries),
        list(last),
        [version for version, _ in last.values()],
        [bytes.fromhex(leaf.decode()) for _, leaf in last.values() if leaf],
    ]


def _optional_columns(group: Group, nodes: Iterable[TileNode]) -> list[list[list[Any]]]:
    """Give the columns of each of `_OPTIONAL_INSERTS`, none where it has no rows."""
    inserts: tuple[Iterable[Sequence[Any]], ...] = (
        (group.accepted_keys, group.accepted_seqs),
        (group.box_seqs, group.boxes),
        zip(*((node.level, node.index, node.hash) for node in nodes), strict=True),
        zip(*group.identity_rows, strict=True),
        zip(*((*row[:3], row[3] or b"") for row in group.key_rows), strict=True),
    )
    return [[list(column) for column in columns if column] for columns in inserts]


_MOVE_AND_INSERT = """
WITH moved AS (
    UPDATE {head} SET seq = %%b, leaf = %%b, recorded = %%b
    WHERE seq = %%b AND leaf = %%b RETURNING 1
), entered AS (
    INSERT INTO {entries} (seq, stream, version, topic, leaf, entry)
    SELECT %%b::bigint + u.n, u.stream, u.version, u.topic, u.leaf, u.entry
    FROM moved, unnest(%%b::uuid[], %%b::bigint[], %%b::text[], %%b::bytea[], %%b::bytea[])
        WITH ORDINALITY AS u (stream, version, topic, leaf, entry, n)
), followed AS (
    INSERT INTO {stream_heads} AS h (stream, version, leaf)
    SELECT u.* FROM moved, unnest(%%b::uuid[], %%b::bigint[], %%b::bytea[]) AS u
    ON CONFLICT (stream) DO UPDATE SET version = excluded.version, leaf = excluded.leaf
)%s
SELECT count(*) FROM moved
"""

_OPTIONAL_INSERTS = (
    """, known AS (
    INSERT INTO {accepted} (key, seq)
    SELECT u.* FROM moved, unnest(%b::bytea[], %b::bigint[]) AS u
)""",
    """, boxed AS (
    INSERT INTO {boxes} (seq, box)
    SELECT u.* FROM moved, unnest(%b::bigint[], %b::bytea[]) AS u
)""",
    """, grown AS (
    INSERT INTO {tree_nodes} (level, idx, hash)
    SELECT u.* FROM moved, unnest(%b::smallint[], %b::bigint[], %b::bytea[]) AS u
)""",
    """, named AS (
    INSERT INTO {identities} (lookup, epoch, wrapped)
    SELECT u.* FROM moved, unnest(%b::bytea[], %b::integer[], %b::bytea[]) AS u
)""",
    """, keyed AS (
    INSERT INTO {keys} (id, epoch, wrapped, name_box)
    SELECT u.id, u.epoch, u.wrapped, nullif(u.name_box, '')
    FROM moved, unnest(%b::uuid[], %b::integer[], %b::bytea[], %b::bytea[])
        AS u (id, epoch, wrapped, name_box)
)""",
)


def _moving_and_inserting(used: tuple[bool, ...]) -> str:
    """Give the statement with the optional inserts that a group needs."""
    return _MOVE_AND_INSERT % "".join(
        text for text, use in zip(_OPTIONAL_INSERTS, used, strict=True) if use
    )
