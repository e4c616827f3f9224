"""How a bank's loan applications become events."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import pytest

from ledger.admission import admit
from ledger.core.strict_json import compact
from ledger.drafts import Emitter
from ledger.errors import Malformed, Unavailable
from ledger.events.taxonomy import Writer
from ledger.events.vocabularies import VOCABULARIES
from scripts.demo_ledger import bpic

if TYPE_CHECKING:
    from pathlib import Path

TIME = "2011-10-01T00:38:44.546+02:00"
EMITTER = Emitter(
    credential="ck_aaaaaaaaaa",
    by=Writer.SERVICE,
    sources=(bpic.SOURCE,),
    namespaces=(bpic.NAMESPACE,),
    types=frozenset(),
)


def row(number: int, activity: str, lifecycle: str = "COMPLETE", **changes: Any) -> bpic.Row:
    members = {"time": TIME, "application": "173688", "amount_requested": "20000", "staff": "112"}
    return bpic.Row(number=number, activity=activity, lifecycle=lifecycle, **members | changes)


def mapped(*rows: bpic.Row) -> list[dict[str, Any]]:
    mapping = bpic.LoanMapping()
    return [mapping.event(each) for each in rows]


def later(activity: str, lifecycle: str = "COMPLETE", **changes: Any) -> dict[str, Any]:
    """Map a row that is not its application's first."""
    return mapped(row(1, "A_SUBMITTED"), row(2, activity, lifecycle, **changes))[1]


def test_the_first_row_of_an_application_collects_its_record():
    (event,) = mapped(row(7, "A_SUBMITTED"))
    assert event == {
        "id": "bpic2012-7",
        "type": "record.collected",
        "source": "loan",
        "subject": "loan:173688",
        "time": TIME,
        "data": {
            "actor": {"id": "staff-112"},
            "fields": ["amount_requested", "application_status"],
            "personal": {"amount_requested": "20000", "application_status": "A_SUBMITTED"},
            "activity": "loan-intake",
            "purpose": "contract",
            "legal_basis": "eu:6-1-b",
            "sequence": 1,
            "instance": f"lane-{bpic.lane_of('173688')}",
            "backfill": True,
        },
    }


@pytest.mark.parametrize(
    ("activity", "lifecycle", "expected"),
    [
        ("A_DECLINED", "COMPLETE", "record.updated"),
        ("O_CREATED", "COMPLETE", "record.updated"),
        ("O_SENT", "COMPLETE", "notice.delivered"),
        ("O_SENT_BACK", "COMPLETE", "record.updated"),
        ("W_Valideren aanvraag", "SCHEDULE", "record.used"),
        ("W_Valideren aanvraag", "START", "record.accessed"),
        ("W_Valideren aanvraag", "COMPLETE", "record.used"),
        ("W_Nabellen offertes", "COMPLETE", "record.used"),
        ("W_Beoordelen fraude", "COMPLETE", "record.used"),
        ("W_Completeren aanvraag", "COMPLETE", "record.updated"),
        ("W_Afhandelen leads", "COMPLETE", "record.updated"),
        ("W_Nabellen incomplete dossiers", "COMPLETE", "record.updated"),
        ("W_Wijzigen contractgegevens", "COMPLETE", "record.updated"),
        ("W_Wijzigen contractgegevens", "SCHEDULE", "record.used"),
    ],
)
def test_a_later_row_becomes_the_type_that_the_table_says(
    activity: str, lifecycle: str, expected: str
):
    assert later(activity, lifecycle)["type"] == expected


def test_a_status_says_what_it_was_before_and_never_that_of_another_application():
    rows = [
        row(1, "A_SUBMITTED"),
        row(2, "A_SUBMITTED", application="173692"),
        row(3, "A_PREACCEPTED"),
        row(4, "O_SENT_BACK"),
        row(5, "A_DECLINED", application="173692"),
    ]
    found = [each["data"].get("personal") for each in mapped(*rows)[2:]]
    assert found == [
        {"application_status": {"from": "A_SUBMITTED", "to": "A_PREACCEPTED"}},
        {"offer_status": {"to": "O_SENT_BACK"}},
        {"application_status": {"from": "A_SUBMITTED", "to": "A_DECLINED"}},
    ]


def test_a_row_without_staff_was_the_system():
    assert later("A_CANCELLED", staff="")["data"]["actor"] == {"id": "system", "kind": "system"}


def test_every_activity_has_one_purpose_that_the_vocabularies_know():
    covered = [name for each in bpic.POLICY["activities"].values() for name in each["covers"]]
    assert len(covered) == len(set(covered)) == 24
    for policy in bpic.POLICY["activities"].values():
        assert policy["purpose"] in VOCABULARIES["purpose"].codes
        assert policy["legal_basis"] in VOCABULARIES["legal_basis"].codes
        assert set(policy["data_categories"]) <= set(VOCABULARIES["data_category"].codes)
    assert set(bpic.ACTIVITY_OF) >= bpic.CHANGES


@pytest.mark.parametrize("activity", list(bpic.ACTIVITY_OF))
@pytest.mark.parametrize("lifecycle", ["SCHEDULE", "START", "COMPLETE"])
def test_the_ledger_admits_every_row_that_the_mapping_knows(activity: str, lifecycle: str):
    if lifecycle != "COMPLETE" and not activity.startswith("W_"):
        with pytest.raises(Malformed, match="row 2"):
            later(activity, lifecycle)
        return
    (draft,) = admit(_json(later(activity, lifecycle)), EMITTER, origin=b"ledger.test/demo")
    assert "/data/purpose" not in draft.incomplete
    assert "/data/activity" not in draft.incomplete
    assert not {"/source", "/time"} & set(draft.incomplete)


@pytest.mark.parametrize(("activity", "lifecycle"), [("A_SOLD", "COMPLETE"), ("O_SENT", "SENT")])
def test_a_row_that_the_mapping_does_not_know_is_refused_by_its_number(
    activity: str, lifecycle: str
):
    with pytest.raises(Malformed, match="row 2") as refused:
        later(activity, lifecycle)
    assert activity not in str(refused.value)


# -- files -----------------------------------------------------------------------------

CSV = (
    ",".join(bpic.COLUMNS)
    + "\n"
    + "".join(f"{TIME},{17000 + n % 7},5000,A_SUBMITTED,COMPLETE,{n}\n" for n in range(50))
)


def test_the_lanes_of_a_file_hold_each_row_once_and_number_theirs_without_a_gap(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text(CSV, encoding="utf-8")
    lanes = [list(bpic.lane_events(path, lane, None)) for lane in range(bpic.LANES)]
    ids = {event["id"] for lane in lanes for event in lane}
    assert ids == {f"bpic2012-{n}" for n in range(1, 51)}
    subjects = [{event["subject"] for event in lane} for lane in lanes]
    assert sum(map(len, subjects)) == len(set().union(*subjects)) == 7
    for lane in lanes:
        assert [event["data"]["sequence"] for event in lane] == list(range(1, len(lane) + 1))


def test_a_limit_gives_the_beginning_of_the_same_events(tmp_path: Path):
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(CSV.encode()))
    for lane in range(bpic.LANES):
        some, every = (list(bpic.lane_events(path, lane, limit)) for limit in (20, None))
        assert some == every[: len(some)]
    assert bpic.count_rows(path, 20) == (20, "17000")
    assert bpic.count_rows(path, None) == (50, "17000")


@pytest.mark.parametrize("text", ["", "time,application\n", CSV.splitlines()[0] + "\nA,B\n"])
def test_a_file_with_other_columns_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Malformed):
        list(bpic.read_rows(path))


def test_a_file_that_is_not_gzip_is_unavailable(tmp_path: Path):
    path = tmp_path / "rows.csv.gz"
    path.write_text(CSV, encoding="utf-8")
    with pytest.raises(Unavailable):
        list(bpic.read_rows(path))


def test_a_file_without_rows_is_refused(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text(CSV.splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(Malformed, match="at least one row"):
        bpic.count_rows(path, None)


def _json(event: dict[str, Any]) -> bytes:
    import json

    return compact(json.dumps(event).encode())
