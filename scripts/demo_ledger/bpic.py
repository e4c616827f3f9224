"""Read a bank's loan applications (BPI Challenge 2012) as events of the ledger.

The file: UTF-8 CSV, gzipped or not, with the columns of `COLUMNS`, ordered by time; B.F. van
Dongen, 4TU.ResearchData, doi:10.4121/uuid:3926db30-f712-4394-aebc-75976070e91f. Each row becomes
exactly one event about the record `loan:<application>`:

==========================================  ===================================================
row                                         event
==========================================  ===================================================
the first of an application                 record.collected
`O_SENT`                                    notice.delivered: the offer went to the customer
other `A_*`, `O_*` (states, decisions)      record.updated: the status changed
`W_*` SCHEDULE                              record.used, `schedule-work`: nobody looked yet
`W_*` START                                 record.accessed: somebody opened the file
`W_*` COMPLETE, work of `CHANGES`           record.updated
`W_*` COMPLETE, other work                  record.used, `finish-work`
==========================================  ===================================================

Activity, purpose and legal basis come from `processing_policy.json`. What the file doesn't say
(channel, reason, values) is left out, and the ledger lists it as incomplete.
"""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ledger.errors import Malformed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COLUMNS: Final = ("time", "application", "amount_requested", "activity", "lifecycle", "staff")
NAMESPACE: Final = "loan"
SOURCE: Final = "loan"
LANES: Final = 4
"""Connections side by side. An application keeps to one, so its events keep their order; each
is an emitter's `instance` of its own, so sequences have no gaps in them."""

POLICY: Final[Mapping[str, Any]] = MappingProxyType(
    json.loads(Path(__file__).with_name("processing_policy.json").read_text(encoding="utf-8"))
)
"""Purpose and legal basis of each activity."""
ACTIVITY_OF: Final[Mapping[str, str]] = MappingProxyType(
    {covered: name for name, policy in POLICY["activities"].items() for covered in policy["covers"]}
)
"""Activity of the policy, by the file's name of what was done."""
CHANGES: Final = frozenset(
    {
        "W_Afhandelen leads",
        "W_Completeren aanvraag",
        "W_Nabellen incomplete dossiers",
        "W_Wijzigen contractgegevens",
    }
)
"""Work that, once done, has changed what the record says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the file."""

    number: int
    """Place in the file, from 1, without the header."""
    time: str
    """When it happened, RFC 3339."""
    application: str
    """The customer's case."""
    amount_requested: str
    """Amount asked for, in euro."""
    activity: str
    """What was done or decided."""
    lifecycle: str
    """`SCHEDULE`, `START` or `COMPLETE`."""
    staff: str
    """Employee number; empty for automatic steps."""


def lane_of(application: str) -> int:
    """Give the lane of an application, from 0."""
    return sum(application.encode()) % LANES


def read_rows(path: Path, limit: int | None = None, lane: int | None = None) -> Iterator[Row]:
    """Give the rows of a file, or those of one lane, among its first `limit`.

    Raises:
        Unavailable: it can't be read.
        Malformed: it doesn't have the columns.
    """
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="") as file
        ):
            rows = csv.reader(file)
            if tuple(next(rows, ())) != COLUMNS:
                raise Malformed(f"{path.name}: expected the columns {','.join(COLUMNS)}")
            for number, values in enumerate(rows, 1):
                if limit is not None and number > limit:
                    return
                if len(values) != len(COLUMNS):
                    raise Malformed(f"{path.name}, row {number}: expected {len(COLUMNS)} values")
                if lane is None or lane_of(values[1]) == lane:
                    yield Row(number=number, **dict(zip(COLUMNS, values, strict=True)))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise Unavailable(f"{path}: can't be read ({type(error).__name__})") from error


class LoanMapping:
    """Maps the rows of one lane, in their order."""

    def __init__(self) -> None:
        self._sequence = 0
        self._status: dict[str, str] = {}

    def event(self, row: Row) -> dict[str, Any]:
        """Give the event of a row; the same rows give the same events.

        Raises:
            Malformed: the mapping knows no such activity or lifecycle.
        """
        first = row.application not in self._status
        self._sequence += 1
        kind, members = self._collected(row) if first else self._later(row)
        activity = ACTIVITY_OF[row.activity]
        policy = POLICY["activities"][activity]
        actor = {"id": f"staff-{row.staff}"} if row.staff else {"id": "system", "kind": "system"}
        return {
            "id": f"bpic2012-{row.number}",
            "type": kind,
            "source": SOURCE,
            "subject": f"{NAMESPACE}:{row.application}",
            "time": row.time,
            "data": {
                "actor": actor,
                **members,
                "activity": activity,
                "purpose": policy["purpose"],
                "legal_basis": policy["legal_basis"],
                "sequence": self._sequence,
                "instance": f"lane-{lane_of(row.application)}",
                "backfill": True,
            },
        }

    def _collected(self, row: Row) -> tuple[str, dict[str, Any]]:
        _check(row)
        self._status[row.application] = row.activity
        fields = POLICY["activities"]["loan-intake"]["fields"]
        values = dict(zip(fields, (row.amount_requested, row.activity), strict=True))
        return "record.collected", {"fields": fields, "personal": values}

    def _later(self, row: Row) -> tuple[str, dict[str, Any]]:
        _check(row)
        if row.activity == "O_SENT":
            return "notice.delivered", {"kind": "other", "delivery_status": "sent"}
        if row.activity.startswith("O_"):
            return _updated({"offer_status": {"to": row.activity}})
        if row.activity.startswith("A_"):
            before, self._status[row.application] = self._status[row.application], row.activity
            return _updated({"application_status": {"from": before, "to": row.activity}})
        return _worked(row)


def _updated(changes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "record.updated", {"fields": list(changes), "personal": changes}


def _worked(row: Row) -> tuple[str, dict[str, Any]]:
    fields = POLICY["activities"][ACTIVITY_OF[row.activity]]["fields"]
    if row.lifecycle == "SCHEDULE":
        return "record.used", {"operation": "schedule-work", "automated_decision": False}
    if row.lifecycle == "START":
        return "record.accessed", {"fields": fields}
    if row.activity in CHANGES:
        return "record.updated", {"fields": fields}
    return "record.used", {"operation": "finish-work"}


def _check(row: Row) -> None:
    work = row.activity.startswith("W_")
    allowed = {"SCHEDULE", "START", "COMPLETE"} if work else {"COMPLETE"}
    if row.activity not in ACTIVITY_OF or row.lifecycle not in allowed:
        raise Malformed(f"row {row.number}: expected an activity and lifecycle of this mapping")


def count_rows(path: Path, limit: int | None) -> tuple[int, str]:
    """Count the rows that will be read; give also the application of the first."""
    number, first = 0, ""
    for row in read_rows(path, limit, lane=None):
        number, first = row.number, first or row.application
    if not number:
        raise Malformed(f"{path.name}: expected at least one row")
    return number, first


def lane_events(path: Path, lane: int, limit: int | None) -> Iterator[dict[str, Any]]:
    """Read a file and give the events of one lane; reading raises as `read_rows` does."""
    mapping = LoanMapping()
    for row in read_rows(path, limit, lane):
        yield mapping.event(row)
