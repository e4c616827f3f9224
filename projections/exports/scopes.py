"""What a bundle is about: a whole record, or a whole range of positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from ledger.service import EntryRow, Ledger
    from projections.queries import AccessRow, ViewReader

PAGE_ENTRIES = 500
PAGE_ROWS = 2_000

_KIND = b'"stream_kind":"record","version":'
"""What the first entry of a record's stream holds, before anything an emitter wrote."""


class Scope(Protocol):
    """Says which entries and rows a bundle holds; nothing in it is a filter's choice."""

    @property
    def least_seq(self) -> int:
        """The position that the checkpoint has to cover at least."""

    @property
    def holds_every_entry(self) -> bool:
        """Whether no entry between its first and last is left out, whoever sent it."""

    @property
    def name(self) -> str:
        """Words for a file's name, without any subject."""

    def document(self) -> dict[str, Any]:
        """Give the manifest's `scope` (FORMAT.md 7.1)."""

    def entries(self, ledger: Ledger, as_of: int) -> Iterator[EntryRow]:
        """Give the entries up to a position, in order, a page in memory at a time."""

    def rows(self, views: ViewReader, as_of: int) -> Iterator[AccessRow]:
        """Give the view's rows up to a position, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeRecord:
    """Everything that was recorded of one record, versions 1 … n."""

    record: UUID
    """The record's UUID."""

    @property
    def least_seq(self) -> int:
        """Give none in particular: what is recorded later isn't missed."""
        return 1

    @property
    def holds_every_entry(self) -> bool:
        """Say no: other records' entries stand in between."""
        return False

    @property
    def name(self) -> str:
        """Give the record, which tells nothing of the subject."""
        return f"record-{self.record}"

    def document(self) -> dict[str, Any]:
        """Give the manifest's `scope`."""
        return {"kind": "record", "record": str(self.record)}

    def entries(self, ledger: Ledger, as_of: int) -> Iterator[EntryRow]:
        """Give the stream's entries by version; none where it isn't a record's."""
        # Where versions are missing a page reaches further than it counts: the next one begins
        # with entries that were given already.
        version = last = 0
        while page := ledger.stream_entries(self.record, version, PAGE_ENTRIES):
            for row in page:
                if row.seq > as_of or not (last or _KIND in row.entry):
                    return
                if row.seq > last:
                    yield row
                    last = row.seq
            version += len(page)

    def rows(self, views: ViewReader, as_of: int) -> Iterator[AccessRow]:
        """Give the record's rows."""
        return _rows(views, as_of, after_seq=0, record=self.record)


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeRange:
    """Every entry from one position to another."""

    first: int
    """Position of the first entry."""
    last: int
    """Position of the last entry, not before the first."""

    @property
    def least_seq(self) -> int:
        """Give the last position."""
        return self.last

    @property
    def holds_every_entry(self) -> bool:
        """Say yes."""
        return True

    @property
    def name(self) -> str:
        """Give both positions."""
        return f"entries-{self.first}-{self.last}"

    def document(self) -> dict[str, Any]:
        """Give the manifest's `scope`."""
        return {"kind": "range", "from": self.first, "to": self.last}

    def entries(self, ledger: Ledger, as_of: int) -> Iterator[EntryRow]:
        """Give the entries by position."""
        after, end = self.first - 1, min(self.last, as_of)
        while page := ledger.entries(after + 1, end, PAGE_ENTRIES):
            yield from page
            after = page[-1].seq

    def rows(self, views: ViewReader, as_of: int) -> Iterator[AccessRow]:
        """Give the rows that rest on entries of the range."""
        return _rows(views, min(self.last, as_of), after_seq=self.first - 1, record=None)


def _rows(
    views: ViewReader, last: int, *, after_seq: int, record: UUID | None
) -> Iterator[AccessRow]:
    while page := views.select_accesses(record=record, after_seq=after_seq, limit=PAGE_ROWS):
        for row in page:
            if row.seq > last:
                return
            yield row
        after_seq = page[-1].seq
