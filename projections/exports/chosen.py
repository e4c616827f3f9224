"""Accesses that a filter chose: what was asked for, and nothing else (FORMAT.md 7.7)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ledger.service import EntryRow
from projections.exports.scopes import PAGE_ENTRIES, PAGE_ROWS, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from ledger.service import Ledger
    from projections.queries import AccessRow, ViewReader


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessFilter:
    """Which accesses are wanted; what is None doesn't narrow it (FORMAT.md 7.7)."""

    record: UUID | None = None
    """Only this record's."""
    actor: UUID | None = None
    """Only this person's, by pseudonym."""
    type: str | None = None
    """Only those of this type, by its short name."""
    from_time: datetime | None = None
    """Only those that happened at this time or later, aware."""
    to_time: datetime | None = None
    """Only those that happened before this time, aware."""

    def document(self) -> dict[str, str]:
        """Give the manifest's `filter`: members in this order, each only where given."""
        wanted = {
            "record": None if self.record is None else str(self.record),
            "actor": None if self.actor is None else str(self.actor),
            "type": self.type,
            "from_time": write_time(self.from_time),
            "to_time": write_time(self.to_time),
        }
        return {name: value for name, value in wanted.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenAccesses:
    """The accesses that pass a filter, from one position to another.

    The view says which entries they are, since it has indexes for that; entries and rows
    stand beside one another in the bundle, and `custody attest` finds what the view left out.
    """

    filter: AccessFilter
    """Which accesses."""
    first: int = 1
    """Position from which on they are wanted."""
    last: int | None = None
    """Position up to which they are wanted; None for the one as of which the bundle speaks."""

    @property
    def least_seq(self) -> int:
        """Give the last position, or the first where there is none."""
        return self.last or self.first

    @property
    def holds_every_entry(self) -> bool:
        """Say no."""
        return False

    @property
    def is_chosen(self) -> bool:
        """Say yes."""
        return True

    @property
    def name(self) -> str:
        """Give both positions, and nothing of whom the filter names."""
        return f"accesses-{self.first}-{self.last}"

    def up_to(self, as_of: int) -> ChosenAccesses:
        """Give the same, ending there unless it has an end."""
        return self if self.last is not None else replace(self, last=as_of)

    def document(self) -> dict[str, Any]:
        """Give the manifest's `scope`."""
        ends = {"from": self.first, "to": self.last}
        return {"kind": "accesses", **ends, "filter": self.filter.document()}

    def entries(self, ledger: Ledger, views: ViewReader, as_of: int) -> Iterator[EntryRow]:
        """Give the entries that the view's rows rest on; what the log lacks is left out."""
        del ledger
        after, last, wanted = self.first - 1, self._end(as_of), self._narrowing()
        while seqs := views.select_access_seqs(
            after_seq=after, last_seq=last, limit=PAGE_ENTRIES, **wanted
        ):
            yield from map(EntryRow._make, views.select_entries(seqs))
            after = seqs[-1]

    def rows(self, views: ViewReader, as_of: int) -> Iterator[AccessRow]:
        """Give the rows that pass the filter."""
        return read_rows(views, self.first, self._end(as_of), PAGE_ROWS, **self._narrowing())

    def _end(self, as_of: int) -> int:
        return as_of if self.last is None else min(self.last, as_of)

    def _narrowing(self) -> dict[str, Any]:
        wanted = self.filter
        return {
            "record": wanted.record,
            "actor": wanted.actor,
            "type_name": wanted.type,
            "from_time": wanted.from_time,
            "to_time": wanted.to_time,
        }


def write_time(moment: datetime | None) -> str | None:
    """Write an aware time as entries and filters have it, in UTC."""
    if moment is None:
        return None
    naive = moment.astimezone(UTC).replace(tzinfo=None)
    return naive.isoformat(timespec="microseconds") + "Z"
