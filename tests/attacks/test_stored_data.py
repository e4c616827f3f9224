"""Each attack on stored data, by somebody with the database owner's rights."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.core.checkpoint import Checkpoint, sign_checkpoint
from ledger.core.merkle import RightEdge
from ledger.core.note import Signer

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from tests.attacks.conftest import Victim

VERIFIED, TAMPERED, INCOMPLETE = 0, 1, 4


def leaf_of(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def assert_caught(victim: Victim, kind: str, first_bad: int | None, *options: str) -> Any:
    verdict = victim.verify(*options)
    assert verdict["exit_code"] == TAMPERED, verdict
    assert kind in verdict["kinds"], verdict["kinds"]
    if first_bad is not None:
        assert verdict["first_bad"]["seq"] == first_bad, verdict["first_bad"]
    assert victim.evidence.exists()
    evidence = victim.evidence.read_text()
    assert "call number" not in evidence
    return verdict


def entry_at(connection: psycopg.Connection[Any], seq: int) -> bytes:
    row = connection.execute("SELECT entry FROM entries WHERE seq = %s", (seq,)).fetchone()
    assert row is not None
    return bytes(row[0])


def rewrite(connection: psycopg.Connection[Any], first: int, change: Any) -> RightEdge:
    """Rewrite the log from an entry on so that everything in the database agrees."""
    rows = connection.execute("SELECT seq, entry FROM entries ORDER BY seq").fetchall()
    edge = RightEdge()
    streams: dict[str, str] = {}
    prev = "0" * 64
    nodes = []
    for seq, raw in rows:
        entry = json.loads(raw)
        if seq == first:
            change(entry)
        if seq >= first:
            entry["prev"] = prev
            if entry["stream_prev"] is not None:
                entry["stream_prev"] = streams[entry["stream"]]
            raw = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode()  # noqa: PLW2901
        leaf = leaf_of(raw)
        prev = streams[entry["stream"]] = leaf.hex()
        nodes += edge.extend([leaf])
        if seq >= first:
            connection.execute(
                "UPDATE entries SET entry = %s, leaf = %s WHERE seq = %s", (raw, leaf, seq)
            )
            connection.execute(
                "UPDATE stream_heads SET leaf = %s WHERE stream = %s", (leaf, entry["stream"])
            )
    connection.execute("UPDATE head SET leaf = %s", (bytes.fromhex(prev),))
    for node in nodes:
        connection.execute(
            "UPDATE tree_nodes SET hash = %s WHERE level = %s AND idx = %s",
            (node.hash, node.level, node.index),
        )
    return edge


def test_an_untouched_log_is_verified(victim: Victim):
    verdict = victim.verify()
    assert verdict["exit_code"] == VERIFIED
    assert verdict["counts"]["entries"] == 702


def test_without_a_key_or_checkpoint_from_outside_it_is_only_consistent_with_itself(
    victim: Victim,
):
    for key, checkpoint in ((False, False), (True, False), (False, True)):
        assert victim.verify(key=key, checkpoint=checkpoint)["exit_code"] == INCOMPLETE


@pytest.mark.parametrize("seq", [1, 2, 256, 257, 350, 702])
def test_a_row_altered_is_named(victim: Victim, seq: int):
    with victim.connect() as connection:
        entry = bytearray(entry_at(connection, seq))
        entry[len(entry) // 2] ^= 1
        connection.execute("UPDATE entries SET entry = %s WHERE seq = %s", (bytes(entry), seq))
    assert_caught(victim, "altered", seq)


def test_a_row_altered_together_with_its_hash_column_is_named(victim: Victim):
    with victim.connect() as connection:
        entry = entry_at(connection, 300).replace(b"phone", b"email")
        connection.execute(
            "UPDATE entries SET entry = %s, leaf = %s WHERE seq = 300", (entry, leaf_of(entry))
        )
    assert_caught(victim, "altered", 300)


@pytest.mark.parametrize(
    "change",
    [
        "topic = 'ledger.record.updated.v1'",
        "version = version + 1000",
        "stream = gen_random_uuid()",
        "leaf = sha256('x')",
    ],
)
def test_a_column_altered_is_named(victim: Victim, change: str):
    with victim.connect() as connection:
        connection.execute(f"UPDATE entries SET {change} WHERE seq = 123")
    assert_caught(victim, "altered", 123)


def test_an_entry_deleted_is_named(victim: Victim):
    with victim.connect() as connection:
        connection.execute("DELETE FROM entries WHERE seq = 100")
    assert_caught(victim, "deleted", 100)


def test_entries_deleted_and_renumbered_are_caught(victim: Victim):
    with victim.connect() as connection:
        connection.execute("DELETE FROM entries WHERE seq = 100")
        connection.execute("UPDATE entries SET seq = seq + 9000 WHERE seq > 100")
        connection.execute("UPDATE entries SET seq = seq - 9001 WHERE seq > 9000")
        connection.execute("UPDATE head SET seq = seq - 1")
    assert_caught(victim, "deleted", 100)


def test_an_entry_inserted_is_named(victim: Victim):
    with victim.connect() as connection:
        connection.execute("UPDATE entries SET seq = seq + 9000 WHERE seq >= 400")
        connection.execute("UPDATE entries SET seq = seq - 8999 WHERE seq > 9000")
        connection.execute(
            "INSERT INTO entries SELECT 400, stream, version, topic, leaf, entry"
            " FROM entries WHERE seq = 200"
        )
        connection.execute("UPDATE head SET seq = seq + 1")
    assert_caught(victim, "inserted", None)


def test_an_entry_appended_by_hand_is_caught(victim: Victim):
    """Chained rightly and everything moved along, but never signed for."""
    with victim.connect() as connection:
        last = json.loads(entry_at(connection, 702))
        last.update(seq=703, prev=leaf_of(entry_at(connection, 702)).hex())
        last["version"], last["stream_prev"] = 2, leaf_of(entry_at(connection, 702)).hex()
        entry = json.dumps(last, separators=(",", ":")).encode()
        connection.execute(
            "INSERT INTO entries SELECT 703, stream, 2, topic, %s, %s FROM entries WHERE seq = 702",
            (leaf_of(entry), entry),
        )
    assert_caught(victim, "inserted", None)


def test_entries_swapped_are_named(victim: Victim):
    with victim.connect() as connection:
        connection.execute("UPDATE entries SET seq = 9000 WHERE seq = 500")
        connection.execute("UPDATE entries SET seq = 500 WHERE seq = 501")
        connection.execute("UPDATE entries SET seq = 501 WHERE seq = 9000")
    assert_caught(victim, "reordered", 500)


def test_a_tail_cut_is_named(victim: Victim):
    with victim.connect() as connection:
        connection.execute("DELETE FROM entries WHERE seq > 650")
    assert_caught(victim, "truncated", 651)


def test_a_tail_cut_with_everything_wound_back_is_caught_by_the_checkpoint(victim: Victim):
    with victim.connect() as connection:
        connection.execute("DELETE FROM entries WHERE seq > 650")
        connection.execute("DELETE FROM boxes WHERE seq > 650")
        connection.execute("DELETE FROM accepted WHERE seq > 650")
        connection.execute("DELETE FROM checkpoints WHERE size > 650")
        connection.execute("DELETE FROM stream_heads")
        connection.execute(
            "INSERT INTO stream_heads SELECT DISTINCT ON (stream) stream, version, leaf"
            " FROM entries ORDER BY stream, version DESC"
        )
        recorded = json.loads(entry_at(connection, 650))["recorded"]
        connection.execute(
            "UPDATE head SET seq = 650, recorded = %s,"
            " leaf = (SELECT leaf FROM entries WHERE seq = 650)",
            (recorded,),
        )
    assert_caught(victim, "truncated", None)
    assert victim.verify(checkpoint=False)["exit_code"] == INCOMPLETE


def test_everything_rewritten_without_the_signing_key_is_caught(victim: Victim):
    with victim.connect() as connection:
        rewrite(connection, 300, lambda entry: entry["event"]["data"].update(fields=["email"]))
    verdict = assert_caught(victim, "rewritten", None)
    assert verdict["first_bad"] is None or verdict["first_bad"]["seq"] <= 300


def test_everything_rewritten_with_the_signing_key_is_caught_by_the_checkpoint_outside(
    victim: Victim,
):
    with victim.connect() as connection:
        edge = rewrite(connection, 300, lambda e: e["event"]["data"].update(fields=["email"]))
        signer = Signer.from_private_key(
            victim.origin, Ed25519PrivateKey.from_private_bytes(victim.seed)
        )
        point = Checkpoint(origin=victim.origin, size=edge.size, root=edge.root())
        connection.execute("DELETE FROM checkpoints")
        connection.execute(
            "INSERT INTO checkpoints (size, note) VALUES (%s, %s)",
            (edge.size, sign_checkpoint(point, [signer])),
        )
    assert_caught(victim, "rewritten", None)
    assert victim.verify(checkpoint=False)["exit_code"] == INCOMPLETE


def test_a_checkpoint_replaced_is_caught(victim: Victim):
    with victim.connect() as connection:
        stranger = Signer.from_private_key(victim.origin, Ed25519PrivateKey.generate())
        point = Checkpoint(origin=victim.origin, size=702, root=bytes(32))
        connection.execute(
            "UPDATE checkpoints SET note = %s", (sign_checkpoint(point, [stranger]),)
        )
    assert_caught(victim, "rewritten", None)


def test_a_checkpoint_of_another_root_under_the_same_key_is_caught(victim: Victim):
    with victim.connect() as connection:
        signer = Signer.from_private_key(
            victim.origin, Ed25519PrivateKey.from_private_bytes(victim.seed)
        )
        point = Checkpoint(origin=victim.origin, size=600, root=bytes(32))
        connection.execute(
            "INSERT INTO checkpoints (size, note) VALUES (600, %s)",
            (sign_checkpoint(point, [signer]),),
        )
    assert_caught(victim, "rewritten", None)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("altered", "UPDATE tree_nodes SET hash = sha256('x') WHERE idx = 1"),
        ("deleted", "DELETE FROM tree_nodes WHERE idx = 0"),
        ("inserted", "INSERT INTO tree_nodes VALUES (1, 2, sha256('x'))"),
    ],
)
def test_a_tree_node_altered_is_caught(victim: Victim, kind: str, change: str):
    with victim.connect() as connection:
        connection.execute(change)
    assert_caught(victim, kind, None)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE head SET seq = seq + 1",
        "UPDATE head SET leaf = sha256('x')",
        "DELETE FROM head",
        "UPDATE stream_heads SET version = version + 1 WHERE version > 3",
        "DELETE FROM stream_heads WHERE version > 3",
        "INSERT INTO stream_heads VALUES (gen_random_uuid(), 1, sha256('x'))",
        "DELETE FROM accepted WHERE seq = 77",
        "UPDATE accepted SET seq = 10000 WHERE seq = 77",
    ],
)
def test_a_table_that_indexes_the_log_altered_is_caught(victim: Victim, change: str):
    with victim.connect() as connection:
        connection.execute(change)
    assert victim.verify()["exit_code"] == TAMPERED


def test_a_box_swapped_is_caught_by_who_holds_the_keys(victim: Victim):
    with victim.connect() as connection:
        connection.execute(
            "UPDATE boxes SET box = CASE seq WHEN 70 THEN (SELECT box FROM boxes WHERE seq = 110)"
            " ELSE (SELECT box FROM boxes WHERE seq = 70) END WHERE seq IN (70, 110)"
        )
    assert any("box" in each for each in victim.verify()["not_checked"])
    assert_caught(victim, "altered", 70, "--keyring", str(victim.keyring))


def test_boxes_untouched_are_verified_by_who_holds_the_keys(victim: Victim):
    verdict = victim.verify("--keyring", str(victim.keyring))
    assert verdict["exit_code"] == VERIFIED
    assert not any("box" in each for each in verdict["not_checked"])


def test_a_key_swapped_for_another_is_caught_by_who_holds_the_keys(victim: Victim):
    with victim.connect() as connection:
        connection.execute(
            "UPDATE keys SET wrapped = (SELECT wrapped FROM keys ORDER BY id DESC LIMIT 1)"
            " WHERE id = (SELECT stream FROM entries WHERE seq = 5)"
        )
    verdict = victim.verify("--keyring", str(victim.keyring))
    assert verdict["exit_code"] == TAMPERED


def test_what_was_erased_is_told_apart_from_what_was_swapped(victim: Victim):
    """A box and key that are gone are erasure, to be explained by the log; not tampering here."""
    with victim.connect() as connection:
        connection.execute("DELETE FROM boxes WHERE seq = 70")
    verdict = victim.verify("--keyring", str(victim.keyring))
    assert verdict["exit_code"] in {VERIFIED, INCOMPLETE}


def test_an_erased_key_is_counted_by_who_holds_the_keys_and_is_no_tampering(victim: Victim):
    with victim.connect() as connection:
        row = connection.execute("SELECT stream FROM entries WHERE seq = 70").fetchone()
        assert row is not None
        found = connection.execute(
            "SELECT count(*) FROM boxes JOIN entries USING (seq) WHERE stream = %s", row
        ).fetchone()
        assert found is not None
        connection.execute("DELETE FROM keys WHERE id = %s", row)
    verdict = victim.verify("--keyring", str(victim.keyring))
    assert verdict["exit_code"] == VERIFIED
    assert found[0] > 1
    told = f"erased or lost: {found[0]} (boxes whose stream's key is gone)"
    assert told in verdict["not_checked"]


def test_a_state_is_left_and_the_next_run_finds_what_is_altered_after_it(
    victim: Victim, tmp_path: Path
):
    state = ("--state", str(tmp_path / "state"))
    assert victim.verify(*state)["exit_code"] == VERIFIED
    resumed = victim.verify(*state)
    assert resumed["exit_code"] == VERIFIED
    assert resumed["scope"].startswith("entries 513 to 702 now; 1 to 512 by an earlier run")
    with victim.connect() as connection:
        entry = entry_at(connection, 600).replace(b"phone", b"email")
        connection.execute("UPDATE entries SET entry = %s WHERE seq = 600", (entry,))
    assert_caught(victim, "altered", 600, *state)


def test_a_log_rewritten_with_the_signing_key_contradicts_the_state(victim: Victim, tmp_path: Path):
    state = ("--state", str(tmp_path / "state"))
    assert victim.verify(*state, checkpoint=False)["exit_code"] == INCOMPLETE
    with victim.connect() as connection:
        edge = rewrite(connection, 300, lambda e: e["event"]["data"].update(fields=["email"]))
        signer = Signer.from_private_key(
            victim.origin, Ed25519PrivateKey.from_private_bytes(victim.seed)
        )
        point = Checkpoint(origin=victim.origin, size=edge.size, root=edge.root())
        connection.execute("DELETE FROM checkpoints")
        connection.execute(
            "INSERT INTO checkpoints (size, note) VALUES (%s, %s)",
            (edge.size, sign_checkpoint(point, [signer])),
        )
    verdict = victim.verify(*state, checkpoint=False)
    assert (verdict["exit_code"], verdict["kinds"]) == (TAMPERED, ["rewritten"])
    assert victim.verify(checkpoint=False)["exit_code"] == INCOMPLETE


def test_only_what_is_after_a_checkpoint_held_is_read(victim: Victim):
    held = ("--from-checkpoint", str(victim.checkpoint))
    verdict = victim.verify(*held, checkpoint=False)
    assert verdict["exit_code"] == VERIFIED
    assert verdict["scope"].endswith("1 to 512 only by hash")
    with victim.connect() as connection:
        connection.execute("UPDATE tree_nodes SET hash = sha256('x') WHERE idx = 1")
    assert_caught(victim, "altered", 257, *held)


def test_a_column_that_is_null_is_caught_and_never_a_failure(victim: Victim):
    with victim.connect() as connection:
        connection.execute("ALTER TABLE entries ALTER topic DROP NOT NULL")
        connection.execute("UPDATE entries SET topic = NULL WHERE seq = 123")
    assert_caught(victim, "altered", 123)
