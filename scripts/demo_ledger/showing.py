"""Show what the ledger knows of one record, as a reader sees it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from ledger.errors import NotFound, Unavailable
from scripts.demo_ledger import story

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.demo_ledger.service import Service

FOLLOW_S = 300.0
"""How long views may take to follow the log."""
ROWS = 12
"""Accesses that are printed; a page has at most 999."""


def show_record(reader: Service, ledger: str, subject: str) -> tuple[str, int]:
    """Print state and accesses of a record; give it, and the position of an access.

    Raises:
        NotFound: the ledger doesn't know the subject, or nobody accessed its record.
        Unavailable: the views did not follow in time.
    """
    record: str = reader.post("records/lookup", {"subject": subject}).document["record"]
    found = _when_views_follow(reader, {"record": record, "names": True, "limit": 999})
    state = reader.get(f"records/{record}/state").document["state"]
    story.say(f"{subject} is record {record}: no entry tells whose it is.")
    for name, value in state.items():
        if name in {"status", "fields", "consents", "restrictions", "shares", "last_access"}:
            story.say(f"  {name:<12} {_short(value)}")
    rows = found["rows"]
    if not rows:
        raise NotFound(f"{subject}: expected at least one access")
    story.say(f"{len(rows)} accesses; the first {min(ROWS, len(rows))}:")
    for row in rows[:ROWS]:
        _print_access(row)
    story.by_hand(story.shown(["scripts/custody", "show", ledger, subject]))
    # One that says when it happened: that is what is falsified later.
    return record, next(row["seq"] for row in rows if row["time_given"])


def _when_views_follow(reader: Service, question: dict[str, Any]) -> Any:
    end_s = time.monotonic() + FOLLOW_S
    wanted: int | None = None
    while time.monotonic() < end_s:
        document = reader.post("accesses/query", question).document
        as_of = document["as_of"]
        # Each question is an entry too, so the view is measured against the first answer.
        wanted = as_of["seq"] + as_of["lag"] if wanted is None else wanted
        if as_of["seq"] >= wanted:
            return document
        time.sleep(0.2)
    raise Unavailable("the views did not follow the log in time")


def _print_access(row: dict[str, Any]) -> None:
    who = row.get("actor_name") or row["actor"]
    what = row["type"].removeprefix("record.")
    fields = "".join(f" {each}" for each in row["fields"])
    why = ": ".join(each for each in (row["activity"], row["purpose"]) if each) or "unsaid why"
    story.say(f"  entry {row['seq']:>6}  {row['time'][:19]}Z  {who} {what}{fields} ({why})")


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:99]}…"


def fetch_bundle(reader: Service, record: str, folder: Path, key_file: Path) -> Path | None:
    """Download a record's evidence bundle; None where the service offers none."""
    path = folder / f"{record}.zip"
    asked = ["-H", "Content-Type: application/json", "-d", json.dumps({"record": record})]
    command = ["curl", "-sS", "-H", f"@{key_file}", *asked, "-o", path, f"{reader.base}/exports"]
    story.by_hand(story.shown(command))
    try:
        answer = reader.post("exports", {"record": record})
    except NotFound:
        story.say("This service offers no evidence bundles (404), so this step is left out.")
        return None
    path.write_bytes(answer.body)
    story.say(f"{path}: {len(answer.body):,} bytes.")
    return path
