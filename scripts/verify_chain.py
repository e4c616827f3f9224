#!/usr/bin/env python3
"""Verify a Custody Ledger, or evidence taken from one, with nothing of ours running.

    verify_chain.py --database DSN --schema ledger_NAME --pin KEYS --checkpoint FILE
    verify_chain.py BUNDLE.zip --key VERIFIER_KEY

Needs Python 3.11, `cryptography`, and `psycopg` where it reads a database. The rules are
those of FORMAT.md, cited by section. The verifier trusts nobody: keys and checkpoints come
from whoever runs it, never from what is checked, and the verdict says what it rests on.

How a database is checked, in one read-only snapshot:

1. Read the pinned keys and the checkpoints held outside; check those checkpoints' signatures.
2. Open every checkpoint in the database under the pinned keys.
3. Sweep: read all entries in the order of `seq` and recompute leaf, chain, tree; compare each
   column with the bytes. Which entry follows which in a stream is checked in constant memory
   (`StreamLedger`). The sweep only says *sound* or *doubtful*, and is made for speed.
4. In doubt, examine: read again, slowly; find what is altered, deleted, inserted or reordered,
   going on after the first bad entry (`Walk`), then every stream by itself.
5. Compare the tables that index the entries: tree nodes, head, accepted, boxes.
6. Compare the tree's root with every checkpoint's, at its size: this finds a log that was cut
   or rewritten as a whole.
7. Give the verdict, and write an evidence file where something is wrong.

How a bundle is checked: 1; the zip itself; manifest and digests; signatures; entries, as in 4;
inclusion of the last entry under the checkpoint; rows against entries; claims against scope.

Exit codes: 0 verified (pinned key and checkpoint), 1 tampered, 2 usage, 3 unavailable,
4 not everything could be checked, which includes "consistent with itself, but nothing from
outside to compare with".
"""

from __future__ import annotations

import argparse
import base64
import binascii
import csv
import hashlib
import io
import json
import multiprocessing
import os
import re
import struct
import sys
import time
import zipfile
from bisect import bisect_right
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

VERIFIED, TAMPERED, USAGE, UNAVAILABLE, INCOMPLETE = range(5)
MAX_ENTRY_BYTES = 65_535
MAX_FINDINGS = 1_000
sha256 = hashlib.sha256


class UsageError(Exception):
    """What was given on the command line doesn't parse or doesn't belong together."""


class UnavailableError(Exception):
    """Something that has to be read can't be."""


class MalformedError(Exception):
    """Checked material isn't written as FORMAT.md says."""


class DoubtError(Exception):
    """The sweep met something that the slow examination has to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong; holds hashes and numbers, never values."""

    kind: str
    """altered, deleted, inserted, reordered, truncated or rewritten."""
    seq: int | None
    """First entry concerned; None where only an index or a file is."""
    what: str
    """What is wrong, in words."""
    expected: str | None = None
    found: str | None = None
    place: int | None = None
    """Where it stands now: the row's or the line's number, where that differs."""


# == Section 1. Signed notes, verifier keys, checkpoints (FORMAT.md 5) ==


class Key(NamedTuple):
    """A pinned Ed25519 public key."""

    name: str
    id: bytes
    public: Ed25519PublicKey


class Checkpoint(NamedTuple):
    """A tree's size and root, as a note states them."""

    origin: str
    size: int
    root: bytes
    signed: bool
    """A pinned key's signature is good."""
    held: str
    """Where it is from, for people."""
    outside: bool
    """Not from what is being checked."""


def b64(text: str) -> bytes:
    """Decode strict base64."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedError("expected base64") from None
    if base64.b64encode(raw).decode() != text:
        raise MalformedError("expected base64 in its one spelling")
    return raw


def parse_key(text: str) -> Key:
    """Read a verifier key (5.2): split at the first two plus signs only."""
    try:
        name, stated, encoded = text.split("+", 2)
        typed = b64(encoded)
    except (ValueError, MalformedError):
        raise UsageError("verifier key: expected name+8 hex digits+base64") from None
    key_id = sha256(name.encode() + b"\n" + typed).digest()[:4]
    if len(typed) != 33 or typed[0] != 1 or key_id.hex() != stated:
        raise UsageError(f"verifier key of {name}: expected Ed25519 and the id of this name and key")
    return Key(name, key_id, Ed25519PublicKey.from_public_bytes(typed[1:]))


def open_note(note: str, keys: Sequence[Key]) -> tuple[str, bool]:
    """Give a note's text and whether a pinned key signed it; other keys' lines are passed over.

    Raises:
        MalformedError: it is no note, or a line that names a pinned key isn't by that key.
    """
    text, separator, lines = note.rpartition("\n\n")
    if not separator or not lines.endswith("\n") or lines.count("\n") > 64:
        raise MalformedError("expected a note: text, an empty line, signature lines")
    text += "\n"
    signed = False
    for line in lines[:-1].split("\n"):
        match = re.fullmatch("\u2014 ([^ +]+) ([A-Za-z0-9+/]+={0,2})", line)
        if match is None:
            raise MalformedError("expected a signature line")
        raw = b64(match[2])
        for key in keys:
            if key.name == match[1] and key.id == raw[:4]:
                try:
                    key.public.verify(raw[4:], text.encode())
                except InvalidSignature:
                    raise MalformedError("bad signature in a pinned key's name") from None
                signed = True
    return text, signed


def open_checkpoint(
    note: str, keys: Sequence[Key], *, held: str, outside: bool = False
) -> Checkpoint:
    """Read a checkpoint (5.1): origin, size, root, and no further line."""
    text, signed = open_note(note, keys)
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not re.fullmatch("0|[1-9][0-9]{0,18}", lines[1], re.ASCII):
        raise MalformedError("expected a checkpoint: origin, size, root")
    root = b64(lines[2])
    if len(root) != 32:
        raise MalformedError("expected a root of 32 bytes")
    return Checkpoint(lines[0], int(lines[1]), root, signed, held, outside)


# == Section 2. The tree (FORMAT.md 3, RFC 6962 2.1) ==


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry as the tree's leaf."""
    return sha256(b"\0" + entry).digest()


def fold(hashes: list[bytes]) -> bytes:
    """Give the root above 2^k hashes."""
    while len(hashes) > 1:
        hashes = [
            sha256(b"\1" + left + right).digest()
            for left, right in zip(hashes[::2], hashes[1::2], strict=True)
        ]
    return hashes[0]


def peaks(hashes: list[bytes]) -> list[bytes]:
    """Give the roots of the perfect trees that a row of hashes divides into, largest first."""
    found, at = [], 0
    for bit in reversed(range(len(hashes).bit_length())):
        if len(hashes) >> bit & 1:
            found.append(fold(hashes[at : at + (1 << bit)]))
            at += 1 << bit
    return found


class Tree:
    """The right edge over complete tiles of 256 leaves, and all stored nodes (3.3).

    Takes one bit and a bit of memory per entry: 32 bytes for each 256 of them.
    """

    def __init__(self) -> None:
        self.levels: list[bytearray] = []
        """Hashes of level 1, 2 ... joined."""
        self._edge: list[tuple[int, bytes]] = []

    def add_tile(self, node: bytes) -> None:
        """Append the root of the next 256 leaves."""
        self._store(0, node)
        height = 0
        while self._edge and self._edge[-1][0] == height:
            node = sha256(b"\1" + self._edge.pop()[1] + node).digest()
            height += 1
        self._edge.append((height, node))

    def _store(self, level: int, node: bytes) -> None:
        if level == len(self.levels):
            self.levels.append(bytearray())
        row = self.levels[level]
        row += node
        if len(row) % 8192 == 0:
            tile = row[-8192:]
            self._store(level + 1, fold([bytes(tile[i : i + 32]) for i in range(0, 8192, 32)]))

    def root(self, rest: list[bytes]) -> bytes:
        """Give the root, `rest` being the peaks of the leaves after the last complete tile."""
        row = [node for _, node in self._edge] + rest
        if not row:
            return sha256(b"").digest()
        root = row.pop()
        while row:
            root = sha256(b"\1" + row.pop() + root).digest()
        return root


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """Give the root that an inclusion proof leads to (RFC 9162 2.1.3.2); None if it can't."""
    if not 0 <= index < size or any(len(step) != 32 for step in proof):
        return None
    fn, sn, root = index, size - 1, leaf
    for step in proof:
        if sn == 0:
            return None
        if fn & 1 or fn == sn:
            root = sha256(b"\1" + step + root).digest()
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            root = sha256(b"\1" + root + step).digest()
        fn, sn = fn >> 1, sn >> 1
    return root if sn == 0 else None


# == Section 3. Entries (FORMAT.md 1) ==


class Row(NamedTuple):
    """A row of `entries`, or a bundle's line with the columns that it implies."""

    seq: int
    stream: bytes
    """UUID as text."""
    version: int
    topic: bytes
    leaf: bytes
    entry: bytes
    boxed: bool = False
    """There is a box beside it."""


_STRING = rb'"(?:[^"\\\x00-\x1f]|\\.)*"'
_EMITTER = re.compile(
    rb'\{"by":(?:"ledger"|"(?:service|person)","credential":%b)(?:,"source":%b)?\}'
    % (_STRING, _STRING)
)
_TIME = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_ENTRY = re.compile(
    rb'\{"v":0,"ledger":(%b),"seq":([1-9][0-9]{0,18}),"prev":"([0-9a-f]{64})","recorded":"(%b)",'
    rb'"stream":"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",'
    rb'"stream_kind":"(record|ledger|aggregate)","version":(0|[1-9][0-9]{0,18}),'
    rb'"stream_prev":(?:null|"([0-9a-f]{64})"),"emitter":%b,"sealed":\{(.*?)\},"event":(\{.*\})\}'
    % (_STRING, _TIME.pattern, _EMITTER.pattern),
    re.DOTALL,
)


class Entry(NamedTuple):
    """The ledger's own members of an entry, read from its bytes."""

    ledger: str
    seq: int
    prev: str
    recorded: bytes
    stream: bytes
    kind: bytes
    version: int
    stream_prev: str | None
    is_sealed: bool
    event: bytes


def read_entry(raw: bytes) -> Entry:
    """Read an entry's bytes.

    The ledger's members stand first, in fixed order, and an unescaped quote can't stand inside
    a JSON string: the first `},"event":{` after them is the member itself, whatever an
    emitter wrote (1.3).

    Raises:
        MalformedError: the bytes aren't an entry.
    """
    match = _ENTRY.fullmatch(raw)
    if match is None or len(raw) > MAX_ENTRY_BYTES:
        raise MalformedError("the bytes aren't an entry of this format")
    try:
        ledger = json.loads(match[1])
    except ValueError:
        raise MalformedError("the ledger's name isn't JSON") from None
    prev = match[8].decode() if match[8] else None
    return Entry(
        ledger,
        int(match[2]),
        match[3].decode(),
        match[4],
        match[5],
        match[6],
        int(match[7]),
        prev,
        bool(match[9]),
        match[10],
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice")
    return members


def read_event(event: bytes) -> dict[str, Any]:
    """Parse an event; a name that stands twice has no value (1.5)."""
    try:
        members = json.loads(event, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise MalformedError("the event isn't JSON with one value per name") from None
    if not isinstance(members, dict):
        raise MalformedError("the event isn't an object")
    return members


def topic_of(kind: bytes, event: bytes) -> bytes:
    """Give what the column `topic` has to be (section 6)."""
    topic = read_event(event).get("topic" if kind == b"aggregate" else "type")
    return topic.encode() if isinstance(topic, str) else b""


def is_first_of_event(kind: bytes, event: bytes) -> bool:
    """Tell whether `accepted` has a row for this entry: not for aggregates, nor later parts."""
    if kind == b"aggregate":
        return False
    return b'"part":' not in event or read_event(event).get("part", 0) == 0


# == Section 4. What is checked, seen from here ==


class Log(Protocol):
    """A ledger's tables, in one snapshot. A database, or lists in memory."""

    def head(self) -> tuple[int, bytes, bytes] | None:
        """Give the row (seq, leaf, recorded), if there is one."""

    def rows(self, first: int, last: int | None) -> Iterator[Row]:
        """Give entries in the order of `seq`."""

    def rows_by_stream(self) -> Iterator[Row]:
        """Give entries in the order of stream, version, seq."""

    def stream_heads(self) -> Iterator[tuple[bytes, int, bytes]]:
        """Give (stream, version, leaf) in the order of stream."""

    def tree_nodes(self) -> Iterator[tuple[int, int, bytes]]:
        """Give (level, idx, hash) in the order of level, idx."""

    def checkpoints(self) -> Iterator[tuple[int, str]]:
        """Give (size, note) in the order of size."""

    def accepted(self) -> tuple[int, int, int, int]:
        """Give number, least, greatest and sum of `seq`."""

    def boxes(self) -> int:
        """Give the number of boxes."""


@dataclass(slots=True, kw_only=True)
class Totals:
    """What reading all entries amounts to."""

    entries: int = 0
    leaf: bytes = bytes(32)
    """Of the last entry."""
    recorded: bytes = b""
    """Of the last entry."""
    boxed: int = 0
    sealed: int = 0
    firsts: int = 0
    """Entries that `accepted` has a row for, and the sum of their `seq`."""
    firsts_sum: int = 0
    tree: Tree = field(default_factory=Tree)
    roots: dict[int, bytes] = field(default_factory=dict)
    """Root at each size that a checkpoint states, as far as the log reaches."""


# == Section 5. Streams in constant memory ==


class StreamLedger:
    """Checks that each stream's entries follow one another, without holding every stream.

    Take each entry as a write of (stream, version, leaf) and each `stream_prev` as a read of
    what the stream's entry before wrote; a stream's head is the last read. If as multisets
    writes = reads + heads, then every entry is followed by exactly one entry of its stream
    with the next version, or is its head, and as each stream has one head, one chain.
    The multisets are compared by sums of a hash under a random key that is drawn anew for
    each run, so nobody can prepare entries whose sums agree by design (Blum, Evans, Gemmell,
    Kannan, Naor: Checking the correctness of memories, 1991). Chance of missing: about
    entries / 2^128.

    Streams seen lately are kept in two generations, so that most pairs of write and read are
    compared directly and never hashed.
    """

    GENERATION = 60_000

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.balance = 0
        self.young: dict[bytes, tuple[int, bytes]] = {}
        self.old: dict[bytes, tuple[int, bytes]] = {}

    def hash(self, stream: bytes, version: int, leaf: bytes) -> int:
        """Give the keyed hash of one write: 36 bytes of stream, version, 64 hex digits."""
        message = b"%b%b%d %b" % (self.key, stream, version, leaf)
        return int.from_bytes(sha256(message).digest()[:16])

    def grow_old(self) -> None:
        """Give up the older generation to the sums."""
        for stream, (version, leaf) in self.old.items():
            self.balance += self.hash(stream, version, leaf)
        self.old, self.young = self.young, {}

    def close(self) -> int:
        """Give writes less reads."""
        self.grow_old()
        self.grow_old()
        return self.balance


# == Section 6. The sweep: sound, or doubtful ==


class Part(NamedTuple):
    """What a sweep over a range of entries amounts to; ranges begin after a multiple of 256."""

    count: int
    prev: bytes
    """Hex leaf that the first entry names as the one before it."""
    leaf: bytes
    """Hex leaf of the last."""
    first_recorded: bytes
    recorded: bytes
    tiles: list[bytes]
    marks: dict[int, list[bytes]]
    """Size wanted to the peaks after the last complete tile."""
    balance: int
    boxed: int
    sealed: int
    firsts: int
    firsts_sum: int


_KINDS = {ord("r"): b"record", ord("l"): b"ledger", ord("a"): b"aggregate"}
_BRACES = (b"{", b"[")


def sweep(  # noqa: C901, PLR0912, PLR0915 - one loop, since a call costs as much as a hash
    rows: Iterable[Row] | Iterable[tuple[Any, ...]],
    *,
    origin: str,
    first: int,
    key: bytes,
    sizes: Sequence[int],
) -> Part:
    """Check entries from `first` on, quickly.

    Everything the ledger wrote before `sealed` is known from the columns and the entry before,
    so it is built and compared as one piece instead of being parsed; that checks the columns too.

    Raises:
        DoubtError: something isn't plainly right.
    """
    named = json.dumps(origin, ensure_ascii=False).encode().replace(b"%", b"%%")
    front = b'{"v":0,"ledger":%b,"seq":%%d,"prev":"%%b","recorded":"%%b","stream":"%%b",' % named
    front += b'"stream_kind":"%b","version":%d,"stream_prev":'
    opening, following = front + b'null,"emitter":{', front + b'"%b","emitter":{'
    time_at = len(b'{"v":0,"ledger":%b,"seq":,"prev":"","recorded":"' % named) + 64
    time_at += len(str(first)) - named.count(b"%%")
    power = 10 ** len(str(first))
    streams = StreamLedger(key)
    young, old, generation = streams.young, streams.old, streams.GENERATION
    emitters: set[bytes] = set()
    needles: dict[bytes, tuple[bytes, bytes]] = {}
    wanted = deque(size for size in sizes if size >= first)
    seq, prev, recorded, first_recorded, begun = first - 1, b"", b"", b"", b""
    hashes: list[bytes] = []
    tiles: list[bytes] = []
    marks: dict[int, list[bytes]] = {}
    boxed_count = sealed_count = firsts = firsts_sum = 0
    hasher = sha256
    for number, stream, version, topic, column, entry, boxed in rows:
        seq += 1
        if seq == power:
            power *= 10
            time_at += 1
        # 1. The leaf, and its column.
        leaf = hasher(b"\0" + entry).digest()
        if number != seq or leaf != column or len(entry) > MAX_ENTRY_BYTES:
            raise DoubtError(seq)
        # 2. Time and kind, from where they must stand.
        moment = entry[time_at : time_at + 27]
        if moment != recorded:
            if moment < recorded or not _TIME.fullmatch(moment):
                raise DoubtError(seq)
            recorded = moment
        try:
            kind = _KINDS[entry[time_at + 92]]
        except (KeyError, IndexError):
            raise DoubtError(seq) from None
        if not begun:
            begun = prev = entry[time_at - 78 : time_at - 14]
            first_recorded = moment
        # 3. All that the ledger wrote: seq, prev, stream, version, stream_prev.
        known = young.get(stream) or (old.pop(stream, None) if old else None)
        if known is not None:
            before, link = known
            if version != before + 1:
                raise DoubtError(seq)
            expected = following % (seq, prev, moment, stream, kind, version, link)
        else:
            expected = opening % (seq, prev, moment, stream, kind, version)
            if entry.startswith(expected):
                if version != 1 and (version != 0 or kind != b"aggregate"):
                    raise DoubtError(seq)
            else:
                at = len(expected) - 16
                link = entry[at + 1 : at + 65]
                expected = following % (seq, prev, moment, stream, kind, version, link)
                streams.balance -= streams.hash(stream, version - 1, link)
        if not entry.startswith(expected):
            raise DoubtError(seq)
        prev = leaf.hex().encode()
        young[stream] = (version, prev)
        if len(young) >= generation:
            streams.grow_old()
            young, old = streams.young, streams.old
        # 4. The emitter, the sealed digests, the event.
        at = len(expected) - 1
        sealed_at = entry.find(b',"sealed":{', at)
        emitter = entry[at:sealed_at]
        if emitter not in emitters:
            if sealed_at < 0 or not _EMITTER.fullmatch(emitter):
                raise DoubtError(seq)
            if len(emitters) > 10_000:
                emitters.clear()
            emitters.add(emitter)
        event_at = entry.find(b'},"event":{', sealed_at + 11) + 10
        if event_at < 10 or not entry.endswith(b"}}"):
            raise DoubtError(seq)
        if event_at == sealed_at + 21:
            if boxed:
                raise DoubtError(seq)
        else:
            sealed_count += 1
            boxed_count += boxed
        # 5. The topic. A member `,"type":"T"` before the event's first nested value is its own.
        try:
            start, inner = needles[topic]
        except KeyError:
            text = json.dumps(topic.decode(errors="replace"), ensure_ascii=False).encode()
            start, inner = needles[topic] = (b'{"topic":%b,"state' % text, b',"type":%b' % text)
        if kind == b"aggregate":
            if (
                not entry.startswith(start, event_at)
                and _topic_or_doubt(kind, entry[event_at:-1], seq) != topic
            ):
                raise DoubtError(seq)
        else:
            if not entry.startswith(inner[1:], event_at + 1):
                at = entry.find(inner, event_at)
                if (
                    at < 0
                    or entry.find(b"{", event_at + 1, at) >= 0
                    or entry.find(b"[", event_at + 1, at) >= 0
                ) and _topic_or_doubt(kind, entry[event_at:-1], seq) != topic:
                    raise DoubtError(seq)
            if entry.find(b'"part":', event_at) < 0 or _first_or_doubt(kind, entry[event_at:-1], seq):
                firsts += 1
                firsts_sum += seq
        # 6. The tree.
        hashes.append(leaf)
        if not seq & 255:
            tiles.append(fold(hashes))
            hashes = []
        if wanted and wanted[0] == seq:
            marks[wanted.popleft()] = peaks(hashes)
    return Part(
        seq - first + 1,
        begun,
        prev,
        first_recorded,
        recorded,
        tiles,
        marks,
        streams.close(),
        boxed_count,
        sealed_count,
        firsts,
        firsts_sum,
    )


def _topic_or_doubt(kind: bytes, event: bytes, seq: int) -> bytes:
    try:
        return topic_of(kind, event)
    except MalformedError:
        raise DoubtError(seq) from None


def _first_or_doubt(kind: bytes, event: bytes, seq: int) -> bool:
    try:
        return is_first_of_event(kind, event)
    except MalformedError:
        raise DoubtError(seq) from None


def join_parts(parts: Iterable[Part], log: Log, key: bytes) -> Totals:
    """Join the ranges' sweeps in order, and settle the streams' balance with their heads."""
    totals, balance, at = Totals(), 0, 0
    for part in parts:
        if part.prev != totals.leaf.hex().encode() or part.first_recorded < totals.recorded:
            raise DoubtError(at + 1)
        sizes = sorted(part.marks)
        for tile in [*part.tiles, None]:
            while sizes and sizes[0] >> 8 == at >> 8:
                totals.roots[sizes[0]] = totals.tree.root(part.marks[sizes.pop(0)])
            if tile is not None:
                totals.tree.add_tile(tile)
                at += 256
        at = totals.entries = totals.entries + part.count
        totals.leaf, totals.recorded = bytes.fromhex(part.leaf.decode()), part.recorded
        totals.boxed += part.boxed
        totals.sealed += part.sealed
        totals.firsts += part.firsts
        totals.firsts_sum += part.firsts_sum
        balance += part.balance
    streams = StreamLedger(key)
    for stream, version, leaf in log.stream_heads():
        balance -= streams.hash(stream, version, leaf.hex().encode())
    if balance % 2**128:
        raise DoubtError("streams")
    return totals


# == Section 7. The examination: what is wrong, and where ==


class Link(NamedTuple):
    """An entry as a walk sees it."""

    place: int
    """Where it stands: its row's `seq`, or its line."""
    number: int | None
    """Where its bytes say that it stands; None where they aren't an entry."""
    before: str | None
    """Hex leaf that its bytes name as the one before; None in a first."""
    leaf: str
    suspect: bool
    """The column beside it says that its bytes were others."""


class Walk:
    """Follows numbered, linked entries and goes on after what is wrong.

    Numbers are those in the bytes. A number that jumps ahead is believed when the next entry
    goes on from there, and opens a hole; one that isn't is put aside. What was put aside or
    comes late either fills a hole (the entry stands in the wrong place: reordered), bears a
    changed number (altered), or is one too many (inserted). Holes that remain: deleted.
    A link that doesn't fit means that one of its two entries is altered: the later if its own
    successor doesn't fit either, for then one change explains both, else the earlier.
    """

    def __init__(self, first: int, before: str | None, *, any_start: bool = False) -> None:
        self.findings: list[Finding] = []
        self.count = 0
        """Entries in their place."""
        self._next = first
        self._leaves: dict[str, int] = {} if any_start or before is None else {before: 0}
        self._start = before is None and not any_start
        self._holes: list[tuple[int, int]] = []
        self._aside: dict[int, Link] = {}
        self._broken: tuple[int, Link] | None = None
        self._blamed: set[int] = set()
        self._pending: Link | None = None
        self._duplicates: list[Link] = []

    def feed(self, link: Link) -> None:
        """Take the next entry; it is judged when the one after it is known."""
        if self._pending is not None:
            self._judge(self._pending, link)
        self._pending = link

    def finish(self, last_leaf: str | None = None) -> list[Finding]:
        """Judge what is pending; `last_leaf` is what else is known of the last entry."""
        if self._pending is not None:
            self._judge(self._pending, None)
        self._settle_broken(fits=last_leaf is None or last_leaf in self._leaves)
        for link in self._duplicates:
            self._add("inserted", link.number, "a second entry with this number", place=link.place)
        self._settle_aside()
        return self.findings

    def _judge(self, link: Link, after: Link | None) -> None:
        number = link.number
        if number is None:
            self._blame(link.place, "the bytes aren't an entry", link)
            if after is None or after.number != self._next:
                self._accept(link, self._next, linked=False)
        elif number == self._next:
            self._accept(link, number, linked=True)
        elif number == self._next - 1 and self.count and number not in self._blamed:
            self._leaves[link.leaf] = link.place
            self._duplicates.append(link)
        elif number > self._next and self._confirmed(link, after):
            self._holes.append((self._next, number - 1))
            self._settle_broken(fits=True)
            self._leaves = {}
            self._start = False
            self._accept(link, number, linked=False)
        elif len(self._aside) < MAX_FINDINGS * 100:
            self._aside[link.place] = link

    @staticmethod
    def _confirmed(link: Link, after: Link | None) -> bool:
        if after is not None and after.number is not None:
            return after.number == (link.number or 0) + 1
        return link.place == link.number

    def _accept(self, link: Link, number: int, *, linked: bool) -> None:
        fits = not linked or self._fits(link)
        if linked and self._duplicates and link.before in self._leaves:
            self._drop_strangers(link.before)
        self._settle_broken(fits=fits)
        if not fits:
            self._broken = (number, link)
        elif link.suspect:
            self._blame(number, "the bytes don't hash to the leaf beside them", link)
        if link.suspect and not fits:
            self._blame(number, "the bytes don't hash to the leaf beside them", link)
            self._broken = None
        self._leaves = {link.leaf: link.place}
        self._start = False
        self._next = number + 1
        self.count += 1

    def _fits(self, link: Link) -> bool:
        if self._start:
            return link.before is None
        return not self._leaves or link.before in self._leaves

    def _drop_strangers(self, genuine: str) -> None:
        """Of several entries with one number keep the one that the next refers to."""
        kept = self._leaves[genuine]
        for place in self._leaves.values():
            if place != kept:
                self._add("inserted", place, "an entry that the next doesn't refer to", place=place)
        self._duplicates = []

    def _settle_broken(self, *, fits: bool) -> None:
        if self._broken is None:
            return
        number, link = self._broken
        self._broken = None
        if not fits:
            self._blame(number, "neither the entry before nor the one after fits", link)
        elif number - 1 not in self._blamed and number not in self._blamed:
            before = next(iter(self._leaves_before), None)
            self._blame(
                max(number - 1, 1), "the next entry was made after another one", link, before
            )

    @property
    def _leaves_before(self) -> tuple[str, ...]:
        return ()

    def _blame(self, number: int, what: str, link: Link, found: str | None = None) -> None:
        if number in self._blamed:
            return
        if len(self._blamed) < MAX_FINDINGS * 100:
            self._blamed.add(number)
        expected = link.before if "next" in what else None
        self._add("altered", number, what, expected=expected, found=found, place=link.place)

    def _settle_aside(self) -> None:
        filled: set[int] = set()
        starts = [low for low, _ in self._holes]
        for link in self._aside.values():
            hole = self._holes[bisect_right(starts, link.number or 0) - 1] if starts else (1, 0)
            if hole[0] <= (link.number or 0) <= hole[1] and link.number not in filled:
                filled.add(link.number or 0)
                where = min(link.number or 0, link.place)
                self._add("reordered", where, f"entry {link.number} stands elsewhere", place=link.place)
            else:
                self._settle_stranger(link, filled)
        for low, high in self._holes:
            missing = [n for n in range(low, min(high, low + 10_000) + 1) if n not in filled]
            if missing:
                number = high - low + 1 - sum(low <= n <= high for n in filled)
                self._add("deleted", missing[0], f"entries missing here: {number}")

    def _settle_stranger(self, link: Link, filled: set[int]) -> None:
        for low, high in self._holes:
            if low <= link.place <= high and link.place not in filled:
                filled.add(link.place)
                self._add("altered", link.place, "the number in the bytes is another", place=link.place)
                return
        self._add("inserted", link.place, "an entry that has no place here", place=link.place)

    def _add(self, kind: str, seq: int | None, what: str, **more: Any) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(kind=kind, seq=seq, what=what, **more))
