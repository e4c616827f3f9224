"""What a bundle is about: a whole record, or a whole range. `chosen` has what a filter gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self
    from uuid import UUID

    from ledger.service import EntryRow, Ledger
    from projections.queries import AccessRow, ViewReader

PAGE_ENTRIES = 500
PAGE_ROWS = 2_000

_KIND = b'"stream_kind":"record","version":'
"""What the first entry of a record's stream holds, before anything an emitter wrote."""


class Scope(Protocol):
    """Says which entries and rows a bundle holds."""

    @property
    def least_seq(self) -> int:
        """The position that the checkpoint has to cover at least."""

    @property
    def holds_every_entry(self) -> bool:
        """Whether no entry between its first and last is left out, whoever sent it."""

    @property
    def is_chosen(self) -> bool:
        """Whether a filter chose the entries: that none is missing is only asserted then."""

    @property
    def name(self) -> str:
        """Words for a file's name, without any subject."""

    def up_to(self, as_of: int) -> Scope:
        """Give the scope with an end, where it had none: the position as of which it speaks."""

    def document(self) -> dict[str, Any]:
        """Give the manifest's `scope` (FORMAT.md 7.1)."""

    def entries(self, ledger: Ledger, views: ViewReader, as_of: int) -> Iterator[EntryRow]:
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
    def is_chosen(self) -> bool:
        """Say no."""
        return False

    @property
    def name(self) -> str:
        """Give the record, which tells nothing of the subject."""
        return f"record-{self.record}"

    def up_to(self, as_of: int) -> Self:
        """Give itself."""
        del as_of
        return self

    def document(self) -> dict[str, Any]:
        """Give the manifest's `scope`."""
        return {"kind": "record", "record": str(self.record)}

    def entries(self, ledger: Ledger, views: ViewReader, as_of: int) -> Iterator[EntryRow]:
        """Give the stream's entries by version; none where it isn't a record's."""
        del views
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
        return read_rows(views, 1, as_of, PAGE_ROWS, record=self.record)


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
    def is_chosen(self) -> bool:
        """Say no."""
        return False

    @property
    def name(self) -> str:
        """Give both positions."""
        return f"entries-{self.first}-{self.last}"

    def up_to(self, as_of: int) -> Self:
        """Give itself."""
        del as_of
        return self

    def document(self) -> dict[str, Any]:
        """Give the manifest's `scope`."""
        return {"kind": "range", "from": self.first, "to": self.last}

    def entries(self, ledger: Ledger, views: ViewReader, as_of: int) -> Iterator[EntryRow]:
        """Give the entries by position."""
        del views
        after, end = self.first - 1, min(self.last, as_of)
        while page := ledger.entries(after + 1, end, PAGE_ENTRIES):
            yield from page
            after = page[-1].seq

    def rows(self, views: ViewReader, as_of: int) -> Iterator[AccessRow]:
        """Give the rows that rest on entries of the range."""
        return read_rows(views, self.first, min(self.last, as_of), PAGE_ROWS)


def read_rows(
    views: ViewReader, first: int, last: int, limit: int, **wanted: Any
) -> Iterator[AccessRow]:
    """Give the view's rows from one position to another, `limit` of them in memory at a time."""
    after = first - 1
    while page := views.select_accesses(after_seq=after, last_seq=last, limit=limit, **wanted):
        yield from page
        after = page[-1].seq
