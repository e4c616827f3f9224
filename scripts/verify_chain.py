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
   column with the bytes. Which entry follows which in a stream is checked in bounded memory
   (`Streams`). The sweep only says *sound* or *doubtful*, and is made for speed.
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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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


def finding(
    kind: str,
    seq: int | None,
    what: str,
    expected: bytes | str | None = None,
    found: bytes | str | None = None,
    *,
    place: int | None = None,
) -> Finding:
    """Make a finding; hashes in hex."""
    expected, found = (
        value.hex() if isinstance(value, bytes) else value for value in (expected, found)
    )
    return Finding(kind=kind, seq=seq, what=what, expected=expected, found=found, place=place)


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


# == Section 4. What reading all entries amounts to ==


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


# == Section 5. Streams in bounded memory ==


class Streams:
    """Checks that each stream's entries follow one another, without holding every stream.

    Take each entry as a write of (leaf, stream, version) and each `stream_prev` as a read of
    what the stream's entry before wrote; a stream's head is the last read. If as multisets
    writes = reads + heads, then every entry is followed by exactly one entry of its stream
    with the next version, or is its head, and as each stream has one head, one chain.

    Writes that nothing has read yet are kept in `unread`, where nearly every read finds its
    own. What doesn't fit goes into a balance: the sum of a hash of each write, less that of each
    read, under a random key that is drawn anew for each run, so nobody can prepare entries whose
    sums agree by design (Blum, Evans, Gemmell, Kannan, Naor: Checking the correctness of
    memories, 1991). Chance of missing: about entries / 2^128.
    """

    LIMIT = 150_000

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.balance = 0
        self.unread: dict[bytes, tuple[bytes, int]] = {}

    def weigh(self, leaf: bytes, stream: bytes, version: int) -> int:
        """Give the keyed hash of one write or read: 64 hex digits, 36 bytes, version."""
        return int.from_bytes(sha256(b"%b%b%b%d" % (self.key, leaf, stream, version)).digest()[:16])

    def follow(
        self,
        leaves: Sequence[bytes],
        streams: Sequence[bytes],
        versions: Sequence[int],
        links: Sequence[bytes],
    ) -> list[int]:
        """Take entries; give the places of those that begin a stream.

        Raises:
            DoubtError: an entry's `stream_prev` is an entry of another stream or version.
        """
        self.unread.update(zip(leaves, zip(streams, versions, strict=True), strict=True))
        expected = [
            (stream, version - 1) for stream, version in zip(streams, versions, strict=True)
        ]
        read = [self.unread.pop(link, None) for link in links]
        begun = []
        for at in [at for at, write in enumerate(read) if write is None]:
            read[at] = expected[at]
            if links[at]:
                self.balance -= self.weigh(links[at], *expected[at])
            else:
                begun.append(at)
        if read != expected:
            raise DoubtError
        if len(self.unread) > self.LIMIT:
            self.settle()
        return begun

    def settle(self) -> None:
        """Give up what is kept to the balance."""
        self.balance += sum(self.weigh(leaf, *write) for leaf, write in self.unread.items())
        self.unread = {}


# == Section 6. The sweep: sound, or doubtful ==


class Chunk(NamedTuple):
    """256 rows of `entries` after a multiple of 256, or the log's last few, column by column.

    Rows are joined by a comma; `topics` by LF; `leaves` as PostgreSQL's binary array; `entries` by
    LF and 0x00, with 0x00 in front: a leaf's hash is over 0x00 and the entry, which holds no LF.
    What is null comes as nothing. A value that holds a separator is one piece too many.
    """

    seqs: bytes
    streams: bytes
    versions: bytes
    topics: bytes
    leaves: bytes
    boxes: bytes
    """`seq` of the boxes in this range."""
    entries: bytes


def entry_pattern(origin: str) -> re.Pattern[bytes]:
    r"""Give what finds the pieces of every entry in a chunk.

    A dot stands for what is compared with something known afterwards. The topic is captured
    where it stands first, or after `id`; elsewhere it is for `topic_of`.
    """
    named = re.escape(json.dumps(origin, ensure_ascii=False).encode())
    return re.compile(
        rb'(\0\{"v":0,"ledger":%b,"seq":([1-9][0-9]*),"prev":"(.{64})","recorded":"(.{27})",'
        rb'"stream":"(.{36})","stream_kind":"(?:record|ledger|(aggregate))",'
        rb'"version":(0|[1-9][0-9]*),"stream_prev":(?:null|"(.{64})"),"emitter":(\{[^}]*\}),'
        rb'"sealed":\{("?)[^}]*\},"event":\{(?:(?(6)"topic"|(?:"id":"([^"]*)(?<!\\)",)?"type")'
        rb':"([^"\\]*)"(?(6),"state|))?[^\n]*\}\})(?:\n|\Z)' % named,
        re.DOTALL,
    )


class Sweep:
    """Checks a range of entries quickly, 256 at a time: each step takes a whole column.

    A range begins after a multiple of 256. Where something isn't plainly right, DoubtError is
    raised; what it is, the examination says.
    """

    def __init__(self, *, origin: str, first: int, key: bytes, sizes: Iterable[int]) -> None:
        self.pattern = entry_pattern(origin)
        self.streams = Streams(key)
        self.first = self.next = first
        self.before = self.leaf = b""
        """Hex leaf of the entry before the first, as that names it; of the last."""
        self.first_recorded = self.recorded = b""
        self.emitters: set[bytes] = set()
        self.tiles: list[bytes] = []
        self.sizes = set(sizes)
        self.marks: dict[int, list[bytes]] = {}
        """Size wanted to the peaks after the last complete tile."""
        self.boxed = self.sealed = self.firsts = self.firsts_sum = 0

    def take(self, chunk: Chunk) -> None:
        """Check the next chunk."""
        found = self.pattern.findall(chunk.entries)
        if not found:
            raise DoubtError(self.next)
        raws, seqs, prevs, times, streams, kinds, versions, links, emitters, seals, ids, topics = (
            zip(*found, strict=True)
        )
        number = len(raws)
        leaves = [sha256(raw).digest() for raw in raws]
        hexes = struct.unpack("64s" * number, b"".join(leaves).hex().encode())
        if b"" in topics:
            topics = tuple(topic or _topic(raw) for topic, raw in zip(topics, raws, strict=True))
        if not self.recorded:
            self.before = self.leaf = prevs[0]
            self.first_recorded = self.recorded = times[0]
        size = b"\0\0\0 "
        right = (
            # Every byte is an entry's, and every column is what the bytes say.
            sum(map(len, raws)) + number - 1 == len(chunk.entries)
            and max(map(len, raws)) <= 1 + MAX_ENTRY_BYTES
            and b",".join(seqs) == chunk.seqs
            and b",".join(streams) == chunk.streams
            and b",".join(versions) == chunk.versions
            and b"\n".join(topics) == chunk.topics
            and size + size.join(leaves) == chunk.leaves[20:]
            # One entry follows the other.
            and [*map(int, seqs)] == [*range(self.next, self.next + number)]
            and prevs == (self.leaf, *hexes[:-1])
            and [self.recorded, *times] == sorted((self.recorded, *times))
            and all(map(_TIME.fullmatch, set(times)))
            and all(map(_EMITTER.fullmatch, set(emitters) - self.emitters))
        )
        if not right:
            raise DoubtError(self.next)
        numbers = [*map(int, versions)]
        for at in self.streams.follow(hexes, streams, numbers, links):
            if numbers[at] != 1 and (numbers[at] or not kinds[at]):
                raise DoubtError(self.next)
        self._count(chunk, raws, kinds, seals, ids)
        self._grow(leaves)
        self.emitters = set(emitters)
        self.leaf, self.recorded = hexes[-1], times[-1]
        self.next += number

    def _count(
        self,
        chunk: Chunk,
        raws: Sequence[bytes],
        kinds: Sequence[bytes],
        seals: Sequence[bytes],
        ids: Sequence[bytes],
    ) -> None:
        """Count sealed entries, their boxes, and the entries that `accepted` has a row for."""
        here = range(self.next, self.next + len(raws))
        self.sealed += len(raws) - seals.count(b"")
        if chunk.boxes:
            boxed = set(map(int, chunk.boxes.split(b","))).intersection(here)
            if not all(seals[seq - self.next] for seq in boxed):
                raise DoubtError(self.next)
            self.boxed += len(boxed)
        # A later part of an event stands directly after another, under the same id (1.5);
        # to look for `part` in every entry would take half as long as hashing it.
        maybe = [0]
        if b"" in ids or len(set(ids)) < len(ids):
            maybe += [at for at in range(1, len(ids)) if ids[at] in {b"", ids[at - 1]}]
        later = [
            at for at in maybe if kinds[at] or (b'"part":' in raws[at] and _is_later(raws[at]))
        ]
        self.firsts += len(here) - len(later)
        self.firsts_sum += sum(here) - sum(here[at] for at in later)

    def _grow(self, leaves: list[bytes]) -> None:
        at = self.next - 1
        for size in self.sizes.intersection(range(at + 1, at + len(leaves) + 1)):
            self.marks[size] = peaks(leaves[: (size - at) & 255])
        if len(leaves) == 256:
            self.tiles.append(fold(leaves))


def _topic(raw: bytes) -> bytes:
    entry = read_entry(raw[1:])
    return topic_of(entry.kind, entry.event)


def _is_later(raw: bytes) -> bool:
    entry = read_entry(raw[1:])
    return not is_first_of_event(entry.kind, entry.event)


def sweep(chunks: Iterable[Chunk], **place: Any) -> Sweep:
    """Check a range of entries; the keywords are those of `Sweep`."""
    part = Sweep(**place)
    for chunk in chunks:
        part.take(chunk)
    part.streams.settle()
    return part


def join_parts(parts: Iterable[Sweep], log: Database, key: bytes) -> Totals:
    """Join the ranges' sweeps in order, and settle the streams' balance with their heads."""
    totals, streams, at = Totals(), Streams(key), 0
    for part in parts:
        follows = (part.first, part.before) == (totals.entries + 1, totals.leaf.hex().encode())
        if not follows or part.first_recorded < totals.recorded:
            raise DoubtError(part.first)
        sizes = sorted(part.marks)
        for tile in [*part.tiles, None]:
            while sizes and sizes[0] >> 8 == at >> 8:
                size = sizes.pop(0)
                totals.roots[size] = totals.tree.root(part.marks[size])
            if tile is not None:
                totals.tree.add_tile(tile)
                at += 256
        at = totals.entries = totals.reach = part.next - 1
        totals.leaf, totals.recorded = bytes.fromhex(part.leaf.decode()), part.recorded
        totals.boxed += part.boxed
        totals.sealed += part.sealed
        totals.firsts += part.firsts
        totals.firsts_sum += part.firsts_sum
        streams.balance += part.streams.balance
    last = b""
    for stream, version, leaf in log.stream_heads():
        if stream <= last:
            raise DoubtError("two heads of a stream")
        last = stream
        streams.balance -= streams.weigh(leaf.hex().encode(), stream, version)
    if streams.balance % 2**128:
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
        return sorted(self.findings, key=lambda each: each.seq or 0)

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
            self.findings.append(finding(kind, seq, what, **more))


def examine(log: Database, *, origin: str, sizes: Iterable[int]) -> tuple[Totals, list[Finding]]:
    """Read every entry slowly and say what is wrong."""
    totals, walk = Totals(), Walk(1, "0" * 64)
    columns: list[Finding] = []
    wanted = set(sizes)
    rest: list[bytes] = []
    for row in log.rows():
        leaf, entry = leaf_hash(row.entry), None
        try:
            entry = read_entry(row.entry)
            wrong = list(compare_columns(row, entry, origin, totals))
        except MalformedError as error:
            wrong = [finding("altered", row.seq, str(error))]
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
    kinds = {each.kind for each in findings}
    for each in columns:
        moved = each.what == SEQ and kinds - {"altered"}
        if each.seq not in walk.wrong_places and not moved and not (kinds and each.what == EARLIER):
            findings.append(each)
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
    yield from (finding("altered", row.seq, what) for right, what in rules if not right)


def examine_streams(log: Database) -> list[Finding]:
    """Follow every stream by itself, where the chain as a whole holds."""
    findings: list[Finding] = []
    for last, head in paired(_last_of_streams(log, findings), log.stream_heads(), 1):
        if last is None:
            findings.append(finding("inserted", None, "stream_heads: a stream without entries"))
        elif head is None:
            findings.append(finding("deleted", last[3], "stream_heads: none for this stream"))
        elif head != last[:3]:
            what = f"stream_heads: version {head[1]}, the stream's last entry has {last[1]}"
            kind, seq = ("truncated", None) if head[1] > last[1] else ("altered", last[3])
            findings.append(finding(kind, seq, what, head[2], last[2]))
        if len(findings) >= MAX_FINDINGS:
            break
    return sorted(findings, key=lambda each: each.seq or sys.maxsize)


def _last_of_streams(log: Database, findings: list[Finding]) -> Iterator[tuple[Any, ...]]:
    """Give (stream, version, leaf, seq) of every stream's last entry; note what doesn't follow."""
    last: tuple[Any, ...] | None = None
    for row in log.rows_by_stream():
        entry, wrong = read_entry(row.entry), None
        if last is None or last[0] != row.stream:
            if last is not None:
                yield last
            begins = row.version == 1 or (row.version == 0 and entry.kind == b"aggregate")
            if not begins or entry.stream_prev:
                wrong = finding("deleted", row.seq, "the stream's beginning is missing")
        elif row.version > last[1] + 1:
            what = f"versions {last[1] + 1} to {row.version - 1} of the stream are missing"
            wrong = finding("deleted", row.seq, what)
        elif row.version <= last[1]:
            wrong = finding("inserted", row.seq, "a second entry with this version")
        elif entry.stream_prev != last[2].hex():
            what = "stream_prev isn't the leaf of the stream's entry before"
            wrong = finding("altered", row.seq, what, last[2], entry.stream_prev)
        findings += [wrong] if wrong else []
        last = (row.stream, row.version, leaf_hash(row.entry), row.seq)
    if last is not None:
        yield last


def paired(
    expected: Iterator[Any], found: Iterator[Any], width: int
) -> Iterator[tuple[tuple[Any, ...] | None, tuple[Any, ...] | None]]:
    """Pair two sorted rows of tuples by their first members; None where one has no match."""
    left, right = next(expected, None), next(found, None)
    while left is not None or right is not None:
        lone = right is None or (left is not None and left[:width] < right[:width])
        more = left is None or (right is not None and right[:width] < left[:width])
        yield None if more else left, None if lone else right
        left = left if more else next(expected, None)
        right = right if lone else next(found, None)


# == Section 8. Index tables and checkpoints against what was read ==


def compare_head(log: Database, totals: Totals, *, broken: bool) -> list[Finding]:
    """Compare the head's row with the last entry."""
    head = log.head()
    if head is None:
        return [finding("deleted", None, "head: the row is missing")]
    seq, leaf, recorded = head
    if seq > totals.reach:
        return [finding("truncated", totals.reach + 1, f"head: the log reached {seq}", leaf)]
    if seq < totals.reach:
        return [finding("inserted", seq + 1, f"head: the log ends at {seq}, entries go on")]
    if not broken and (leaf, recorded) != (totals.leaf, totals.recorded):
        return [finding("altered", seq, "head: differs from the last entry", leaf, totals.leaf)]
    return []


def compare_tables(log: Database, totals: Totals) -> list[Finding]:
    """Compare tree nodes, accepted and boxes with the entries."""
    findings = []
    computed = (
        (level, index, bytes(row[index * 32 : index * 32 + 32]))
        for level, row in enumerate(totals.tree.levels, 1)
        for index in range(len(row) // 32)
    )
    for wanted, node in paired(computed, log.tree_nodes(), 2):
        if wanted != node:
            level, index = (wanted or node or (0, 0))[:2]
            kind = "inserted" if wanted is None else "altered" if node else "deleted"
            seq = index * 256**level + 1 if 0 < level < 8 else None
            what = f"tree_nodes: level {level}, index {index}"
            right, found = (each[2] if each else None for each in (wanted, node))
            findings.append(finding(kind, seq, what, right, found))
        if len(findings) > MAX_FINDINGS:
            return findings
    number, least, greatest, total = log.accepted()
    inside = not number or 1 <= least <= greatest <= totals.entries
    if (number, total) != (totals.firsts, totals.firsts_sum) or not inside:
        more = (number > totals.firsts) - (number < totals.firsts)
        what = f"accepted: expected a row for each of {totals.firsts} events, found {number}"
        findings.append(finding(("altered", "inserted", "deleted")[more], None, what))
    if log.boxes() != totals.boxed:
        findings.append(finding("inserted", None, "boxes: some stand beside no entry"))
    return findings


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
            findings.append(finding("rewritten", None, f"{point.held}: of another ledger"))
        elif point.size > totals.reach:
            what = f"{point.held}: the log reached {point.size}"
            findings.append(finding("truncated", totals.reach + 1, what, point.root))
        elif broken_at is not None and point.size >= broken_at:
            continue
        elif totals.roots[point.size] == point.root:
            agreed = point if point.signed or point.outside else agreed
        else:
            differs_from = differs_from or (agreed.size if agreed else 0) + 1
            what = f"{point.held}: an entry from {differs_from} to {point.size} was another"
            root = totals.roots[point.size]
            findings.append(finding("rewritten", differs_from, what, point.root, root))
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


def check_secrets(log: Database, keyring: Keyring) -> tuple[list[Finding], list[str]]:
    """Open every box; recompute every key of `accepted`, compared as `Streams` does."""
    findings: list[Finding] = []
    lost, other_epoch, balance, salt = 0, 0, 0, os.urandom(32)
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
            lost += row.wrapped is None
            other_epoch += row.wrapped is not None
            continue
        what = "key of the stream"
        try:
            owner = bytes.fromhex(whole["stream"].replace("-", ""))
            key = decrypt(kek, row.wrapped, b"ledger/key/v1" + owner)
            what = "box"
            open_box(row, whole, key, source)
        except MalformedError as error:
            findings.append(finding("altered", row.seq, f"{what}: {error}"))
    for accepted, seq in log.accepted_rows():
        balance -= weight(accepted, seq)
    if balance % 2**128:
        what = "accepted: a key isn't that of the event its row names"
        findings.append(finding("altered", None, what))
    notes = [
        (lost, f"erased or lost: {lost} (boxes whose stream's key is gone)"),
        (other_epoch, f"{other_epoch} boxes: their stream's key is of an epoch not given"),
    ]
    return findings[:MAX_FINDINGS], [note for number, note in notes if number]


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

    origin: str
    scope: str
    code: int = TAMPERED
    verdict: str = "tampered"
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


def find_origin(log: Database, trust: Trust) -> str:
    """Give the ledger's name: the pinned key's, else the outside checkpoint's, else entry 1's."""
    names = {key.name for key in trust.keys} | {each.origin for each in trust.checkpoints}
    names |= {trust.keyring.origin} if trust.keyring else set()
    if len(names) > 1:
        raise UsageError(f"keys and checkpoints of {len(names)} ledgers were given; give one's")
    if names:
        return names.pop()
    try:
        return read_entry(log.first_entry()).ledger
    except MalformedError:
        return ""


def read_checkpoints(log: Database, trust: Trust) -> tuple[list[Checkpoint], list[Finding]]:
    """Open the log's own checkpoints under the pinned keys."""
    points, findings = [], []
    for size, note in log.checkpoints():
        held = f"checkpoint of size {size}"
        try:
            point = open_checkpoint(note, trust.keys, held=held)
        except MalformedError as error:
            kind = "rewritten" if "signature" in str(error) else "altered"
            findings.append(finding(kind, None, f"{held}: {error}"))
            continue
        if point.size != size:
            findings.append(finding("altered", None, f"{held}: the note says {point.size}"))
        elif trust.keys and not point.signed:
            findings.append(finding("rewritten", None, f"{held}: not signed by a pinned key"))
        else:
            points.append(point)
    return points, findings


def check_opening(log: Database, origin: str) -> list[Finding]:
    """Check that entry 1 opens this ledger in this format (1.7)."""
    raw = log.first_entry()
    try:
        event = read_event(read_entry(raw).event) if raw else {}
    except MalformedError:
        return []
    stated = event.get("data")
    facts = (stated.get("origin"), stated.get("format")) if isinstance(stated, dict) else ()
    if not raw or (event.get("type"), facts) == ("ledger.ledger.opened.v1", (origin, 0)):
        return []
    return [finding("altered", 1, "entry 1 doesn't open this ledger in this format")]


def verify_log(log: Database, trust: Trust) -> Verdict:
    """Check a whole log by the steps at the top of this file."""
    origin = find_origin(log, trust)
    own, findings = read_checkpoints(log, trust)
    points = [*own, *trust.checkpoints]
    sizes = sorted({point.size for point in points} - {0})
    key = os.urandom(32)
    bad: list[Finding] = []
    try:
        totals = join_parts(log.parts(origin, key, sizes), log, key)
    except (DoubtError, MalformedError):
        totals, bad = examine(log, origin=origin, sizes=sizes)
    totals.roots[0] = sha256(b"").digest()
    findings += bad
    findings += compare_head(log, totals, broken=bool(bad))
    if not bad:
        findings += check_opening(log, origin)
    if not any(each.seq for each in findings):
        findings += compare_tables(log, totals)
    seqs = [each.seq for each in findings if each.seq and not each.what.startswith("tree_nodes")]
    broken_at = min(seqs, default=None)
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
        origin=origin,
        scope=f"entries 1 to {totals.reach}",
        rests_on=rests_on(trust),
        not_checked=not_checked,
        checkpoints=[agreed] if agreed else [],
        counts={
            "entries": totals.entries,
            "own checkpoints": len(own),
            "outside checkpoints": len(trust.checkpoints),
            "sealed entries with a box": totals.boxed,
            "sealed entries without (erased)": totals.sealed - totals.boxed,
        },
    )
    if findings:
        conclude(result, findings, agreed)
        return result
    covered = f"; entries 1 to {agreed.size} agree with {agreed.held}" if agreed else ""
    result.holds = f"entries 1 to {totals.entries} are chained without a break{covered}"
    signed = [point.size for point in own if point.signed]
    if trust.keys and trust.checkpoints:
        result.code, result.verdict = VERIFIED, "verified"
        reach = max(*(point.size for point in trust.checkpoints), *signed, 0)
        if totals.entries > reach:
            what = f"entries after {reach}: chained, but not yet under a checkpoint seen here"
            not_checked.append(what)
        return result
    result.code, result.verdict = INCOMPLETE, "consistent with itself"
    if trust.keys and signed:
        result.verdict += f" and signed by the pinned key up to entry {max(signed)}"
    not_checked.append(
        "that nothing was cut off the end or rewritten: give --checkpoint with one held outside"
        if trust.keys
        else "who signed: give --pin or --key with the ledger's key, and --checkpoint"
    )
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
    entries = [each for each in findings if each.seq is not None]
    entries.sort(key=lambda each: (each.seq or 0, each.what.startswith("tree_nodes")))
    findings = entries + [each for each in findings if each.seq is None]
    result.findings = findings[:MAX_FINDINGS]
    result.first_bad = entries[0] if entries else None
    result.kinds = list(dict.fromkeys(each.kind for each in result.findings))
    result.verdict = f"tampered: {', '.join(result.kinds)}"
    last = (entries[0].seq or 1) - 1 if entries else 0
    if not entries or entries[0].what.startswith(("tree_nodes", "stream_heads")):
        result.holds = "the entries are chained without a break; what indexes or signs them isn't"
    else:
        result.holds = f"entries 1 to {last} are chained without a break" if last else "nothing"
    if agreed:
        result.holds += f"; entries 1 to {agreed.size} agree with {agreed.held}"


def own_sha256() -> str:
    """Give the digest of this script."""
    return sha256(Path(__file__).read_bytes()).hexdigest()


# == Section 11. PostgreSQL ==

_CHUNKS = """
SELECT seqs, streams, versions, topics, leaves, (
    SELECT string_agg(seq::text, ',') FROM {schema}.boxes WHERE seq BETWEEN at AND at + 255
), entries
FROM generate_series({first}::bigint, {last}, 256) AS at, LATERAL (
    SELECT string_agg(seq::bigint::text, ',') AS seqs,
        string_agg(stream::uuid::text, ',') AS streams,
        string_agg(version::bigint::text, ',') AS versions,
        string_agg(coalesce(topic, ''), E'\\n') AS topics,
        array_agg(leaf) AS leaves,
        '\\x00'::bytea || string_agg(coalesce(entry, ''), '\\x0a00'::bytea) AS entries
    FROM (SELECT * FROM {schema}.entries WHERE seq BETWEEN at AND at + 255 ORDER BY seq) AS e
) AS chunk
"""
# What is null, though no column should be, comes as nothing and is then seen to be wrong.
_ROWS = """
SELECT coalesce(e.seq, 0), coalesce(e.stream::text, ''), coalesce(e.version, -1),
    coalesce(e.topic, ''), coalesce(e.leaf, ''), coalesce(e.entry, ''), b.seq IS NOT NULL
FROM {schema}.entries e LEFT JOIN {schema}.boxes b ON b.seq = e.seq
"""
_SEALED = """
SELECT e.seq, e.entry, b.box, k.epoch, k.wrapped
FROM {schema}.entries e LEFT JOIN {schema}.boxes b ON b.seq = e.seq
    LEFT JOIN {schema}.keys k ON k.id = e.stream
ORDER BY e.seq
"""


def _connect(dsn: str, snapshot: str | None) -> Any:
    """Open a read-only transaction, in the given snapshot of the database if there is one."""
    import psycopg  # noqa: PLC0415 - bundles are checked without it

    connection = psycopg.connect(dsn, autocommit=True, connect_timeout=10)
    connection.execute("SET jit = off")  # compiling these queries takes longer than they do
    connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    if snapshot is not None:
        connection.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
    return connection


def _composed(connection: Any, text: str, **parts: Any) -> bytes:
    from psycopg import sql  # noqa: PLC0415 - bundles are checked without it

    template: Any = text
    named = {name: sql.Literal(part) for name, part in parts.items() if name != "schema"}
    query = sql.SQL(template).format(schema=sql.Identifier(parts["schema"]), **named)
    return query.as_bytes(connection)


def copy_chunks(place: tuple[str, str, str], first: int, last: int) -> Iterator[Chunk]:
    """Read entries over a connection of their own, in the binary format of COPY.

    PostgreSQL joins what makes a chunk: a row for each entry costs more than its hash.
    """
    dsn, schema, snapshot = place
    connection = _connect(dsn, snapshot)
    try:
        query = _composed(connection, _CHUNKS, schema=schema, first=first, last=last)
        pgconn = connection.pgconn
        _expect(pgconn, pgconn.exec_(b"COPY (%b) TO STDOUT (FORMAT BINARY)" % query), "COPY_OUT")
        skip = 19  # signature, flags and extension length stand before the first row
        while (message := pgconn.get_copy_data(0))[0] > 0:
            raw, at, fields = memoryview(message[1])[skip:], 2, []
            skip = 0
            while at < len(raw):
                end = at + 4 + max(0, int.from_bytes(raw[at : at + 4], signed=True))
                fields.append(bytes(raw[at + 4 : end]))
                at = end
            if fields:
                yield Chunk(*fields)
        _expect(pgconn, pgconn.get_result(), "COMMAND_OK")
    finally:
        connection.close()


def _expect(pgconn: Any, result: Any, status: str) -> None:
    from psycopg.pq import ExecStatus  # noqa: PLC0415 - bundles are checked without it

    if result is None or result.status != ExecStatus[status]:
        message = (result or pgconn).error_message
        raise UnavailableError(f"database: {message.decode(errors='replace').strip()}")


def sweep_range(
    place: tuple[str, str, str], bounds: tuple[int, int], origin: str, key: bytes, sizes: list[int]
) -> Sweep:
    """Sweep the entries between two bounds; runs in a process of its own."""
    gc.disable()  # nothing here makes cycles, and looking for them takes a tenth of the time
    return sweep(copy_chunks(place, *bounds), origin=origin, first=bounds[0], key=key, sizes=sizes)


class Database:
    """A ledger's schema, read in one snapshot that every connection here shares."""

    def __init__(self, dsn: str, schema: str, jobs: int = 1) -> None:
        self._connection = _connect(dsn, None)
        self._schema = schema
        self._jobs = jobs
        self.place = (dsn, schema, self._all("SELECT pg_export_snapshot()")[0][0])

    def close(self) -> None:
        """Give the snapshot up."""
        self._connection.close()

    def _all(self, text: str) -> list[Any]:
        query = _composed(self._connection, text, schema=self._schema)
        rows: list[Any] = self._connection.execute(query).fetchall()
        return rows

    def _stream(self, name: str, text: str) -> Iterator[Any]:
        with self._connection.cursor(name) as cursor:
            cursor.itersize = 5_000
            query = _composed(self._connection, text, schema=self._schema)
            yield from cursor.execute(query, binary=True)

    def _rows(self, order: str) -> Iterator[Row]:
        for seq, stream, version, topic, leaf, entry, boxed in self._stream("rows", _ROWS + order):
            yield Row(seq, stream.encode(), version, topic.encode(), leaf, entry, boxed)

    def head(self) -> tuple[int, bytes, bytes] | None:
        """Give the row (seq, leaf, recorded)."""
        rows = self._all("SELECT seq, leaf, recorded FROM {schema}.head")
        return (rows[0][0], rows[0][1], rows[0][2].encode()) if len(rows) == 1 else None

    def first_entry(self) -> bytes:
        """Give entry 1."""
        rows = self._all("SELECT entry FROM {schema}.entries WHERE seq = 1")
        return rows[0][0] or b"" if rows else b""

    def rows(self) -> Iterator[Row]:
        """Give entries in the order of `seq`."""
        return self._rows("ORDER BY e.seq")

    def rows_by_stream(self) -> Iterator[Row]:
        """Give entries in the order of stream, version, seq."""
        return self._rows("ORDER BY e.stream, e.version, e.seq")

    def stream_heads(self) -> Iterator[tuple[bytes, int, bytes]]:
        """Give (stream, version, leaf) in the order of stream."""
        text = "SELECT stream::text, version, leaf FROM {schema}.stream_heads ORDER BY stream"
        for stream, version, leaf in self._stream("heads", text):
            yield stream.encode(), version, leaf

    def tree_nodes(self) -> Iterator[tuple[int, int, bytes]]:
        """Give (level, idx, hash) in the order of level, idx."""
        text = "SELECT level, idx, hash FROM {schema}.tree_nodes ORDER BY level, idx"
        return self._stream("nodes", text)

    def checkpoints(self) -> Iterator[tuple[int, str]]:
        """Give (size, note) in the order of size."""
        return self._stream("notes", "SELECT size, note FROM {schema}.checkpoints ORDER BY size")

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
        return starmap(SealedRow, self._stream("sealed", _SEALED))

    def accepted_rows(self) -> Iterator[tuple[bytes, int]]:
        """Give (key, seq)."""
        return self._stream("accepted", "SELECT key, seq FROM {schema}.accepted")

    def parts(self, origin: str, key: bytes, sizes: list[int]) -> Iterator[Sweep]:
        """Sweep in ranges, in several processes where that pays.

        Raises:
            DoubtError: there are numbers outside all ranges, or no index to read ranges by.
        """
        least, greatest, is_indexed = self._all(
            "SELECT coalesce(min(seq), 1), coalesce(max(seq), 0), EXISTS (SELECT FROM pg_index"
            " WHERE indrelid = (SELECT tableoid FROM {schema}.entries LIMIT 1)"
            " AND indisprimary AND indisvalid) FROM {schema}.entries"
        )[0]
        if least != 1 or not is_indexed:
            raise DoubtError(least)
        # Each range has a connection and streams of its own, so there are few.
        ranges_wanted = self._jobs * -(-greatest // (self._jobs * 2**20))
        each = -(-greatest // (max(1, ranges_wanted) * 256)) * 256 if greatest > 2**14 else 2**14
        ranges = [
            (self.place, (at, min(at + each - 1, greatest)), origin, key, sizes)
            for at in range(1, greatest + 1, each)
        ]
        if self._jobs == 1 or len(ranges) < 2:
            yield from _shown(starmap(sweep_range, ranges), len(ranges))
            return
        # A fork has psycopg loaded already; elsewhere than on Linux it isn't safe.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        with ProcessPoolExecutor(min(self._jobs, len(ranges)), mp_context=context) as pool:
            try:
                futures = [pool.submit(sweep_range, *arguments) for arguments in ranges]
                yield from _shown((future.result() for future in futures), len(ranges))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _shown(parts: Iterable[Sweep], number: int) -> Iterator[Sweep]:
    """Draw a bar while parts come, where somebody is watching."""
    for done, part in enumerate(parts, 1):
        if sys.stderr.isatty():
            bar = ("#" * (40 * done // number)).ljust(40, ".")
            end = "\n" if done == number else ""
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
        self.rows = 0

    def require(self, right: object, kind: str, what: str, *more: Any) -> None:
        """Note a finding unless something is right; `more` is seq, expected, found."""
        if not right and len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding(kind, more[0] if more else None, what, *more[1:]))

    def member(self, name: str) -> dict[str, Any]:
        """Give an object in the manifest; an empty one where it isn't an object."""
        found = self.manifest.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def is_range(self) -> bool:
        """Whether it holds a range, not a record."""
        return self.member("scope").get("kind") == "range"

    def check_files(self) -> bool:
        """Check names and sizes before anything is unpacked; False where nothing can be read."""
        members = self.archive.infolist()
        names = [member.filename for member in members]
        for name in sorted(set(names) - set(FILES)):
            unsafe = name.startswith(("/", "\\")) or ".." in name or ":" in name
            what = "with an unsafe path" if unsafe else "more"
            self.require(right=False, kind="inserted", what=f"zip: a file {what}")
        for name in FILES:
            self.require(names.count(name) < 2, "inserted", f"zip: {name} more than once")
            self.require(name in names, "deleted", f"zip: {name} is missing")
        for member in members:
            name, size = member.filename, member.file_size
            bomb = size > 2**20 and size > MAX_RATIO * member.compress_size
            if name in FILES and (bomb or size > FILES[name] or member.flag_bits & 1):
                raise UnavailableError(f"{name}: too large, or encrypted; not unpacked")
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
            self.require(False, "altered", f"manifest: {error}")  # noqa: FBT003
            return False
        manifest, scope = self.manifest, self.member("scope")
        origin, digest = manifest.get("ledger"), self.digests["manifest.json"]
        same = stated == f"custody-ledger manifest v0\n{origin}\n{digest}\n"
        what = "manifest.json: isn't what manifest.note was made over"
        self.require(same, "altered", what, None, None, digest)
        if self.trust.keys:
            named = all(key.name == origin for key in self.trust.keys)
            self.require(signed, "rewritten", "manifest.note: not signed by a pinned key")
            what = "manifest.json: of another ledger than the pinned key's"
            self.require(named, "rewritten", what)
        known = manifest.get("format") == "custody-ledger/bundle/v0"
        self.require(known, "altered", "manifest.json: another format than this script knows")
        told = manifest.get("completeness") in {"proved", "asserted"}
        what = "manifest.json: completeness is neither proved nor asserted"
        self.require(told, "altered", what)
        numbers = (scope.get("from"), scope.get("to")) if self.is_range else (1, 1)
        scoped = self.is_range or scope.get("kind") == "record"
        scoped = scoped and all(type(n) is int and n > 0 for n in numbers)
        self.require(scoped, "altered", "manifest.json: scope is neither a record nor a range")
        return scoped

    def check_entries(self) -> None:
        """Follow the entries: a range by `prev`, a record by `stream_prev`."""
        is_range, scope = self.is_range, self.member("scope")
        first = scope["from"] if is_range else 1
        walk = Walk(first, "" if not is_range else "0" * 64 if first == 1 else None)
        seqs: dict[int, int] = {}
        recorded, late = b"", list[Finding]()
        for place, line in enumerate(self.lines("entries.jsonl", MAX_ENTRY_BYTES + 2), first):
            raw = line[:-1] if line.endswith(b"\n") else line
            leaf, number, before = leaf_hash(raw), None, ""
            try:
                entry = read_entry(raw)
                read_event(entry.event)
            except MalformedError as error:
                self.require(False, "altered", f"line {place - first + 1}: {error}")  # noqa: FBT003
            else:
                late += self._check_entry(entry, recorded)
                recorded = entry.recorded
                number = entry.seq if is_range else entry.version
                before = entry.prev if is_range else entry.stream_prev or ""
                seqs[number] = entry.seq
                self.leaves[entry.seq] = leaf
                self.last = (entry.seq, leaf)
            walk.feed(Link(place, number, before, leaf.hex(), suspect=False))
        findings = walk.finish()
        self.findings += [each for each in late if not findings or each.what not in ORDER]
        for each in findings:
            what = each.what if is_range else f"version {each.seq}: {each.what}"
            seq = each.seq if is_range else seqs.get(each.seq or 0)
            self.findings.append(replace(each, seq=seq, what=what))
        end = scope["to"] if is_range else self.manifest.get("last_seq")
        reach = walk.reach if is_range else self.last[0] if self.last else 0
        end_at = end if isinstance(end, int) else sys.maxsize
        what = f"entries go to {reach}, the manifest says {end}"
        self.require(end_at <= reach, "truncated", what, reach + 1)
        self.require(end_at >= reach, "inserted", what, end_at + 1)

    def _check_entry(self, entry: Entry, recorded: bytes) -> list[Finding]:
        rules = [
            (entry.ledger == self.manifest.get("ledger"), "the bytes name another ledger"),
            (entry.recorded >= recorded, EARLIER),
        ]
        if not self.is_range:
            stream = str(self.member("scope").get("record")).encode()
            same = entry.stream == stream and entry.kind == b"record"
            after = self.last is None or entry.seq > self.last[0]
            rules += [(same, "of another record"), (after, ORDER[1])]
        return [finding("altered", entry.seq, what) for right, what in rules if not right]

    def check_rows(self) -> None:
        """Check that every row rests on an entry in the bundle."""
        lines = (line.decode(errors="replace") for line in self.lines("rows.csv", 2**20))
        reader = csv.reader(lines)
        header = next(reader, [])
        named = {"seq", "leaf"} <= set(header)
        self.require(named, "altered", "rows.csv: expected the columns seq and leaf")
        for row in reader:
            self.rows += 1
            cells = dict(zip(header, row, strict=False))
            seq = int(cells["seq"]) if re.fullmatch("[0-9]{1,19}", cells.get("seq", "")) else 0
            leaf = self.leaves.get(seq)
            rests = leaf is not None and leaf.hex() == cells.get("leaf")
            what = f"rows.csv: row {self.rows} rests on no entry of this bundle"
            self.require(rests and len(row) == len(header), "altered", what, seq or None)

    def check_checkpoint(self) -> Checkpoint | None:
        """Check the checkpoint, and that the last entry is under it."""
        keys = self.trust.keys
        try:
            point = open_checkpoint(self.text("checkpoint"), keys, held="the bundle's checkpoint")
            index, proof, note = read_proof(self.text("last.tlog-proof"))
            proved = open_checkpoint(note, keys, held="last.tlog-proof")
        except MalformedError as error:
            kind = "rewritten" if "signature" in str(error) else "altered"
            self.require(False, kind, str(error))  # noqa: FBT003
            return None
        named = point.origin == self.manifest.get("ledger")
        self.require(named, "rewritten", "checkpoint: of another ledger")
        signed = not keys or (point.signed and proved.signed)
        self.require(signed, "rewritten", "checkpoint: not signed by a pinned key")
        same = proved[:3] == point[:3]
        self.require(same, "altered", "last.tlog-proof: under another checkpoint")
        as_of = self.member("as_of")
        same = as_of.get("seq") == point.size
        self.require(same, "altered", "manifest.json: as_of isn't the checkpoint's size")
        known = self.leaves.get(point.size)
        same = known is None or as_of.get("leaf") == known.hex()
        self.require(same, "altered", "manifest.json: as_of has another leaf", point.size)
        seq, leaf = self.last or (0, b"")
        if not seq:
            self.require(seq, "truncated", "entries.jsonl: no entry at all", 1)
        elif index >= seq:
            what = f"last.tlog-proof is for entry {index + 1}"
            self.require(False, "truncated", what, seq + 1)  # noqa: FBT003
        else:
            name = "entries.jsonl"
            kind = "rewritten" if self.stated(name) == self.digests.get(name) else "altered"
            right = check_inclusion(leaf, seq - 1, point.size, proof) == point.root
            self.require(right, kind, "the last entry isn't under the checkpoint", seq)
        return point

    def stated(self, name: str) -> object:
        """Give the digest of a file that the manifest states."""
        return self.member("files").get(name)

    def check_claims(self) -> None:
        """Compare digests and counts with the manifest."""
        self.text("FORMAT.md")
        for name in sorted(FILES.keys() - {"manifest.json", "manifest.note"}):
            digests = (self.stated(name), self.digests.get(name))
            same = digests[0] == digests[1]
            self.require(same, "altered", f"{name}: another file", None, *map(str, digests))
        first, last = min(self.leaves, default=None), max(self.leaves, default=None)
        for name, value in {"rows": self.rows, "first_seq": first, "last_seq": last}.items():
            told = self.manifest.get(name)
            what = f"manifest.json: {name} isn't what the bundle holds"
            self.require(told == value, "altered", what, None, str(told), str(value))

    def compare_outside(self, point: Checkpoint, not_checked: list[str]) -> bool:
        """Compare the bundle with checkpoints held outside; tell whether any could be."""
        compared = False
        begins = self.is_range and self.member("scope")["from"] == 1
        leaves = list(self.leaves.values()) if begins else []
        for outside in self.trust.checkpoints:
            size, held, root = outside.size, outside.held, point.root
            if outside.origin != point.origin:
                self.require(False, "rewritten", f"{held}: of another ledger")  # noqa: FBT003
                continue
            if size <= len(leaves):
                root = Tree().root(peaks(leaves[:size]))
            elif size != point.size:
                not_checked.append(f"{held}: another size than the bundle's checkpoint")
                continue
            what = f"{held}: another root at size {size}"
            self.require(root == outside.root, "rewritten", what, None, outside.root, root)
            compared = True
        return compared

    def completeness(self) -> str:
        """Say what the manifest's word on completeness amounts to (7.2)."""
        if self.manifest.get("completeness") != "proved":
            return "asserted: that no row is missing is the signer's word"
        if self.is_range:
            return "proved: no entry of the range is missing"
        return (
            "proved: none of the record's versions up to the last shown is missing;"
            " that no later one existed is the signer's word"
        )


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
            return _judge_bundle(Bundle(archive, trust), trust)
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise UnavailableError(f"{path.name}: {error}") from None


def _judge_bundle(bundle: Bundle, trust: Trust) -> Verdict:
    point, compared = None, False
    not_checked = [
        "population, gaps, masking, exclusions, parameters: the signer's word",
        "rows: that each names an entry of this bundle, not what the view made of it",
    ]
    if bundle.check_files() and bundle.check_manifest():
        bundle.check_entries()
        bundle.check_rows()
        point = bundle.check_checkpoint()
        bundle.check_claims()
    if point is not None:
        compared = bundle.compare_outside(point, not_checked)
    scope, manifest = bundle.member("scope"), bundle.manifest
    what = f"record {scope.get('record')}"
    what = f"entries {scope.get('from')} to {scope.get('to')}" if bundle.is_range else what
    result = Verdict(
        origin=str(manifest.get("ledger", "")),
        scope=what,
        rests_on=rests_on(trust),
        not_checked=not_checked,
        counts={"entries": len(bundle.leaves), "rows": bundle.rows},
    )
    if isinstance(manifest.get("population"), int):
        result.counts["population"] = manifest["population"]
    if manifest.get("verifier_sha256") not in {None, own_sha256()}:
        result.not_checked.append(
            f"by the script that the manifest names: this one's SHA-256 is {own_sha256()}"
        )
    if bundle.findings or point is None:
        conclude(result, bundle.findings, None)
        return result
    result.completeness = bundle.completeness()
    result.holds = f"{what}: unchanged, and under the checkpoint of size {point.size}"
    if point.signed:
        result.code, result.verdict = VERIFIED, "verified"
        if not compared:
            result.rests_on[-1] += ": the checkpoint is the bundle's own, signed by the pinned key"
    else:
        result.code, result.verdict = INCOMPLETE, "consistent with itself"
        result.not_checked.append("who signed: give --pin or --key with the ledger's key")
    return result


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
        database = Database(args.database, args.schema, args.jobs)
        try:
            return verify_log(database, trust)
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
    document = {"at": now.isoformat(), "verifier_sha256": own_sha256()} | json.loads(
        as_json(result)
    )
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
