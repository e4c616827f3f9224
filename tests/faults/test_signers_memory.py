"""The database is older than, or other than, what was signed; or the memory of it is."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from ledger.config import read_settings
from ledger.errors import Misconfigured, ReadOnly
from ledger.service import Ledger
from tests.fixtures.ledgers import Place, an_event, assert_ledger_sound, record
from tests.fixtures.postgres import create_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ledger.postgres.embedded import EmbeddedPostgres

SLOT_BYTES = 512


@pytest.fixture
def copy(place: Place, cluster: EmbeddedPostgres) -> Iterator[Place]:
    """A copy of the database with three entries; the true one has more by now."""
    ledger = place.open()
    record(ledger, an_event(), an_event())
    place.close(ledger)
    dbname = str(conninfo_to_dict(place.dsn)["dbname"])
    made = replace(place, dsn=create_database(cluster, template=dbname), opened=[])
    ledger = place.open()
    record(ledger, an_event(), an_event())
    place.close(ledger)
    yield made
    for ledger in made.opened:
        ledger.close()


def memory_of(place: Place) -> Path:
    return place.settings.memory_dir / f"{place.row.name}.memory"


def assert_read_only(ledger: Ledger, reason: str, entries: int) -> None:
    assert ledger.recorder.stopped is not None
    assert reason in str(ledger.recorder.stopped)
    with pytest.raises(ReadOnly, match=reason):
        record(ledger, an_event())
    with pytest.raises(ReadOnly, match=reason):
        ledger.append_own("ledger.operated", {"operation": "restore"})
    assert len(ledger.entries(1, 100, 100)) == entries
    assert ledger.find_record("crm:C-10023") is not None
    size, _ = ledger.checkpoint()
    assert ledger.inclusion_proof(2, size)


def test_an_old_copy_of_the_database_is_read_only_and_says_why(copy: Place):
    ledger = copy.open()
    assert_read_only(ledger, "behind its signer's memory", 3)
    assert assert_ledger_sound(copy) == 3


def test_an_old_copy_is_read_only_beside_the_running_ledger_too(place: Place, copy: Place):
    """Another database has a signer's place of its own; the memory has one for all copies."""
    running = place.open()
    ledger = copy.open()
    assert running.notary.signs
    assert not ledger.notary.signs
    assert_read_only(ledger, "behind its signer's memory", 3)
    record(running, an_event())
    assert assert_ledger_sound(place) == 6


def test_a_database_whose_tail_is_another_is_read_only(place: Place, copy: Place, tmp_path: Path):
    """The same keys and an old memory have made other entries of the same numbers."""
    forger = replace(
        copy,
        settings=read_settings(
            {"LEDGER_HOME": str(tmp_path / "forger"), "LEDGER_ANCHOR_INTERVAL_S": "0"}
        ),
    )
    shutil.copytree(place.settings.keys_dir, forger.settings.keys_dir)
    forger.settings.memory_dir.mkdir()
    shutil.copy(memory_of(place), memory_of(forger))
    forget_newest_slots(memory_of(forger), copy)
    forging = forger.open()
    record(forging, an_event(), an_event())
    forger.close(forging)
    ledger = copy.open()
    assert_read_only(ledger, "another root was signed", 5)


def forget_newest_slots(memory: Path, copy: Place) -> None:
    """Make a memory as old as the copy: of both slots, none newer than its entries."""
    from ledger.keys.keyring import load_keyring
    from ledger.signing import CheckpointSigner, SignerMemory

    memory.unlink()
    kept = SignerMemory(memory)
    keyring = load_keyring(copy.settings.keys_dir / f"{copy.row.name}.json")
    with copy.connect() as connection:
        from ledger.core.merkle import RightEdge

        leaves = [leaf for (leaf,) in connection.execute("SELECT leaf FROM entries ORDER BY seq")]
    edge = RightEdge()
    edge.extend(leaves)
    CheckpointSigner(keyring, kept).sign(edge.size, edge.root())
    kept.close()


REWRITES = {
    "the head is moved back": (
        "UPDATE head SET (seq, leaf, recorded) ="
        " (SELECT 3, leaf, head.recorded FROM entries WHERE entries.seq = 3)"
    ),
    "the last entry is gone": (
        "DELETE FROM entries WHERE seq = 5;"
        " UPDATE head SET (seq, leaf, recorded) ="
        " (SELECT 4, leaf, head.recorded FROM entries WHERE entries.seq = 4)"
    ),
    "the last leaf is another": (
        "UPDATE entries SET leaf = sha256('x') WHERE seq = 5; UPDATE head SET leaf = sha256('x')"
    ),
    "the head's row is gone": "DELETE FROM head",
    "the head runs ahead": "UPDATE head SET seq = 9",
}


@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES)
def test_a_log_rewritten_under_a_running_ledger_stops_it(place: Place, rewrite: str):
    ledger = place.open()
    record(ledger, *(an_event() for _ in range(4)))
    with place.connect() as connection:
        connection.execute("ALTER TABLE entries DISABLE TRIGGER append_only")
        connection.execute(rewrite)
    with pytest.raises(ReadOnly):
        record(ledger, an_event())
    with pytest.raises(ReadOnly):
        record(ledger, an_event())
    assert ledger.entries(1, 1, 1)


def rewrite_memory(place: Place, content: bytes | None) -> bytes:
    path = memory_of(place)
    before = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    return before


@pytest.mark.parametrize("content", [None, b"", bytes(1024)], ids=["lost", "emptied", "zeroed"])
def test_without_its_memory_a_signer_stops_until_it_has_it_back(
    place: Place, content: bytes | None
):
    ledger = place.open()
    record(ledger, an_event())
    place.close(ledger)
    before = rewrite_memory(place, content)
    ledger = place.open()
    assert_read_only(ledger, "expected one that knows this log of 2 entries", 2)
    place.close(ledger)
    rewrite_memory(place, before)
    ledger = place.open()
    assert record(ledger, an_event())["seq"] == 3
    assert_ledger_sound(place)


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("torn_at", [0, 20, 55, 87])
def test_a_torn_write_leaves_the_other_slot_to_go_on_from(place: Place, slot: int, torn_at: int):
    ledger = place.open()
    record(ledger, an_event())
    record(ledger, an_event())
    place.close(ledger)
    content = bytearray(memory_of(place).read_bytes())
    content[slot * SLOT_BYTES + torn_at] ^= 1
    rewrite_memory(place, bytes(content))
    ledger = place.open()
    assert ledger.recorder.stopped is None
    assert record(ledger, an_event())["seq"] == 4
    place.close(ledger)
    assert place.open().recorder.stopped is None
    assert_ledger_sound(place)


def test_a_memory_with_no_readable_slot_is_named_and_nothing_is_opened(place: Place):
    place.close(place.open())
    rewrite_memory(place, b"\x01" * 1024)
    with pytest.raises(Misconfigured, match=r"test\.memory"):
        place.open()


# -- the disk that holds the memory ------------------------------------------------


def fill_disk(ledger: Ledger) -> None:
    """From now on every write to the memory meets a full disk."""
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, ledger._memory._file)
    os.close(full)


def count(place: Place) -> int:
    with psycopg.connect(place.dsn) as connection:
        row: Any = connection.execute(f"SELECT count(*) FROM {place.row.schema}.entries").fetchone()
    return int(row[0])


def test_what_no_checkpoint_can_be_signed_for_is_not_acknowledged(place: Place):
    ledger = place.open()
    first = record(ledger, an_event())
    fill_disk(ledger)
    event = an_event()
    with pytest.raises(ReadOnly, match="recorded, but no checkpoint could be signed"):
        record(ledger, event)
    with pytest.raises(ReadOnly, match="No space left"):
        record(ledger, an_event())
    with pytest.raises(ReadOnly, match="No space left"):
        record(ledger, event)
    assert count(place) == 3
    assert ledger.checkpoint()[0] == first["seq"]
    place.close(ledger)
    # With room on the disk again the sender's next try is answered from the log, and signed.
    ledger = place.open()
    receipt = record(ledger, event)
    assert (receipt["seq"], receipt["repeated"]) == (3, True)
    assert receipt["checkpoint"] is not None
    assert assert_ledger_sound(place) == 3


def test_a_new_ledger_with_no_room_for_its_memory_records_nothing(place: Place):
    ledger = Ledger(place.row, place.settings, place.dsn)
    place.opened.append(ledger)
    fill_disk(ledger)
    ledger.start()
    with pytest.raises(ReadOnly, match="No space left"):
        record(ledger, an_event())
    assert count(place) == 0


def test_a_ledger_killed_before_its_first_entry_was_signed_for_goes_on(place: Place):
    """Its memory knows the empty log, so it can't be taken for a lost one."""
    ledger = place.open()
    place.close(ledger)
    content = bytearray(memory_of(place).read_bytes())
    newest = max((0, 1), key=lambda slot: content[slot * SLOT_BYTES + 15])
    content[newest * SLOT_BYTES : newest * SLOT_BYTES + 112] = bytes(112)
    rewrite_memory(place, bytes(content))
    ledger = place.open()
    assert ledger.recorder.stopped is None
    assert record(ledger, an_event())["seq"] == 2
