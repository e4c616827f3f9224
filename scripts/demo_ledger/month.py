"""Invent a month of a small housekeeping company, in events; one seed, one month.

Every stage of a record's life that a service may write is there: notice, consent, collection,
access, change, use, export, sharing and its end, restriction, requests, incident, controls,
linking, de-identification and erasure. What people write (policies, audits, certificates of
destruction) is not. Clear members hold codes, names and references only; names of people,
addresses and notes stand where the ledger seals them.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from typing import Any, Final
from uuid import UUID, uuid5

from scripts.demo_ledger import people

NAMESPACE: Final = UUID("6f0c1d5e-6f37-5a5c-9d8e-6a5f2b7c4d10")
"""Namespace of the events' ids (RFC 9562 section 5.5)."""
CHINA: Final = timezone(timedelta(hours=8))
FIRST_DAY: Final = datetime(2025, 11, 1, tzinfo=CHINA)
LAST_MOMENT: Final = datetime(2025, 11, 30, 23, 59, 59, tzinfo=CHINA)
APP, DESK, ROTA, OFFICE = "crm/app", "crm/front-desk", "crm/dispatch", "crm/back-office"
"""Sources: all below the prefix `crm` of the emitter's credential."""
PROFILE: Final = ["name", "phone", "address", "household_need"]

Event = dict[str, Any]


def digest(text: str) -> str:
    """Give the SHA-256 of an invented document."""
    return sha256(text.encode()).hexdigest()


class Month:
    """Collects what happens, then numbers it in the order of time."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311 (an invented month, nothing secret)
        self._happened: list[tuple[datetime, int, Event]] = []

    def subject(self, number: int) -> str:
        """Name a customer, as the company's systems do."""
        return f"crm:M{self.seed}-C{number:03}"

    def ref(self, kind: str, number: int) -> str:
        """Name a ticket, an order, a contract."""
        return f"{kind}-{self.seed}-{number}"

    def at(self, day: float) -> datetime:
        """Give a moment of the month, at an odd second."""
        seconds = int(day * 86_400) + self.random.randrange(60)
        return min(FIRST_DAY + timedelta(seconds=seconds), LAST_MOMENT)

    def add(
        self,
        type_name: str,
        /,
        *,
        day: float,
        source: str,
        by: str,
        about: str | list[str] | None = None,
        actor_kind: str = "person",
        **members: Any,
    ) -> Event:
        """Note that something happened; give the event, still without id and sequence."""
        data = {"actor": {"id": by, "kind": actor_kind}, **members, "backfill": True}
        event: Event = {"type": type_name, "source": source, "time": "", "data": data}
        if about is not None:
            event["subjects" if isinstance(about, list) else "subject"] = about
        self._happened.append((self.at(day), len(self._happened), event))
        return event

    def events(self) -> list[Event]:
        """Give all of it in the order of time, with ids and each source's own sequence."""
        counts: dict[str, int] = {}
        found = []
        for number, (moment, _, event) in enumerate(sorted(self._happened, key=lambda h: h[:2])):
            event["id"] = str(uuid5(NAMESPACE, f"{self.seed}/{number}"))
            event["time"] = moment.isoformat()
            counts[event["source"]] = counts.get(event["source"], 0) + 1
            event["data"]["sequence"] = counts[event["source"]]
            found.append(event)
        return found


def closing_events(events: list[Event], seqs: dict[str, int], seed: int) -> list[Event]:
    """Give what is sent last: corrections, which name entries, and each source's heartbeat.

    Args:
        events: the month.
        seqs: position of each event's first entry, from the receipts.
        seed: the month's.
    """
    counts: dict[str, int] = {}
    for event in events:
        counts[event["source"]] = counts.get(event["source"], 0) + 1
    found = []
    wrong = [e for e in events if e["type"] == "record.accessed"][:20:7]
    for number, event in enumerate(wrong):
        counts[OFFICE] += 1
        data = {
            "actor": {"id": people.OFFICE[1]},
            "target_seq": seqs[event["id"]],
            "correction": ("wrong_actor", "wrong_time", "did_not_happen")[number],
            "reason": f"核对排班表后更正：{people.NOTES[number]}",
            "approval_ref": f"OA-{seed}-{number}",
            "sequence": counts[OFFICE],
            "backfill": True,
        }
        found.append(_closing(f"{seed}/correction/{number}", "event.corrected", OFFICE, data))
        found[-1]["subject"] = event["subject"]
    for source, count in sorted(counts.items()):
        data = {
            "actor": {"id": source, "kind": "service"},
            "count": count,
            "last_sequence": count,
            "until": LAST_MOMENT.isoformat(),
        }
        found.append(_closing(f"{seed}/heartbeat/{source}", "source.reported", source, data))
    return found


def _closing(name: str, kind: str, source: str, data: dict[str, Any]) -> Event:
    identifier = str(uuid5(NAMESPACE, name))
    moment = LAST_MOMENT.isoformat()
    return {"id": identifier, "type": kind, "source": source, "time": moment, "data": data}
