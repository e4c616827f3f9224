"""Make an evidence bundle (FORMAT.md 7): a zip that verifies without anything of ours running.

1. Fix the position as of which the bundle speaks: the newest checkpoint's size.
2. Wait until the view of accesses has come that far.
3. Write the entries, their proof, and the rows, hashing each file.
4. Record who read it (`ledger.read`): durable before anything leaves.
5. Write the manifest, which names that entry, and sign it.

What is stored is handed over as it is. Bytes that were altered in the database are not
left out, nor is the export refused: the bundle is what shows it, to whoever verifies it.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, BinaryIO

from ledger.core.merkle import leaf_hash
from ledger.errors import NotFound, TamperDetected, TooLarge, Unavailable
from projections.exports.archive import HashedZip
from projections.exports.envelope import MASKING, AsOf, Written, write_envelope
from projections.exports.gaps import SequenceGaps
from projections.exports.proofs import EACH, LAST, prove_each, prove_last
from projections.exports.rows import write_rows
from projections.exports.scopes import WholeRange, WholeRecord
from projections.recorded import read_entry
from projections.views.access_history import AccessHistory
from projections.views.record_state import ACCESSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from uuid import UUID

    from ledger.service import EntryRow, Ledger
    from projections.exports.scopes import Scope
    from projections.queries import ViewReader

MAX_ENTRIES = 500_000
"""Most entries of one bundle, about half a minute's work; further ranges hold what follows."""
WAIT_S = 10.0
"""How long to wait for a checkpoint or a view that is a moment behind."""
POLL_S = 0.05
VERIFIER_PAGE = files("projections.exports").joinpath("verifier.html")
"""The page that checks bundles in a browser."""
READING = "evidence-bundle"
"""What `ledger.read` calls this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What a finished bundle holds."""

    name: str
    """Name for its file; it tells nothing of any subject."""
    as_of_seq: int
    """Position as of which it speaks."""
    read_seq: int
    """Position of the `ledger.read` entry, after `as_of_seq`."""
    entries: int
    """Lines of `entries.jsonl`."""
    rows: int
    """Rows of `rows.csv`."""


def export_record(
    ledger: Ledger, views: ViewReader, record: UUID, file: BinaryIO, *, reader: str
) -> Exported:
    """Write the bundle of a whole record; see `export`."""
    return export(ledger, views, WholeRecord(record=record), file, reader=reader)


def export_range(
    ledger: Ledger, views: ViewReader, ends: tuple[int, int], file: BinaryIO, *, reader: str
) -> Exported:
    """Write the bundle of the entries from one position to another; see `export`."""
    first, last = ends
    return export(ledger, views, WholeRange(first=first, last=last), file, reader=reader)


def export(
    ledger: Ledger, views: ViewReader, scope: Scope, file: BinaryIO, *, reader: str
) -> Exported:
    """Write a bundle to a seekable file and record that it was made.

    The file is worth nothing before this returns. Memory doesn't grow with the bundle.

    Args:
        ledger: what is exported.
        views: its views.
        scope: which entries.
        file: empty; where the zip goes.
        reader: public identifier of the credential that asked.

    Raises:
        NotFound: there is no such record, or the range goes beyond the log.
        TooLarge: it would hold more than `MAX_ENTRIES`.
        Unavailable: checkpoint or view are behind, or the reading can't be recorded.
    """
    as_of = _fix(ledger, scope)
    scope = scope.up_to(as_of.seq)
    filling = views.select_filling(AccessHistory.name)
    _await_view(views, as_of.seq, WAIT_S)
    with HashedZip(file) as archive:
        archive.put("FORMAT.md", files("ledger").joinpath("FORMAT.md").read_bytes())
        archive.put("checkpoint", as_of.note.encode())
        with archive.member("entries.jsonl") as write:
            entries = scope.entries(ledger, views, as_of.seq)
            written = _write_chosen(write, entries) if scope.is_chosen else _write(write, entries)
        if scope.is_chosen:
            with archive.member(EACH) as write:
                prove_each(write, ledger, written.seqs, as_of)
        else:
            archive.put(LAST, prove_last(ledger, written.seqs[-1], as_of))
        with archive.member("rows.csv") as write:
            rows = write_rows(write, scope.rows(views, as_of.seq), as_of.seq)
        archive.put("verifier.html", VERIFIER_PAGE.read_bytes())
        # A rebuild in between would have left rows out, and with them what they were to choose.
        if views.select_filling(AccessHistory.name) != filling:
            raise Unavailable("the view of accesses was rebuilt meanwhile", retry_after_s=30)
        read_seq = _record_reading(ledger, scope, as_of, written, archive.digests, reader=reader)
        envelope = write_envelope(
            ledger.origin,
            scope,
            as_of,
            written,
            rows=rows,
            read_seq=read_seq,
            digests=archive.digests,
        )
        archive.put("manifest.json", envelope)
        archive.put("manifest.note", ledger.attest(envelope).encode())
    return Exported(
        name=f"{ledger.name}-{scope.name}-as-of-{as_of.seq}.zip",
        as_of_seq=as_of.seq,
        read_seq=read_seq,
        entries=len(written.seqs),
        rows=rows,
    )


def _fix(ledger: Ledger, scope: Scope) -> AsOf:
    """Give the newest checkpoint, waiting a moment for one that covers the scope."""
    if isinstance(scope, WholeRange) and scope.last - scope.first >= MAX_ENTRIES:
        raise _too_large()
    until = time.monotonic() + WAIT_S
    size, note = ledger.checkpoint()
    while size < scope.least_seq:
        if not ledger.entries(scope.least_seq, scope.least_seq, 1):
            end = "/to" if scope.document().get("to") else "/from"
            raise NotFound("expected a range up to the ledger's head", pointer=end)
        if time.monotonic() > until:
            raise Unavailable("no checkpoint covers the range yet", retry_after_s=2)
        time.sleep(POLL_S)
        size, note = ledger.checkpoint()
    newest = ledger.entries(size, size, 1)
    if not newest:
        raise TamperDetected(f"expected entry {size}, which a checkpoint covers; it is missing")
    return AsOf(seq=size, leaf=newest[0].leaf, note=note)


def _await_view(views: ViewReader, seq: int, wait_s: float) -> None:
    end = time.monotonic() + wait_s
    while True:
        position = {each.view: each.position for each in views.select_positions()}
        found = position[AccessHistory.name]
        if found >= seq:
            return
        if time.monotonic() >= end:
            raise Unavailable(
                f"the view of accesses holds entries up to {found}, expected {seq}; it follows",
                retry_after_s=5,
            )
        time.sleep(POLL_S)


def _write(write: Callable[[bytes], object], entries: Iterable[EntryRow]) -> Written:
    """Write the entries, one a line, and learn from them what the manifest says of them."""
    population, digest, gaps = 0, sha256(), SequenceGaps()
    seqs = array("q")
    for row in _bounded(write, entries, seqs):
        try:
            event = read_entry(row.entry)
        except TamperDetected:
            continue  # it stands in the bundle; what it said isn't counted
        if event.type in ACCESSES:
            population += 1
            digest.update(b"%d %b\n" % (event.seq, event.leaf.hex().encode()))
        gaps.meet(event)
    if not seqs:
        raise NotFound("expected a record of this ledger", pointer="/record")
    return Written(
        seqs=seqs, population=population, population_sha256=digest.hexdigest(), gaps=gaps.listed()
    )


def _write_chosen(write: Callable[[bytes], object], entries: Iterable[EntryRow]) -> Written:
    """Write entries that a filter chose: all of them are what the report is about."""
    digest, seqs = sha256(), array("q")
    for row in _bounded(write, entries, seqs):
        digest.update(b"%d %b\n" % (row.seq, leaf_hash(row.entry).hex().encode()))
    return Written(seqs=seqs, population=len(seqs), population_sha256=digest.hexdigest(), gaps=None)


def _bounded(
    write: Callable[[bytes], object], entries: Iterable[EntryRow], seqs: array[int]
) -> Iterator[EntryRow]:
    """Write each entry and note its position before it is looked at."""
    for row in entries:
        write(row.entry + b"\n")
        seqs.append(row.seq)
        if len(seqs) > MAX_ENTRIES:
            raise _too_large()
        yield row


def _record_reading(
    ledger: Ledger,
    scope: Scope,
    as_of: AsOf,
    written: Written,
    digests: dict[str, str],
    *,
    reader: str,
) -> int:
    """Record who read what (FORMAT.md 7.5); give the entry's position."""
    reading = {
        "actor": {"id": reader, "kind": "service"},
        "report": READING,
        "query": scope.document(),
        "rows": len(written.seqs),
        "as_of_seq": as_of.seq,
        "masking": MASKING,
        "file_sha256": digests["entries.jsonl"],
    }
    return ledger.append_own("ledger.read", reading).seq


def _too_large() -> TooLarge:
    return TooLarge(f"expected at most {MAX_ENTRIES} entries in a bundle; export several ranges")
