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
   With the ledger's secret keys (`--keyring`), open boxes and recompute accepted keys too.
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
import gc
import hashlib
import hmac
import json
import multiprocessing
import os
import re
import struct
import sys
import time
import zipfile
import zlib
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

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
        raise UsageError(
            f"verifier key of {name}: expected Ed25519 and the id of this name and key"
        )
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

    def sealed_rows(self) -> Iterator[SealedRow]:
        """Give entries with box and wrapped key, in the order of `seq`."""

    def accepted_rows(self) -> Iterator[tuple[bytes, int]]:
        """Give (key, seq)."""


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
    reach: int = 0
    """The last number met; differs from `entries` where some are missing."""
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

    GENERATION = 40_000

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

    entries: int
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
    emitter, emitter_size = b"\0", 0
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
        if entry.startswith(emitter, at):
            sealed_at = at + emitter_size
        else:
            sealed_at = entry.find(b',"sealed":{', at)
            emitter = entry[at:sealed_at]
            if sealed_at < 0 or not _EMITTER.fullmatch(emitter):
                raise DoubtError(seq)
            emitter += b',"sealed":{'
            emitter_size = sealed_at - at
        event_at = entry.find(b'},"event":{', sealed_at + 10) + 10
        if event_at < 10 or entry[-2:] != b"}}":
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
            if entry.find(b'"part":', event_at) < 0 or _first_or_doubt(
                kind, entry[event_at:-1], seq
            ):
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
                size = sizes.pop(0)
                totals.roots[size] = totals.tree.root(part.marks[size])
            if tile is not None:
                totals.tree.add_tile(tile)
                at += 256
        at = totals.entries = totals.reach = totals.entries + part.entries
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
    before: str
    """Hex leaf that its bytes name as the one before; empty for null."""
    leaf: str
    suspect: bool
    """The column beside it says that its bytes were others."""


SUSPECT = "the bytes don't hash to the leaf beside them"


class Walk:
    """Follows numbered, linked entries and goes on after what is wrong.

    Numbers are those in the bytes. A number that jumps ahead is believed when the next entry
    goes on from there, and opens a hole; one that isn't is put aside. What was put aside or
    comes late either fills a hole (the entry stands in the wrong place: reordered), bears a
    changed number (altered), or is one too many (inserted). Holes that remain: deleted.
    A link that doesn't fit means that one of its two entries is altered: the later if its own
    successor doesn't fit either, for then one change explains both, else the earlier.
    """

    def __init__(self, first: int, before: str | None) -> None:
        self.findings: list[Finding] = []
        self.wrong_places: set[int] = set()
        """Places whose entries the findings account for."""
        self._first = self._next = first
        self._tail: dict[str, int] = {} if before is None else {before: first - 1}
        """Leaf to place of what bears the last number; empty where that isn't known."""
        self._holes: list[tuple[int, int]] = []
        self._aside: list[Link] = []
        self._broken: tuple[int, Link, str] | None = None
        self._blamed: set[int] = set()
        self._pending: Link | None = None
        self._offset = 0
        self._suspects: list[tuple[int, Link]] = []
        self._moved: set[int] = set()

    @property
    def reach(self) -> int:
        """The last number met."""
        return self._next - 1

    def feed(self, link: Link) -> None:
        """Take the next entry; it is judged when the one after it is known."""
        if self._pending is not None:
            self._judge(self._pending, link)
        self._pending = link

    def finish(self, head: tuple[int, str] = (0, "")) -> list[Finding]:
        """Judge what is pending; `head` is what else is known of the last number and leaf."""
        if self._pending is not None:
            self._judge(self._pending, None)
        last_leaf = head[1] if head[0] == self.reach else None
        self._settle_rivals(last_leaf or "")
        self._settle_broken(fits=last_leaf is None or last_leaf in self._tail)
        self._settle_end()
        for link in self._aside:
            self._settle_aside(link)
        for low, high in self._holes:
            self._add("deleted", low, f"{high - low + 1} missing: {low} to {high}")
        for number, link in self._suspects:
            if link.place in self._moved:
                self.wrong_places.add(link.place)
            else:
                self._blame(number, SUSPECT, link)
        return sorted(self.findings, key=lambda finding: finding.seq or 0)

    def _judge(self, link: Link, after: Link | None) -> None:
        number = link.number
        if number is None and (after is None or after.number != self._next):
            self._blame(self._next, "the bytes aren't an entry", link)
            self._accept(link, self._next)
        elif number is not None and number == self._next:
            self._accept(link, number)
        elif link.before in self._tail and (after is None or after.number != self._next):
            self._blame(self._next, "the number in the bytes is another", link)
            self._accept(link, self._next)
        elif number is not None and number == self.reach >= self._first and self._tail:
            if link.leaf in self._tail:
                self._add("inserted", link.place, "the same entry once more", place=link.place)
            self._tail.setdefault(link.leaf, link.place)
        elif number is not None and number > self._next and self._is_believed(link, after):
            self._settle_rivals("")
            self._settle_broken(fits=True)
            self._holes.append((self._next, number - 1))
            self._tail = {}
            self._accept(link, number)
        elif len(self._aside) < MAX_FINDINGS * 100:
            self._aside.append(link)

    def _is_believed(self, link: Link, after: Link | None) -> bool:
        number = link.number or 0
        return link.place - number == self._offset or (
            after is not None and after.number == number + 1
        )

    def _accept(self, link: Link, number: int) -> None:
        if link.suspect and link.place == number:
            self._blame(number, SUSPECT, link)
        elif link.suspect:
            self._suspects.append((number, link))
        self._settle_rivals(link.before)
        fits = not self._tail or link.before in self._tail
        self._settle_broken(fits=fits)
        if not fits and not {number, number - 1} & self._blamed:
            self._broken = (number, link, next(iter(self._tail)))
        self._tail = {link.leaf: link.place}
        self._next = number + 1
        self._offset = link.place - number

    def _settle_rivals(self, wanted: str) -> None:
        """Of several entries with one number keep the one that the next refers to."""
        if len(self._tail) > 1:
            kept = wanted if wanted in self._tail else next(iter(self._tail))
            what = f"another entry with the number {self.reach}"
            for leaf, place in self._tail.items():
                if leaf != kept:
                    self._add("inserted", place, what, found=leaf, place=place)
            self._tail = {kept: self._tail[kept]}

    def _settle_broken(self, *, fits: bool) -> None:
        if self._broken is None:
            return
        number, link, found = self._broken
        self._broken = None
        if not fits or number == self._first:
            what = f"fits neither {number - 1} nor {number + 1}, which may be altered too"
            self._blame(number, what, link, expected=found, found=link.before)
        else:
            what = "the next entry was made after another one than this"
            self._blame(number - 1, what, None, expected=link.before, found=found)

    def _blame(self, number: int, what: str, link: Link | None, **hashes: str) -> None:
        if number not in self._blamed and len(self._blamed) < MAX_FINDINGS * 100:
            self._blamed.add(number)
            place = link.place if link else None
            self._add("altered", number, what, place=place, **hashes)

    def _settle_end(self) -> None:
        """Judge what was put aside and goes on from the end, which no later entry confirms."""
        ahead = {link.number for link in self._aside}
        while self._next in ahead:
            self._holes.append((self._next, self._next))
            self._next += 1
        last = self._aside[-1] if self._aside else None
        if last is not None and last is self._pending and (last.number or 0) > self._next:
            self._holes.append((self._next, (last.number or 0) - 1))
            self._next = (last.number or 0) + 1
            self._aside.pop()

    def _settle_aside(self, link: Link) -> None:
        number = link.number or 0
        if self._fill(number):
            what = f"entry {number} stands at {link.place}"
            self._add("reordered", max(1, min(number, link.place)), what, place=link.place)
            self._moved.add(number)
        elif self._fill(link.place):
            what = "the number in the bytes is another"
            self._add("altered", link.place, what, place=link.place)
        else:
            what = "an entry that has no place here"
            self._add("inserted", link.place, what, place=link.place)

    def _fill(self, number: int) -> bool:
        for index, (low, high) in enumerate(self._holes):
            if low <= number <= high:
                parts = [(low, number - 1), (number + 1, high)]
                self._holes[index : index + 1] = [part for part in parts if part[0] <= part[1]]
                return True
        return False

    def _add(self, kind: str, seq: int, what: str, **more: Any) -> None:
        if more.get("place") is not None and len(self.wrong_places) < MAX_FINDINGS * 100:
            self.wrong_places.add(more["place"])
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(kind=kind, seq=seq, what=what, **more))


def examine(log: Log, *, origin: str, sizes: Iterable[int]) -> tuple[Totals, list[Finding]]:
    """Read every entry slowly and say what is wrong."""
    totals, walk = Totals(), Walk(1, "0" * 64)
    columns: list[Finding] = []
    wanted = set(sizes)
    rest: list[bytes] = []
    for row in log.rows(1, None):
        leaf, entry = leaf_hash(row.entry), None
        try:
            entry = read_entry(row.entry)
            wrong = list(compare_columns(row, entry, origin, totals))
        except MalformedError as error:
            wrong = [_index("altered", row.seq, str(error))]
        number, before = (entry.seq, entry.prev) if entry else (None, "")
        walk.feed(Link(row.seq, number, before, leaf.hex(), leaf != row.leaf))
        columns += wrong if len(columns) < MAX_FINDINGS else []
        totals.entries, totals.leaf = totals.entries + 1, leaf
        rest.append(leaf)
        if len(rest) == 256:
            totals.tree.add_tile(fold(rest))
            rest = []
        if totals.entries in wanted:
            totals.roots[totals.entries] = totals.tree.root(peaks(rest))
    head = log.head()
    findings = walk.finish((head[0], head[1].hex()) if head else (0, ""))
    totals.reach = walk.reach
    kinds = {finding.kind for finding in findings}
    for finding in columns:
        follows = (kinds and finding.what == EARLIER) or (
            kinds - {"altered"} and finding.what == SEQ
        )
        if not follows and finding.seq not in walk.wrong_places:
            findings.append(finding)
    if not findings and head is not None and head[0] == totals.reach:
        findings = examine_streams(log)
    return totals, findings


SEQ = "column seq differs from the bytes"
EARLIER = "recorded before the entry before it"


def compare_columns(row: Row, entry: Entry, origin: str, totals: Totals) -> Iterator[Finding]:
    """Compare a row's columns with its bytes, and the bytes with what stood before."""
    topic = topic_of(entry.kind, entry.event)
    earlier = entry.recorded < totals.recorded
    totals.recorded = entry.recorded
    totals.sealed += entry.is_sealed
    totals.boxed += row.boxed
    if is_first_of_event(entry.kind, entry.event):
        totals.firsts += 1
        totals.firsts_sum += row.seq
    rules = (
        (entry.seq == row.seq, SEQ),
        (entry.ledger == origin, "the bytes name another ledger"),
        (entry.stream == row.stream, "column stream differs from the bytes"),
        (entry.version == row.version, "column version differs from the bytes"),
        (topic == row.topic, "column topic differs from the bytes"),
        (not earlier, EARLIER),
        (entry.is_sealed or not row.boxed, "a box stands beside an entry that seals nothing"),
    )
    yield from (_index("altered", row.seq, what) for right, what in rules if not right)


def examine_streams(log: Log) -> list[Finding]:
    """Follow every stream by itself, where the chain as a whole holds."""
    findings: list[Finding] = []
    lasts = _last_of_streams(log, findings)
    heads = log.stream_heads()
    last, head = next(lasts, None), next(heads, None)
    while (last or head) and len(findings) < MAX_FINDINGS:
        if last is None or (head is not None and head[0] < last[1]):
            findings.append(_index("inserted", None, "stream_heads: a stream without entries"))
            head = next(heads, None)
        elif head is None or last[1] < head[0]:
            findings.append(_index("deleted", last[0], "stream_heads: none for this stream"))
            last = next(lasts, None)
        else:
            if head != last[1:]:
                what = f"stream_heads: version {head[1]}, the stream's last entry has {last[2]}"
                ahead = head[1] > last[2]
                kind, seq = ("truncated", None) if ahead else ("altered", last[0])
                findings.append(_index(kind, seq, what, head[2], last[3]))
            last, head = next(lasts, None), next(heads, None)
    return sorted(findings, key=lambda finding: finding.seq or sys.maxsize)


def _last_of_streams(log: Log, findings: list[Finding]) -> Iterator[tuple[int, bytes, int, bytes]]:
    """Give (seq, stream, version, leaf) of every stream's last entry; note what doesn't follow."""
    last: tuple[int, bytes, int, bytes] | None = None
    for row in log.rows_by_stream():
        entry = read_entry(row.entry)
        if last is None or last[1] != row.stream:
            if last is not None:
                yield last
            begins = row.version == 1 or (row.version == 0 and entry.kind == b"aggregate")
            if not begins or entry.stream_prev:
                findings.append(_index("deleted", row.seq, "the stream's beginning is missing"))
        elif row.version > last[2] + 1:
            what = f"versions {last[2] + 1} to {row.version - 1} of the stream are missing"
            findings.append(_index("deleted", row.seq, what))
        elif row.version <= last[2]:
            findings.append(_index("inserted", row.seq, "a second entry with this version"))
        elif entry.stream_prev != last[3].hex():
            what = "stream_prev isn't the leaf of the stream's entry before"
            findings.append(_index("altered", row.seq, what, last[3], entry.stream_prev))
        last = (row.seq, row.stream, row.version, leaf_hash(row.entry))
    if last is not None:
        yield last


def _index(
    kind: str,
    seq: int | None,
    what: str,
    expected: bytes | str | None = None,
    found: bytes | str | None = None,
) -> Finding:
    shown = [value.hex() if isinstance(value, bytes) else value for value in (expected, found)]
    return Finding(kind=kind, seq=seq, what=what, expected=shown[0], found=shown[1])


# == Section 8. Index tables and checkpoints against what was read ==


def compare_head(log: Log, totals: Totals, *, broken: bool) -> list[Finding]:
    """Compare the head's row with the last entry."""
    head = log.head()
    if head is None:
        return [_index("deleted", None, "head: the row is missing")]
    seq, leaf, recorded = head
    if seq > totals.reach:
        return [_index("truncated", totals.reach + 1, f"head: the log reached {seq}", leaf)]
    if seq < totals.reach:
        return [_index("inserted", seq + 1, f"head: the log ends at {seq}, entries go on")]
    if not broken and (leaf, recorded) != (totals.leaf, totals.recorded):
        return [_index("altered", seq, "head: differs from the last entry", leaf, totals.leaf)]
    return []


def compare_tables(log: Log, totals: Totals) -> list[Finding]:
    """Compare tree nodes, accepted and boxes with the entries."""
    findings = []
    computed = (
        (level, index, bytes(row[index * 32 : index * 32 + 32]))
        for level, row in enumerate(totals.tree.levels, 1)
        for index in range(len(row) // 32)
    )
    wanted = next(computed, None)
    for node in log.tree_nodes():
        while wanted is not None and wanted[:2] < node[:2]:
            findings.append(_node("deleted", wanted))
            wanted = next(computed, None)
        if wanted is None or wanted[:2] > node[:2]:
            findings.append(_node("inserted", node))
        else:
            findings += [_node("altered", wanted, node[2])] if wanted != node else []
            wanted = next(computed, None)
        if len(findings) > MAX_FINDINGS:
            return findings
    while wanted is not None:
        findings.append(_node("deleted", wanted))
        wanted = next(computed, None)
    number, least, greatest, total = log.accepted()
    inside = not number or 1 <= least <= greatest <= totals.entries
    if (number, total) != (totals.firsts, totals.firsts_sum) or not inside:
        more = (number > totals.firsts) - (number < totals.firsts)
        what = f"accepted: expected a row for each of {totals.firsts} events, found {number}"
        findings.append(_index(("altered", "inserted", "deleted")[more], None, what))
    if log.boxes() != totals.boxed:
        findings.append(_index("inserted", None, "boxes: some stand beside no entry"))
    return findings


def _node(kind: str, node: tuple[int, int, bytes], found: bytes | None = None) -> Finding:
    level, index, value = node
    what = f"tree_nodes: level {level}, index {index}"
    return _index(kind, index * 256**level + 1 if 0 < level < 8 else None, what, value, found)


def compare_checkpoints(
    checkpoints: Iterable[Checkpoint], totals: Totals, broken_at: int | None, origin: str
) -> tuple[list[Finding], Checkpoint | None]:
    """Compare roots; give findings and the last trusted checkpoint that agrees.

    Where an entry is known to be bad, another root from there on follows from it and is no
    finding of its own.
    """
    findings: list[Finding] = []
    agreed: Checkpoint | None = None
    differs_from = None
    for point in sorted(checkpoints, key=lambda each: each.size):
        if point.origin != origin:
            findings.append(_index("rewritten", None, f"{point.held}: of another ledger"))
        elif point.size > totals.reach:
            what = f"{point.held}: the log reached {point.size}"
            findings.append(_index("truncated", totals.reach + 1, what, point.root))
        elif broken_at is not None and point.size >= broken_at:
            continue
        elif totals.roots[point.size] == point.root:
            agreed = point if point.signed or point.outside else agreed
        else:
            differs_from = differs_from or (agreed.size if agreed else 0) + 1
            what = f"{point.held}: an entry from {differs_from} to {point.size} was another"
            root = totals.roots[point.size]
            findings.append(_index("rewritten", differs_from, what, point.root, root))
    return findings, agreed


# == Section 9. With the ledger's secret keys: boxes and accepted (FORMAT.md 4) ==


class Keyring(NamedTuple):
    """Secrets that open what is sealed; only who runs the ledger has them."""

    origin: str
    lookup: bytes
    epochs: dict[int, bytes]


def read_keyring(path: Path) -> Keyring:
    """Read a ledger's key file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        epochs = {int(number): b64(key) for number, key in document["epochs"].items()}
        return Keyring(str(document["origin"]), b64(document["lookup_key"]), epochs)
    except OSError as error:
        raise UnavailableError(f"key file: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, MalformedError):
        raise UsageError(f"key file {path}: expected origin, lookup_key and epochs") from None


def lp(raw: bytes) -> bytes:
    """Give u32be length and bytes."""
    return struct.pack(">I", len(raw)) + raw


def decrypt(key: bytes, sealed: bytes, binding: bytes) -> bytes:
    """Open nonce and AES-256-GCM ciphertext.

    Raises:
        MalformedError: it was made under another key, for something else, or changed.
    """
    try:
        return AESGCM(key).decrypt(sealed[:12], sealed[12:], binding)
    except (InvalidTag, ValueError):
        raise MalformedError("doesn't open: another's, or changed") from None


class SealedRow(NamedTuple):
    """An entry with what stands beside it."""

    seq: int
    entry: bytes
    box: bytes | None
    epoch: int | None
    wrapped: bytes | None
    """The stream's key, wrapped."""


def open_box(row: SealedRow, whole: dict[str, Any], key: bytes, source: bytes) -> None:
    """Open a box and compare each disclosure with its digest in the entry (4.3 to 4.5)."""
    ledger, event = lp(whole["ledger"].encode()), whole["event"]
    part = struct.pack(">I", event.get("part", 0))
    context = ledger + lp(source) + lp(event["id"].encode()) + part
    box_key = hmac.digest(key, b"ledger/sd/v1/box" + context, "sha256")
    binding = ledger + bytes.fromhex(whole["stream"].replace("-", "")) + struct.pack(">Q", row.seq)
    disclosures = decrypt(box_key, row.box or b"", binding).split(b"\n")
    digests = [
        base64.urlsafe_b64encode(sha256(each).digest())[:43].decode() for each in disclosures
    ]
    if digests != list(whole["sealed"].values()):
        raise MalformedError("opens to other values than the entry's digests")


def check_secrets(log: Log, keyring: Keyring) -> tuple[list[Finding], list[str]]:
    """Open every box; recompute every key of `accepted`, compared as `StreamLedger` does."""
    findings: list[Finding] = []
    unopened, balance, salt = 0, 0, os.urandom(32)
    accept_key = hmac.digest(keyring.lookup, b"accepted", "sha256")

    def weight(accepted: bytes, seq: int) -> int:
        return int.from_bytes(sha256(b"%b%b%d" % (salt, accepted, seq)).digest()[:16])

    for row in log.sealed_rows():
        whole = read_event(row.entry)
        event = whole["event"]
        source = str(event.get("source", whole["emitter"].get("source", ""))).encode()
        if whole["stream_kind"] != "aggregate" and event.get("part", 0) == 0:
            message = lp(source) + lp(event["id"].encode())
            balance += weight(hmac.digest(accept_key, message, "sha256")[:16], row.seq)
        if row.box is None:
            continue
        kek = keyring.epochs.get(row.epoch or 0)
        if kek is None or row.wrapped is None:
            unopened += 1
            continue
        what = "key of the stream"
        try:
            owner = bytes.fromhex(whole["stream"].replace("-", ""))
            key = decrypt(kek, row.wrapped, b"ledger/key/v1" + owner)
            what = "box"
            open_box(row, whole, key, source)
        except MalformedError as error:
            findings.append(_index("altered", row.seq, f"{what}: {error}"))
    for accepted, seq in log.accepted_rows():
        balance -= weight(accepted, seq)
    if balance % 2**128:
        what = "accepted: a key isn't that of the event its row names"
        findings.append(_index("altered", None, what))
    notes = [f"{unopened} boxes: their stream's key is erased or of an epoch not given"]
    return findings[:MAX_FINDINGS], notes if unopened else []


# == Section 10. A database, from start to verdict ==


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What whoever runs this brings along."""

    keys: tuple[Key, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    keyring: Keyring | None = None


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What was found, and what that rests on."""

    code: int
    verdict: str
    origin: str
    scope: str
    kinds: list[str] = field(default_factory=list)
    first_bad: Finding | None = None
    holds: str = ""
    rests_on: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    completeness: str | None = None
    findings: list[Finding] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    """Those that findings are about, and the last that agrees."""
    duration_s: float = 0.0


def find_origin(log: Log, trust: Trust) -> str:
    """Give the ledger's name: the pinned key's, else the outside checkpoint's, else entry 1's."""
    names = {key.name for key in trust.keys} | {each.origin for each in trust.checkpoints}
    names |= {trust.keyring.origin} if trust.keyring else set()
    if len(names) > 1:
        raise UsageError(f"keys and checkpoints of {len(names)} ledgers were given; give one's")
    if names:
        return names.pop()
    for row in log.rows(1, 1):
        try:
            return read_entry(row.entry).ledger
        except MalformedError:
            break
    return ""


def read_checkpoints(log: Log, trust: Trust) -> tuple[list[Checkpoint], list[Finding]]:
    """Open the log's own checkpoints under the pinned keys."""
    points, findings = [], []
    for size, note in log.checkpoints():
        held = f"checkpoint of size {size}"
        try:
            point = open_checkpoint(note, trust.keys, held=held)
        except MalformedError as error:
            kind = "rewritten" if "signature" in str(error) else "altered"
            findings.append(_index(kind, None, f"{held}: {error}"))
            continue
        if point.size != size:
            findings.append(_index("altered", None, f"{held}: the note says {point.size}"))
        elif trust.keys and not point.signed:
            findings.append(_index("rewritten", None, f"{held}: not signed by a pinned key"))
        else:
            points.append(point)
    return points, findings


def check_opening(log: Log, origin: str) -> list[Finding]:
    """Check that entry 1 opens this ledger in this format (1.7)."""
    for row in log.rows(1, 1):
        what = "entry 1 doesn't open this ledger in this format"
        try:
            event = read_event(read_entry(row.entry).event)
        except MalformedError:
            return []
        stated = event.get("data")
        facts = (stated.get("origin"), stated.get("format")) if isinstance(stated, dict) else ()
        if (event.get("type"), facts) != ("ledger.ledger.opened.v1", (origin, 0)):
            return [_index("altered", 1, what)]
    return []


def verify_log(
    log: Log,
    trust: Trust,
    *,
    sweeps: Callable[[str, bytes, list[int]], Iterable[Part]] | None = None,
) -> Verdict:
    """Check a whole log by the steps at the top of this file."""
    origin = find_origin(log, trust)
    own, findings = read_checkpoints(log, trust)
    points = [*own, *trust.checkpoints]
    sizes = sorted({point.size for point in points} - {0})
    key = os.urandom(32)

    def in_one(origin: str, key: bytes, sizes: list[int]) -> Iterator[Part]:
        part = sweep(log.rows(1, None), origin=origin, first=1, key=key, sizes=sizes)
        yield from [part] if part.entries else []

    bad: list[Finding] = []
    try:
        totals = join_parts((sweeps or in_one)(origin, key, sizes), log, key)
    except DoubtError:
        totals, bad = examine(log, origin=origin, sizes=sizes)
    totals.roots[0] = sha256(b"").digest()
    findings += bad
    findings += compare_head(log, totals, broken=bool(bad))
    if not bad:
        findings += check_opening(log, origin)
    if not any(finding.seq for finding in findings):
        findings += compare_tables(log, totals)
    entries_bad = [f.seq for f in findings if f.seq is not None and not f.what.startswith("tree_")]
    broken_at = min(entries_bad, default=None)
    more, agreed = compare_checkpoints(points, totals, broken_at, origin)
    findings += more
    notes = [
        "boxes: only that they stand beside entries that seal something; no keys were given",
        "accepted: only number and range of rows; its keys need the lookup key",
    ]
    if trust.keyring is not None and not bad:
        opened, notes = check_secrets(log, trust.keyring)
        findings += opened
        notes.append("identities and names of staff: not opened")
    return judge_log(
        trust, totals, findings, origin=origin, agreed=agreed, own=own, not_checked=notes
    )


def judge_log(
    trust: Trust,
    totals: Totals,
    findings: list[Finding],
    *,
    origin: str,
    agreed: Checkpoint | None,
    own: list[Checkpoint],
    not_checked: list[str],
) -> Verdict:
    """Say what the findings amount to, and what the verdict rests on."""
    result = Verdict(
        code=TAMPERED, verdict="tampered", origin=origin, scope=f"entries 1 to {totals.reach}"
    )
    result.counts = {
        "entries": totals.entries,
        "own checkpoints": len(own),
        "outside checkpoints": len(trust.checkpoints),
        "sealed entries with a box": totals.boxed,
        "sealed entries without (erased)": totals.sealed - totals.boxed,
    }
    result.rests_on = rests_on(trust)
    result.not_checked = list(not_checked)
    result.checkpoints = [agreed] if agreed else []
    if findings:
        conclude(result, findings, agreed)
        return result
    largest = max((point.size for point in trust.checkpoints), default=None)
    signed = [point.size for point in own if point.signed]
    if trust.keys and largest is not None:
        result.code, result.verdict = VERIFIED, "verified"
        covered_to = max(largest, *signed)
        if totals.entries > covered_to:
            result.not_checked.append(
                f"entries after {covered_to}: chained, but not yet under a checkpoint seen here"
            )
    else:
        result.code = INCOMPLETE
        result.verdict = "consistent with itself"
        if trust.keys and signed:
            result.verdict += f" and signed by the pinned key up to entry {max(signed)}"
        result.not_checked.append(
            "that nothing was cut off the end or rewritten: give --checkpoint with one held outside"
            if trust.keys
            else "who signed: give --pin or --key with the ledger's key, and --checkpoint"
        )
    covered = f"; entries 1 to {agreed.size} agree with {agreed.held}" if agreed else ""
    result.holds = f"entries 1 to {totals.entries} are chained without a break{covered}"
    return result


def rests_on(trust: Trust) -> list[str]:
    """Say in words what was brought from outside."""
    keys = [f"pinned key {key.name} {key.id.hex()}, given from outside" for key in trust.keys]
    if trust.keyring is not None:
        keys.append("the ledger's secret keys, which opened its boxes")
    points = [
        f"{each.held}, given from outside, size {each.size}"
        + (", signed by the pinned key" if each.signed else ", its signature not checked")
        for each in trust.checkpoints
    ]
    return (keys or ["no key from outside"]) + (points or ["no checkpoint from outside"])


def conclude(result: Verdict, findings: list[Finding], agreed: Checkpoint | None) -> None:
    """Order findings, name the first bad entry, and say what still holds."""
    entries = [f for f in findings if f.seq is not None]
    ordered = sorted(entries, key=lambda f: (f.seq or 0, f.what.startswith("tree_nodes")))
    result.findings = (ordered + [f for f in findings if f.seq is None])[:MAX_FINDINGS]
    result.first_bad = ordered[0] if ordered else None
    result.kinds = list(dict.fromkeys(f.kind for f in result.findings))
    result.verdict = f"tampered: {', '.join(result.kinds)}"
    if result.first_bad is None or result.first_bad.what.startswith(("tree_nodes", "stream_heads")):
        result.holds = (
            "the entries are chained without a break; what indexes or signs them is wrong"
        )
    else:
        last = (result.first_bad.seq or 1) - 1
        result.holds = f"entries 1 to {last} are chained without a break" if last else "nothing"
    if agreed:
        result.holds += f"; entries 1 to {agreed.size} agree with {agreed.held}"


# == Section 11. PostgreSQL ==

_COLUMNS = (
    "SELECT e.seq, e.version, e.stream::text, e.leaf, b.seq IS NOT NULL, e.topic, e.entry"
    " FROM {schema}.entries e LEFT JOIN {schema}.boxes b ON b.seq = e.seq"
)
_FIXED = struct.Struct(">hiqiqi36si32si?i")


def _connect(dsn: str, snapshot: str | None) -> Any:
    """Open a read-only transaction, in the given snapshot of the database if there is one."""
    import psycopg  # noqa: PLC0415 - bundles are checked without it

    connection = psycopg.connect(dsn, autocommit=True, connect_timeout=10)
    connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    if snapshot is not None:
        connection.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
    return connection


def _composed(connection: Any, schema: str, text: str) -> bytes:
    from psycopg import sql  # noqa: PLC0415 - bundles are checked without it

    template: Any = text
    return sql.SQL(template).format(schema=sql.Identifier(schema)).as_bytes(connection)


def copy_rows(place: tuple[str, str, str], tail: str) -> Iterator[tuple[Any, ...]]:
    """Read entries over a connection of their own, in the binary format of COPY.

    Parsed by hand from libpq's messages, one per row: a cursor costs more than the hashes.
    """
    dsn, schema, snapshot = place
    connection = _connect(dsn, snapshot)
    try:
        # Both tables have an index on seq: merge along it instead of sorting the log.
        connection.execute("SET enable_hashjoin = off")
        connection.execute(f"SET enable_sort = {'on' if 'stream' in tail else 'off'}")
        query = _composed(connection, schema, f"COPY ({_COLUMNS} {tail}) TO STDOUT (FORMAT BINARY)")
        pgconn = connection.pgconn
        _expect(pgconn, pgconn.exec_(query), "COPY_OUT")
        get, unpack, size = pgconn.get_copy_data, _FIXED.unpack_from, _FIXED.size
        skip = 19  # signature, flags and extension length stand before the first row
        while (message := get(0))[0] >= size:
            raw = bytes(message[1])
            if skip:
                raw, skip = raw[skip:], 0
                if len(raw) < size:
                    continue
            _, _, seq, _, version, uuid, stream, hash_size, leaf, _, boxed, name = unpack(raw)
            if uuid != 36 or hash_size != 32 or name < 0:
                yield _loose_row(raw)
            else:
                end = size + name
                yield (seq, stream, version, raw[size:end], leaf, raw[end + 4 :], boxed)
        while get(0)[0] >= 0:
            pass
        _expect(pgconn, pgconn.get_result(), "COMMAND_OK")
    finally:
        connection.close()


def _expect(pgconn: Any, result: Any, status: str) -> None:
    from psycopg.pq import ExecStatus  # noqa: PLC0415 - bundles are checked without it

    if result is None or result.status != ExecStatus[status]:
        message = (result or pgconn).error_message
        raise UnavailableError(f"database: {message.decode(errors='replace').strip()}")


def _loose_row(raw: bytes) -> Row:
    """Read a row whose columns have other lengths than they should, or are null."""
    fields, at = [], 2
    for _ in range(7):
        length = int.from_bytes(raw[at : at + 4], signed=True)
        fields.append(raw[at + 4 : at + 4 + max(length, 0)])
        at += 4 + max(length, 0)
    seq, version, stream, leaf, boxed, topic, entry = fields
    number, place = int.from_bytes(seq, signed=True), int.from_bytes(version, signed=True)
    return Row(number, stream, place, topic, leaf, entry, boxed == b"\1")


def sweep_range(
    place: tuple[str, str, str], bounds: tuple[int, int], origin: str, key: bytes, sizes: list[int]
) -> Part:
    """Sweep the entries between two bounds; runs in a process of its own."""
    gc.disable()  # nothing here makes cycles, and looking for them takes a quarter of the time
    first, last = bounds
    rows = copy_rows(place, f"WHERE e.seq BETWEEN {first} AND {last} ORDER BY e.seq")
    wanted = [size for size in sizes if first <= size <= last]
    return sweep(rows, origin=origin, first=first, key=key, sizes=wanted)


class Database:
    """A ledger's schema, read in one snapshot that every connection here shares."""

    def __init__(self, dsn: str, schema: str) -> None:
        self._connection = _connect(dsn, None)
        row = self._connection.execute("SELECT pg_export_snapshot()").fetchone()
        self._schema = schema
        self.place = (dsn, schema, row[0])

    def close(self) -> None:
        """Give the snapshot up."""
        self._connection.close()

    def _all(self, text: str) -> list[Any]:
        query = _composed(self._connection, self._schema, text)
        rows: list[Any] = self._connection.execute(query).fetchall()
        return rows

    def _stream(self, name: str, text: str) -> Iterator[Any]:
        with self._connection.cursor(name) as cursor:
            cursor.itersize = 5_000
            yield from cursor.execute(_composed(self._connection, self._schema, text), binary=True)

    def head(self) -> tuple[int, bytes, bytes] | None:
        """Give the row (seq, leaf, recorded)."""
        rows = self._all("SELECT seq, leaf, recorded FROM {schema}.head")
        return (rows[0][0], rows[0][1], rows[0][2].encode()) if len(rows) == 1 else None

    def rows(self, first: int, last: int | None) -> Iterator[Row]:
        """Give entries in the order of `seq`."""
        # Rows with a number below 1 don't belong here, and must not go unseen.
        low = "" if first == 1 else f"AND e.seq >= {first}"
        high = "" if last is None else f"AND e.seq <= {last}"
        return starmap(Row, copy_rows(self.place, f"WHERE true {low} {high} ORDER BY e.seq"))

    def rows_by_stream(self) -> Iterator[Row]:
        """Give entries in the order of stream, version, seq."""
        return starmap(Row, copy_rows(self.place, "ORDER BY e.stream, e.version, e.seq"))

    def stream_heads(self) -> Iterator[tuple[bytes, int, bytes]]:
        """Give (stream, version, leaf) in the order of stream."""
        text = "SELECT stream::text, version, leaf FROM {schema}.stream_heads ORDER BY stream"
        for stream, version, leaf in self._stream("heads", text):
            yield stream.encode(), version, leaf

    def tree_nodes(self) -> Iterator[tuple[int, int, bytes]]:
        """Give (level, idx, hash)."""
        text = "SELECT level, idx, hash FROM {schema}.tree_nodes ORDER BY level, idx"
        yield from self._stream("nodes", text)

    def checkpoints(self) -> Iterator[tuple[int, str]]:
        """Give (size, note)."""
        yield from self._stream(
            "notes", "SELECT size, note FROM {schema}.checkpoints ORDER BY size"
        )

    def accepted(self) -> tuple[int, int, int, int]:
        """Give number, least, greatest and sum of `seq`."""
        text = "SELECT count(*), min(seq), max(seq), sum(seq) FROM {schema}.accepted"
        number, least, greatest, total = self._all(text)[0]
        return number, least or 0, greatest or 0, int(total or 0)

    def boxes(self) -> int:
        """Give the number of boxes."""
        return int(self._all("SELECT count(*) FROM {schema}.boxes")[0][0])

    def sealed_rows(self) -> Iterator[SealedRow]:
        """Give entries with box and wrapped key, in the order of `seq`."""
        text = (
            "SELECT e.seq, e.entry, b.box, k.epoch, k.wrapped FROM {schema}.entries e"
            " LEFT JOIN {schema}.boxes b ON b.seq = e.seq"
            " LEFT JOIN {schema}.keys k ON k.id = e.stream ORDER BY e.seq"
        )
        return starmap(SealedRow, self._stream("sealed", text))

    def accepted_rows(self) -> Iterator[tuple[bytes, int]]:
        """Give (key, seq)."""
        yield from self._stream("accepted", "SELECT key, seq FROM {schema}.accepted")

    def bounds(self) -> tuple[int, int]:
        """Give the least and the greatest `seq`, 0 where there is none."""
        least, greatest = self._all("SELECT min(seq), max(seq) FROM {schema}.entries")[0]
        return least or 0, greatest or 0

    def sweeps(self, jobs: int) -> Callable[[str, bytes, list[int]], Iterator[Part]]:
        """Sweep in ranges, in several processes where that pays."""
        least, greatest = self.bounds()
        # A range of its own costs a connection and the streams' memory, so there are few.
        each = min(2**20, -(-greatest // (jobs * 2 if jobs > 1 else 1) // 2**16) * 2**16 or 2**16)
        firsts = range(1, greatest + 1, each)

        def run(origin: str, key: bytes, sizes: list[int]) -> Iterator[Part]:
            if greatest and least != 1:
                raise DoubtError(least)
            ranges = [(self.place, (at, at + each - 1), origin, key, sizes) for at in firsts]
            if jobs == 1 or len(ranges) < 2:
                yield from _shown(starmap(sweep_range, ranges), len(ranges))
                return
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(min(jobs, len(ranges)), mp_context=context) as pool:
                try:
                    futures = [pool.submit(sweep_range, *arguments) for arguments in ranges]
                    yield from _shown((future.result() for future in futures), len(ranges))
                finally:
                    pool.shutdown(wait=False, cancel_futures=True)

        return run


def _shown(parts: Iterable[Part], number: int) -> Iterator[Part]:
    """Draw a bar while parts come, where somebody is watching."""
    watched = sys.stderr.isatty()
    for done, part in enumerate(parts, 1):
        if watched:
            filled = 40 * done // number
            end = "\n" if done == number else ""
            bar = "#" * filled + "." * (40 - filled)
            print(f"\r[{bar}] {done * 100 // number}%", end=end, file=sys.stderr, flush=True)
        yield part


# == Section 12. Evidence bundles (FORMAT.md 7) ==

FILES = {
    "manifest.json": 2**24,
    "manifest.note": 2**16,
    "entries.jsonl": 2**34,
    "rows.csv": 2**34,
    "checkpoint": 2**16,
    "last.tlog-proof": 2**16,
    "FORMAT.md": 2**22,
}
"""Name to most bytes."""
MAX_RATIO = 400
ORDER = (EARLIER, "seq isn't above the line before")


class Bundle:
    """An evidence bundle, checked file by file."""

    def __init__(self, archive: zipfile.ZipFile, trust: Trust) -> None:
        self.archive = archive
        self.trust = trust
        self.findings: list[Finding] = []
        self.digests: dict[str, str] = {}
        self.manifest: dict[str, Any] = {}
        self.leaves: dict[int, bytes] = {}
        """Leaf of each entry in the bundle."""
        self.last: tuple[int, bytes] | None = None
        self.tree = Tree()
        self.rest: list[bytes] = []
        self.roots: dict[int, bytes] = {}
        self.rows = 0

    def wrong(self, kind: str, what: str, seq: int | None = None, **hashes: Any) -> None:
        """Note a finding."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(kind=kind, seq=seq, what=what, **hashes))

    def check_files(self) -> bool:
        """Check names and sizes before anything is unpacked; False where nothing can be read."""
        members = self.archive.infolist()
        names = [member.filename for member in members]
        for name in sorted(set(names) - set(FILES)):
            unsafe = name.startswith(("/", "\\")) or ".." in name or ":" in name
            self.wrong(
                "inserted", "zip: a file with an unsafe path" if unsafe else "zip: a file more"
            )
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.wrong("inserted", f"zip: {name} more than once"[:80])
        for name in sorted(set(FILES) - set(names)):
            self.wrong("deleted", f"zip: {name} is missing")
        for member in members:
            limit = FILES.get(member.filename, 0)
            bomb = member.file_size > limit or (
                member.file_size > 2**20 and member.file_size > MAX_RATIO * member.compress_size
            )
            if member.filename in FILES and (bomb or member.flag_bits & 1):
                raise UnavailableError(f"{member.filename}: too large, or encrypted; not unpacked")
        return not self.findings

    def lines(self, name: str, most: int) -> Iterator[bytes]:
        """Give a file's lines, hashing the file as it goes by."""
        digest = sha256()
        with self.archive.open(name) as file:
            while line := file.readline(most):
                digest.update(line)
                yield line
        self.digests[name] = digest.hexdigest()

    def text(self, name: str) -> str:
        """Give a small file's text."""
        raw = b"".join(self.lines(name, 2**16))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise MalformedError(f"{name}: expected UTF-8") from None

    def check_manifest(self) -> bool:
        """Read the manifest and who signed it; False where it can't be read."""
        try:
            self.manifest = read_event(self.text("manifest.json").encode())
            stated, signed = open_note(self.text("manifest.note"), self.trust.keys)
        except MalformedError as error:
            self.wrong("altered", f"manifest: {error}")
            return False
        origin, digest = self.manifest.get("ledger"), self.digests["manifest.json"]
        if stated != f"custody-ledger manifest v0\n{origin}\n{digest}\n":
            self.wrong(
                "altered", "manifest.json: isn't what manifest.note was made over", found=digest
            )
        if self.trust.keys and not signed:
            self.wrong("rewritten", "manifest.note: not signed by a pinned key")
        if self.trust.keys and any(key.name != origin for key in self.trust.keys):
            self.wrong("rewritten", "manifest.json: of another ledger than the pinned key's")
        if self.manifest.get("format") != "custody-ledger/bundle/v0":
            self.wrong("altered", "manifest.json: another format than this script knows")
        kind = self.scope.get("kind")
        numbers = (self.scope.get("from"), self.scope.get("to")) if kind == "range" else (1, 1)
        if kind not in {"range", "record"} or not all(type(n) is int and n > 0 for n in numbers):
            self.wrong("altered", "manifest.json: scope is neither a record nor a range")
            return False
        if self.manifest.get("completeness") not in {"proved", "asserted"}:
            self.wrong("altered", "manifest.json: completeness is neither proved nor asserted")
        return True

    @property
    def scope(self) -> dict[str, Any]:
        """The manifest's scope."""
        scope = self.manifest.get("scope")
        return scope if isinstance(scope, dict) else {}

    def check_entries(self, sizes: set[int]) -> None:
        """Follow the entries: a range by `prev`, a record by `stream_prev`."""
        is_range = self.scope["kind"] == "range"
        first = self.scope["from"] if is_range else 1
        walk = Walk(first, "" if not is_range else "0" * 64 if first == 1 else None)
        seqs: dict[int, int] = {}
        recorded = b""
        late: list[Finding] = []
        for place, line in enumerate(self.lines("entries.jsonl", MAX_ENTRY_BYTES + 2), first):
            raw = line[:-1] if line.endswith(b"\n") else line
            leaf, entry = leaf_hash(raw), None
            try:
                entry = read_entry(raw)
                read_event(entry.event)
                late += self._check_entry(entry, recorded, is_range=is_range)
                recorded = entry.recorded
            except MalformedError as error:
                self.wrong("altered", f"line {place - first + 1}: {error}")
            if entry is None:
                walk.feed(Link(place, None, "", leaf.hex(), suspect=False))
                continue
            number = entry.seq if is_range else entry.version
            before = entry.prev if is_range else entry.stream_prev or ""
            walk.feed(Link(place, number, before, leaf.hex(), suspect=False))
            seqs[number] = entry.seq
            self.leaves[entry.seq] = leaf
            self.last = (entry.seq, leaf)
            self._grow(leaf, sizes)
        findings = walk.finish()
        self.findings += [each for each in late if not findings or each.what not in ORDER]
        for finding in findings:
            what = finding.what if is_range else f"version {finding.seq}: {finding.what}"
            seq = finding.seq if is_range else seqs.get(finding.seq or 0)
            self.findings.append(replace(finding, seq=seq, what=what))
        end = self.scope["to"] if is_range else self.manifest.get("last_seq")
        reach = walk.reach if is_range else self.last[0] if self.last else 0
        if not isinstance(end, int) or end > reach:
            self.wrong("truncated", f"entries go to {reach}, the manifest says {end}", reach + 1)
        elif end < reach:
            self.wrong("inserted", f"entries go to {reach}, the manifest says {end}", end + 1)

    def _check_entry(self, entry: Entry, recorded: bytes, *, is_range: bool) -> list[Finding]:
        rules = [
            (entry.ledger == self.manifest.get("ledger"), "the bytes name another ledger"),
            (entry.recorded >= recorded, EARLIER),
        ]
        if not is_range:
            stream = str(self.scope.get("record")).encode()
            same = entry.stream == stream and entry.kind == b"record"
            after = self.last is None or entry.seq > self.last[0]
            rules += [(same, "of another record"), (after, ORDER[1])]
        return [_index("altered", entry.seq, what) for right, what in rules if not right]

    def _grow(self, leaf: bytes, sizes: set[int]) -> None:
        if self.scope["kind"] == "range" and self.scope["from"] == 1:
            self.rest.append(leaf)
            if len(self.leaves) in sizes:
                self.roots[len(self.leaves)] = self.tree.root(peaks(self.rest))
            if len(self.rest) == 256:
                self.tree.add_tile(fold(self.rest))
                self.rest = []

    def check_claims(self) -> None:
        """Compare digests and counts with the manifest."""
        for name in ("FORMAT.md",):
            self.text(name)
        files = self.manifest.get("files")
        stated = files if isinstance(files, dict) else {}
        for name in sorted(FILES.keys() - {"manifest.json", "manifest.note"}):
            if stated.get(name) != self.digests.get(name):
                expected, found = str(stated.get(name)), str(self.digests.get(name))
                self.wrong("altered", f"{name}: another file", expected=expected, found=found)
        seqs = sorted(self.leaves)
        facts = {
            "rows": self.rows,
            "first_seq": seqs[0] if seqs else None,
            "last_seq": seqs[-1] if seqs else None,
        }
        for name, value in facts.items():
            if self.manifest.get(name) != value:
                what = f"manifest.json: {name} isn't what the bundle holds"
                self.wrong("altered", what, expected=str(self.manifest.get(name)), found=str(value))

    def check_rows(self) -> None:
        """Check that every row rests on an entry in the bundle."""
        lines = (line.decode(errors="replace") for line in self.lines("rows.csv", 2**20))
        reader = csv.reader(lines)
        header = next(reader, [])
        if "seq" not in header or "leaf" not in header:
            self.wrong("altered", "rows.csv: expected the columns seq and leaf")
        for row in reader:
            self.rows += 1
            cells = dict(zip(header, row, strict=False))
            seq = int(cells["seq"]) if re.fullmatch("[0-9]{1,19}", cells.get("seq", "")) else 0
            leaf = self.leaves.get(seq)
            if len(row) != len(header) or leaf is None or leaf.hex() != cells.get("leaf"):
                what = f"rows.csv: row {self.rows} rests on no entry of this bundle"
                self.wrong("altered", what, seq or None)

    def check_checkpoint(self) -> Checkpoint | None:
        """Check the checkpoint, and that the last entry is under it."""
        try:
            point = open_checkpoint(
                self.text("checkpoint"), self.trust.keys, held="the bundle's checkpoint"
            )
            index, proof, note = read_proof(self.text("last.tlog-proof"))
            proved = open_checkpoint(note, self.trust.keys, held="last.tlog-proof")
        except MalformedError as error:
            self.wrong("rewritten" if "signature" in str(error) else "altered", str(error))
            return None
        if point.origin != self.manifest.get("ledger"):
            self.wrong("rewritten", "checkpoint: of another ledger")
        if self.trust.keys and not (point.signed and proved.signed):
            self.wrong("rewritten", "checkpoint: not signed by a pinned key")
        if proved[:3] != point[:3]:
            self.wrong("altered", "last.tlog-proof: under another checkpoint")
        as_of = self.manifest.get("as_of")
        as_of = as_of if isinstance(as_of, dict) else {}
        if as_of.get("seq") != point.size:
            self.wrong("altered", "manifest.json: as_of isn't the checkpoint's size")
        known = self.leaves.get(point.size)
        if known is not None and as_of.get("leaf") != known.hex():
            self.wrong("altered", "manifest.json: as_of has another leaf", point.size)
        if self.last is None:
            self.wrong("truncated", "entries.jsonl: no entry at all", 1)
        elif index + 1 > self.last[0]:
            self.wrong("truncated", f"last.tlog-proof is for entry {index + 1}", self.last[0] + 1)
        elif check_inclusion(self.last[1], self.last[0] - 1, point.size, proof) != point.root:
            files = self.manifest.get("files")
            same = isinstance(files, dict) and files.get("entries.jsonl") == self.digests.get(
                "entries.jsonl"
            )
            what = "the last entry isn't under the checkpoint"
            self.wrong("rewritten" if same else "altered", what, self.last[0])
        return point


def read_proof(text: str) -> tuple[int, list[bytes], str]:
    """Read a C2SP tlog-proof: index, hashes, checkpoint."""
    head, separator, note = text.partition("\n\n")
    lines = head.split("\n")
    extra = 2 if len(lines) > 1 and lines[1].startswith("extra ") else 1
    index = re.fullmatch("index (0|[1-9][0-9]{0,18})", lines[extra] if extra < len(lines) else "")
    if lines[0] != "c2sp.org/tlog-proof@v1" or not separator or index is None:
        raise MalformedError("last.tlog-proof: expected a C2SP tlog-proof")
    return int(index[1]), [b64(line) for line in lines[extra + 1 :]], note


def verify_bundle(path: Path, trust: Trust) -> Verdict:
    """Check a bundle by the steps at the top of this file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _verify_archive(Bundle(archive, trust))
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise UnavailableError(f"{path.name}: {error}") from None


def _verify_archive(bundle: Bundle) -> Verdict:
    trust, point = bundle.trust, None
    if bundle.check_files() and bundle.check_manifest():
        bundle.check_entries({each.size for each in trust.checkpoints})
        bundle.check_rows()
        point = bundle.check_checkpoint()
        bundle.check_claims()
    origin = str(bundle.manifest.get("ledger", ""))
    kind = bundle.scope.get("kind")
    what = (
        f"entries {bundle.scope.get('from')} to {bundle.scope.get('to')}"
        if kind == "range"
        else f"record {bundle.scope.get('record')}"
    )
    result = Verdict(code=TAMPERED, verdict="tampered", origin=origin, scope=what)
    result.counts = {"entries": len(bundle.leaves), "rows": bundle.rows}
    result.rests_on = rests_on(trust)
    result.not_checked = [
        "population, gaps, masking, exclusions, parameters: the signer's word",
        "rows: that each names an entry of this bundle, not what the view made of it",
    ]
    for name in ("population",):
        if isinstance(bundle.manifest.get(name), int):
            result.counts[name] = bundle.manifest[name]
    compared = _compare_outside(bundle, point, result) if point else False
    if bundle.findings:
        conclude(result, bundle.findings, None)
        return result
    result.completeness = _completeness(bundle)
    size = point.size if point else 0
    result.holds = f"{what}: unchanged, and under the checkpoint of size {size}"
    if point and point.signed:
        result.code, result.verdict = VERIFIED, "verified"
        if not compared:
            result.rests_on[-1] += ": the checkpoint is the bundle's own, signed by the pinned key"
    else:
        result.code, result.verdict = INCOMPLETE, "consistent with itself"
        result.not_checked.append("who signed: give --pin or --key with the ledger's key")
    return result


def _compare_outside(bundle: Bundle, point: Checkpoint, result: Verdict) -> bool:
    compared = False
    bundle.roots[point.size] = bundle.roots.get(point.size, point.root)
    for outside in bundle.trust.checkpoints:
        root = bundle.roots.get(outside.size)
        if outside.origin != point.origin:
            bundle.wrong("rewritten", f"{outside.held}: of another ledger")
        elif root is None:
            result.not_checked.append(f"{outside.held}: another size than the bundle's checkpoint")
        elif root != outside.root:
            what = f"{outside.held}: another root at size {outside.size}"
            bundle.wrong("rewritten", what, expected=outside.root.hex(), found=root.hex())
        else:
            compared = True
    return compared


def _completeness(bundle: Bundle) -> str:
    stated = str(bundle.manifest.get("completeness"))
    if stated != "proved":
        return "asserted: that no row is missing is the signer's word"
    if bundle.scope["kind"] == "range":
        return "proved: no entry of the range is missing"
    return (
        "proved: none of the record's versions up to the last shown is missing;"
        " that no later one existed is the signer's word"
    )


# == Section 13. Command line ==


def read_trust(args: argparse.Namespace) -> Trust:
    """Read pinned keys and the checkpoints held outside (step 1)."""
    texts = list(args.key)
    try:
        for pin in args.pin:
            lines = Path(pin).read_text(encoding="utf-8").splitlines()
            texts += [line.strip() for line in lines if line.strip() and line[0] != "#"]
        paths = [Path(each) for each in args.checkpoint]
        paths = [
            file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])
        ]
        notes = [(path.name, path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
    except (OSError, UnicodeDecodeError) as error:
        raise UnavailableError(f"key or checkpoint file: {error}") from None
    if (args.pin and not texts) or (args.checkpoint and not notes):
        raise UsageError("a file of keys or checkpoints was given that holds none")
    keys = tuple(map(parse_key, texts))
    points = []
    for name, note in notes:
        held = f"checkpoint {name}"
        try:
            point = open_checkpoint(note, keys, held=held, outside=True)
        except MalformedError as error:
            raise UsageError(f"{held}: {error}") from None
        if keys and not point.signed:
            raise UsageError(f"{held}: not signed by the pinned key; which of the two is wrong?")
        points.append(point)
    keyring = read_keyring(Path(args.keyring)) if args.keyring else None
    return Trust(keys=keys, checkpoints=tuple(points), keyring=keyring)


def verify_database(args: argparse.Namespace, trust: Trust) -> Verdict:
    """Check a database."""
    try:
        import psycopg  # noqa: PLC0415 - bundles are checked without it
    except ImportError:
        raise UnavailableError("reading a database needs psycopg") from None
    try:
        database = Database(args.database, args.schema)
        try:
            return verify_log(database, trust, sweeps=database.sweeps(args.jobs))
        finally:
            database.close()
    except psycopg.Error as error:
        text = error.diag.message_primary or str(error).strip().split("\n", maxsplit=1)[0]
        raise UnavailableError(f"database: {text}") from None


def as_json(result: Verdict) -> str:
    """Write a verdict as JSON; hashes in hex."""
    document = asdict(result) | {"exit_code": result.code}
    del document["code"]
    document["checkpoints"] = [
        point._asdict() | {"root": point.root.hex()} for point in result.checkpoints
    ]
    return json.dumps(document, ensure_ascii=False, indent=1)


def as_text(result: Verdict) -> str:
    """Write a verdict for people."""
    lines = [f"{result.verdict.upper()}   {result.origin}", f"  checked      {result.scope}"]
    if result.first_bad is not None:
        lines.append(f"  first bad    entry {result.first_bad.seq}: {result.first_bad.what}")
    lines += [f"  holds        {result.holds}"] if result.holds else []
    lines += [f"  completeness {result.completeness}"] if result.completeness else []
    lines += [f"  rests on     {each}" for each in result.rests_on]
    lines += [f"  not checked  {each}" for each in result.not_checked]
    for finding in result.findings[:20]:
        where = f"entry {finding.seq}" if finding.seq is not None else "-"
        lines.append(f"  finding      {finding.kind}, {where}: {finding.what}")
        if finding.expected or finding.found:
            lines.append(f"               expected {finding.expected}, found {finding.found}")
    if len(result.findings) > 20:
        lines.append(f"               and {len(result.findings) - 20} more in the evidence file")
    counts = ", ".join(f"{value} {name}" for name, value in result.counts.items())
    return "\n".join([*lines, f"  counted      {counts}", f"  took         {result.duration_s} s"])


def write_evidence(result: Verdict, path: str | None) -> None:
    """Keep what was found: numbers and hashes, nothing from inside the entries."""
    now = datetime.now(UTC)
    target = Path(path or f"custody-evidence-{now:%Y%m%dT%H%M%SZ}.json")
    own = sha256(Path(__file__).read_bytes()).hexdigest()
    document = {"at": now.isoformat(), "verifier_sha256": own} | json.loads(as_json(result))
    try:
        target.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
        print(f"evidence: {target}", file=sys.stderr)
    except OSError as error:
        print(f"evidence could not be written: {error}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parsed = argparse.ArgumentParser(
        prog="verify_chain.py",
        description="Verify a Custody Ledger's database, or an evidence bundle taken from one.",
        epilog="Exit codes: 0 verified, 1 tampered, 2 usage, 3 unavailable, "
        "4 not everything could be checked.",
    )
    add = parsed.add_argument
    add("bundle", nargs="?", help="an evidence bundle (.zip)")
    add("--database", metavar="DSN", help="the database's connection string")
    add("--schema", help="the ledger's schema in it, ledger_NAME")
    add("--key", action="append", default=[], metavar="VKEY", help="a pinned verifier key")
    add("--pin", action="append", default=[], metavar="FILE", help="pinned keys, one a line")
    add(
        "--checkpoint",
        action="append",
        default=[],
        metavar="FILE",
        help="held outside; or a folder",
    )
    add("--keyring", metavar="FILE", help="the ledger's secret keys: opens boxes as well")
    add("--evidence", metavar="PATH", help="where to write findings, if there are any")
    add("--json", action="store_true", help="write the verdict as JSON")
    jobs = min(4, os.cpu_count() or 1)
    add("--jobs", type=int, default=jobs, help=f"processes that read a database ({jobs})")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    parsed = parser()
    args = parsed.parse_args(arguments)
    if bool(args.bundle) == bool(args.database) or bool(args.database) != bool(args.schema):
        parsed.error("give either a bundle, or --database and --schema")
    if args.jobs < 1:
        parsed.error("--jobs: expected 1 or more")
    begun = time.monotonic()
    try:
        trust = read_trust(args)
        if args.bundle:
            result = verify_bundle(Path(args.bundle), trust)
        else:
            result = verify_database(args, trust)
    except UsageError as error:
        print(f"usage: {error}", file=sys.stderr)
        return USAGE
    except UnavailableError as error:
        print(f"unavailable: {error}", file=sys.stderr)
        return UNAVAILABLE
    result.duration_s = round(time.monotonic() - begun, 3)
    print(as_json(result) if args.json else as_text(result))
    if result.code == TAMPERED:
        write_evidence(result, args.evidence)
    return result.code


if __name__ == "__main__":
    sys.exit(main())
