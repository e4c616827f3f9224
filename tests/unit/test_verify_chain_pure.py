"""The verifier against attacks on logs in memory, built here by FORMAT.md alone."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import random
import sys
import uuid
import zipfile
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = Path(__file__).parents[2] / "scripts" / "verify_chain.py"
_SPEC = importlib.util.spec_from_file_location("verify_chain", SCRIPT)
assert _SPEC is not None
assert _SPEC.loader is not None
vc: Any = importlib.util.module_from_spec(_SPEC)
sys.modules["verify_chain"] = vc
_SPEC.loader.exec_module(vc)

ORIGIN = "ledger.example/test-0a1b2c3d"
SIGNING = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


# -- a log by FORMAT.md, independent of the ledger's code and of the verifier's --


def leaf_of(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def root_of(leaves: list[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = root_of(leaves[:split]), root_of(leaves[split:])
    return hashlib.sha256(b"\1" + left + right).digest()


def inclusion(index: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*inclusion(index, leaves[:split]), root_of(leaves[split:])]
    return [*inclusion(index - split, leaves[split:]), root_of(leaves[:split])]


def verifier_key(key: Ed25519PrivateKey = SIGNING, name: str = ORIGIN) -> str:
    typed = b"\1" + key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(name.encode() + b"\n" + typed).hexdigest()[:8]
    return f"{name}+{key_id}+{base64.b64encode(typed).decode()}"


def sign(text: str, key: Ed25519PrivateKey = SIGNING, name: str = ORIGIN) -> str:
    key_id = bytes.fromhex(verifier_key(key, name).split("+")[1])
    blob = base64.b64encode(key_id + key.sign(text.encode())).decode()
    return f"{text}\n\u2014 {name} {blob}\n"


def checkpoint(leaves: list[bytes], key: Ed25519PrivateKey = SIGNING) -> str:
    root = base64.b64encode(root_of(leaves)).decode()
    return sign(f"{ORIGIN}\n{len(leaves)}\n{root}\n", key)


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass
class MemoryLog:
    """A ledger's tables as lists."""

    table: list[Any] = field(default_factory=list)
    heads: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    nodes: list[tuple[int, int, bytes]] = field(default_factory=list)
    notes: dict[int, str] = field(default_factory=dict)
    accepted_seqs: list[int] = field(default_factory=list)
    box_seqs: set[int] = field(default_factory=set)
    the_head: tuple[int, bytes, bytes] | None = (0, bytes(32), b"")

    def append(
        self,
        stream: str,
        kind: str,
        event: object,
        *,
        sealed: bytes = b"{}",
        recorded: str = "",
        emitter: bytes = b'{"by":"service","credential":"cred-1"}',
        begins: int = 1,
    ) -> None:
        assert self.the_head is not None
        seq, prev, _ = self.the_head
        seq += 1
        before = self.heads.get(stream.encode())
        version, link = (
            (before[0] + 1, b'"%b"' % before[1].hex().encode()) if before else (begins, b"null")
        )
        recorded = recorded or f"2026-01-01T00:00:{seq // 100 % 60:02d}.{seq % 100:06d}Z"
        body = event if isinstance(event, bytes) else compact(event)
        entry = (
            b'{"v":0,"ledger":"%b","seq":%d,"prev":"%b","recorded":"%b","stream":"%b",'
            b'"stream_kind":"%b","version":%d,"stream_prev":%b,"emitter":%b,"sealed":%b,"event":%b}'
        ) % (
            ORIGIN.encode(),
            seq,
            prev.hex().encode(),
            recorded.encode(),
            stream.encode(),
            kind.encode(),
            version,
            link,
            emitter,
            sealed,
            body,
        )
        members = json.loads(body)
        topic = members["topic" if kind == "aggregate" else "type"].encode()
        leaf = leaf_of(entry)
        boxed = sealed != b"{}"
        self.table.append(vc.Row(seq, stream.encode(), version, topic, leaf, entry, boxed))
        self.heads[stream.encode()] = (version, leaf)
        if kind != "aggregate" and members.get("part", 0) == 0:
            self.accepted_seqs.append(seq)
        if boxed:
            self.box_seqs.add(seq)
        self.the_head = (seq, leaf, recorded.encode())

    def finish(self) -> MemoryLog:
        self.nodes = []
        row, level = self.leaves, 0
        while len(row) >= 256:
            level += 1
            row = [root_of(row[i : i + 256]) for i in range(0, len(row) // 256 * 256, 256)]
            self.nodes += [(level, index, node) for index, node in enumerate(row)]
        return self

    @property
    def leaves(self) -> list[bytes]:
        return [row.leaf for row in self.table]

    def head(self) -> tuple[int, bytes, bytes] | None:
        return self.the_head

    has_tables = reads_entries = True
    seen = ()

    @property
    def size(self) -> int:
        return max((row.seq for row in self.table), default=0)

    def first_entry(self) -> bytes:
        return next((row.entry for row in self.table if row.seq == 1), b"")

    def parts(self, totals: Any, wanted: Any, origin: str) -> Iterator[Any]:
        first, last = totals.entries + 1, self.size
        if last and min(row.seq for row in self.table) != 1:
            raise vc.DoubtError
        if sum(row.seq < first for row in self.table) != first - 1:
            raise vc.DoubtError
        ends = totals.ends
        for low, high in vc.ranges_of(first, last, jobs=1, step=256, ends_whole=True):
            yield self.swept(low, high, wanted, origin=origin, key=ends.key, ends=ends.ends)

    def swept(self, first: int, last: int, wanted: Any, **place: Any) -> Any:
        return vc.sweep(
            self.chunks(first, last), first=first, wanted=wanted.within(first, last), **place
        )

    def leaves_of(self, first: int, last: int) -> list[bytes]:
        return [leaf_of(row.entry) for row in self.rows() if first <= row.seq <= last]

    def chunks(self, first: int, last: int) -> Iterator[Any]:
        """Join rows as the query for PostgreSQL does."""
        for at in range(first, last + 1, 256):
            rows = [row for row in self.rows() if at <= row.seq < at + 256]
            boxes = {row.seq for row in rows if row.boxed}
            yield vc.Chunk(
                b",".join(b"%d" % row.seq for row in rows),
                b",".join(row.stream for row in rows),
                b",".join(b"%d" % row.version for row in rows),
                b"\n".join(row.topic for row in rows),
                bytes(20) + b"".join(len(r.leaf).to_bytes(4) + r.leaf for r in rows),
                b",".join(b"%d" % seq for seq in sorted(boxes)),
                b"\0" + b"\n\0".join(row.entry for row in rows),
            )

    def rows(self) -> Iterator[Any]:
        return iter(sorted(self.table, key=lambda r: r.seq))

    def rows_by_stream(self) -> Iterator[Any]:
        return iter(sorted(self.table, key=lambda r: (r.stream, r.version, r.seq)))

    def stream_heads(self) -> Iterator[tuple[bytes, int, bytes]]:
        return iter((s, *self.heads[s]) for s in sorted(self.heads))

    def tree_nodes(self) -> Iterator[tuple[int, int, bytes]]:
        return iter(sorted(self.nodes))

    def checkpoints(self) -> Iterator[tuple[int, str]]:
        return iter(sorted(self.notes.items()))

    def first_nodes(self, number: int) -> Iterator[bytes]:
        return iter([n for level, index, n in sorted(self.nodes) if level == 1][:number])

    def not_checked(self) -> list[str]:
        return []

    def accepted(self, after: int) -> tuple[int, int, int, int]:
        seqs = [seq for seq in self.accepted_seqs if seq > after]
        return len(seqs), min(seqs, default=0), max(seqs, default=0), sum(seqs)

    def boxes(self, last: int) -> tuple[int, int]:
        before = len([seq for seq in self.box_seqs if seq <= last])
        return before, len(self.box_seqs) - before

    def copy(self) -> MemoryLog:
        return replace(
            self,
            table=list(self.table),
            heads=dict(self.heads),
            nodes=list(self.nodes),
            notes=dict(self.notes),
            accepted_seqs=list(self.accepted_seqs),
            box_seqs=set(self.box_seqs),
        )


DIGEST = b"A" * 43
OWN = b'{"by":"ledger"}'


def stream_named(rest: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, ORIGIN + rest))


RECORDS = [str(uuid.UUID(int=i * 7919, version=4)) for i in range(1, 12)]
AGGREGATE = "0e6c3d5e-2222-4000-8000-000000000001"


@cache
def _built(size: int) -> MemoryLog:
    log = MemoryLog()
    opening = {
        "type": "ledger.ledger.opened.v1",
        "data": {"origin": ORIGIN, "format": 0, "keys": [verifier_key()]},
    }
    log.append(stream_named("#ledger.ledger.opened.v1"), "ledger", opening, emitter=OWN)
    rng = random.Random(size)
    shapes: list[Callable[[int], object]] = [
        lambda i: {"type": "ledger.record.accessed.v1", "id": f"e{i}", "data": {"n": i}},
        lambda i: {
            "id": f"e{i}",
            "type": "ledger.record.shared.v1",
            "data": {"type": "x", "event": {"a": []}},
        },
        lambda i: {
            "id": f"e{i}",
            "data": {"type": "ledger.record.accessed.v1"},
            "type": "ledger.record.changed.v1",
        },
        lambda i: {
            "id": f"e{i}",
            "note": ',"type":"{[,"event":{',
            "type": "ledger.record.changed.v1",
        },
        lambda i: {"id": f"e{i}", "part": i % 2, "of": 2, "type": "ledger.record.accessed.v1"},
    ]
    for i in range(2, size + 1):
        if i % 17 == 0:
            event = {"topic": "módulo:Audit.Opened", "state": {"n": i}}
            log.append(AGGREGATE, "aggregate", event, emitter=b'{"by":"ledger"}', begins=0)
        else:
            sealed = b'{"subject":"%b","data.note":"%b"}' % (DIGEST, DIGEST) if i % 3 else b"{}"
            log.append(rng.choice(RECORDS), "record", rng.choice(shapes)(i), sealed=sealed)
    log.notes = {n: checkpoint(log.leaves[:n]) for n in {size // 3, size} if n}
    return log.finish()


def sound(size: int = 60) -> MemoryLog:
    return _built(size).copy()


def trust(*notes: str, key: Ed25519PrivateKey | None = SIGNING, size: int | None = 60) -> Any:
    keys = (vc.parse_key(verifier_key(key)),) if key else ()
    held = [*notes] or ([checkpoint(sound(size).leaves)] if size else [])
    points = tuple(vc.open_checkpoint(note, keys, held="outside", outside=True) for note in held)
    return vc.Trust(keys=keys, checkpoints=points)


def verify(log: MemoryLog, given: Any = None) -> Any:
    return vc.verify_log(log, given or trust())


def rechain(log: MemoryLog, start: int) -> None:
    """Make everything from entry `start` on consistent again, as an owner of the database can."""
    rows = log.table
    old = [leaf.hex().encode() for leaf in sound(len(rows)).leaves]
    for i in range(start - 1, len(rows)):
        entry = rows[i].entry
        for j in range(i):
            new = rows[j].leaf.hex().encode()
            if new != old[j]:
                entry = entry.replace(old[j], new)
        rows[i] = rows[i]._replace(entry=entry, leaf=leaf_of(entry))
        log.heads[rows[i].stream] = (rows[i].version, rows[i].leaf)
    log.the_head = (len(rows), rows[-1].leaf, log.the_head[2])  # type: ignore[index]
    log.finish()


def change(log: MemoryLog, seq: int, entry: bytes, *, leaf_too: bool = False) -> None:
    row = log.table[seq - 1]
    log.table[seq - 1] = row._replace(entry=entry, leaf=leaf_of(entry) if leaf_too else row.leaf)


def other_bytes(log: MemoryLog, seq: int) -> bytes:
    entry: bytes = log.table[seq - 1].entry
    return entry.replace(b'"by":"service"', b'"by":"person"').replace(
        b'"by":"ledger"}', b'"by":"ledger" }'
    )


def expect(result: Any, kind: str, seq: int | None) -> None:
    assert result.code == 1, result.verdict
    found = (result.findings[0].kind, result.first_bad and result.first_bad.seq)
    assert found == (kind, seq), result.findings


# -- sound logs --


@pytest.mark.parametrize("size", [1, 2, 9, 10, 11, 60, 99, 100, 255, 256, 257, 600])
def test_a_sound_log_verifies_with_key_and_checkpoint(size: int):
    result = verify(sound(size), trust(size=size))
    assert (result.code, result.verdict, result.findings) == (0, "verified", [])


def test_the_sweep_and_the_examination_agree_on_a_sound_log():
    log = sound(600)
    wanted = vc.Wanted(frozenset({200, 600}), frozenset({1, 256, 257, 599}))
    totals, findings = vc.examine(log, origin=ORIGIN, wanted=wanted)
    assert findings == []
    swept = vc.Totals(ends=vc.Ends(b"k"))
    vc.read_log(log, swept, wanted, origin=ORIGIN, held=[], state=None)
    swept.tree, totals.tree, swept.ends = swept.tree.levels, totals.tree.levels, None
    assert swept == totals


@pytest.mark.parametrize("cut", [256, 512])
@pytest.mark.parametrize("ends", ["told", "open", "late"])
def test_a_log_swept_in_ranges_is_the_same_log(cut: int, ends: str):
    log = sound(600)
    wanted = vc.Wanted(frozenset({200, 300, 512, 600}), frozenset())
    totals = vc.Totals(ends=vc.Ends(b"k", ends))
    place = {"origin": ORIGIN, "key": b"k", "ends": ends}
    for first, last in ((1, cut), (cut + 1, 600)):
        vc.join_part(totals, log.swept(first, last, wanted, **place))
    totals.ends.settle(log.stream_heads())
    assert totals.roots == {n: root_of(log.leaves[:n]) for n in (200, 300, 512, 600)}


def test_streams_that_fell_out_of_memory_are_still_followed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vc.Streams, "LIMIT", 2)
    assert verify(sound(256), trust(size=256)).code == 0
    log = sound(256)
    other = log.table[100].entry.replace(b'"stream_prev":"', b'"stream_prev":"f', 1)
    start = other.index(b'"stream_prev":"') + 15
    change(log, 101, other[: start + 64] + other[start + 65 :])
    rechain(log, 101)
    log.notes = {}
    expect(verify(log, trust(checkpoint(log.leaves))), "altered", 101)


def test_a_key_without_an_outside_checkpoint_does_not_verify():
    result = verify(sound(), trust(size=None))
    assert (result.code, result.verdict) == (
        4,
        "consistent with itself and signed by the pinned key up to entry 60",
    )


def test_a_checkpoint_without_a_key_does_not_verify():
    assert verify(sound(), trust(key=None)).code == 4


def test_nothing_from_outside_does_not_verify():
    assert verify(sound(), trust(key=None, size=None)).code == 4


def test_no_entries_at_all_are_a_log_that_was_cut_off():
    expect(verify(MemoryLog()), "truncated", 1)


# -- attacks --


@pytest.mark.parametrize("seq", [1, 2, 17, 30, 59, 60])
@pytest.mark.parametrize("leaf_too", [False, True])
def test_an_altered_entry_is_named(seq: int, leaf_too: bool):  # noqa: FBT001
    log = sound()
    change(log, seq, other_bytes(log, seq), leaf_too=leaf_too)
    expect(verify(log), "altered", seq)


@pytest.mark.parametrize("leaf_too", [False, True])
def test_every_flipped_byte_is_caught_and_its_entry_named(leaf_too: bool):  # noqa: FBT001
    log = sound(7)
    given = trust(size=7)
    for seq in (1, 4, 7):
        good: bytes = log.table[seq - 1].entry
        for at in range(len(good)):
            for bit in (1, 32):
                flipped = good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :]
                attacked = sound(7)
                change(attacked, seq, flipped, leaf_too=leaf_too)
                expect(verify(attacked, given), "altered", seq)


@pytest.mark.parametrize("seq", [2, 17, 30, 58])
@pytest.mark.parametrize("number", [1, 2])
def test_entries_deleted_from_the_middle_are_named(seq: int, number: int):
    log = sound()
    del log.table[seq - 1 : seq - 1 + number]
    expect(verify(log), "deleted", seq)


@pytest.mark.parametrize("seq", [1, 2, 30, 59])
def test_a_deleted_entry_is_named_though_rows_are_renumbered(seq: int):
    log = sound()
    del log.table[seq - 1]
    log.table = [row._replace(seq=i) for i, row in enumerate(log.table, 1)]
    expect(verify(log), "deleted", seq)


@pytest.mark.parametrize("number", [1, 5, 59])
def test_a_tail_cut_off_is_truncated(number: int):
    log = sound()
    del log.table[-number:]
    expect(verify(log), "truncated", 61 - number)


def test_a_tail_cut_off_with_all_its_traces_needs_the_outside_checkpoint():
    log = sound(50)
    log.notes = {}
    shorter = _built(60).copy()
    shorter.table = shorter.table[:50]
    shorter.heads = {row.stream: (row.version, row.leaf) for row in shorter.table}
    shorter.the_head = (50, shorter.table[-1].leaf, vc.read_entry(shorter.table[-1].entry).recorded)
    shorter.accepted_seqs = [n for n in shorter.accepted_seqs if n <= 50]
    shorter.box_seqs = {n for n in shorter.box_seqs if n <= 50}
    shorter.notes = {20: shorter.notes[20]}
    result = verify(shorter)
    expect(result, "truncated", 51)
    assert "agree with checkpoint of size 20" in result.holds
    assert verify(shorter, trust(size=None)).code == 4


@pytest.mark.parametrize(("one", "two"), [(1, 2), (2, 30), (29, 30), (30, 32), (59, 60), (1, 60)])
@pytest.mark.parametrize("bytes_only", [False, True])
def test_swapped_entries_are_reordered(one: int, two: int, bytes_only: bool):  # noqa: FBT001
    log = sound()
    a, b = log.table[one - 1], log.table[two - 1]
    if bytes_only:
        log.table[one - 1], log.table[two - 1] = (
            a._replace(entry=b.entry),
            b._replace(entry=a.entry),
        )
    else:
        log.table[one - 1], log.table[two - 1] = b._replace(seq=a.seq), a._replace(seq=b.seq)
    result = verify(log)
    expect(result, "reordered", one)
    assert result.kinds == ["reordered"]


def test_an_entry_moved_before_the_beginning_is_reordered():
    log = sound()
    log.table[4] = log.table[4]._replace(seq=-5)
    expect(verify(log), "reordered", 1)


def test_a_log_turned_round_is_reordered():
    log = sound()
    log.table = [row._replace(seq=61 - row.seq) for row in log.table]
    assert verify(log).kinds == ["reordered"]


@pytest.mark.parametrize("seq", [2, 30, 60])
@pytest.mark.parametrize("forgery", ["own number", "a number beyond the end", "a repeat"])
def test_an_inserted_entry_is_named(seq: int, forgery: str):
    log = sound()
    row = log.table[seq - 1]
    entry = other_bytes(log, seq)
    if forgery == "a number beyond the end":
        entry = entry.replace(b'"seq":%d,' % seq, b'"seq":777,')
    if forgery == "a repeat":
        entry = row.entry
        seq += 1
    log.table.insert(seq - 1, row._replace(entry=entry, leaf=leaf_of(entry)))
    log.table = [r._replace(seq=i) for i, r in enumerate(log.table, 1)]
    result = verify(log)
    expect(result, "inserted", seq)


def test_an_entry_appended_behind_the_head_is_inserted():
    log = sound()
    head, heads = log.the_head, dict(log.heads)
    log.append(RECORDS[0], "record", {"type": "ledger.record.accessed.v1"})
    log.the_head, log.heads = head, heads
    expect(verify(log), "inserted", 61)


@pytest.mark.parametrize("start", [2, 21, 40])
def test_a_log_rewritten_without_the_key_disagrees_with_its_checkpoints(start: int):
    log = sound()
    change(log, start, other_bytes(log, start), leaf_too=True)
    rechain(log, start)
    result = verify(log, trust(size=None))
    assert result.kinds == ["rewritten"]
    assert result.first_bad.seq <= start
    if start > 20:
        assert result.first_bad.seq == 21
        assert "agree with checkpoint of size 20" in result.holds


def test_a_log_rewritten_and_signed_with_another_key_is_rewritten():
    log = sound()
    change(log, 5, other_bytes(log, 5), leaf_too=True)
    rechain(log, 5)
    log.notes = {60: checkpoint(log.leaves, OTHER)}
    assert verify(log, trust(size=None)).kinds == ["rewritten"]


def test_a_log_rewritten_with_the_key_disagrees_with_the_outside_checkpoint():
    log = sound()
    change(log, 5, other_bytes(log, 5), leaf_too=True)
    rechain(log, 5)
    log.notes = {n: checkpoint(log.leaves[:n]) for n in (20, 60)}
    assert verify(log, trust(size=None)).code == 4
    assert verify(log).kinds == ["rewritten"]


def test_a_checkpoint_with_a_broken_signature_is_found():
    log = sound()
    log.notes[20] = log.notes[20].replace("\n20\n", "\n21\n")
    assert verify(log).kinds == ["rewritten"]


@pytest.mark.parametrize("column", ["stream", "version", "topic", "leaf"])
@pytest.mark.parametrize("seq", [1, 30, 60])
def test_a_column_that_differs_from_the_bytes_is_altered(column: str, seq: int):
    log = sound()
    values = {"stream": RECORDS[10].encode(), "version": 99, "topic": b"x", "leaf": bytes(32)}
    log.table[seq - 1] = log.table[seq - 1]._replace(**{column: values[column]})
    expect(verify(log), "altered", seq)


@pytest.mark.parametrize("level", [1, 2])
def test_a_tree_node_altered_missing_or_too_much_is_found(level: int):
    given = trust(size=600)
    log = sound(600)
    log.nodes[level - 1] = (1, level - 1, bytes(32))
    expect(verify(log, given), "altered", 256 * (level - 1) + 1)
    log = sound(600)
    del log.nodes[level - 1]
    expect(verify(log, given), "deleted", 256 * (level - 1) + 1)
    log = sound(600)
    log.nodes.append((level, 2, bytes(32)))
    assert verify(log, given).kinds == ["inserted"]


def test_a_stream_head_altered_missing_or_too_much_is_found():
    stream = sound().table[29].stream
    for value in ((99, bytes(32)), (1, bytes(32)), None):
        log = sound()
        if value is None:
            del log.heads[stream]
        else:
            log.heads[stream] = value
        assert verify(log).code == 1
    log = sound()
    log.heads[b"ffffffff-0000-4000-8000-000000000000"] = (1, bytes(32))
    assert verify(log).kinds == ["inserted"]


def test_a_version_left_out_of_a_stream_by_the_writer_itself_is_found():
    log = sound()
    stream = next(row.stream for row in log.table[20:] if row.stream.decode() in RECORDS)
    version, leaf = log.heads[stream]
    log.heads[stream] = (version + 1, leaf)
    log.append(stream.decode(), "record", {"type": "ledger.record.accessed.v1"})
    log.finish()
    expect(verify(log), "deleted", 61)


def test_a_stream_that_two_entries_begin_is_found():
    log = sound()
    stream = log.table[29].stream
    kept = log.heads.pop(stream)
    log.append(stream.decode(), "record", {"type": "ledger.record.accessed.v1"})
    assert verify(log).code == 1
    log.heads[stream] = kept
    assert verify(log).code == 1


def test_a_time_that_goes_back_is_found():
    log = sound()
    log.append(RECORDS[0], "record", {"type": "t"}, recorded="2020-01-01T00:00:00.000000Z")
    log.finish()
    expect(verify(log), "altered", 61)


@pytest.mark.parametrize(
    "event",
    [
        b'{"data":{"type":"t"},"type":"u","type":"t"}',
        b'{"data":{"type":"t"},"x":[{"type":"t"}]}',
        b'{"\\"type":"t","a":{}}',
    ],
)
def test_a_topic_that_only_looks_like_the_events_is_found(event: bytes):
    log = sound()
    log.append(RECORDS[0], "record", b'{"type":"t"}')
    entry = log.table[-1].entry.replace(b'{"type":"t"}', event)
    change(log, 61, entry, leaf_too=True)
    log.heads[RECORDS[0].encode()] = (log.table[-1].version, log.table[-1].leaf)
    log.the_head = (61, log.table[-1].leaf, log.the_head[2])  # type: ignore[index]
    expect(verify(log), "altered", 61)


def test_accepted_rows_and_boxes_are_counted():
    log = sound()
    log.accepted_seqs.pop()
    assert verify(log).kinds == ["deleted"]
    log = sound()
    log.accepted_seqs[0] += 1
    assert verify(log).kinds == ["altered"]
    log = sound()
    log.box_seqs.add(999)
    assert verify(log).kinds == ["inserted"]
    log = sound()
    row = next(row for row in log.table if not row.boxed)
    log.table[row.seq - 1] = row._replace(boxed=True)
    expect(verify(log), "altered", row.seq)


def test_erased_boxes_leave_the_log_verified():
    log = sound()
    log.box_seqs.clear()
    log.table = [row._replace(boxed=False) for row in log.table]
    assert verify(log).code == 0


def test_entry_1_has_to_open_this_ledger():
    log = MemoryLog()
    log.append(RECORDS[0], "record", {"type": "ledger.record.accessed.v1"})
    expect(verify(log, trust(checkpoint(log.leaves))), "altered", 1)


def _doubted(log: MemoryLog) -> bool:
    try:
        log.swept(1, 60, vc.Wanted(), origin=ORIGIN, key=b"k")
    except (vc.DoubtError, vc.MalformedError):
        return True
    return False


@pytest.mark.parametrize("cut", [1, 31])
def test_bytes_that_moved_from_one_row_to_the_next_are_found(cut: int):
    """Columns are read joined: what they join to must not hide where one value ends."""
    whole = sound()
    one, two = whole.table[29], whole.table[30]
    moved = [
        (one._replace(leaf=one.leaf[:cut]), two._replace(leaf=one.leaf[cut:] + two.leaf)),
        (one._replace(entry=one.entry[:-cut]), two._replace(entry=one.entry[-cut:] + two.entry)),
        (one._replace(entry=b""), two._replace(entry=one.entry + b"\n\0" + two.entry)),
        (one._replace(entry=one.entry + b"\n\0" + two.entry), two._replace(entry=b"")),
        (one._replace(topic=b""), two._replace(topic=one.topic + b"\n" + two.topic)),
        (one._replace(stream=b""), two._replace(stream=one.stream + b"," + two.stream)),
    ]
    assert not _doubted(whole)
    for attacked in moved:
        log = sound()
        log.table[29:31] = attacked
        assert _doubted(log), attacked
        result = verify(log)
        assert (result.code, result.first_bad.seq) == (1, 30)


@pytest.mark.parametrize(
    ("before", "after"), [(b"x", b""), (b"", b"x"), (b"\n", b""), (b"", b"\n")]
)
def test_bytes_around_an_entry_are_found_though_its_hash_is_made_anew(before: bytes, after: bytes):
    for seq in (1, 30, 60):
        log = sound()
        change(log, seq, before + log.table[seq - 1].entry + after, leaf_too=True)
        assert _doubted(log)
        expect(verify(log), "altered", seq)


def test_a_stream_with_two_heads_is_found():
    log = sound()
    heads = [*log.stream_heads()]
    log.stream_heads = lambda: iter(sorted([*heads, heads[3]]))  # type: ignore[method-assign]
    assert verify(log).kinds == ["inserted"]


def test_later_parts_of_an_event_have_no_row_in_accepted():
    log = sound()
    for part in (0, 1, 2):
        event = {"id": "several", "part": part, "of": 3, "type": "ledger.record.accessed.v1"}
        log.append(RECORDS[part], "record", event)
    for part in (0, 1):
        event = {"type": "ledger.record.accessed.v1", "id": "type first", "part": part, "of": 2}
        log.append(RECORDS[part], "record", event)
    log.finish()
    assert verify(log).code == 0
    log.accepted_seqs.append(62)
    assert verify(log).kinds == ["inserted"]


def test_several_attacks_are_all_named():
    log = sound()
    change(log, 10, other_bytes(log, 10))
    change(log, 40, other_bytes(log, 40), leaf_too=True)
    del log.table[24]
    result = verify(log)
    found = {(finding.kind, finding.seq) for finding in result.findings}
    assert {("altered", 10), ("deleted", 25), ("altered", 40)} <= found
    assert result.first_bad.seq == 10


def test_findings_hold_no_bytes_of_entries():
    log = sound()
    change(log, 30, log.table[29].entry.replace(b'"id":"e30"', b'"id":"Zhang San"'))
    assert "Zhang San" not in vc.as_json(verify(log))


# -- bundles --


def bundle_files(
    first: int = 11, last: int = 40, *, record: str | None = None, size: int = 60
) -> dict[str, bytes]:
    log = sound(size)
    rows = [
        r for r in log.table if (r.stream.decode() == record if record else first <= r.seq <= last)
    ]
    note = checkpoint(log.leaves)
    end = rows[-1].seq
    steps = "".join(base64.b64encode(h).decode() + "\n" for h in inclusion(end - 1, log.leaves))
    table = "seq,leaf,what\r\n" + "".join(f"{r.seq},{r.leaf.hex()},x\r\n" for r in rows[::2])
    files = {
        "entries.jsonl": b"".join(r.entry + b"\n" for r in rows),
        "rows.csv": table.encode(),
        "checkpoint": note.encode(),
        "last.tlog-proof": f"c2sp.org/tlog-proof@v1\nindex {end - 1}\n{steps}\n{note}".encode(),
        "FORMAT.md": b"# The format\n",
    }
    scope = (
        {"kind": "record", "record": record}
        if record
        else {"kind": "range", "from": first, "to": last}
    )
    manifest = {
        "format": "custody-ledger/bundle/v0",
        "ledger": ORIGIN,
        "scope": scope,
        "as_of": {"seq": size, "leaf": log.leaves[-1].hex()},
        "population": len(rows),
        "rows": len(rows[::2]),
        "first_seq": rows[0].seq,
        "last_seq": end,
        "completeness": "proved",
    }
    return signed_manifest(files, manifest)


def population_digest(lines: bytes) -> str:
    """Digest the entries that the report is about (FORMAT.md 7.1)."""
    digest = hashlib.sha256()
    verbs = ("accessed", "exported", "used", "shared")
    for line in lines.splitlines():
        entry = json.loads(line)
        if entry["event"].get("type") in {f"ledger.record.{verb}.v1" for verb in verbs}:
            digest.update(f"{entry['seq']} {leaf_of(line).hex()}\n".encode())
    return digest.hexdigest()


def signed_manifest(
    files: dict[str, bytes], manifest: dict[str, Any], key: Ed25519PrivateKey = SIGNING
) -> dict[str, bytes]:
    listed = {n: hashlib.sha256(c).hexdigest() for n, c in files.items() if "manifest" not in n}
    text = compact(manifest | {"files": listed})
    digest = hashlib.sha256(text).hexdigest()
    note = sign(f"custody-ledger manifest v0\n{ORIGIN}\n{digest}\n", key)
    return files | {"manifest.json": text, "manifest.note": note.encode()}


def verify_files(folder: Path, files: dict[str, bytes], given: Any = None) -> Any:
    path = folder / "bundle.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return vc.verify_bundle(path, given or trust(size=None))


def attack_lines(
    files: dict[str, bytes], attack: Callable[[list[bytes]], None]
) -> dict[str, bytes]:
    lines = files["entries.jsonl"].splitlines(keepends=True)
    attack(lines)
    return files | {"entries.jsonl": b"".join(lines)}


@pytest.mark.parametrize("scope", [{}, {"first": 1, "last": 60}, {"record": RECORDS[3]}])
def test_a_sound_bundle_verifies_under_the_pinned_key(tmp_path: Path, scope: dict[str, Any]):
    result = verify_files(tmp_path, bundle_files(**scope))
    assert (result.code, result.findings) == (0, [])
    assert result.completeness.startswith("proved")
    assert verify_files(tmp_path, bundle_files(**scope), trust(key=None, size=None)).code == 4


def _delete(lines: list[bytes]) -> None:
    del lines[1]


def _swap(lines: list[bytes]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def _alter(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace(b'"by":"service"', b'"by":"person"')


def _repeat(lines: list[bytes]) -> None:
    lines.insert(2, lines[1])


def _cut(lines: list[bytes]) -> None:
    lines.pop()


@pytest.mark.parametrize(
    ("attack", "kind"),
    [
        (_delete, "deleted"),
        (_swap, "reordered"),
        (_alter, "altered"),
        (_repeat, "inserted"),
        (_cut, "truncated"),
    ],
)
@pytest.mark.parametrize("scope", [{}, {"record": RECORDS[3]}])
def test_lines_attacked_in_a_bundle_are_named(
    tmp_path: Path, attack: Callable[[list[bytes]], None], kind: str, scope: dict[str, Any]
):
    result = verify_files(tmp_path, attack_lines(bundle_files(**scope), attack))
    assert result.code == 1
    assert result.findings[0].kind == kind


def test_every_file_of_a_bundle_is_bound_to_the_key(tmp_path: Path):
    good = bundle_files()
    for name, content in good.items():
        for at in random.Random(name).sample(range(len(content)), min(25, len(content))):
            flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            result = verify_files(tmp_path, good | {name: flipped})
            assert result.code == 1, (name, at)


def test_a_bundle_made_anew_without_the_key_is_rewritten(tmp_path: Path):
    files = bundle_files()
    manifest = json.loads(files["manifest.json"])
    files["checkpoint"] = checkpoint(sound().leaves, OTHER).encode()
    result = verify_files(tmp_path, signed_manifest(files, manifest, OTHER))
    assert "rewritten" in result.kinds


def test_files_too_many_or_missing_or_twice_are_reported(tmp_path: Path):
    good = bundle_files()
    assert verify_files(tmp_path, good | {"../evil": b"x"}).code == 1
    assert verify_files(tmp_path, good | {"more.txt": b"x"}).code == 1
    assert verify_files(tmp_path, {n: c for n, c in good.items() if n != "rows.csv"}).code == 1
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in good.items():
            archive.writestr(name, content)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("entries.jsonl", b"")
    assert vc.verify_bundle(path, trust(size=None)).code == 1


@pytest.mark.parametrize("cell", [b"9" * 200_000, b"a\rb"], ids=["long cell", "lone CR"])
def test_rows_that_are_no_table_are_tampering_and_never_a_fault_of_the_program(
    tmp_path: Path, cell: bytes
):
    files = bundle_files()
    result = verify_files(tmp_path, files | {"rows.csv": files["rows.csv"] + cell + b",x\r\n"})
    assert result.code == 1
    assert any(each.what.startswith("rows.csv") for each in result.findings)


def test_a_line_of_beginnings_without_an_end_is_no_entry():
    good = bundle_files()["entries.jsonl"].splitlines()[0]
    hostile = good[: good.index(b'"event":{')] + b'"event":{' + b'},"event":{' * 4_000
    with pytest.raises(vc.MalformedError):
        vc.read_entry(hostile)


def test_another_verifier_than_the_manifest_names_is_told_of(tmp_path: Path):
    files = bundle_files()
    manifest = json.loads(files["manifest.json"])
    for named, told in ((vc.own_sha256(), False), (None, False), ("00" * 32, True)):
        made = signed_manifest(
            {name: files[name] for name in files if "manifest" not in name},
            manifest | {"verifier_sha256": named},
        )
        result = verify_files(tmp_path, made)
        assert result.code == 0
        assert any("script" in each for each in result.not_checked) is told


def test_a_bomb_is_not_unpacked(tmp_path: Path):
    with pytest.raises(vc.UnavailableError, match="too large"):
        verify_files(tmp_path, bundle_files() | {"rows.csv": bytes(2**24)})


def test_a_bundle_is_compared_with_a_checkpoint_held_outside(tmp_path: Path):
    whole = bundle_files(1, 60)
    assert verify_files(tmp_path, whole, trust(checkpoint(sound().leaves[:30]))).code == 0
    other = checkpoint([bytes(32)] * 30)
    assert verify_files(tmp_path, whole, trust(other)).kinds == ["rewritten"]


# -- the command --


def test_exit_codes_tell_usage_from_unavailable(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert vc.main([str(tmp_path / "no.zip")]) == 3
    (tmp_path / "not.zip").write_text("no zip")
    assert vc.main([str(tmp_path / "not.zip")]) == 3
    assert vc.main([str(tmp_path / "not.zip"), "--key", "nonsense"]) == 2
    assert vc.main([str(tmp_path / "not.zip"), "--pin", str(tmp_path / "none")]) == 3
    with pytest.raises(SystemExit) as stopped:
        vc.main([])
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_command_writes_evidence_when_a_bundle_is_bad(tmp_path: Path):
    verify_files(tmp_path, attack_lines(bundle_files(), _alter))
    pins = tmp_path / "pins"
    pins.write_text(f"# the ledger's key\n{verifier_key()}\n")
    evidence = tmp_path / "evidence.json"
    arguments = [str(tmp_path / "bundle.zip"), "--pin", str(pins), "--evidence", str(evidence)]
    assert vc.main([*arguments, "--json"]) == 1
    assert json.loads(evidence.read_text())["first_bad"]["kind"] == "altered"


# -- formats --


def test_inclusion_proofs_check_at_every_place_of_small_trees():
    leaves = [leaf_of(bytes([i])) for i in range(20)]
    for size in range(1, 20):
        root = root_of(leaves[:size])
        for index in range(size):
            proof = inclusion(index, leaves[:size])
            assert vc.check_inclusion(leaves[index], index, size, proof) == root
            assert vc.check_inclusion(leaves[index], index, size, [*proof, bytes(32)]) != root
            assert vc.check_inclusion(leaves[index], index, size, proof[:-1]) != root or not proof


def test_a_note_with_any_bit_flipped_does_not_open_as_signed():
    keys = trust(size=None).keys
    note = checkpoint(sound(7).leaves).encode()
    assert vc.open_checkpoint(note.decode(), keys, held="x").signed
    for at in range(len(note)):
        for bit in range(8):
            flipped = note[:at] + bytes([note[at] ^ 1 << bit]) + note[at + 1 :]
            try:
                signed = vc.open_checkpoint(flipped.decode(), keys, held="x").signed
            except (vc.MalformedError, UnicodeDecodeError):
                continue
            assert not signed
