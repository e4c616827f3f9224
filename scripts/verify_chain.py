#!/usr/bin/env python3
"""Verify a Custody Ledger, or evidence taken from one, with nothing of ours running.

    verify_chain.py --database DSN --schema ledger_NAME --pin KEYS --checkpoint FILE
    verify_chain.py --log https://HOST/v1/ledgers/NAME --credential FILE --pin KEYS …
    verify_chain.py BUNDLE.zip --key VERIFIER_KEY

Needs Python 3.11, `cryptography`, and `psycopg` where it reads a database. The rules are
those of FORMAT.md, cited by section. The verifier trusts nobody: keys and checkpoints come
from whoever runs it, never from what is checked, and the verdict says what it rests on.

How a log is checked, in one read-only snapshot of a database, or up to the checkpoint that a
running service shows:

1. Read the pinned keys, and the checkpoints and receipts held outside; check their signatures.
2. Open every checkpoint of the log under the pinned keys.
3. Sweep: read all entries in the order of `seq` and recompute leaf, chain, tree; compare each
   column (or hash tile) with the bytes. Which entry follows which in a stream is checked in
   bounded memory (`Streams`). The sweep only says *sound* or *doubtful*, and is made for speed.
   It goes on where an earlier run ended (`--state`), or after a checkpoint that is held
   (`--from-checkpoint`), once the stored tree is seen to lead to the root that is held.
4. In doubt, examine: read again from entry 1, slowly; find what is altered, deleted, inserted
   or reordered, going on after the first bad entry (`Walk`), then every stream by itself.
5. Compare the tables that index the entries (tree nodes, head, accepted, boxes), or all tiles.
   With the ledger's secret keys (`--keyring`), open boxes and recompute accepted keys too.
6. Compare the tree's root with every checkpoint's, at its size, and leaves with receipts: this
   finds a log that was cut or rewritten as a whole.
7. Give the verdict, and write an evidence file where something is wrong.

How a bundle is checked: 1; the zip itself; manifest and digests; signatures; entries, as in 4;
inclusion of the entries under the checkpoint; rows against entries; claims against scope.

Exit codes: 0 verified (pinned key and checkpoint), 1 tampered, 2 usage, 3 unavailable,
4 not everything could be checked, which includes "consistent with itself, but nothing from
outside to compare with"; 130 interrupted.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import csv
import functools
import gc
import hashlib
import hmac
import http.client
import io
import json
import multiprocessing
import os
import re
import signal
import struct
import sys
import threading
import time
import uuid
import zipfile
import zlib
from bisect import bisect_left
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

try:
    from datetime import UTC, datetime

    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as missing:  # Python's own exit code would be 1: tampered
    print(f"unavailable: needs Python 3.11 and cryptography ({missing})", file=sys.stderr)
    raise SystemExit(3) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

VERIFIED, TAMPERED, USAGE, UNAVAILABLE, INCOMPLETE = range(5)
INTERRUPTED = 130
MAX_ENTRY_BYTES = 65_535
MAX_NOTE_BYTES = 2**16
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

ED25519, COSIGNATURE = 1, 4
"""Types of keys that C2SP signed-note knows and that can be pinned here."""


class Key(NamedTuple):
    """A pinned Ed25519 public key."""

    name: str
    id: bytes
    public: Ed25519PublicKey
    type: int = ED25519


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
    cosigned: tuple[str, ...] = ()
    """Each witness given whose cosignature is good, and when it says that it signed."""
    note: str = ""


def b64(text: str) -> bytes:
    """Decode strict base64."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedError("expected base64") from None
    if base64.b64encode(raw).decode() != text:
        raise MalformedError("expected base64 in its one spelling")
    return raw


def parse_key(text: str, kind: int = ED25519) -> Key:
    """Read a verifier key (5.2) of one type: split at the first two plus signs only."""
    try:
        name, stated, encoded = text.split("+", 2)
        typed = b64(encoded)
    except (ValueError, MalformedError):
        raise UsageError("verifier key: expected name+8 hex digits+base64") from None
    key_id = sha256(name.encode() + b"\n" + typed).digest()[:4]
    if len(typed) != 33 or typed[0] != kind or key_id.hex() != stated:
        what = "Ed25519" if kind == ED25519 else "a witness's key of type 04"
        raise UsageError(f"verifier key of {name}: expected {what} and the id of this name and key")
    return Key(name, key_id, Ed25519PublicKey.from_public_bytes(typed[1:]), kind)


def _signed_at(key: Key, signature: bytes, text: bytes) -> int | None:
    """Check one signature; give a witness's time (C2SP tlog-cosignature), None for others.

    Raises:
        InvalidSignature: it isn't by this key over this text.
    """
    if key.type == ED25519:
        key.public.verify(signature, text)
        return None
    if len(signature) != 72:
        raise InvalidSignature
    seconds = int.from_bytes(signature[:8])
    key.public.verify(signature[8:], b"cosignature/v1\ntime %d\n%b" % (seconds, text))
    return seconds


def open_note(note: str, keys: Sequence[Key]) -> tuple[str, list[tuple[Key, int | None]]]:
    """Give a note's text and which given keys signed it; other keys' lines are passed over.

    Raises:
        MalformedError: it is no note, or a line that names a given key isn't by that key.
    """
    text, separator, lines = note.rpartition("\n\n")
    if not separator or not lines.endswith("\n") or lines.count("\n") > 64:
        raise MalformedError("expected a note: text, an empty line, signature lines")
    text += "\n"
    signers: dict[tuple[str, bytes], tuple[Key, int | None]] = {}
    for line in lines[:-1].split("\n"):
        match = re.fullmatch("\u2014 ([^ +]+) ([A-Za-z0-9+/]+={0,2})", line)
        if match is None:
            raise MalformedError("expected a signature line")
        raw = b64(match[2])
        for key in keys:
            if key.name == match[1] and key.id == raw[:4]:
                try:
                    signers[key.name, key.id] = key, _signed_at(key, raw[4:], text.encode())
                except InvalidSignature:
                    raise MalformedError("bad signature in a pinned key's name") from None
    return text, [*signers.values()]


def open_checkpoint(
    note: str, keys: Sequence[Key], *, held: str, outside: bool = False
) -> Checkpoint:
    """Read a checkpoint (5.1): origin, size, root, and no further line."""
    text, signers = open_note(note, keys)
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not re.fullmatch("0|[1-9][0-9]{0,18}", lines[1], re.ASCII):
        raise MalformedError("expected a checkpoint: origin, size, root")
    root = b64(lines[2])
    if len(root) != 32:
        raise MalformedError("expected a root of 32 bytes")
    signed = any(key.type == ED25519 for key, _ in signers)
    cosigned = tuple(
        f"{key.name} {key.id.hex()} at {moment(seconds)}"
        for key, seconds in signers
        if seconds is not None
    )
    return Checkpoint(lines[0], int(lines[1]), root, signed, held, outside, cosigned, note)


def moment(seconds: float) -> str:
    """Write a time in UTC; as a number where it is beyond the calendar."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return str(seconds)


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
    # A line with many `},"event":{` and no end would be tried from each of them.
    whole = len(raw) <= MAX_ENTRY_BYTES and raw.endswith(b"}}")
    match = _ENTRY.fullmatch(raw) if whole else None
    if match is None:
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


NOT_ITS_STREAM = "not in the stream of its type or source"


@functools.lru_cache(4096)
def _stream_named(name: str) -> bytes:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name)).encode()


def is_typed_stream(entry: Entry, topic: bytes) -> bool:
    """Tell whether a stream of kind `ledger` is its type's own (2.1)."""
    return entry.stream == _stream_named(f"{entry.ledger}#{topic.decode()}")


def is_in_its_stream(raw: bytes, entry: Entry) -> bool:
    """Tell whether an entry of kind `ledger` is in its type's stream, or its source's (2.1).

    The source's is for events about a number of subjects who are not named.
    """
    if entry.kind != b"ledger" or is_typed_stream(entry, topic_of(entry.kind, entry.event)):
        return True
    whole = read_event(raw)
    event, data = whole["event"], whole["event"].get("data")
    population = data.get("population") if isinstance(data, dict) else None
    source = event.get("source", whole["emitter"].get("source", ""))
    return (
        isinstance(population, dict)
        and type(population.get("count")) is int
        and entry.stream == _stream_named(f"{entry.ledger}#source:{source}")
    )


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
    leaves: dict[int, bytes] = field(default_factory=dict)
    """Leaf of each entry that a receipt names."""
    ends: Ends | None = None
    """What the streams' entries leave open; None after an examination."""


# == Section 5. Streams in bounded memory ==


class Streams:
    """Checks that each stream's entries follow one another, without holding every stream.

    Take each entry as a write of (leaf, stream, version) and each `stream_prev` as a read of
    what the stream's entry before wrote; a stream's head is the last read. If as multisets
    writes = reads + heads, then every entry is followed by exactly one entry of its stream
    with the next version, or is its head, and as each stream has one head, one chain.

    Writes that nothing has read yet are kept in `unread`, where nearly every read finds its
    own. Of what doesn't fit a hash of 16 bytes is kept, under a random key, for `Ends`.
    """

    LIMIT = 150_000

    def __init__(self, key: bytes, ends: str = "told") -> None:
        self.key = key
        self.unread: dict[bytes, tuple[bytes, int]] = {}
        self.writes, self.reads, self.begun = bytearray(), bytearray(), bytearray()
        self._ends = ends

    def weigh(self, leaf: bytes, stream: bytes, version: int) -> bytes:
        """Give the keyed hash of one write or read: 64 hex digits, 36 bytes, version."""
        return sha256(b"%b%b%b%d" % (self.key, leaf, stream, version)).digest()[:16]

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
        if self._ends == "late":
            rows = zip(leaves, streams, versions, links, strict=True)
            return [at for at, row in enumerate(rows) if self._begins(*row)]
        self.unread.update(zip(leaves, zip(streams, versions, strict=True), strict=True))
        expected = [
            (stream, version - 1) for stream, version in zip(streams, versions, strict=True)
        ]
        read = [self.unread.pop(link, None) for link in links]
        begun = []
        for at in [at for at, write in enumerate(read) if write is None]:
            read[at] = expected[at]
            if links[at]:
                self.reads += self.weigh(links[at], *expected[at])
            else:
                begun.append(at)
                if self._ends == "open":
                    self.begun += self.weigh(b"", streams[at], 0)
        if read != expected:
            raise DoubtError
        if len(self.unread) > self.LIMIT:
            self.settle()
        return begun

    def _begins(self, leaf: bytes, stream: bytes, version: int, link: bytes) -> bool:
        """Keep all: where not every write is known, only that no two reads are the same."""
        self.writes += self.weigh(leaf, stream, version)
        if link:
            self.reads += self.weigh(link, stream, version - 1)
        else:
            self.begun += self.weigh(b"", stream, 0)
        return not link

    def settle(self) -> None:
        """Give up what is kept."""
        self.writes += b"".join([self.weigh(leaf, *write) for leaf, write in self.unread.items()])
        self.unread = {}


class Ends:
    """Holds what `Streams` leaves open, over all ranges of the log.

    A database knows its heads, so a balance is enough: the sum of the hashes of writes, less
    those of reads, less in the end those of heads. The key is drawn anew for each first run, so
    nobody can prepare entries whose sums agree by design (Blum, Evans, Gemmell, Kannan, Naor:
    Checking the correctness of memories, 1991). Chance of missing: about entries / 2^128.
    Where nobody tells the heads, the open hashes themselves are kept, 32 bytes a stream.
    """

    def __init__(self, key: bytes, ends: str = "told") -> None:
        self.key = key
        self.ends = ends
        """told: heads are known; open: they aren't; late: nor what the first entries follow."""
        self.balance = 0
        self.writes, self.reads, self.begun = bytearray(), bytearray(), bytearray()

    def take(self, streams: Streams) -> None:
        """Take what a range left open."""
        if self.ends == "told":
            self.balance += sum(_numbers(streams.writes)) - sum(_numbers(streams.reads))
            return
        self.writes += streams.writes
        self.reads += streams.reads
        self.begun += streams.begun
        if len(self.reads) > max(2**23, len(self.writes) // 2) and self.ends == "open":
            self.strike()

    def strike(self) -> None:
        """Strike out each read with its write, some at a time.

        Raises:
            DoubtError: two entries follow the same one.
        """
        turns = 1 + max(len(self.writes), len(self.begun)) // 2**23
        writes, reads = bytearray(), bytearray()
        for turn in range(turns):
            written, read = _some(self.writes, turn, turns), _some(self.reads, turn, turns)
            if len(set(read)) < len(read):
                raise DoubtError("two entries follow one")
            writes += b"".join(set(written).difference(read))
            reads += b"".join(set(read).difference(written))
        self.writes, self.reads = writes, reads

    def settle(self, heads: Iterable[tuple[bytes, int, bytes]]) -> None:
        """Compare with the heads, or see that no read is left and no stream begun twice.

        Raises:
            DoubtError: the streams aren't one chain each.
        """
        if self.ends != "told":
            self.strike()
            turns = 1 + len(self.begun) // 2**23
            for turn in range(turns):
                begun = _some(self.begun, turn, turns)
                if len(set(begun)) < len(begun) or (self.reads and self.ends == "open"):
                    raise DoubtError("streams")
            return
        last, balance, weigh = b"", self.balance, Streams(self.key).weigh
        for stream, version, leaf in heads:
            if stream <= last:
                raise DoubtError("two heads of a stream")
            last = stream
            balance -= int.from_bytes(weigh(leaf.hex().encode(), stream, version))
        if balance % 2**128:
            raise DoubtError("streams")


def _numbers(hashes: bytearray) -> Iterator[int]:
    return (int.from_bytes(each) for (each,) in struct.iter_unpack("16s", hashes))


def _some(hashes: bytearray, turn: int, turns: int) -> list[bytes]:
    return [each for (each,) in struct.iter_unpack("16s", hashes) if each[0] % turns == turn]


# == Section 6. The sweep: sound, or doubtful ==


class Chunk(NamedTuple):
    """256 entries after a multiple of 256, or the log's last few, column by column.

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


class TileChunk(NamedTuple):
    """What a service gives in place of a `Chunk`: the same entries and their tile of hashes."""

    number: int
    """How many entries there have to be."""
    leaves: bytes
    entries: bytes | None
    """Joined as in a `Chunk`; None where only hashes are read."""


def entry_pattern(origin: str) -> re.Pattern[bytes]:
    r"""Give what finds the pieces of every entry in a chunk.

    A dot stands for what is compared with something known afterwards. The topic is captured
    where it stands first, or after `id`; elsewhere it is for `topic_of`.
    """
    named = re.escape(json.dumps(origin, ensure_ascii=False).encode())
    return re.compile(
        rb'(\0\{"v":0,"ledger":%b,"seq":([1-9][0-9]*),"prev":"(.{64})","recorded":"(.{27})",'
        rb'"stream":"(.{36})","stream_kind":"(?:record|(ledger)|(aggregate))",'
        rb'"version":(0|[1-9][0-9]*),"stream_prev":(?:null|"(.{64})"),"emitter":(\{[^\n]*?\}),'
        rb'"sealed":\{("?)[^}]*\},"event":\{(?:(?(7)"topic"|(?:"id":"([^"]*)(?<!\\)",)?"type")'
        rb':"([^"\\]*)"(?(7),"state|))?[^\n]*\}\})(?:\n|\Z)' % named,
        re.DOTALL,
    )


class Wanted(NamedTuple):
    """What reading has to give beside the totals."""

    sizes: frozenset[int] = frozenset()
    """Give the root at these."""
    seqs: frozenset[int] = frozenset()
    """Give the leaf of these."""

    def within(self, first: int, last: int) -> Wanted:
        """Give the part that entries `first` to `last` answer."""
        return Wanted(*(frozenset(n for n in part if first <= n <= last) for part in self))


class Sweep:
    """Checks a range of entries quickly, 256 at a time: each step takes a whole column.

    A range begins after a multiple of 256. Where something isn't plainly right, DoubtError is
    raised; what it is, the examination says.
    """

    def __init__(
        self, *, origin: str, first: int, key: bytes, wanted: Wanted, ends: str = "told"
    ) -> None:
        self.pattern = entry_pattern(origin)
        self.streams = Streams(key, ends)
        self.first = self.next = first
        self.before = self.leaf = b""
        """Hex leaf of the entry before the first, as that names it; of the last."""
        self.first_recorded = self.recorded = b""
        self.emitters: set[bytes] = set()
        self.typed: set[tuple[bytes, bytes]] = set()
        self.tiles: list[bytes] = []
        self.wanted = wanted
        self.marks: dict[int, list[bytes]] = {}
        """Size wanted to the peaks after the last complete tile."""
        self.leaves: dict[int, bytes] = {}
        self.boxed = self.sealed = self.firsts = self.firsts_sum = 0

    def take(self, chunk: Chunk | TileChunk) -> None:
        """Check the next chunk."""
        if chunk.entries is None:
            self.leaf = chunk.leaves[-32:].hex().encode()
            self._grow([chunk.leaves[at : at + 32] for at in range(0, len(chunk.leaves), 32)])
            return
        found = self.pattern.findall(chunk.entries)
        if not found:
            raise DoubtError(self.next)
        # fmt: off
        (raws, seqs, prevs, times, streams, ledgers, kinds, versions, links, emitters, seals, ids,
         topics) = zip(*found, strict=True)
        # fmt: on
        number = len(raws)
        leaves = [sha256(raw).digest() for raw in raws]
        hexes = struct.unpack("64s" * number, b"".join(leaves).hex().encode())
        if b"" in topics:
            topics = tuple(topic or _topic(raw) for topic, raw in zip(topics, raws, strict=True))
        if not self.recorded:
            self.before = self.leaf = prevs[0]
            self.first_recorded = self.recorded = times[0]
        right = (
            # Every byte is an entry's, and every column is what the bytes say.
            sum(map(len, raws)) + number - 1 == len(chunk.entries)
            and max(map(len, raws)) <= 1 + MAX_ENTRY_BYTES
            and _fit(chunk, (seqs, streams, versions, topics), leaves)
            # One entry follows the other.
            and [*map(int, seqs)] == [*range(self.next, self.next + number)]
            and prevs == (self.leaf, *hexes[:-1])
            and [self.recorded, *times] == sorted((self.recorded, *times))
            and all(map(_TIME.fullmatch, set(times)))
            and all(map(_EMITTER.fullmatch, set(emitters) - self.emitters))
        )
        if not right or (any(ledgers) and not self._in_streams(ledgers, streams, topics, raws)):
            raise DoubtError(self.next)
        numbers = [*map(int, versions)]
        for at in self.streams.follow(hexes, streams, numbers, links):
            if numbers[at] != 1 and (numbers[at] or not kinds[at]):
                raise DoubtError(self.next)
        self._count(chunk, raws, kinds, seals, ids)
        self.emitters = set(emitters)
        self.leaf, self.recorded = hexes[-1], times[-1]
        self._grow(leaves)

    def _in_streams(
        self,
        ledgers: Sequence[bytes],
        streams: Sequence[bytes],
        topics: Sequence[bytes],
        raws: Sequence[bytes],
    ) -> bool:
        """Check that what has no subject is in its type's stream or its source's."""
        for is_ledger, stream, topic, raw in zip(ledgers, streams, topics, raws, strict=True):
            if is_ledger and (stream, topic) not in self.typed:
                entry = read_entry(raw[1:])
                if is_typed_stream(entry, topic):
                    self.typed.add((stream, topic))
                elif not is_in_its_stream(raw[1:], entry):
                    return False
        return True

    def _count(
        self,
        chunk: Chunk | TileChunk,
        raws: Sequence[bytes],
        kinds: Sequence[bytes],
        seals: Sequence[bytes],
        ids: Sequence[bytes],
    ) -> None:
        """Count sealed entries, their boxes, and the entries that `accepted` has a row for."""
        if isinstance(chunk, TileChunk):
            return
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
        first, self.next = self.next, self.next + len(leaves)
        here = range(first, self.next)
        for size in self.wanted.sizes.intersection(here) if self.wanted.sizes else ():
            self.marks[size] = peaks(leaves[: (size - first + 1) & 255])
        for seq in self.wanted.seqs.intersection(here) if self.wanted.seqs else ():
            self.leaves[seq] = leaves[seq - first]
        if len(leaves) == 256:
            self.tiles.append(fold(leaves))


def _fit(
    chunk: Chunk | TileChunk, columns: Sequence[Sequence[bytes]], leaves: Sequence[bytes]
) -> bool:
    """Compare what stands beside the entries with what their bytes say."""
    if isinstance(chunk, TileChunk):
        return len(leaves) == chunk.number and b"".join(leaves) == chunk.leaves
    size = b"\0\0\0 "
    *joined, topics = columns
    return (
        [b",".join(column) for column in joined] == [chunk.seqs, chunk.streams, chunk.versions]
        and b"\n".join(topics) == chunk.topics
        and size + size.join(leaves) == chunk.leaves[20:]
    )


def _topic(raw: bytes) -> bytes:
    entry = read_entry(raw[1:])
    return topic_of(entry.kind, entry.event)


def _is_later(raw: bytes) -> bool:
    entry = read_entry(raw[1:])
    return not is_first_of_event(entry.kind, entry.event)


def sweep(chunks: Iterable[Chunk | TileChunk], **place: Any) -> Sweep:
    """Check a range of entries; the keywords are those of `Sweep`."""
    part = Sweep(**place)
    for chunk in chunks:
        part.take(chunk)
    part.streams.settle()
    return part


def join_part(totals: Totals, part: Sweep) -> None:
    """Join the sweep of the next range.

    Raises:
        DoubtError: it doesn't follow on what was read before.
    """
    follows = part.first == totals.entries + 1 and part.first_recorded >= totals.recorded
    # Hashes alone name no entry before them.
    named = not part.recorded or part.before == totals.leaf.hex().encode()
    if not (follows and named) or totals.ends is None:
        raise DoubtError(part.first)
    sizes, at = sorted(part.marks), totals.entries
    for tile in [*part.tiles, None]:
        while sizes and sizes[0] >> 8 == at >> 8:
            size = sizes.pop(0)
            totals.roots[size] = totals.tree.root(part.marks[size])
        if tile is not None:
            totals.tree.add_tile(tile)
            at += 256
    totals.entries = totals.reach = part.next - 1
    totals.leaf, totals.recorded = bytes.fromhex(part.leaf.decode()), part.recorded
    totals.boxed += part.boxed
    totals.sealed += part.sealed
    totals.firsts += part.firsts
    totals.firsts_sum += part.firsts_sum
    totals.leaves |= part.leaves
    totals.ends.take(part.streams)


def resume(totals: Totals, log: Log, wanted: Wanted, held: Checkpoint) -> None:
    """Make the tree over the entries before those to be read, from the hashes stored.

    They count for nothing before they lead to the root that is held; then they are as good
    as the entries for the roots at smaller sizes, and for the leaves of entries.

    Args:
        totals: of the `entries` before, a multiple of 256.
        log: where the hashes stand.
        wanted: what has to be given; what `totals` has already is left out.
        held: its size is less than 256 above `entries`.

    Raises:
        DoubtError: they don't lead there.
    """
    number, before, totals.reach = totals.entries >> 8, totals.leaf, totals.entries
    inside = wanted.within(1, totals.entries)
    tiles = {size >> 8 for size in inside.sizes - totals.roots.keys()}
    tiles |= {(seq - 1) >> 8 for seq in inside.seqs} | {number - 1}
    nodes = log.first_nodes(number)
    for at in range(number):
        node = next(nodes, b"")
        if at in tiles:
            leaves = log.leaves_of(at * 256 + 1, at * 256 + 256)
            if len(leaves) != 256 or fold(leaves) != node:
                raise DoubtError(f"tile {at} isn't what is stored above it")
            for size in inside.sizes.intersection(range(at * 256, at * 256 + 256)):
                totals.roots[size] = totals.tree.root(peaks(leaves[: size & 255]))
            for seq in inside.seqs.intersection(range(at * 256 + 1, at * 256 + 257)):
                totals.leaves[seq] = leaves[seq - at * 256 - 1]
            totals.leaf = leaves[-1]
        totals.tree.add_tile(node)
    totals.roots[totals.entries] = totals.tree.root([])
    first = totals.entries + 1
    rest = log.leaves_of(first, held.size) if held.size >= first else []
    known = before in {bytes(32), totals.leaf}
    if not known or len(rest) != held.size & 255 or totals.tree.root(peaks(rest)) != held.root:
        raise DoubtError(f"what is stored doesn't lead to {held.held}, size {held.size}")


def ranges_of(
    first: int, last: int, *, jobs: int, step: int, ends_whole: bool
) -> list[tuple[int, int]]:
    """Divide entries into ranges of a multiple of 256.

    Each range has a connection and streams of its own, so there are few.

    Args:
        first: one more than a multiple of 256.
        last: the log's last entry.
        jobs: how many ranges are read at a time.
        step: most entries in one.
        ends_whole: whether entries that fill no tile are a range of their own.
    """
    number, each = last - first + 1, min(step, 2**14)
    if number > each:
        each = -(-number // (256 * jobs * -(-number // (jobs * step)))) * 256
    end = (last & ~255) if ends_whole else last
    ranges = [(at, min(at + each - 1, end)) for at in range(first, end + 1, each)]
    return [*ranges, (end + 1, last)] if last > end else ranges


def sweep_range(
    place: Place, bounds: tuple[int, int], wanted: Wanted, common: dict[str, Any]
) -> Sweep:
    """Sweep the entries between two bounds; can run in a process of its own."""
    gc.disable()  # nothing here makes cycles, and looking for them takes a tenth of the time
    return sweep(place.chunks(*bounds), first=bounds[0], wanted=wanted, **common)


def sweep_ranges(
    place: Place, ranges: Sequence[tuple[int, int]], jobs: int, wanted: Wanted, **common: Any
) -> Iterator[Sweep]:
    """Sweep ranges in order, in several processes where that pays."""
    arguments = [(place, bounds, wanted.within(*bounds), common) for bounds in ranges]
    if not ranges or jobs == 1 or ranges[-1][1] - ranges[0][0] < 2**14:
        yield from _shown(starmap(sweep_range, arguments), ranges)
        return
    # A fork has psycopg loaded already; elsewhere than on Linux it isn't safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(
        min(jobs, len(ranges)), mp_context=context, initializer=_leave_signals_to_parent
    )
    try:
        futures = deque(pool.submit(sweep_range, *each) for each in arguments)
        # What was joined isn't kept.
        yield from _shown((futures.popleft().result() for _ in ranges), ranges)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _leave_signals_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _shown(parts: Iterable[Sweep], ranges: Sequence[tuple[int, int]]) -> Iterator[Sweep]:
    """Draw a bar while parts come, where somebody is watching."""
    begun, (low, high) = time.monotonic(), (ranges[0][0], ranges[-1][1]) if ranges else (1, 1)
    for part in parts:
        if sys.stderr.isatty():
            done, number = part.next - low, high - low + 1
            bar = ("#" * (40 * done // number)).ljust(40, ".")
            rate = done / max(0.001, time.monotonic() - begun)
            text = f"[{bar}] {done * 100 // number}%  entry {part.next - 1:,}, {rate:,.0f}/s "
            print(f"\r{text}", end="\n" * (done == number), file=sys.stderr, flush=True)
        yield part


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


def examine(log: Log, *, origin: str, wanted: Wanted) -> tuple[Totals, list[Finding]]:
    """Read every entry slowly and say what is wrong."""
    totals, walk = Totals(), Walk(1, "0" * 64)
    columns: list[Finding] = []
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
        if totals.entries in wanted.sizes:
            totals.roots[totals.entries] = totals.tree.root(peaks(rest))
        if number in wanted.seqs:
            totals.leaves[number] = leaf
    head = log.head()
    findings = walk.finish((head[0], head[1].hex()) if head else (0, ""))
    totals.reach = walk.reach
    kinds = {each.kind for each in findings}
    for each in columns:
        moved = each.what == SEQ and kinds - {"altered"}
        if each.seq not in walk.wrong_places and not moved and not (kinds and each.what == EARLIER):
            findings.append(each)
    if not findings and (head is None or head[0] == totals.reach):
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
        (is_in_its_stream(row.entry, entry), NOT_ITS_STREAM),
        (entry.is_sealed or not row.boxed, "a box stands beside an entry that seals nothing"),
    )
    yield from (finding("altered", row.seq, what) for right, what in rules if not right)


def examine_streams(log: Log) -> list[Finding]:
    """Follow every stream by itself, where the chain as a whole holds."""
    findings: list[Finding] = []
    ends = _last_of_streams(log, findings)
    if not log.has_tables:
        deque(ends, maxlen=0)
        return findings[:MAX_FINDINGS]
    for last, head in paired(ends, log.stream_heads(), 1):
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


def _last_of_streams(log: Log, findings: list[Finding]) -> Iterator[tuple[Any, ...]]:
    """Give (stream, version, leaf, seq) of every stream's last entry; note what doesn't follow.

    A database gives stream after stream; elsewhere entries come as they stand in the log, and
    all streams are kept in memory.
    """
    lasts: dict[bytes, tuple[Any, ...]] = {}
    for row in log.rows_by_stream():
        entry, wrong, last = read_entry(row.entry), None, lasts.pop(row.stream, None)
        if lasts and log.has_tables:
            yield lasts.popitem()[1]
        if last is None:
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
        findings += [wrong] if wrong and len(findings) < MAX_FINDINGS else []
        lasts[row.stream] = (row.stream, row.version, leaf_hash(row.entry), row.seq)
    yield from lasts.values()


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


def compare_tables(log: Database, totals: Totals, past: Past) -> list[Finding]:
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
    number, least, greatest, total = log.accepted(past.by_hash)
    inside = not number or 1 <= least <= greatest <= totals.entries
    if (number, total) != (totals.firsts, totals.firsts_sum) or not inside:
        more = (number > totals.firsts) - (number < totals.firsts)
        what = f"accepted: expected a row for each of {totals.firsts} events, found {number}"
        findings.append(finding(("altered", "inserted", "deleted")[more], None, what))
    # Boxes of entries read by an earlier run can have been erased since, but not added.
    before, after = log.boxes(past.entries)
    if after != totals.boxed - past.boxed or (before > past.boxed and not past.by_hash):
        findings.append(finding("inserted", None, "boxes: some stand beside no entry"))
    return findings


def split_views(points: Iterable[Checkpoint]) -> list[Finding]:
    """Find checkpoints of one size with different roots: what no honest log ever signs."""
    roots: dict[tuple[str, int], Checkpoint] = {}
    findings = []
    for point in points:
        other = roots.setdefault((point.origin, point.size), point)
        if other.root != point.root:
            both = "both signed" if other.signed and point.signed else "one of them signed"
            both = both if other.signed or point.signed else "none of them signed"
            what = f"split view at size {point.size}: {other.held} and {point.held}, {both}"
            findings.append(finding("rewritten", None, what, other.root, point.root))
    return findings[:MAX_FINDINGS]


def compare_checkpoints(
    checkpoints: Iterable[Checkpoint], totals: Totals, broken_at: int | None, origin: str
) -> tuple[list[Finding], list[Checkpoint]]:
    """Compare roots; give findings and the trusted checkpoints that agree, by size.

    Where an entry is known to be bad, another root from there on follows from it and is no
    finding of its own.
    """
    findings: list[Finding] = []
    agreed: list[Checkpoint] = []
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
            agreed += [point] if point.signed or point.outside else []
        else:
            differs_from = differs_from or (agreed[-1].size if agreed else 0) + 1
            what = f"{point.held}: an entry from {differs_from} to {point.size} was another"
            root = totals.roots[point.size]
            findings.append(finding("rewritten", differs_from, what, point.root, root))
    return findings, agreed


def compare_receipts(
    receipts: Mapping[int, Sequence[Receipt]], totals: Totals, pending: Iterable[int] = ()
) -> list[Finding]:
    """Compare the leaves that were acknowledged with those that stand there."""
    findings: list[Finding] = []
    for seq in sorted(receipts.keys() - set(pending)):
        for receipt in receipts[seq]:
            stated, found = receipt.leaf, totals.leaves.get(seq)
            if stated != found and len(findings) < MAX_FINDINGS:
                kind = "rewritten" if found else "truncated" if seq > totals.reach else "deleted"
                what = f"{receipt.held}: acknowledged, but " + (
                    "another entry stands there" if found else "missing"
                )
                findings.append(finding(kind, seq, what, stated, found))
    return findings


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


# == Section 10. What an earlier run found, kept to go on from ==


class Past(NamedTuple):
    """What isn't read now."""

    entries: int = 0
    """How many, a multiple of 256; the first of the log."""
    boxed: int = 0
    """How many of them had a box."""
    since: str = ""
    """When runs that read them began and ended; empty where only their hashes are held."""
    by_hash: int = 0
    """How many of them nobody read: the tree goes on from a checkpoint held."""


COUNTS = ("entries", "boxed", "sealed", "firsts", "firsts_sum")
BLOBS = ("writes", "reads", "begun")


class State:
    """A state file: what was read and found sound, for the next run to go on from.

    It holds no more than a checkpoint does and what `Ends` needs: the hashes that the log stores
    are confirmed by its root. Who can write it can claim that entries were read: it belongs
    where only its owner writes.
    """

    EVERY_S = 30.0

    def __init__(self, path: Path, *, reads: str, keys: Sequence[Key], full: bool) -> None:
        self.path = path
        self.document: dict[str, Any] = {}
        """Of the last multiple of 256 entries."""
        self._fixed = {
            "format": "custody-ledger verifier state v0",
            "mode": reads,
            "keys": sorted(key.id.hex() for key in keys),
        }
        self._live: Totals | None = None
        self._saved = time.monotonic()
        try:
            self.loaded = self._load()
        except UsageError:
            if not full:
                raise
            self.loaded = {}
        self.is_full = full or not self.loaded
        self.since = moment(time.time()) if self.is_full else str(self.loaded["since"])

    def _load(self) -> dict[str, Any]:
        try:
            document = read_event(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UnavailableError(f"state {self.path}: {error.strerror}") from None
        except MalformedError:
            raise UsageError(f"state {self.path}: damaged; --full begins anew") from None
        stated = document.pop("digest", None)
        if stated != _digest(document):
            raise UsageError(f"state {self.path}: damaged; --full begins anew")
        for name, value in self._fixed.items():
            if document.get(name) != value:
                what = f"its {name}: {document.get(name)}, of this run: {value}"
                raise UsageError(f"state {self.path}: {what}; --full begins anew")
        return document

    def begin(self, origin: str, ends: str) -> tuple[Totals, Past, list[Checkpoint]]:
        """Give what to go on from, the log's root there, and the last that was ever reached.

        Raises:
            UsageError: the file is about another ledger.
        """
        held, totals, past = self.loaded, Totals(), Past()
        self._fixed["origin"] = origin
        totals.ends = Ends(os.urandom(32), ends)
        if not held:
            return totals, past, []
        if held.get("origin") != origin:
            raise UsageError(f"state {self.path}: of the ledger {held.get('origin')}")
        about = f"what a run of {held['at']} found ({self.path.name})"
        points = [
            Checkpoint(
                origin, int(size), bytes.fromhex(root), signed=False, held=about, outside=False
            )
            for size, root in ((held["entries"], held["root"]), held["reached"])
        ]
        if self.is_full:
            return totals, past, points[1:]
        for name in COUNTS:
            setattr(totals, name, int(held[name]))
        totals.leaf, totals.recorded = bytes.fromhex(held["leaf"]), held["recorded"].encode()
        totals.roots = {int(size): bytes.fromhex(root) for size, root in held["roots"].items()}
        totals.ends.key, totals.ends.balance = bytes.fromhex(held["key"]), int(held["balance"])
        for name in BLOBS:
            setattr(totals.ends, name, bytearray(b64(held[name])))
        when = held["at"] if self.since == held["at"] else f"{self.since} to {held['at']}"
        return totals, Past(totals.entries, totals.boxed, when), points

    def freeze(self, totals: Totals) -> None:
        """Take down what was found up to a multiple of 256 entries."""
        if totals.entries % 256 or totals.ends is None:
            return
        self._live = totals
        size, root = totals.entries, totals.tree.root([]).hex()
        before = self.loaded.get("reached", [0, ""])
        self.document = self._fixed | {name: getattr(totals, name) for name in COUNTS}
        self.document |= {
            "root": root,
            "leaf": totals.leaf.hex(),
            "recorded": totals.recorded.decode(),
            "roots": {str(at): each.hex() for at, each in totals.roots.items() if 0 < at <= size},
            "reached": max([size, root], before, key=lambda each: int(each[0])),
            "key": totals.ends.key.hex(),
            "balance": str(totals.ends.balance % 2**128),
            "since": self.since,
        }
        for name in BLOBS:
            self.document[name] = base64.b64encode(getattr(totals.ends, name)).decode()

    def note(self, totals: Totals) -> None:
        """Save from time to time: a run can end in ways that no program sees."""
        if time.monotonic() - self._saved > self.EVERY_S:
            self.freeze(totals)
            self.save()

    def save_early(self) -> int:
        """Save where a run is interrupted; give how many entries need not be read again."""
        if self._live is not None:
            self.freeze(self._live)
            self.save()
        return int((self.document or self.loaded).get("entries", 0))

    def save(self, totals: Totals | None = None) -> None:
        """Write the file, whole or not at all.

        Args:
            totals: of a run that came to the log's end without a finding.
        """
        if totals is not None:
            self.freeze(totals)
            self.document["reached"] = [totals.entries, totals.roots[totals.entries].hex()]
        document = self.document | {"at": moment(time.time())}
        text = json.dumps(document | {"digest": _digest(document)}, separators=(",", ":"))
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            draft.touch(mode=0o600)
            with draft.open("w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise UnavailableError(f"state {self.path}: {error.strerror}") from None
        self._saved = time.monotonic()


def _digest(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, separators=(",", ":"), sort_keys=True)
    return sha256(text.encode()).hexdigest()


class Interruption:
    """Lets Ctrl-C and SIGTERM end a run, but not between two steps that belong together."""

    def __init__(self) -> None:
        self._held = self._asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take both signals alike while this lasts; only a main thread can."""
        self._asked = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self._hear) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _hear(self, *_: object) -> None:
        is_first, self._asked = not self._asked, True
        if is_first and not self._held:  # a second one must not keep the state from being saved
            raise KeyboardInterrupt

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """Put it off while this lasts."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._asked:
            raise KeyboardInterrupt


INTERRUPTION = Interruption()


# == Section 11. A log, from start to verdict ==


class Receipt(NamedTuple):
    """What a ledger acknowledged: which bytes became which entry."""

    leaf: bytes
    record: str
    held: str
    """File and line, for people."""


class Attestation(NamedTuple):
    """An auditor's word, signed, on what a replay of a range found (7)."""

    name: str
    range: str
    """The note's line, as are the next."""
    filter: str
    found: str
    """Count and digest: two lines."""
    point: Checkpoint
    """What the replay stood on, as the attestor says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What whoever runs this brings along."""

    keys: tuple[Key, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    keyring: Keyring | None = None
    witnesses: tuple[Key, ...] = ()
    quorum: int = 0
    """How many of the witnesses have to have signed one checkpoint."""
    begin: Checkpoint | None = None
    """One of `checkpoints`: read only what is after it."""
    receipts: dict[int, list[Receipt]] = field(default_factory=dict)
    attestation: Attestation | None = None

    @property
    def all_keys(self) -> tuple[Key, ...]:
        """Whose signatures count for something."""
        return (*self.keys, *self.witnesses)


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


def find_origin(log: Log, trust: Trust) -> str:
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


def read_checkpoints(log: Log, trust: Trust) -> tuple[list[Checkpoint], list[Finding]]:
    """Open the log's own checkpoints under the pinned keys."""
    points, findings = [], []
    for size, note in log.checkpoints():
        held = f"checkpoint of size {size}"
        try:
            point = open_checkpoint(note, trust.all_keys, held=held)
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


def check_opening(log: Log, origin: str) -> list[Finding]:
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


def begin(
    trust: Trust, state: State | None, origin: str, ends: str
) -> tuple[Totals, Past, list[Checkpoint]]:
    """Give what is known before anything is read, and as of which root."""
    if state is not None:
        return state.begin(origin, ends)
    number = trust.begin.size & ~255 if trust.begin else 0
    if trust.begin is None or not number:
        return Totals(ends=Ends(os.urandom(32), ends)), Past(), []
    late = Ends(os.urandom(32), "late")
    return Totals(entries=number, ends=late), Past(entries=number, by_hash=number), [trust.begin]


def read_log(
    log: Log,
    totals: Totals,
    wanted: Wanted,
    *,
    origin: str,
    held: Sequence[Checkpoint],
    state: State | None,
) -> None:
    """Sweep what has to be read.

    Raises:
        DoubtError: something isn't plainly right.
        MalformedError: something isn't written as it has to be.
    """
    if totals.entries:
        resume(totals, log, wanted, held[0])
    if state is not None:
        state.freeze(totals)
    for part in log.parts(totals, wanted.within(totals.entries + 1, sys.maxsize), origin):
        with INTERRUPTION.held_off():
            if state is not None and part.next % 256 != 1:
                state.freeze(totals)
            join_part(totals, part)
            if state is not None:
                state.note(totals)
    if totals.ends is not None:
        totals.ends.settle(log.stream_heads())


def verify_log(log: Log, trust: Trust, state: State | None = None) -> Verdict:
    """Check a whole log by the steps at the top of this file."""
    origin = find_origin(log, trust)
    own, findings = read_checkpoints(log, trust)
    totals, past, held = begin(trust, state, origin, "told" if log.has_tables else "open")
    points = [*own, *trust.checkpoints, *(each for each in held if each is not trust.begin)]
    # What a service's newest checkpoint doesn't reach can't be looked for yet.
    pending = {seq for seq in trust.receipts if seq > log.size and not log.has_tables}
    wanted = Wanted(
        frozenset(point.size for point in points) - {0}, frozenset(trust.receipts.keys() - pending)
    )
    bad, notes = list[Finding](), log.not_checked()
    try:
        read_log(log, totals, wanted, origin=origin, held=held, state=state)
    except (DoubtError, MalformedError) as doubt:
        past = Past()
        totals, bad = examine_again(log, origin, wanted, doubt)
        if not log.has_tables:
            notes.append("why a first reading raised doubts: perhaps other bytes were given then")
    totals.roots[0] = sha256(b"").digest()
    findings += bad
    findings += compare_index(log, totals, past, origin, findings, is_broken=bool(bad))
    seqs = [each.seq for each in findings if each.seq and not each.what.startswith(INDEX)]
    broken_at = min(seqs, default=0 if bad and not log.reads_entries else None)
    more, agreed = compare_checkpoints(points, totals, broken_at, origin)
    findings += split_views(points) + more
    if log.reads_entries or not bad:
        findings += compare_receipts(trust.receipts, totals, pending)
    if trust.keyring is not None and isinstance(log, Database) and not bad:
        opened, notes = check_secrets(log, trust.keyring)
        findings += opened
        notes.append("identities and names of staff: not opened")
    notes += _not_read(past)
    if pending:
        notes.append(f"receipts of {len(pending)} entries: the service's checkpoint is before them")
    result = Verdict(
        origin=origin,
        scope=_scope(past, totals.reach),
        rests_on=rests_on(trust) + _rests_on_past(past, held),
        not_checked=notes,
        checkpoints=agreed[-1:],
        counts=counts_of(log, totals, own, trust),
    )
    if findings:
        conclude(result, findings, agreed[-1] if agreed else None)
        about = [each for each in (*points, *log.seen) if _is_named(each, findings)]
        result.checkpoints += about[:20]
        return result
    judge(result, trust, log, agreed, own, is_whole=not pending)
    say_what_holds(result, log, totals, past, points)
    if state is not None:
        keep(state, totals)
    return result


def examine_again(
    log: Log, origin: str, wanted: Wanted, doubt: Exception
) -> tuple[Totals, list[Finding]]:
    """Find out what raised a doubt; of hashes alone no more can be said."""
    if log.reads_entries:
        return examine(log, origin=origin, wanted=wanted)
    return Totals(reach=log.size), [finding("altered", None, f"hashes: {doubt}")]


def say_what_holds(
    result: Verdict, log: Log, totals: Totals, past: Past, points: Sequence[Checkpoint]
) -> None:
    """Say what is true of a log without a finding, and how far its checkpoints reach."""
    last = result.checkpoints[-1] if result.checkpoints else None
    covered = f"; entries 1 to {last.size} agree with {last.held}" if last else ""
    which = f"entries {past.by_hash + 1} to {totals.entries} are chained without a break"
    which = which if log.reads_entries else f"{totals.entries} leaf hashes make one tree"
    result.holds = which + covered
    reach = max([point.size for point in points if point.signed or point.outside], default=0)
    if result.code == VERIFIED and totals.entries > reach:
        what = f"entries after {reach}: chained, but not yet under a checkpoint seen here"
        result.not_checked.append(what)


def compare_index(
    log: Log, totals: Totals, past: Past, origin: str, findings: list[Finding], *, is_broken: bool
) -> list[Finding]:
    """Compare what indexes the entries, and entry 1, as far as what was found allows."""
    more: list[Finding] = []
    if not isinstance(log, Tiles):
        more += compare_head(log, totals, broken=is_broken)
    if not is_broken and log.reads_entries:
        more += check_opening(log, origin)
    if not any(each.seq for each in (*findings, *more)) and not (is_broken and not totals.entries):
        tables = compare_tables(log, totals, past) if not isinstance(log, Tiles) else []
        more += log.compare(totals) if isinstance(log, Tiles) else tables
    return more


def counts_of(log: Log, totals: Totals, own: Sequence[Checkpoint], trust: Trust) -> dict[str, int]:
    """Say how many there were of what."""
    counts = {
        "entries": totals.entries,
        "own checkpoints": len(own),
        "outside checkpoints": len(trust.checkpoints),
    }
    if trust.receipts:
        counts["acknowledged entries"] = len(trust.receipts)
    if log.has_tables:
        counts["sealed entries with a box"] = totals.boxed
        counts["sealed entries without (erased)"] = totals.sealed - totals.boxed
    return counts


def _is_named(point: Checkpoint, findings: Iterable[Finding]) -> bool:
    return any(point.held in each.what for each in findings)


INDEX = ("tree_nodes", "tile/")
"""How findings begin that are about what indexes the entries."""


def _scope(past: Past, reach: int) -> str:
    if past.by_hash:
        return f"entries {past.by_hash + 1} to {reach}; 1 to {past.by_hash} only by hash"
    if past.entries:
        when = f"by an earlier run ({past.since})"
        return f"entries {past.entries + 1} to {reach} now; 1 to {past.entries} {when}"
    return f"entries 1 to {reach}"


def _rests_on_past(past: Past, held: Sequence[Checkpoint]) -> list[str]:
    if past.since and held:
        return [f"for entries 1 to {past.entries}, {held[0].held}"]
    return []


def _not_read(past: Past) -> list[str]:
    if past.by_hash:
        what = f"entries 1 to {past.by_hash}"
        return [
            f"what stands in {what}: only that they are those under the checkpoint begun from",
            f"that later entries of a stream follow on its last one in {what}",
        ]
    if past.entries:
        what = "not read again, only what indexes them; --full reads all"
        return [f"entries 1 to {past.entries}: {what}"]
    return []


def judge(
    result: Verdict,
    trust: Trust,
    log: Log,
    agreed: Sequence[Checkpoint],
    own: Sequence[Checkpoint],
    *,
    is_whole: bool,
) -> None:
    """Say what a log without a finding amounts to."""
    lacking = lacks_witnesses(result, trust, agreed)
    outside = trust.checkpoints or (trust.witnesses and not lacking)
    if not trust.keys:
        lacking.append("who signed: give --pin or --key with the ledger's key, and --checkpoint")
    elif not outside:
        what = "that nothing was cut off the end or rewritten: give --checkpoint with one held"
        lacking.append(f"{what} outside")
    if not log.reads_entries:
        lacking.append("what stands in the entries: without --credential only hashes are read")
    result.not_checked += lacking
    if not lacking and is_whole:
        result.code, result.verdict = VERIFIED, "verified"
        return
    result.code = INCOMPLETE
    result.verdict = "consistent with itself" if log.reads_entries else "hashes are one tree"
    signed = [point.size for point in own if point.signed]
    if trust.keys and signed:
        result.verdict += f" and signed by the pinned key up to entry {max(signed)}"


def lacks_witnesses(result: Verdict, trust: Trust, agreed: Sequence[Checkpoint]) -> list[str]:
    """Say who cosigned the newest checkpoint with a quorum; or that there is none."""
    witnessed = [each for each in agreed if trust.quorum and len(each.cosigned) >= trust.quorum]
    if witnessed:
        names = ", ".join(witnessed[-1].cosigned)
        result.rests_on.append(f"witnesses' word on size {witnessed[-1].size}: {names}")
    lacks = trust.quorum > 0 and not witnessed
    return [f"that {trust.quorum} of the witnesses given signed one checkpoint: none"] * lacks


def keep(state: State, totals: Totals) -> None:
    """Leave the state for the next run, which then reads only what is new."""
    if totals.ends is None:
        print("state not kept: the entries had to be examined one by one", file=sys.stderr)
        return
    with INTERRUPTION.held_off():
        totals.roots.setdefault(totals.entries, totals.tree.root([]))
        state.save(totals)


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
    if len(points) > 5:
        sizes = [each.size for each in trust.checkpoints]
        how = "signed by the pinned key" if trust.keys else "their signatures not checked"
        which = f"{len(points)} checkpoints, given from outside, sizes {min(sizes)} to {max(sizes)}"
        points = [f"{which}, {how}"]
    if trust.receipts:
        points.append(f"receipts of {len(trust.receipts)} entries, given from outside")
    return (keys or ["no key from outside"]) + (points or ["no checkpoint from outside"])


def conclude(result: Verdict, findings: list[Finding], agreed: Checkpoint | None) -> None:
    """Order findings, name the first bad entry, and say what still holds."""
    entries = [each for each in findings if each.seq is not None]
    entries.sort(key=lambda each: (each.seq or 0, each.what.startswith(INDEX)))
    findings = entries + [each for each in findings if each.seq is None]
    result.findings = findings[:MAX_FINDINGS]
    result.first_bad = entries[0] if entries else None
    result.kinds = list(dict.fromkeys(each.kind for each in result.findings))
    result.verdict = f"tampered: {', '.join(result.kinds)}"
    last = (entries[0].seq or 1) - 1 if entries else 0
    if not entries or entries[0].what.startswith((*INDEX, "stream_heads")):
        result.holds = "the entries are chained without a break; what indexes or signs them isn't"
    else:
        result.holds = f"entries 1 to {last} are chained without a break" if last else "nothing"
    if agreed:
        result.holds += f"; entries 1 to {agreed.size} agree with {agreed.held}"


def own_sha256() -> str:
    """Give the digest of this script."""
    return sha256(Path(__file__).read_bytes()).hexdigest()


# == Section 12. PostgreSQL ==

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


def copy_chunks(place: Snapshot, first: int, last: int) -> Iterator[Chunk]:
    """Read entries over a connection of their own, in the binary format of COPY.

    PostgreSQL joins what makes a chunk: a row for each entry costs more than its hash.
    """
    connection = _connect(place.dsn, place.name)
    try:
        query = _composed(connection, _CHUNKS, schema=place.schema, first=first, last=last)
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


class Snapshot(NamedTuple):
    """Where every process reads the same rows."""

    dsn: str
    schema: str
    name: str

    def chunks(self, first: int, last: int) -> Iterator[Chunk]:
        """Read entries, 256 at a time."""
        return copy_chunks(self, first, last)


class Database:
    """A ledger's schema, read in one snapshot that every connection here shares."""

    has_tables = reads_entries = True
    seen: tuple[Checkpoint, ...] = ()

    def __init__(self, dsn: str, schema: str, *, jobs: int = 1, step: int = 0) -> None:
        self._connection = _connect(dsn, None)
        self._schema = schema
        self._jobs = jobs
        self._step = step
        self.place = Snapshot(dsn, schema, self._all("SELECT pg_export_snapshot()")[0][0])
        self.size = int(self._all("SELECT coalesce(max(seq), 0) FROM {schema}.entries")[0][0])

    def close(self) -> None:
        """Give the snapshot up."""
        self._connection.close()

    def _all(self, text: str, **parts: int) -> list[Any]:
        query = _composed(self._connection, text, schema=self._schema, **parts)
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

    def first_nodes(self, number: int) -> Iterator[bytes]:
        """Give the first hashes of level 1."""
        text = (
            "SELECT hash FROM {schema}.tree_nodes WHERE level = 1 AND idx < {number} ORDER BY idx"
        )
        return (node for (node,) in self._all(text, number=number))

    def leaves_of(self, first: int, last: int) -> list[bytes]:
        """Give the leaves of a few entries."""
        text = (
            "SELECT entry FROM {schema}.entries WHERE seq BETWEEN {first} AND {last} ORDER BY seq"
        )
        return [leaf_hash(entry or b"") for (entry,) in self._all(text, first=first, last=last)]

    def accepted(self, after: int) -> tuple[int, int, int, int]:
        """Give number, least, greatest and sum of `seq`, of those above a number."""
        text = "SELECT count(*), min(seq), max(seq), sum(seq) FROM {schema}.accepted"
        number, least, greatest, total = self._all(text + " WHERE seq > {after}", after=after)[0]
        return number, least or 0, greatest or 0, int(total or 0)

    def boxes(self, last: int) -> tuple[int, int]:
        """Give the number of boxes up to an entry, and after it."""
        text = "SELECT count(*) FILTER (WHERE seq <= {last}), count(*) FROM {schema}.boxes"
        before, number = self._all(text, last=last)[0]
        return before, number - before

    def not_checked(self) -> list[str]:
        """Say what can't be checked without secrets."""
        return [
            "boxes: only that they stand beside entries that seal something; no keys were given",
            "accepted: only number and range of rows; its keys need the lookup key",
        ]

    def sealed_rows(self) -> Iterator[SealedRow]:
        """Give entries with box and wrapped key, in the order of `seq`."""
        return starmap(SealedRow, self._stream("sealed", _SEALED))

    def accepted_rows(self) -> Iterator[tuple[bytes, int]]:
        """Give (key, seq)."""
        return self._stream("accepted", "SELECT key, seq FROM {schema}.accepted")

    def parts(self, totals: Totals, wanted: Wanted, origin: str) -> Iterator[Sweep]:
        """Sweep what comes after `totals`, in ranges.

        Raises:
            DoubtError: there are numbers outside all ranges, or no index to read ranges by.
        """
        least, is_indexed, before = self._all(
            "SELECT coalesce(min(seq), 1), EXISTS (SELECT FROM pg_index WHERE indrelid ="
            " (SELECT tableoid FROM {schema}.entries LIMIT 1) AND indisprimary AND indisvalid),"
            " (SELECT count(*) FROM {schema}.entries WHERE seq <= {last}) FROM {schema}.entries",
            last=totals.entries,
        )[0]
        ends = totals.ends
        if least != 1 or not is_indexed or before != totals.entries or ends is None:
            raise DoubtError(least)
        first, step, keeps_state = totals.entries + 1, self._step or 2**20, self._step > 0
        ranges = ranges_of(first, self.size, jobs=self._jobs, step=step, ends_whole=keeps_state)
        common = {"origin": origin, "key": ends.key, "ends": ends.ends}
        return sweep_ranges(self.place, ranges, self._jobs, wanted, **common)


# == Section 13. A running service's tiles (C2SP tlog-tiles) ==

HASHES = "hashes"
TILE_BYTES = 256 * 32


class Service(NamedTuple):
    """Where a log is served, and who asks."""

    url: str
    """The log's prefix, without a slash at its end."""
    size: int
    """Of the checkpoint that everything is read under."""
    authorization: str | None
    """Value of the header; None reads hashes only, where the service opens them to anybody."""

    def chunks(self, first: int, last: int) -> Iterator[TileChunk]:
        """Read entries and their tiles, 256 at a time."""
        tiles = range((first - 1) >> 8, ((last - 1) >> 8) + 1)
        return fetched(self, self._chunk, tiles)

    def _chunk(self, fetch: Fetch, index: int) -> TileChunk:
        number, leaves = fetch.width(0, index), fetch.tile(0, index)
        if self.authorization is None:
            if len(leaves) != number * 32:
                raise MalformedError(f"tile/0/{index}: not {number} hashes")
            return TileChunk(number, leaves, None)
        entries, is_whole = fetch.entries(index)
        if not is_whole:
            raise DoubtError(index)
        return TileChunk(number, leaves, b"\0" + b"\n\0".join(entries))


def fetched(
    service: Service, read: Callable[[Fetch, int], Any], indices: Iterable[int]
) -> Iterator[Any]:
    """Fetch some tiles ahead over a few connections; give them in order."""
    fetch, waiting, pool = Fetch(service), deque[Any](), ThreadPoolExecutor(4)
    try:
        for index in indices:
            waiting.append(pool.submit(read, fetch, index))
            if len(waiting) > 8:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        fetch.close()
        pool.shutdown(wait=False, cancel_futures=True)


class Fetch:
    """Asks a service for files; what it answers is bounded in length and time, not believed."""

    TRIES = 5
    TIMEOUT_S = 30.0
    """For a connection, or for the next bytes."""
    WHOLE_S = 300.0
    """For a whole answer."""

    def __init__(self, service: Service) -> None:
        self.service = service
        parts = urlsplit(service.url)
        self._place, self._prefix = (parts.hostname or "", parts.port), parts.path
        self._kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "verify_chain"}
        if service.authorization is not None:
            self._headers["Authorization"] = service.authorization
        self._own = threading.local()
        self._connections: list[http.client.HTTPConnection] = []
        self._is_closed = False

    def close(self) -> None:
        """Close every connection, and ask nothing more."""
        self._is_closed = True
        for each in self._connections:
            each.close()

    def width(self, level: int, index: int) -> int:
        """Give how many hashes a tile has in this tree; 0 where it has no such tile."""
        return max(0, min(256, (self.service.size >> 8 * level) - 256 * index))

    def tile(self, level: int, index: int) -> bytes:
        """Give a tile's bytes, whatever they are."""
        width = self.width(level, index)
        raw, number = self._wide(f"tile/{level}", index, width, TILE_BYTES)
        return raw[: width * 32] if number > width and len(raw) == TILE_BYTES else raw

    def entries(self, index: int) -> tuple[list[bytes], bool]:
        """Give a bundle's entries, and whether its bytes are just these."""
        width, at, found = self.width(0, index), 0, list[bytes]()
        raw, number = self._wide("tile/entries", index, width, 256 * (2 + MAX_ENTRY_BYTES))
        while at < len(raw) and len(found) < number:
            end = at + 2 + int.from_bytes(raw[at : at + 2])
            found.append(raw[at + 2 : end])
            at = end
        return found[:width], at == len(raw) and len(found) == number

    def _wide(self, kind: str, index: int, width: int, most: int) -> tuple[bytes, int]:
        """Give a file, and how many things it is of: a partial tile may go when it is full."""
        groups = [f"{index % 1000:03d}"]
        while index := index // 1000:
            groups.insert(0, f"x{index % 1000:03d}")
        name = "/".join([kind, *groups])
        found = self.get(f"{name}.p/{width}", most) if width < 256 else None
        if found is not None:
            return found, width
        found = self.get(name, most)
        if found is None:
            raise UnavailableError(f"{name}: the service has none, though its checkpoint needs it")
        return found, 256

    def get(self, name: str, most: int) -> bytes | None:
        """Give a file; None where there is none.

        Raises:
            UnavailableError: the service doesn't answer, or with something else.
        """
        wait_s, why = 0.0, ""
        for attempt in range(self.TRIES):
            time.sleep(wait_s)
            if self._is_closed:
                break
            wait_s = 0.25 * 2**attempt
            try:
                status, raw, after = self._ask(f"{self._prefix}/{name}", most)
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                why = f"{type(error).__name__} {error}".strip()
                continue
            if status == 200:
                return raw
            if status in {404, 410}:
                return None
            why = f"status {status}"
            if status not in {429, 500, 502, 503, 504}:
                break
            wait_s = min(10.0, float(after)) if re.fullmatch("[0-9]{1,6}", after) else wait_s
        else:
            why += f", {self.TRIES} times"
        if why in {"status 401", "status 403"}:
            why += ": --credential FILE has to hold a reader's of this ledger"
        if why.startswith("status 3"):
            why += ": redirects are not followed; --log has to name the log itself"
        raise UnavailableError(f"{name}: {why}")

    def _ask(self, path: str, most: int) -> tuple[int, bytes, str]:
        """Ask once; give status, body and Retry-After."""
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._kind(*self._place, timeout=self.TIMEOUT_S)
            self._own.connection = connection
            self._connections.append(connection)
        connection.request("GET", path, headers=self._headers)
        answer = connection.getresponse()
        raw, until = bytearray(), time.monotonic() + self.WHOLE_S
        stated = answer.getheader("Content-Length", "")
        if answer.getheader("Content-Encoding", "identity") != "identity":
            raise http.client.HTTPException("an encoded answer, though none was asked for")
        while piece := answer.read1(2**16):
            raw += piece
            if len(raw) > most:  # whatever comes after: it is too long
                self._drop()
                break
            if time.monotonic() > until:
                raise TimeoutError("the answer takes too long")
        if len(raw) <= most and stated.isdecimal() and int(stated) != len(raw):
            raise http.client.HTTPException("the answer was cut off")
        answer.close()
        if answer.will_close:
            self._drop()
        return answer.status, bytes(raw), answer.getheader("Retry-After", "")

    def _drop(self) -> None:
        connection, self._own.connection = getattr(self._own, "connection", None), None
        if connection is not None:
            connection.close()


class Tiles:
    """A log as a running service shows it, up to the checkpoint that it had at first."""

    has_tables = False

    def __init__(
        self,
        url: str,
        authorization: str | None,
        *,
        jobs: int = 1,
        step: int = 2**17,
        keys: Sequence[Key] = (),
    ) -> None:
        self.reads_entries = authorization is not None
        self._jobs = jobs
        self._keys = keys
        self._step = step
        self._fetch = Fetch(Service(url, 0, authorization))
        try:
            self.first = self._checkpoint()
        except UnavailableError:
            self.close()
            raise
        self.size = self.first.size
        self.place = Service(url, self.size, authorization)
        self._fetch.service = self.place
        self.seen = [self.first]
        self.findings: list[Finding] = []

    def close(self) -> None:
        """Close every connection."""
        self._fetch.close()

    def _checkpoint(self) -> Checkpoint:
        raw = self._fetch.get("checkpoint", MAX_NOTE_BYTES)
        try:
            return open_checkpoint((raw or b"").decode(), (), held="the service's checkpoint")
        except (MalformedError, UnicodeDecodeError):
            raise UnavailableError("checkpoint: what the service gives is none") from None

    def checkpoints(self) -> Iterator[tuple[int, str]]:
        """Give the one that everything is read under."""
        yield self.size, self.first.note

    def first_entry(self) -> bytes:
        """Give entry 1; nothing where entries aren't read."""
        found = self._fetch.entries(0)[0] if self.size and self.reads_entries else []
        return found[0] if found else b""

    def head(self) -> None:
        """Give nothing: no table says where the log ends."""

    def stream_heads(self) -> Iterator[tuple[bytes, int, bytes]]:
        """Give nothing: no table says where streams end."""
        return iter(())

    def first_nodes(self, number: int) -> Iterator[bytes]:
        """Give the first hashes of level 1."""
        for index in range((number + 255) >> 8):
            yield from _hashes(self._fetch.tile(1, index))

    def leaves_of(self, first: int, last: int) -> list[bytes]:
        """Give the leaves of entries in one tile; fewer where there are none."""
        index, begin = (first - 1) >> 8, (first - 1) & 255
        whole = _hashes(self._fetch.tile(0, index)) if self._fetch.width(0, index) else []
        return whole[begin : begin + last - first + 1]

    def rows(self) -> Iterator[Row]:
        """Give every entry with its tile's leaf; what is missing in a bundle as no bytes."""
        self.findings = []
        for index in range((self.size + 255) >> 8):
            width, tile = self._fetch.width(0, index), self._fetch.tile(0, index)
            leaves, (entries, is_whole) = _hashes(tile), self._fetch.entries(index)
            if len(tile) != width * 32 or not is_whole:
                what = f"tile/0/{index} or its entries: not {width} of them, or more bytes"
                self.findings.append(finding("altered", index * 256 + 1, what))
            missing = [b""] * width
            entries, leaves = (entries + missing)[:width], (leaves + missing)[:width]
            for seq, (leaf, raw) in enumerate(zip(leaves, entries, strict=True), index * 256 + 1):
                yield self._row(seq, leaf, raw)

    def _row(self, seq: int, leaf: bytes, raw: bytes) -> Row:
        try:
            entry = read_entry(raw)
            topic = topic_of(entry.kind, entry.event)
        except MalformedError:
            return Row(seq, b"", 0, b"", leaf, raw)
        return Row(seq, entry.stream, entry.version, topic, leaf, raw)

    rows_by_stream = rows

    def parts(self, totals: Totals, wanted: Wanted, origin: str) -> Iterator[Sweep]:
        """Sweep what comes after `totals`, in ranges."""
        if totals.ends is None:
            raise DoubtError
        first, jobs = totals.entries + 1, self._jobs
        ranges = ranges_of(first, self.size, jobs=jobs, step=self._step, ends_whole=True)
        common = {"origin": origin, "key": totals.ends.key, "ends": totals.ends.ends}
        return sweep_ranges(self.place, ranges, self._jobs, wanted, **common)

    def compare(self, totals: Totals) -> list[Finding]:
        """Compare the tiles above the leaves', and look whether the checkpoint went back."""
        findings = self.findings
        for level, row in enumerate(totals.tree.levels, 1):
            for index in range((len(row) + TILE_BYTES - 1) // TILE_BYTES):
                wanted = bytes(row[index * TILE_BYTES :][:TILE_BYTES])
                tile = self._fetch.tile(level, index)
                if tile != wanted and len(findings) < MAX_FINDINGS:
                    what = f"tile/{level}/{index}: isn't what the leaves make"
                    pairs = [*zip(_hashes(wanted), _hashes(tile), strict=False)]
                    at = next((at for at, (one, two) in enumerate(pairs) if one != two), 0)
                    seq = (index * 256 + at) * 256**level + 1
                    findings.append(finding("altered", seq, what, *(pairs or [(b"", b"")])[at]))
        return findings + self._compare_again()

    def _compare_again(self) -> list[Finding]:
        now = self._checkpoint()._replace(held="the service's checkpoint a moment later")
        self.seen.append(now)
        try:
            is_signed = open_checkpoint(now.note, self._keys, held="").signed or not self._keys
        except MalformedError:
            is_signed = False
        if not is_signed:
            return [finding("rewritten", None, f"{now.held}: not signed by a pinned key")]
        if now.size < self.size:
            what = f"{now.held}: went back from size {self.size} to {now.size}"
            return [finding("truncated", None, what)]
        return split_views(self.seen)

    def not_checked(self) -> list[str]:
        """Say what a service doesn't show."""
        return ["boxes, accepted ids and other tables: a service doesn't show them"]


def _hashes(joined: bytes) -> list[bytes]:
    return [joined[at : at + 32] for at in range(0, len(joined), 32)]


if TYPE_CHECKING:
    Log = Database | Tiles
    Place = Snapshot | Service


# == Section 14. Evidence bundles (FORMAT.md 7) ==

FILES = {
    "manifest.json": 2**24,
    "manifest.note": 2**16,
    "entries.jsonl": 2**34,
    "rows.csv": 2**34,
    "checkpoint": 2**16,
    "last.tlog-proof": 2**16,
    "entries.proof": 2**29,
    "verifier.html": 2**22,
    "FORMAT.md": 2**22,
}
"""Name to most bytes."""
PROOFS = ("last.tlog-proof", "entries.proof")
ACCESSES = {f"record.{verb}" for verb in ("accessed", "exported", "used", "shared")}
"""Types that the report is about (7.1)."""
IN_FULL = {f"ledger.{name}.v1" for name in ACCESSES}
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
        self.population, self.population_digest = 0, sha256()

    def require(self, right: object, kind: str, what: str, *more: Any) -> None:
        """Note a finding unless something is right; `more` is seq, expected, found."""
        if not right and len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding(kind, more[0] if more else None, what, *more[1:]))

    def member(self, name: str) -> dict[str, Any]:
        """Give an object in the manifest; an empty one where it isn't an object."""
        found = self.manifest.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def held(self) -> list[Checkpoint]:
        """Checkpoints that are not from the bundle, the attestor's included."""
        attested = self.trust.attestation
        return [*self.trust.checkpoints, *([attested.point] if attested else [])]

    def words(self) -> str:
        """Say what the bundle is about."""
        scope = self.member("scope")
        if "from" not in scope:
            return f"record {scope.get('record')}"
        what = f"entries {scope['from']} to {scope.get('to')}"
        return f"accesses that a filter chose of {what}" if self.is_chosen else what

    @property
    def is_range(self) -> bool:
        """Whether it holds a range, not a record."""
        return self.member("scope").get("kind") == "range"

    @property
    def is_chosen(self) -> bool:
        """Whether a filter chose its entries."""
        return self.member("scope").get("kind") == "accesses"

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
            needed = name not in {*PROOFS, "verifier.html"}
            self.require(name in names or not needed, "deleted", f"zip: {name} is missing")
        for member in members:
            name, size = member.filename, member.file_size
            bomb = size > 2**20 and size > MAX_RATIO * member.compress_size
            if name in FILES and (bomb or size > FILES[name] or member.flag_bits & 1):
                raise UnavailableError(f"{name}: too large, or encrypted; not unpacked")
        return not self.findings

    def lines(self, name: str, most: int) -> Iterator[bytes]:
        """Give a file's lines, hashing the file as it goes by."""
        return self.pieces(name, most, by_line=True)

    def pieces(self, name: str, size: int, *, by_line: bool = False) -> Iterator[bytes]:
        """Give a file by pieces of a size, hashing it as it goes by."""
        digest = sha256()
        with self.archive.open(name) as file:
            while piece := (file.readline if by_line else file.read)(size):
                digest.update(piece)
                yield piece
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
            stated, signers = open_note(self.text("manifest.note"), self.trust.keys)
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
            self.require(signers, "rewritten", "manifest.note: not signed by a pinned key")
            what = "manifest.json: of another ledger than the pinned key's"
            self.require(named, "rewritten", what)
        known = manifest.get("format") == "custody-ledger/bundle/v0"
        self.require(known, "altered", "manifest.json: another format than this script knows")
        told = manifest.get("completeness") in {"proved", "asserted"}
        what = "manifest.json: completeness is neither proved nor asserted"
        self.require(told, "altered", what)
        claims = manifest.get("completeness") == "proved" and self.is_chosen
        self.require(
            not claims, "altered", "manifest.json: what is chosen can't prove itself whole"
        )
        numbers: Any = [scope.get("from"), scope.get("to")] if "from" in scope else [1, 1]
        scoped = scope.get("kind") in {"record", "range", "accesses"}
        scoped = scoped and all(type(n) is int and n > 0 for n in numbers)
        scoped = scoped and ("from" in scope or scope["kind"] == "record")
        scoped = scoped and numbers == sorted(numbers)
        scoped = scoped and (not self.is_chosen or is_filter(scope.get("filter")))
        what = "manifest.json: scope is neither a record nor a range nor accesses"
        self.require(scoped, "altered", what)
        held = set(PROOFS).intersection(self.archive.namelist())
        missing = scoped and held != {PROOFS[self.is_chosen]}
        self.require(not missing, "deleted", f"zip: {PROOFS[self.is_chosen]} has to be the proof")
        return scoped and not missing

    def check_entries(self) -> None:
        """Follow the entries: a range by `prev`, a record by `stream_prev`; not what is chosen."""
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
                late += self._check_entry(entry, recorded, raw, read_event(entry.event))
            except MalformedError as error:
                self.require(False, "altered", f"line {place - first + 1}: {error}")  # noqa: FBT003
            else:
                recorded = entry.recorded
                number = entry.seq if is_range else entry.version
                before = entry.prev if is_range else entry.stream_prev or ""
                seqs[number] = entry.seq
                self.leaves[entry.seq] = leaf
                self.last = (entry.seq, leaf)
                if is_access(entry):
                    self.population += 1
                    self.population_digest.update(b"%d %b\n" % (entry.seq, leaf.hex().encode()))
            if not self.is_chosen:
                walk.feed(Link(place, number, before, leaf.hex(), suspect=False))
        if self.is_chosen:
            self.findings += late[:MAX_FINDINGS]
            return
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

    def _check_entry(
        self, entry: Entry, recorded: bytes, raw: bytes, event: dict[str, Any]
    ) -> list[Finding]:
        scope = self.member("scope")
        rules = [
            (entry.ledger == self.manifest.get("ledger"), "the bytes name another ledger"),
            (entry.recorded >= recorded, EARLIER),
            (is_in_its_stream(raw, entry), NOT_ITS_STREAM),
        ]
        after = self.last is None or entry.seq > self.last[0]
        rules += [] if self.is_range else [(after, ORDER[1])]
        if self.is_chosen:
            inside = scope["from"] <= entry.seq <= scope["to"] and is_access(entry)
            passes = inside and matches(scope["filter"], entry, event)
            rules.append((passes, "isn't one that the filter chooses"))
        elif not self.is_range:
            stream = str(scope.get("record")).encode()
            same = entry.stream == stream and entry.kind == b"record"
            rules.append((same, "of another record"))
        return [finding("altered", entry.seq, what) for right, what in rules if not right]

    def check_rows(self) -> None:
        """Check that every row rests on an entry in the bundle."""
        lines = (line.decode(errors="replace") for line in self.lines("rows.csv", 2**20))
        reader = csv.reader(lines)
        try:
            header = next(reader, [])
            named = {"seq", "leaf"} <= set(header)
            self.require(named, "altered", "rows.csv: expected the columns seq and leaf")
            for row in reader:
                self._check_row(header, row)
        except csv.Error:
            self.require(False, "altered", "rows.csv: isn't RFC 4180")  # noqa: FBT003

    def _check_row(self, header: list[str], row: list[str]) -> None:
        self.rows += 1
        cells = dict(zip(header, row, strict=False))
        seq = int(cells["seq"]) if re.fullmatch("[0-9]{1,19}", cells.get("seq", "")) else 0
        leaf = self.leaves.get(seq)
        rests = leaf is not None and leaf.hex() == cells.get("leaf")
        what = f"rows.csv: row {self.rows} rests on no entry of this bundle"
        self.require(rests and len(row) == len(header), "altered", what, seq or None)

    def check_checkpoint(self) -> Checkpoint | None:
        """Check the checkpoint, and that the last entry, or each one, is under it."""
        keys = self.trust.all_keys
        try:
            point = open_checkpoint(self.text("checkpoint"), keys, held="the bundle's checkpoint")
            if self.is_chosen:
                proved = point
            else:
                index, proof, note = read_proof(self.text(PROOFS[0]))
                proved = open_checkpoint(note, keys, held=PROOFS[0])
        except MalformedError as error:
            kind = "rewritten" if "signature" in str(error) else "altered"
            self.require(False, kind, str(error))  # noqa: FBT003
            return None
        named = point.origin == self.manifest.get("ledger")
        self.require(named, "rewritten", "checkpoint: of another ledger")
        signed = not self.trust.keys or (point.signed and proved.signed)
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
        if self.is_chosen:
            self._check_chosen(point)
        elif not seq:
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

    def _check_chosen(self, point: Checkpoint) -> None:
        """Check that all entries are under the checkpoint (7.7)."""
        within = self.member("scope")["to"] <= point.size
        self.require(within, "altered", "manifest.json: the scope goes beyond as_of")
        steps, root = self.pieces(PROOFS[1], 32), None
        try:
            root = root_above(self.leaves, point.size, steps)
        except MalformedError:
            deque(steps, maxlen=0)
        names = ("entries.jsonl", PROOFS[1])
        intact = all(self.stated(name) == self.digests.get(name) for name in names)
        kind, what = "rewritten" if intact else "altered", "the entries aren't under the checkpoint"
        self.require(root == point.root, kind, f"{PROOFS[1]}: {what}", None, point.root, root)

    def stated(self, name: str) -> object:
        """Give the digest of a file that the manifest states."""
        return self.member("files").get(name)

    def check_claims(self) -> None:
        """Compare digests and counts with the manifest."""
        names = {*self.member("files"), *self.archive.namelist()}
        for name in names.intersection({"FORMAT.md", "verifier.html"}, self.archive.namelist()):
            deque(self.pieces(name, 2**16), maxlen=0)
        for name in sorted(names - {"manifest.json", "manifest.note"}):
            digests = (self.stated(name), self.digests.get(name))
            same = digests[0] == digests[1]
            self.require(same, "altered", f"{name}: another file", None, *map(str, digests))
        first, last = min(self.leaves, default=None), max(self.leaves, default=None)
        claims: dict[str, Any] = {"rows": self.rows, "first_seq": first, "last_seq": last}
        if "population_sha256" in self.manifest:
            claims |= {"population": self.population}
            claims |= {"population_sha256": self.population_digest.hexdigest()}
        for name, value in claims.items():
            told = self.manifest.get(name)
            what = f"manifest.json: {name} isn't what the bundle holds"
            self.require(told == value, "altered", what, None, str(told), str(value))

    def compare_outside(self, point: Checkpoint, not_checked: list[str]) -> bool:
        """Compare the bundle with checkpoints held outside; tell whether any could be."""
        compared, others = False, 0
        begins = self.is_range and self.member("scope")["from"] == 1
        leaves = list(self.leaves.values()) if begins else []
        self.findings += split_views([point, *self.held])
        for outside in self.trust.checkpoints:
            size, held, root = outside.size, outside.held, point.root
            if outside.origin != point.origin:
                self.require(False, "rewritten", f"{held}: of another ledger")  # noqa: FBT003
                continue
            if size <= len(leaves):
                root = Tree().root(peaks(leaves[:size]))
            elif size != point.size:
                others += 1
                continue
            what = f"{held}: another root at size {size}"
            self.require(root == outside.root, "rewritten", what, None, outside.root, root)
            compared = True
        if others:
            what = "of other sizes than the bundle's"
            not_checked.append(f"checkpoints from outside, {others} of them: {what}")
        return compared

    def compare_receipts(self, point: Checkpoint, not_checked: list[str]) -> None:
        """See that acknowledged entries that belong here are here."""
        scope, others = self.member("scope"), 0
        for seq, given in sorted(self.trust.receipts.items()):
            found = self.leaves.get(seq)
            for receipt in given:
                belongs = found is not None or (
                    scope["from"] <= seq <= scope["to"]
                    if self.is_range
                    else receipt.record == scope.get("record") and seq <= point.size
                )
                others += not belongs
                kind = "rewritten" if found else "deleted"
                what = f"{receipt.held}: acknowledged, but missing or another entry"
                right = not belongs or found == receipt.leaf
                self.require(right, kind, what, seq, receipt.leaf, found)
        if others:
            not_checked.append(f"receipts, {others} of them: of entries that aren't in here")

    def completeness(self, point: Checkpoint, not_checked: list[str]) -> str:
        """Say what the manifest's word on completeness amounts to (7.2)."""
        attested = self.trust.attestation
        if self.is_chosen and attested is not None:
            why = self._differs(attested, point)
            if not why:
                _, first, last = attested.range.split()
                which = f"replayed entries {first} to {last} and found these {self.population}"
                return f"proved: {attested.name} {which} and no other"
            not_checked.append(f"attestation of {attested.name}: {why}")
        if self.is_chosen or self.manifest.get("completeness") != "proved":
            return "asserted: that no row is missing is the signer's word"
        if self.is_range:
            return "proved: no entry of the range is missing"
        return (
            "proved: none of the record's versions up to the last shown is missing;"
            " that no later one existed is the signer's word"
        )

    def _differs(self, attested: Attestation, point: Checkpoint) -> str:
        """Say in what an attestation isn't about this bundle (7.8); nothing if it is."""
        scope = self.member("scope")
        chosen = json.dumps(scope["filter"], ensure_ascii=False, separators=(",", ":"))
        right = (point.origin, f"range {scope['from']} {scope['to']}", f"filter {chosen}")
        if (attested.point.origin, attested.range, attested.filter) != right:
            return "about another ledger, range or filter"
        if attested.point.size < scope["to"]:
            return "its checkpoint doesn't reach the end of its range"
        digest = self.population_digest.hexdigest()
        if attested.found != f"count {self.population}\ndigest {digest}":
            return f"it found others than these {self.population}: one of the two is wrong"
        return ""


FILTERS = {
    "record": "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "actor": "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "type": "|".join(map(re.escape, sorted(ACCESSES))),
    "from_time": _TIME.pattern.decode(),
    "to_time": _TIME.pattern.decode(),
}


def is_access(entry: Entry) -> bool:
    """Tell whether an entry is of a type that the report is about."""
    return entry.kind != b"aggregate" and topic_of(entry.kind, entry.event).decode() in IN_FULL


def is_filter(value: object) -> bool:
    """Tell whether a manifest's filter is one, its members in their order (7.7)."""
    return (
        isinstance(value, dict)
        and list(value) == [name for name in FILTERS if name in value]
        and all(
            isinstance(each, str) and re.fullmatch(FILTERS[name], each, re.ASCII)
            for name, each in value.items()
        )
    )


def matches(chosen: Mapping[str, str], entry: Entry, event: Mapping[str, Any]) -> bool:
    """Tell whether an access passes a filter (7.7)."""
    data = event.get("data")
    actor = data.get("actor") if isinstance(data, dict) else None
    at = _instant(event["time"]) if "time" in event else entry.recorded.decode()
    facts = {
        "record": entry.stream.decode() if entry.kind == b"record" else "",
        "actor": actor.get("id") if isinstance(actor, dict) else "",
        "type": str(event.get("type")).removeprefix("ledger.").removesuffix(".v1"),
    }
    return (
        all(chosen.get(name, fact) == fact for name, fact in facts.items())
        and (bool(at) or not {"from_time", "to_time"} & chosen.keys())
        and chosen.get("from_time", "") <= at
        and at < chosen.get("to_time", "~")
    )


def _instant(text: object) -> str:
    """Write an event's time as entries write theirs; nothing if it is none."""
    try:
        moment = datetime.fromisoformat(str(text))
        naive = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return ""
    return naive.isoformat(timespec="microseconds") + "Z" if naive else ""


def root_above(leaves: Mapping[int, bytes], size: int, steps: Iterable[bytes]) -> bytes:
    """Give the root that some entries (by `seq`) and a proof of them lead to (7.7).

    Raises:
        MalformedError: the proof is too short or too long, or an entry is outside the tree.
    """
    chosen, rest = sorted(seq - 1 for seq in leaves), iter(steps)

    def subtree(low: int, high: int, first: int, last: int) -> bytes:
        if first == last:
            return one(next(rest, b""))
        if high - low == 1:
            return leaves[chosen[first] + 1]
        split = low + (1 << (high - low - 1).bit_length() - 1)
        middle = bisect_left(chosen, split, first, last)
        left = subtree(low, split, first, middle)
        return sha256(b"\1" + left + subtree(split, high, middle, last)).digest()

    def one(step: bytes) -> bytes:
        if len(step) != 32:
            raise MalformedError("the proof is too short")
        return step

    if chosen and not 0 <= chosen[0] <= chosen[-1] < size:
        raise MalformedError("an entry is outside the tree")
    root = subtree(0, size, 0, len(chosen))
    if next(rest, None) is not None:
        raise MalformedError("the proof is too long")
    return root


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
        "gaps, masking, exclusions, parameters: the signer's word",
        "rows: that each names an entry of this bundle, not what the view made of it",
    ]
    if bundle.check_files() and bundle.check_manifest():
        bundle.check_entries()
        bundle.check_rows()
        point = bundle.check_checkpoint()
        bundle.check_claims()
    if point is not None:
        compared = bundle.compare_outside(point, not_checked)
        bundle.compare_receipts(point, not_checked)
    manifest = bundle.manifest
    result = Verdict(
        origin=str(manifest.get("ledger", "")),
        scope=bundle.words(),
        rests_on=rests_on(trust),
        not_checked=not_checked,
        counts={"entries": len(bundle.leaves), "rows": bundle.rows},
    )
    if isinstance(manifest.get("population"), int):
        result.counts["population"] = manifest["population"]
    if "population_sha256" not in manifest:
        not_checked.append("population: the signer's word")
    if manifest.get("verifier_sha256") not in {None, own_sha256()}:
        not_checked.append(
            f"by the script that the manifest names: this one's SHA-256 is {own_sha256()}"
        )
    if bundle.findings or point is None:
        conclude(result, bundle.findings, None)
        about = [*([point] if point else []), *bundle.held]
        result.checkpoints = [each for each in about if _is_named(each, bundle.findings)][:20]
        return result
    result.completeness = bundle.completeness(point, not_checked)
    result.holds = f"{result.scope}: unchanged, and under the checkpoint of size {point.size}"
    if not compared and point.signed:
        result.rests_on.append("the bundle's own checkpoint, signed by the pinned key")
    lacking = [] if point.signed else ["who signed: give --pin or --key with the ledger's key"]
    lacking += lacks_witnesses(result, trust, [point])
    not_checked += lacking
    result.code, result.verdict = VERIFIED, "verified"
    if lacking:
        result.code, result.verdict = INCOMPLETE, "consistent with itself"
    return result


# == Section 15. Command line ==


def read_notes(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Read files of checkpoints, and those in folders, as (name, note).

    In a folder every `*.checkpoint` counts, and whatever else is a note; drafts that a crash
    left behind, and evidence of other kinds, don't.
    """
    notes = []
    for path in map(Path, paths):
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            is_draft = file.name.startswith(".") or file.suffix == ".draft"
            if not file.is_file() or (is_draft and file != path):
                continue
            sure = file == path or file.suffix == ".checkpoint"
            with file.open("rb") as opened:
                raw = opened.read(MAX_NOTE_BYTES + 1)
            if len(raw) > MAX_NOTE_BYTES and sure:
                raise UsageError(f"checkpoint {file.name}: too large for one")
            if sure or b"\n\n\xe2\x80\x94 " in raw[:MAX_NOTE_BYTES]:
                notes.append((file.name, raw.decode(errors="replace")))
    return notes


def open_held(note: str, keys: Sequence[Key], held: str) -> Checkpoint:
    """Open a checkpoint that was brought along.

    Raises:
        UsageError: it is none, or not signed by the pinned key.
    """
    try:
        point = open_checkpoint(note, keys, held=held, outside=True)
    except MalformedError as error:
        raise UsageError(f"{held}: {error}") from None
    if any(key.type == ED25519 for key in keys) and not point.signed:
        raise UsageError(f"{held}: not signed by the pinned key; which of the two is wrong?")
    return point


def read_receipts(
    paths: Iterable[str], keys: Sequence[Key]
) -> tuple[dict[int, list[Receipt]], list[Checkpoint]]:
    """Read receipts, one answer of the service a line, and the checkpoints in them."""
    receipts: dict[int, list[Receipt]] = {}
    points: dict[tuple[int, bytes], Checkpoint] = {}
    seen: set[bytes] = set()
    for path in map(Path, paths):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                held = f"receipt {path.name}:{number}"
                if not line.strip():
                    continue
                try:
                    answer = read_event(line)
                    for seq, leaf, record in _acknowledged(answer):
                        given = receipts.setdefault(seq, [])
                        if all(each.leaf != leaf for each in given):
                            given.append(Receipt(leaf, record, held))
                except (MalformedError, KeyError, TypeError, ValueError, AttributeError):
                    raise UsageError(f"{held}: expected an answer of POST events") from None
                note = answer.get("checkpoint")
                if note is not None and (mark := sha256(str(note).encode()).digest()) not in seen:
                    seen.add(mark)
                    point = open_held(str(note), keys, f"checkpoint of {held}")
                    points.setdefault((point.size, point.root), point)
    return receipts, list(points.values())


def _acknowledged(answer: dict[str, Any]) -> Iterator[tuple[int, bytes, str]]:
    """Give number, leaf and record of every entry that an answer acknowledges."""
    given = answer.get("receipts", [] if "results" in answer else [answer])
    given += [each["receipt"] for each in answer.get("results", []) if each.get("receipt")]
    for receipt in given:
        for entry in receipt.get("entries", [receipt]):
            leaf = bytes.fromhex(entry["leaf"])
            if type(entry["seq"]) is not int or entry["seq"] < 1 or len(leaf) != 32:
                raise ValueError
            yield entry["seq"], leaf, str(entry.get("record"))


ATTESTATION = re.compile(
    r"custody-ledger attestation v0\n(?P<origin>[^\n]+)\n"
    r"(?P<range>range [1-9][0-9]{0,18} [1-9][0-9]{0,18})\n"
    r"checkpoint (?P<size>0|[1-9][0-9]{0,18}) (?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"(?P<filter>filter \{[^\n]*\})\n(?P<found>count (?:0|[1-9][0-9]{0,18})\ndigest [0-9a-f]{64})\n"
)


def read_attestation(path: Path, vkey: str) -> Attestation:
    """Read an auditor's attestation and check its signature (7.8)."""
    key, held = parse_key(vkey), f"attestation {path.name}"
    try:
        text, signers = open_note(path.read_text(encoding="utf-8"), (key,))
    except (MalformedError, UnicodeDecodeError) as error:
        raise UsageError(f"{held}: {error}") from None
    match = ATTESTATION.fullmatch(text)
    if not signers or match is None:
        why = "of another format" if signers else "not signed by the attestor's key"
        raise UsageError(f"{held}: {why}")
    root, held = base64.b64decode(match["root"]), f"the attestation of {key.name}"
    point = Checkpoint(
        match["origin"], int(match["size"]), root, signed=True, held=held, outside=True
    )
    return Attestation(key.name, match["range"], match["filter"], match["found"], point)


def read_trust(args: argparse.Namespace) -> Trust:
    """Read what was brought along: keys, checkpoints, receipts (step 1)."""
    texts = list(args.key)
    try:
        for pin in args.pin:
            lines = Path(pin).read_text(encoding="utf-8").splitlines()
            texts += [line.strip() for line in lines if line.strip() and line[0] != "#"]
        keys = tuple(map(parse_key, texts))
        witnesses = tuple(parse_key(each, COSIGNATURE) for each in args.witness_key)
        notes, begins = read_notes(args.checkpoint), read_notes(args.from_checkpoint)
        every = (*keys, *witnesses)
        points = [open_held(note, every, f"checkpoint {name}") for name, note in begins + notes]
        receipts, more = read_receipts(args.receipts, every)
        attestation = None
        if args.attestation:
            attestation = read_attestation(Path(args.attestation), args.attestor_key)
        keyring = read_keyring(Path(args.keyring)) if args.keyring else None
    except (OSError, UnicodeDecodeError) as error:
        raise UnavailableError(f"what was brought along: {error}") from None
    quorum = args.witness_quorum or len({each.id for each in witnesses})
    if quorum > len({each.id for each in witnesses}):
        raise UsageError("--witness-quorum: more than there are keys of witnesses")
    if (args.pin and not texts) or (args.checkpoint and not notes):
        raise UsageError("a file of keys or checkpoints was given that holds none")
    return Trust(
        keys=keys,
        witnesses=witnesses,
        quorum=quorum,
        checkpoints=(*points, *more),
        begin=points[0] if begins else None,
        receipts=receipts,
        attestation=attestation,
        keyring=keyring,
    )


def verify_database(args: argparse.Namespace, trust: Trust, state: State | None) -> Verdict:
    """Check a database."""
    try:
        import psycopg  # noqa: PLC0415 - bundles are checked without it
    except ImportError:
        raise UnavailableError("reading a database needs psycopg") from None
    try:
        database = Database(
            args.database, args.schema, jobs=args.jobs, step=args.step * bool(state)
        )
        try:
            return verify_log(database, trust, state)
        finally:
            database.close()
    except psycopg.Error as error:
        text = error.diag.message_primary or str(error).strip().split("\n", maxsplit=1)[0]
        raise UnavailableError(f"database: {text}") from None


def verify_service(args: argparse.Namespace, trust: Trust, state: State | None) -> Verdict:
    """Check the log that a service shows."""
    try:
        parts = urlsplit(args.log)
        known = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or 1)
    except ValueError:
        known = False
    if not known or parts.username is not None or parts.query or parts.fragment:
        raise UsageError("--log: expected https://HOST/v1/ledgers/NAME")
    authorization = read_credential(Path(args.credential)) if args.credential else None
    local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if authorization and parts.scheme == "http" and not local:
        print("the credential and all entries travel unencrypted", file=sys.stderr)
    url, step = args.log.rstrip("/"), min(args.step, 2**17)
    tiles = Tiles(url, authorization, jobs=args.jobs, step=step, keys=trust.all_keys)
    try:
        return verify_log(tiles, trust, state)
    finally:
        tiles.close()


def read_credential(path: Path) -> str:
    """Read a reader's credential: the header's line, or the key alone."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnavailableError(f"credential {path}: {type(error).__name__}") from None
    match = re.fullmatch("(?:authorization: *bearer +)?([!-~]+)", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"credential {path}: expected Authorization: Bearer KEY, or the key")
    return f"Bearer {match[1]}"


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
        description="Verify a Custody Ledger: its database, its running service, or a bundle.",
        epilog="Exit codes: 0 verified, 1 tampered, 2 usage, 3 unavailable, "
        "4 not everything could be checked, 130 interrupted.",
    )
    add, more = parsed.add_argument, dict[str, Any](action="append", default=[])
    add("bundle", nargs="?", help="an evidence bundle (.zip)")
    add("--database", metavar="DSN", help="the database's connection string")
    add("--schema", help="the ledger's schema in it, ledger_NAME")
    add("--log", metavar="URL", help="a running service's log, https://HOST/v1/ledgers/NAME")
    add("--credential", metavar="FILE", help="a reader's; without it only hashes are read")
    add("--key", metavar="VKEY", help="a pinned verifier key", **more)
    add("--pin", metavar="FILE", help="pinned keys, one a line", **more)
    add("--checkpoint", metavar="FILE", help="held outside; or a folder", **more)
    add(
        "--receipts", metavar="FILE", help="what the service acknowledged, an answer a line", **more
    )
    add("--witness-key", metavar="VKEY", help="a witness whose cosignatures count", **more)
    add("--witness-quorum", type=int, metavar="N", help="how many of them are needed (all)")
    add("--state", metavar="FILE", help="go on from where the last run ended, and leave it here")
    add("--step", type=int, default=2**18, metavar="N", help="take the state after N (262144)")
    add("--full", action="store_true", help="read all entries, whatever the state says")
    add("--from-checkpoint", metavar="FILE", help="read only what is after it", **more)
    add("--attestation", metavar="FILE", help="an auditor's, about this bundle's filter")
    add("--attestor-key", metavar="VKEY", help="the auditor's verifier key")
    add("--keyring", metavar="FILE", help="the ledger's secret keys: opens boxes as well")
    add("--evidence", metavar="PATH", help="where to write findings, if there are any")
    add("--json", action="store_true", help="write the verdict as JSON")
    jobs = min(4, os.cpu_count() or 1)
    add("--jobs", type=int, default=jobs, help=f"processes that read a log ({jobs})")
    return parsed


def check_usage(args: argparse.Namespace) -> str:
    """Say what doesn't go together; nothing if all does."""
    rules = (
        (
            sum(map(bool, (args.bundle, args.database, args.log))) == 1
            and bool(args.database) == bool(args.schema),
            "give a bundle, or --database and --schema, or --log",
        ),
        (not args.credential or args.log, "--credential: only with --log"),
        (not args.keyring or args.database, "--keyring: only with --database"),
        (not args.bundle or not (args.state or args.from_checkpoint), "a bundle is read whole"),
        (not (args.state and args.from_checkpoint), "give --state or --from-checkpoint"),
        (len(args.from_checkpoint) < 2, "--from-checkpoint: give one"),
        (not args.full or args.state, "--full: only with --state"),
        (not args.attestation or args.bundle, "--attestation: only with a bundle"),
        (bool(args.attestation) == bool(args.attestor_key), "--attestation needs --attestor-key"),
        (args.witness_quorum is None or args.witness_quorum > 0, "--witness-quorum: 1 or more"),
        (args.jobs > 0, "--jobs: expected 1 or more"),
        (args.step > 0 and args.step % 256 == 0, "--step: expected a multiple of 256"),
    )
    return next((what for right, what in rules if not right), "")


def verify(args: argparse.Namespace, trust: Trust, state: State | None) -> Verdict:
    """Check whatever was named."""
    if args.bundle:
        return verify_bundle(Path(args.bundle), trust)
    return (verify_database if args.database else verify_service)(args, trust, state)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code, which is 1 for tampering and nothing else."""
    parsed = parser()
    args = parsed.parse_args(arguments)
    if what := check_usage(args):
        parsed.error(what)
    begun, state = time.monotonic(), None
    try:
        with INTERRUPTION.listening():
            try:
                trust = read_trust(args)
                if args.state:
                    reads = "database" if args.database else "log" if args.credential else "hashes"
                    state = State(Path(args.state), reads=reads, keys=trust.keys, full=args.full)
                result = verify(args, trust, state)
            except KeyboardInterrupt:
                return interrupted(state)
        result.duration_s = round(time.monotonic() - begun, 3)
        print(as_json(result) if args.json else as_text(result))
        if result.code == TAMPERED:
            write_evidence(result, args.evidence)
    except UsageError as error:
        print(f"usage: {error}", file=sys.stderr)
        return USAGE
    except UnavailableError as error:
        print(f"unavailable: {error}", file=sys.stderr)
        return UNAVAILABLE
    except Exception as error:  # noqa: BLE001 - Python's own exit code would mean tampering
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{type(error).__name__}, line {trace.tb_lineno if trace else 0}"
        print(f"unavailable: this program failed and has no verdict ({place})", file=sys.stderr)
        return UNAVAILABLE
    return result.code


def interrupted(state: State | None) -> int:
    """Save what was read and say how to go on."""
    told = "interrupted; nothing was kept: with --state FILE a run can be taken up again"
    if state is not None:
        try:
            number = state.save_early()
            told = f"interrupted; entries 1 to {number} need not be read again: run it once more"
        except UnavailableError as error:
            told = f"interrupted; {error}"
    print(f"\n{told}", file=sys.stderr)
    return INTERRUPTED


def run() -> None:
    """Run as a program; what still runs beside it isn't waited for where it has no verdict."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = main()
    if code in {UNAVAILABLE, INTERRUPTED}:
        for child in multiprocessing.active_children():
            child.kill()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
