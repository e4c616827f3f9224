"""Write rows of the access history as CSV (RFC 4180; FORMAT.md 7.3)."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from projections.queries import AccessRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


FLUSH_ROWS = 500


def write_rows(write: Callable[[bytes], object], rows: Iterable[AccessRow], as_of: int) -> int:
    """Write a header and the rows; give how many there were.

    What was corrected after position `as_of` reads as it did then.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow(AccessRow._fields)
    count = 0
    for count, row in enumerate(rows, 1):
        table.writerow(map(_cell, _as_of(row, as_of)))
        if count % FLUSH_ROWS == 0:
            write(text.getvalue().encode())
            text.seek(0)
            text.truncate()
    write(text.getvalue().encode())
    return count


def _as_of(row: AccessRow, as_of: int) -> AccessRow:
    if row.corrected_seq is not None and row.corrected_seq > as_of:
        return row._replace(correction=None, corrected_seq=None)
    return row


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
    if isinstance(value, list):
        return " ".join(value)
    return str(value)
