"""Emitters' own types from the request to the views, and what the log says of their file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ledger.core.entry import ledger_stream
from ledger.declaring import declare_types
from ledger.service import Ledger
from tests.fixtures.ledgers import ORIGIN, Place, an_event, assert_ledger_sound, record
from tests.unit.test_custom_types import NAME, loaded

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SECOND = "1a" * 32, "2b" * 32


def operated(ledger: Ledger) -> list[dict[str, Any]]:
    stream = ledger_stream(ORIGIN, "ledger.ledger.operated.v1")
    rows = ledger.stream_entries(stream, 0, 100)
    return [json.loads(row.entry)["event"]["data"] for row in rows]


def test_own_types_have_streams_of_their_own_or_stand_in_a_record(place: Place, ledger: Ledger):
    about_nobody = an_event(type=NAME, subject=None, data={"points": 7})
    about_somebody = an_event(type=NAME, data={"points": 8})
    receipts = record(ledger, about_nobody, about_somebody, an_event())["receipts"]
    assert UUID(receipts[0]["record"]) == ledger_stream(ORIGIN, NAME)
    assert receipts[1]["record"] == receipts[2]["record"]
    assert [receipt["version"] for receipt in receipts] == [1, 1, 2]
    again = record(ledger, about_nobody, about_somebody)["receipts"]
    assert [receipt["repeated"] for receipt in again] == [True, True]
    assert assert_ledger_sound(place) == 4


def test_registered_members_stand_in_clear(place: Place, tmp_path: Path):
    ledger = Ledger(place.row, place.settings, place.dsn, custom=loaded(tmp_path))
    place.opened.append(ledger)
    ledger.start()
    receipt = record(ledger, an_event(type=NAME, data={"points": 7, "other": "sealed"}))
    (row,) = ledger.entries(receipt["seq"], receipt["seq"], 1)
    entry = json.loads(row.entry)
    assert entry["event"]["data"] == {"points": 7}
    assert list(entry["sealed"]) == ["subject", "data.other"]
    assert receipt["incomplete"] == ["/source", "/time"]
    assert assert_ledger_sound(place) == 2


def test_the_log_says_which_file_of_types_is_in_force(place: Place, ledger: Ledger):
    declare_types(ledger, None)
    assert operated(ledger) == []
    said = []
    for sha256 in (FIRST, FIRST, SECOND, FIRST, None, None, FIRST):
        declare_types(ledger, sha256)
        detail = {"setting": "types"} | ({} if sha256 else {"state": "none"})
        digest = {"content_sha256": sha256} if sha256 else {}
        now = {"operation": "setting", "detail": detail, **digest}
        if not said or said[-1] != now:
            said.append(now)
        assert operated(ledger) == said
    assert assert_ledger_sound(place) == 1 + len(said) == 6


def test_other_settings_and_operations_are_not_taken_for_it(ledger: Ledger):
    declare_types(ledger, FIRST)
    ledger.append_own(
        "ledger.operated", {"operation": "setting", "detail": {"setting": "other", "a": "types"}}
    )
    ledger.append_own("ledger.operated", {"operation": "backup"})
    declare_types(ledger, FIRST)
    assert len(operated(ledger)) == 3


def test_processes_that_start_at_once_say_it_once(place: Place, ledger: Ledger):
    other = place.open()
    for sha256 in (FIRST, SECOND):
        newest = ledger.newest_operated(b'"setting":"types"')
        for each in (ledger, other):
            # Both looked before either had recorded.
            each.newest_operated = lambda _mark, found=newest: found  # type: ignore[method-assign]
            declare_types(each, sha256)
            del each.newest_operated
    assert [found["content_sha256"] for found in operated(ledger)] == [FIRST, SECOND]
    assert assert_ledger_sound(place) == 3


def test_a_ledger_that_must_not_record_says_nothing(ledger: Ledger):
    ledger.recorder.stop_recording("for a test")
    declare_types(ledger, FIRST)
    assert operated(ledger) == []
