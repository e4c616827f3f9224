"""Replay a whole range and say which accesses are in it, for an auditor to sign.

1. Verify every bundle, each in a process of its own, by `scripts/verify_chain.py`.
2. See that the ranges adjoin, and that no two checkpoints tell of different histories.
3. Read every entry, follow `prev` from one bundle into the next, recompute the tree where the
   ranges begin with entry 1, and apply the filter to each entry's bytes.
4. Compare with the bundle of accesses, where there is one, entry by entry.

Neither database nor view, nor the service that made the bundles, has any part in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise, repeat
from typing import IO, TYPE_CHECKING, Any
from zipfile import ZipFile

from ledger.core.checkpoint import open_checkpoint
from ledger.core.merkle import RightEdge, leaf_hash
from ledger.errors import CannotVerify, Misconfigured, TamperDetected, Unavailable
from projections.attestation import Attestation, Filter, Population, parse_filter
from projections.exports.envelope import VERIFIER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ledger.core.checkpoint import Checkpoint
    from ledger.core.note import Verifier

MAX_AT_ONCE = 4
"""Bundles verified at the same time."""
SHOWN = 20
"""Most positions that a message names."""
TOGETHER = 4_096
"""Leaves that the tree grows by at once."""
_ZEROS = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle that the verifier found sound, opened again to be read."""

    path: Path
    """The zip file."""
    scope: dict[str, Any]
    """What the manifest says it is about."""
    checkpoint: Checkpoint
    """The checkpoint that its entries are under."""

    @property
    def ends(self) -> tuple[int, int]:
        """First and last position that it is about."""
        return self.scope["from"], self.scope["to"]

    def lines(self) -> Iterator[bytes]:
        """Give the entries' bytes."""
        with ZipFile(self.path) as archive, archive.open("entries.jsonl") as file:
            for line in _lines(file):
                yield line.removesuffix(b"\n")


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline():
        yield line


def attest(
    ranges: Sequence[Path], ledger_key: Verifier, *, chosen: Path | None, wanted: Filter | None
) -> Attestation:
    """Replay ranges; give what can be signed of them.

    Args:
        ranges: bundles of adjoining ranges, in any order.
        ledger_key: the ledger's key, got by another way than the bundles.
        chosen: a bundle of accesses to compare with; its filter and ends are taken.
        wanted: the filter, where there is no such bundle; the ranges' ends are taken then.

    Raises:
        TamperDetected: a bundle is not sound, two tell of different histories, or the bundle
            of accesses lacks an entry or has one too many.
        CannotVerify: the ranges don't adjoin, or don't hold what the bundle is about.
        Misconfigured: neither filter nor bundle was given, or another kind of bundle.
        Unavailable: a file, or the verifier, can't be read.
    """
    paths = [*ranges, *([] if chosen is None else [chosen])]
    with ThreadPoolExecutor(min(MAX_AT_ONCE, os.cpu_count() or 1)) as pool:
        for _ in pool.map(_verify, paths, repeat(ledger_key)):
            pass  # raises what the verifier said of the first that isn't sound
    bundles = sorted((_open(path, ledger_key, "range") for path in ranges), key=lambda b: b.ends)
    compared = None if chosen is None else _open(chosen, ledger_key, "accesses")
    if compared is not None:
        wanted = parse_filter(compared.scope["filter"])
    if wanted is None or not bundles:
        raise Misconfigured("expected ranges, and a filter or a bundle of accesses")
    _check_adjoining(bundles)
    whole = (bundles[0].ends[0], bundles[-1].ends[1])
    first, last = whole if compared is None else compared.ends
    if not whole[0] <= first <= last <= whole[1]:
        raise CannotVerify(
            f"the bundle is about entries {first} to {last}, "
            f"the ranges hold {whole[0]} to {whole[1]}"
        )
    replay = _Replay(wanted, first, last, [*bundles, *filter(None, [compared])])
    expected = {} if compared is None else _leaves(compared)
    for bundle in bundles:
        for line in bundle.lines():
            replay.take(line, expected)
    if compared is not None:
        replay.report(expected)
    covering = next(bundle for bundle in bundles if bundle.ends[1] >= last)
    return Attestation(
        origin=ledger_key.name,
        first=first,
        last=last,
        size=covering.checkpoint.size,
        root=covering.checkpoint.root,
        filter=wanted,
        count=replay.population.count,
        digest=replay.population.digest,
    )


def _open(path: Path, key: Verifier, kind: str) -> Bundle:
    with ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        note = archive.read("checkpoint").decode()
    if manifest["scope"]["kind"] != kind:
        raise Misconfigured(f"{path}: expected a bundle of scope {kind}")
    checkpoint = open_checkpoint(note, key, key.name)
    return Bundle(path=path, scope=manifest["scope"], checkpoint=checkpoint)


_TROUBLES = {
    1: (TamperDetected, "the verifier found tampering"),
    2: (Misconfigured, "the verifier can't take this key or file"),
    4: (CannotVerify, "the verifier could not check everything"),
}


def _verify(path: Path, key: Verifier) -> None:
    """Run the verifier; what it says goes to stderr, where the person can read it."""
    if not VERIFIER.exists():
        raise Unavailable(f"{VERIFIER}: expected the verifier, found none")
    command = [sys.executable, str(VERIFIER), "--key", key.verifier_key(), "--", str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout.decode(errors="replace"))
        sys.stderr.write(done.stderr.decode(errors="replace"))
        kind, words = _TROUBLES.get(done.returncode, (Unavailable, "the verifier did not end well"))
        raise kind(f"{path}: {words}; nothing is signed")


def _check_adjoining(bundles: Sequence[Bundle]) -> None:
    for before, after in pairwise(bundles):
        if after.ends[0] != before.ends[1] + 1:
            raise CannotVerify(
                f"{after.path}: expected a range from entry {before.ends[1] + 1}, "
                f"found one from {after.ends[0]}"
            )


def _leaves(bundle: Bundle) -> dict[int, bytes]:
    return {json.loads(line)["seq"]: leaf_hash(line) for line in bundle.lines()}


@dataclass(slots=True)
class _Replay:
    """What was learnt from the entries read so far."""

    wanted: Filter
    first: int
    last: int
    sources: list[Bundle]
    population: Population = field(default_factory=Population)
    _edge: RightEdge = field(default_factory=RightEdge)
    _waiting: list[bytes] = field(default_factory=list)
    _leaf: bytes | None = None
    _seq: int = 0
    _missing: list[int] = field(default_factory=list)
    _roots: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seq = self.sources[0].ends[0] - 1
        for bundle in self.sources:
            point = bundle.checkpoint
            if self._roots.setdefault(point.size, point.root) != point.root:
                raise _split_view(point.size)

    def take(self, entry: bytes, expected: dict[int, bytes]) -> None:
        """Take the next entry of the range; cross it off what is expected if it matches."""
        leaf, self._seq = leaf_hash(entry), self._seq + 1
        prev = _ZEROS if self._seq == 1 else self._leaf
        # Within a bundle the verifier has followed `prev`; from one into the next only this does.
        if (
            prev is not None
            and b'"seq":%d,"prev":"%b",' % (self._seq, prev.hex().encode()) not in (entry[:1024])
        ):
            raise TamperDetected(f"entry {self._seq} doesn't follow on the one before")
        self._leaf = leaf
        self._grow(leaf)
        if self.first <= self._seq <= self.last and self.wanted.matches(entry):
            self.population.add(self._seq, leaf)
            if expected.pop(self._seq, None) != leaf:
                self._missing.append(self._seq)

    def _grow(self, leaf: bytes) -> None:
        """Recompute the tree, if it is there from its first leaf, up to each known size."""
        if self._edge.size + len(self._waiting) != self._seq - 1:
            return
        self._waiting.append(leaf)
        root = self._roots.get(self._seq)
        if root is not None or len(self._waiting) == TOGETHER:
            self._edge.extend(self._waiting)
            self._waiting.clear()
        if root is not None and root != self._edge.root():
            raise _split_view(self._seq)

    def report(self, left: dict[int, bytes]) -> None:
        """Say where the bundle of accesses differs.

        Raises:
            TamperDetected: it does.
        """
        words = []
        if self._missing:
            words.append(f"it lacks {_listed(self._missing)}")
        if left:
            words.append(f"it has {_listed(sorted(left))}, which the filter doesn't give")
        if words:
            raise TamperDetected(
                f"the bundle of accesses isn't what the range holds: {'; '.join(words)}"
            )


def _listed(seqs: list[int]) -> str:
    shown = ", ".join(map(str, seqs[:SHOWN]))
    more = f" and {len(seqs) - SHOWN} more" if len(seqs) > SHOWN else ""
    return f"{'entry' if len(seqs) == 1 else 'entries'} {shown}{more}"


def _split_view(size: int) -> TamperDetected:
    return TamperDetected(
        f"two histories were signed: another root at size {size} (a split view); keep the bundles"
    )
