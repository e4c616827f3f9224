from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from ledger.core.checkpoint import open_checkpoint
from ledger.signing import SignerMemory
from tests.fixtures.ledgers import Place, an_event, assert_ledger_sound, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledger.service import Ledger

TERMINATE = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def eventually(condition: Callable[[], object], within_s: float = 5.0) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def size_of(ledger: Ledger, receipt: dict[str, Any]) -> int:
    note = receipt["checkpoint"]
    return open_checkpoint(note, ledger.signer.verifier, ledger.origin).size


def stored(place: Place) -> list[tuple[int, bool]]:
    with place.connect() as connection:
        return connection.execute("SELECT size, kept FROM checkpoints ORDER BY size").fetchall()


def test_every_receipt_of_the_one_who_signs_holds_a_checkpoint_of_its_entry(ledger: Ledger):
    assert ledger.notary.signs
    for _ in range(3):
        receipt = record(ledger, an_event())
        assert size_of(ledger, receipt) == receipt["seq"]
        assert "checkpoint_pending" not in receipt


def test_one_of_several_signs_and_the_others_receipts_hold_its_checkpoints(
    place: Place, ledger: Ledger
):
    others = [place.open() for _ in range(2)]
    assert [opened.notary.signs for opened in (ledger, *others)] == [True, False, False]
    for other in others:
        receipt = record(other, an_event())
        assert size_of(other, receipt) >= receipt["seq"]
    assert_ledger_sound(place)


def test_the_next_one_signs_once_the_signer_has_closed(place: Place, ledger: Ledger):
    other = place.open()
    record(ledger, an_event())
    place.close(ledger)
    eventually(lambda: other.notary.signs)
    receipt = record(other, an_event())
    assert size_of(other, receipt) == receipt["seq"] == 3
    again = place.open()
    assert not again.notary.signs
    assert again.recorder.stopped is None
    assert_ledger_sound(place)


@pytest.mark.parametrize("signed_after", [0, 1, 2])
def test_a_process_that_takes_the_place_over_goes_on_in_its_predecessors_memory(
    place: Place, ledger: Ledger, signed_after: int
):
    """Its own memory was read when it was opened, long before; one store with an old turn in it
    would leave the predecessor's last slot but one as the newest."""
    other = place.open()
    for _ in range(5):
        record(ledger, an_event())
    place.close(ledger)
    eventually(lambda: other.notary.signs)
    for _ in range(signed_after):
        record(other, an_event())
    place.close(other)
    # Read from the file: whoever opens the ledger next signs, and so mends what is wrong here.
    memory = SignerMemory(place.settings.memory_dir / "test.memory")
    remembered = memory.last
    memory.close()
    assert remembered is not None
    assert remembered.size == 6 + signed_after
    assert place.open().recorder.stopped is None
    assert_ledger_sound(place)


def test_without_a_signer_a_receipt_says_that_its_checkpoint_is_still_to_come(
    place: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ledger.notary.WAIT_FOR_SIGNER_S", 0.1)
    place.close(ledger)
    assert ledger.checkpoint()[0] == 1
    with psycopg.connect(place.dsn) as squatter:
        squatter.execute("SELECT pg_advisory_lock(%s)", (ledger.notary._lock_number(),))
        other = place.open()
        receipt = record(other, an_event())
        assert receipt["checkpoint"] is None
        assert receipt["checkpoint_pending"] == "/v1/ledgers/test/checkpoint"
        assert other.checkpoint()[0] == 1
    eventually(lambda: other.notary.signs)
    eventually(lambda: other.checkpoint()[0] == receipt["seq"])
    assert_ledger_sound(place)


def test_a_signer_that_loses_its_connection_takes_its_place_again(place: Place, ledger: Ledger):
    for number in range(3):
        with place.connect() as connection:
            connection.execute(TERMINATE)
        receipt = record(ledger, an_event())
        assert size_of(ledger, receipt) >= receipt["seq"] == number + 2
    eventually(lambda: ledger.notary.signs)
    assert ledger.recorder.stopped is None
    assert_ledger_sound(place)


def test_the_signers_place_goes_to_one_when_all_connections_are_lost(place: Place, ledger: Ledger):
    opened = [ledger, place.open(), place.open()]
    for _ in range(2):
        with place.connect() as connection:
            connection.execute(TERMINATE)
        receipts = [(one, record(one, an_event())) for one in opened]
        for one, receipt in receipts:
            assert receipt["checkpoint"] is None or size_of(one, receipt) >= receipt["seq"]
        eventually(lambda: sum(one.notary.signs for one in opened) == 1)
    assert all(one.recorder.stopped is None for one in opened)
    assert assert_ledger_sound(place) == 7


def test_of_checkpoints_only_the_newest_and_those_to_keep_are_stored(place: Place, ledger: Ledger):
    kept: set[int] = set()
    for keep in (True, False, False, True, False):
        ledger.notary._kept_at = float("-inf") if keep else time.monotonic()
        size = record(ledger, an_event())["seq"]
        ledger.notary._stored_at = float("-inf")
        eventually(lambda size=size: size in dict(stored(place)))  # type: ignore[misc]
        kept |= {size} if keep else set()
        assert kept <= {found for found, keeping in stored(place) if keeping}
        assert sum(not keeping for _, keeping in stored(place)) <= 1
    place.close(ledger)
    assert stored(place)[-1][0] == 6
    place.open()
    assert_ledger_sound(place)


def test_reading_another_writers_entries_and_signing_never_stop_the_ledger(
    place: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """The signer's two threads meet on trees of another order of size than of time."""
    monkeypatch.setattr("ledger.notary.STORE_EVERY_S", 0.0)
    other = place.open()
    for _ in range(30):
        record(other, an_event())
        receipt = record(ledger, an_event())
        assert size_of(ledger, receipt) >= receipt["seq"]
    assert ledger.recorder.stopped is None
    assert ledger.notary.signs
    assert assert_ledger_sound(place) == 61


def test_a_smaller_tree_than_was_signed_already_is_answered_with_the_larger_ones_checkpoint(
    place: Place, ledger: Ledger
):
    record(ledger, an_event())
    old = ledger.recorder.refresh()
    record(ledger, an_event())
    answers: list[object] = []
    ledger.notary.notarise(*old, answers.append)
    eventually(lambda: answers)
    assert answers == [ledger.checkpoint()[1]]
    assert ledger.recorder.stopped is None
    assert_ledger_sound(place)


def test_junk_among_the_stored_checkpoints_keeps_nobody_from_signing(place: Place, ledger: Ledger):
    place.close(ledger)
    with place.connect() as connection:
        connection.execute("INSERT INTO checkpoints (size, note) VALUES (99, 'junk')")
    ledger = place.open()
    assert ledger.notary.signs
    assert record(ledger, an_event())["checkpoint"] is not None
    with place.connect() as connection:
        connection.execute("DELETE FROM checkpoints WHERE size = 99")
    assert_ledger_sound(place)
