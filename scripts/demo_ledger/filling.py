"""Fill the ledger: with an invented month, or with a bank's loan applications."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from scripts.demo_ledger import bpic, story
from scripts.demo_ledger.company import HERO, play
from scripts.demo_ledger.month import Month, closing_events
from scripts.demo_ledger.sending import Sent, Target, send

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.demo_ledger.sending import Event


def fill_month(target: Target, seed: int, folder: Path) -> tuple[Sent, str]:
    """Send the month of a seed; give what came of it, and the customer with the fullest record.

    The events are kept in a file, so that they can be sent by hand.

    Raises:
        LedgerError: not everything was recorded.
    """
    story.chapter(f"A month of a housekeeping company, seed {seed}, goes to {target.url}")
    events = play(seed)
    sent = send(target, [events], total=len(events))
    # Corrections name entries by position, so they can only be written now.
    closing = closing_events(events, sent.seqs, seed)
    ended = send(target, [closing], total=len(closing))
    sent.events += ended.events
    sent.new += ended.new
    sent.incomplete += ended.incomplete
    sent.seconds += ended.seconds
    sent.checkpoint = ended.checkpoint or sent.checkpoint
    _print_types([*events, *closing])
    _print_sent(sent)
    file = folder / f"month-{seed}.json"
    file.write_text(json.dumps([*events, *closing], ensure_ascii=False), encoding="utf-8")
    story.by_hand(story.shown(["scripts/custody", "emit", target.ledger, file]))
    return sent, Month(seed).subject(HERO)


def fill_loans(target: Target, path: Path, limit: int | None) -> tuple[Sent, str]:
    """Send a file's rows; give what came of it, and the subject of its first row.

    Raises:
        LedgerError: not everything was recorded.
    """
    rows, application = bpic.count_rows(path, limit)
    story.chapter(f"{rows:,} rows of {path.name} go to {target.url}")
    story.say("The purposes that the rows are recorded under (processing_policy.json):")
    for name, policy in bpic.POLICY["activities"].items():
        basis = f"{policy['purpose']}, {policy['legal_basis']}"
        story.say(f"  {name:<24} {basis:<24} {policy['en']} / {policy['zh']}")
    story.say(str(bpic.POLICY["stated_by"]))
    lanes = [bpic.lane_events(path, lane, limit) for lane in range(bpic.LANES)]
    sent = send(target, lanes, total=rows)
    _print_sent(sent)
    return sent, f"{bpic.NAMESPACE}:{application}"


def _print_types(events: list[Event]) -> None:
    counts = Counter(event["type"] for event in events)
    for name, count in sorted(counts.items()):
        story.say(f"  {count:>5}  {name}")


def _print_sent(sent: Sent) -> None:
    story.say(
        f"{sent.events:,} events sent in {sent.seconds:.1f} s ({sent.rate:,}/s): "
        f"{sent.new:,} new, {sent.events - sent.new:,} recorded before."
    )
    if sent.incomplete:
        story.say(
            f"{sent.incomplete:,} lack something expected; the ledger keeps them and says so."
        )
