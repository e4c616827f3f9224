"""Fill a ledger with many entries, straight into its tables.

The first entries go the way of all entries; they make the records, with their keys and
sealed subjects. The rest repeats what they say under new ids, chained as the recorder
chains (FORMAT.md 1), and the tree grows with them: afterwards the service signs the tree,
and the verifier finds nothing. Only the views stay empty, their position set to the end.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from hmac import digest as keyed_digest
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg.copy import LibpqWriter, QueuedLibpqWriter

from ledger.control import Control
from ledger.core.disclosure import length_prefixed
from ledger.core.entry import build_entry, format_time
from ledger.core.merkle import RightEdge
from ledger.drafts import Emitter
from ledger.events.taxonomy import Writer
from ledger.keys.keyring import make_keyring, save_keyring
from ledger.service import Ledger
from projections.schema import migrate_views

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import LiteralString
    from uuid import UUID

    from ledger.config import Settings
    from ledger.control import LedgerRow
    from ledger.core.merkle import TileNode

RECORDS = 1_000
"""Records that the entries are about, in turn."""
BLOCK = 1 << 16
"""Entries that are built and inserted at once."""
_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_ENTRY_ROW = struct.Struct(">hiqi16siqi")
_NODE_ROW = struct.Struct(">hihiqi32s")
_ACCEPTED_ROW = struct.Struct(">hi16siq")


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeLedger:
    """A ledger of many entries, signed to its head."""

    row: LedgerRow
    """Name, origin and schema."""
    size: int
    """Entries that were put in; opening it can add a few of its own."""
    vkey: str
    """Its verifier key."""
    reader_key: str
    """Key that may read it."""
    seconds: float
    """How long filling it took."""


class _Stream(NamedTuple):
    """A record's stream as it stands."""

    id: UUID
    text: bytes
    topic: bytes
    emitter: bytes
    event: tuple[bytes, bytes]
    """The event's bytes before and after its id."""


def fill(dsn: str, settings: Settings, size: int, *, name: str = "") -> LargeLedger:
    """Make a ledger of `size` entries, signed to its head.

    Raises:
        LedgerError: there is one of this name, or the database can't be reached.
    """
    started = time.perf_counter()
    name = name or f"large{size}"
    keyring = make_keyring(f"custody.local/{name}/00000000")
    save_keyring(settings.keys_dir / f"{name}.json", keyring)
    control = Control(dsn)
    control.migrate()
    row = control.add_ledger(name, keyring.origin)
    _, reader_key = control.add_credential(ledger=name, role="reader", label="bench")
    _record_first(row, settings, dsn, min(RECORDS, max(1, size // 4)))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"SET search_path TO {row.schema}")
        with _without_indexes(connection):
            _Filler(connection, row.origin, keyring.accept_key).fill_up_to(size)
        migrate_views(connection, schema=row.schema)
        _place_views_at(connection, row.schema, size)
        connection.execute("VACUUM ANALYZE")
    ledger = Ledger(row, settings, dsn)
    ledger.start()  # signs the head
    ledger.close()
    return LargeLedger(
        row=row,
        size=size,
        vkey=keyring.verifier_key(),
        reader_key=reader_key,
        seconds=time.perf_counter() - started,
    )


def _record_first(row: LedgerRow, settings: Settings, dsn: str, records: int) -> None:
    """Record two events of each record the usual way: the second has nothing sealed."""
    emitter = Emitter(
        credential="ck_aaaaaaaaaa",
        by=Writer.SERVICE,
        sources=("crm",),
        namespaces=("crm",),
        types=frozenset(),
    )
    ledger = Ledger(row, settings, dsn)
    ledger.start()
    try:
        for turn in range(2):
            events = [_event(number, turn) for number in range(records)]
            asyncio.run(ledger.ingest(json.dumps(events).encode(), emitter))
    finally:
        ledger.close()


def _event(number: int, turn: int) -> dict[str, Any]:
    return {
        "id": f"first-{number}-{turn}",
        "type": "record.accessed",
        "subject": f"crm:C-{number}",
        "data": {"actor": {"id": f"e{number % 50}"}, "fields": ["phone"], "activity": "support"},
    }


class _Filler:
    """Appends entries behind the recorder's back, which must not run."""

    def __init__(self, connection: psycopg.Connection[Any], origin: str, accept_key: bytes) -> None:
        self._connection = connection
        self._origin = origin.encode()
        self._accept_key = accept_key
        rows = connection.execute("SELECT leaf FROM entries ORDER BY seq").fetchall()
        leaves: list[bytes] = [leaf for (leaf,) in rows]
        self._seq, self._leaf = len(leaves), leaves[-1]
        self._edge = RightEdge()
        self._edge.extend(leaves)
        self._streams, self._heads = self._read_streams()

    def _read_streams(self) -> tuple[list[_Stream], list[tuple[int, bytes]]]:
        """Give the records' streams, and (version, hex leaf) of each."""
        rows = self._connection.execute(
            "SELECT e.stream, e.topic, e.entry, e.version, e.leaf FROM stream_heads h"
            " JOIN entries e USING (stream, version) WHERE version = 2 ORDER BY e.seq"
        ).fetchall()
        streams, heads = [], []
        for stream, topic, entry, version, leaf in rows:
            document = json.loads(entry)
            emitter = entry[entry.index(b',"emitter":') + 11 : entry.index(b',"sealed":{},')]
            event = entry[entry.index(b',"sealed":{},') + 21 : -1]
            before, _, after = event.partition(document["event"]["id"].encode())
            text = str(stream).encode()
            streams.append(_Stream(stream, text, topic.encode(), emitter, (before, after)))
            heads.append((version, leaf.hex().encode()))
        return streams, heads

    def fill_up_to(self, size: int) -> None:
        """Append until the log has `size` entries, a transaction for each block."""
        while self._seq < size:
            count = min(BLOCK, size - self._seq)
            recorded = format_time(datetime.now(UTC))
            with self._connection.transaction():
                self._copy_accepted(count)
                leaves = self._copy_entries(count, recorded)
                self._copy_nodes(self._edge.extend(leaves))
                self._connection.execute(
                    "UPDATE head SET seq = %s, leaf = %s, recorded = %s",
                    (self._seq, self._leaf, recorded.decode()),
                )
                self._move_heads()

    def _copy_entries(self, count: int, recorded: bytes) -> list[bytes]:
        leaves: list[bytes] = []
        cursor = self._connection.cursor()
        columns = "(seq, stream, version, topic, leaf, entry)"
        statement = f"COPY entries {columns} FROM STDIN (FORMAT BINARY)"
        # The writer's thread sends while the next entries are built.
        with cursor.copy(statement, writer=QueuedLibpqWriter(cursor)) as copy:
            copy.write(_COPY_HEAD)
            for start in range(0, count, 2048):
                copy.write(b"".join(self._rows(min(2048, count - start), recorded, leaves)))
            copy.write(b"\xff\xff")
        return leaves

    def _rows(self, count: int, recorded: bytes, leaves: list[bytes]) -> Iterator[bytes]:
        streams, heads, seq, leaf = self._streams, self._heads, self._seq, self._leaf
        for _ in range(count):
            turn = seq % len(streams)
            stream = streams[turn]
            version, before = heads[turn]
            seq, version = seq + 1, version + 1
            entry = build_entry(
                origin=self._origin,
                seq=seq,
                prev=leaf.hex().encode(),
                recorded=recorded,
                stream=stream.text,
                kind=b"record",
                version=version,
                stream_prev=before,
                emitter=stream.emitter,
                sealed=b"",
                event=b"%bn-%d%b" % (stream.event[0], seq, stream.event[1]),
            )
            leaf = sha256(b"\0" + entry).digest()
            leaves.append(leaf)
            heads[turn] = (version, leaf.hex().encode())
            head = _ENTRY_ROW.pack(6, 8, seq, 16, stream.id.bytes, 8, version, len(stream.topic))
            yield head + stream.topic + b"\0\0\0\x20" + leaf + struct.pack(">i", len(entry)) + entry
        self._seq, self._leaf = seq, leaf

    def _copy_nodes(self, nodes: list[TileNode]) -> None:
        rows = (_NODE_ROW.pack(3, 2, n.level, 8, n.index, 32, n.hash) for n in nodes)
        self._copy("tree_nodes (level, idx, hash)", rows)

    def _copy_accepted(self, count: int) -> None:
        key, source = self._accept_key, length_prefixed(b"crm")
        rows = (
            _ACCEPTED_ROW.pack(
                2,
                16,
                keyed_digest(key, source + length_prefixed(b"n-%d" % seq), "sha256")[:16],
                8,
                seq,
            )
            for seq in range(self._seq + 1, self._seq + count + 1)
        )
        self._copy("accepted (key, seq)", rows)

    def _copy(self, table: LiteralString, rows: Iterable[bytes]) -> None:
        cursor = self._connection.cursor()
        statement = f"COPY {table} FROM STDIN (FORMAT BINARY)"
        with cursor.copy(statement, writer=LibpqWriter(cursor)) as copy:
            copy.write(_COPY_HEAD + b"".join(rows) + b"\xff\xff")

    def _move_heads(self) -> None:
        self._connection.execute(
            "UPDATE stream_heads h SET version = u.version, leaf = u.leaf"
            " FROM unnest(%b::uuid[], %b::bigint[], %b::bytea[]) AS u (stream, version, leaf)"
            " WHERE h.stream = u.stream",
            (
                [stream.id for stream in self._streams],
                [version for version, _ in self._heads],
                [bytes.fromhex(leaf.decode()) for _, leaf in self._heads],
            ),
        )


@contextmanager
def _without_indexes(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Leave out what costs most while filling, and make it again as the migration has it."""
    connection.execute("ALTER TABLE accepted DROP CONSTRAINT accepted_pkey")
    connection.execute("DROP INDEX entries_stream")
    yield
    connection.execute("SET maintenance_work_mem = '512MB'")
    connection.execute("CREATE INDEX entries_stream ON entries (stream, version)")
    connection.execute("ALTER TABLE accepted ADD CONSTRAINT accepted_pkey PRIMARY KEY (key)")


def _place_views_at(connection: psycopg.Connection[Any], schema: str, seq: int) -> None:
    """Say that every view has folded everything: the figures here need none of their rows."""
    tables = connection.execute(
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_schema = %s AND table_name LIKE 'view\\_%%\\_tracking'",
        (schema,),
    ).fetchall()
    for (table,) in tables:
        connection.execute(
            f"INSERT INTO {table} VALUES ('LedgerLog', %s)"  # noqa: S608 - a name of ours
            " ON CONFLICT (application_name) DO UPDATE"
            " SET notification_id = excluded.notification_id",
            (seq,),
        )
