"""A process that anchors is killed between two steps; the next one finds where it was.

The database itself holds the step: a trigger waits for a lock that the test has. What the
killed process had sent may be lost with its connection, or land after its death.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.anchoring_process import anchoring_process
from tests.fixtures.ledgers import Place, an_event, assert_ledger_sound, record
from tests.fixtures.receivers import Receiver, Reply, receiving
from tests.postgres.test_notary import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

LOCK = 4_202
_ENTRY = "INSERT ON entries FOR EACH ROW WHEN (position('{}' IN NEW.entry) > 0)"
HELD = {
    "evidence": "INSERT ON anchors FOR EACH ROW WHEN (NEW.sink = 'hook')",
    "entry": _ENTRY.format('"anchor_name":"hook"'),
    "position": "UPDATE ON anchors FOR EACH ROW WHEN (NEW.sink = 'hook')",
    "failure": "INSERT ON failing_sinks FOR EACH ROW",
    "failure's entry": _ENTRY.format('"anchor_failed"'),
    "failure's position": "UPDATE ON failing_sinks FOR EACH ROW WHEN (NEW.seq IS NOT NULL)",
    "recovery's entry": _ENTRY.format('"anchor_recovered"'),
    "recovery": "DELETE ON failing_sinks FOR EACH ROW",
}
"""Each step, as the beginning of a trigger that holds it."""


@pytest.fixture
def receiver(place: Place) -> Iterator[Receiver]:
    """Run a receiver that the place's home names as a sink."""
    with receiving() as running:
        secret = place.settings.home / "hook.secret"
        secret.write_text("whsec_" + base64.b64encode(os.urandom(32)).decode())
        secret.chmod(0o600)
        (place.settings.home / "anchors.toml").write_text(
            f'[[sink]]\nname = "hook"\nkind = "webhook"\nurl = "{running.url}"\n'
            'secret_file = "hook.secret"\n'
        )
        yield running


@contextmanager
def held(place: Place, step: str) -> Iterator[psycopg.Connection[Any]]:
    """Hold a step until the block ends."""
    with place.connect() as connection:
        connection.execute(
            "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" PERFORM pg_advisory_xact_lock_shared({LOCK});"
            " RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$"
        )
        table = HELD[step].split()[2]
        connection.execute(
            f"CREATE TRIGGER a_hold BEFORE {HELD[step]} EXECUTE FUNCTION hold()"  # type: ignore[arg-type]
        )
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        yield connection
        connection.execute("SELECT pg_advisory_unlock_all()")
        # Waits for who was held and lives on without a client.
        connection.execute(f"DROP TRIGGER a_hold ON {table}")  # type: ignore[arg-type]


def wait_until_held(connection: psycopg.Connection[Any]) -> None:
    query = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
    )

    def is_held() -> bool:
        row = connection.execute(query, (LOCK,)).fetchone()
        return row is not None and row[0] > 0

    eventually(is_held)


def end_held(connection: psycopg.Connection[Any]) -> None:
    """End the killed process's connections, so that what is held never lands."""
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        " AND objid = %s AND NOT granted",
        (LOCK,),
    )


def told(place: Place, type_name: str) -> list[dict[str, Any]]:
    with place.connect() as connection:
        rows = connection.execute(
            "SELECT seq, entry FROM entries WHERE topic = %s ORDER BY seq",
            (f"ledger.ledger.{type_name}.v1",),
        ).fetchall()
    return [{"seq": seq, **json.loads(raw)["event"]["data"]} for seq, raw in rows]


def evidence(place: Place) -> dict[int, tuple[str, int | None]]:
    """Give digest of the evidence, and position of its entry, by size."""
    with place.connect() as connection:
        rows = connection.execute("SELECT size, evidence, seq FROM anchors WHERE sink = 'hook'")
        return {size: (hashlib.sha256(raw).hexdigest(), seq) for size, raw, seq in rows}


def assert_no_lie(place: Place) -> None:
    """Check that each entry's evidence is there, told once, and is what the entry says."""
    kept = evidence(place)
    entries = [data for data in told(place, "anchored") if data["anchor_name"] == "hook"]
    assert len({data["size"] for data in entries}) == len(entries)
    for data in entries:
        digest, seq = kept[data["size"]]
        assert data["proof_sha256"] == digest
        assert seq in {None, data["seq"]}


def sent(receiver: Receiver) -> list[tuple[str, int]]:
    return [
        (asked.headers["webhook-id"], json.loads(asked.body)["data"]["size"])
        for asked in receiver.asked
    ]


@pytest.mark.parametrize("lands", [False, True], ids=["lost", "lands later"])
@pytest.mark.parametrize("step", ["evidence", "entry", "position"])
def test_a_checkpoint_is_anchored_at_least_once_and_told_once_wherever_it_is_killed(
    place: Place, receiver: Receiver, step: str, *, lands: bool
):
    with held(place, step) as connection, anchoring_process(place) as process:
        wait_until_held(connection)
        assert_no_lie(place)
        (before,) = sent(receiver)
        assert bool(evidence(place)) == (step != "evidence")
        process.kill()
        process.wait()
        if not lands:
            end_held(connection)
    with anchoring_process(place):
        lost = step == "evidence" and not lands
        eventually(
            lambda: any(
                seq is not None and (size > before[1] if lost else size == before[1])
                for size, (_, seq) in evidence(place).items()
            ),
            within_s=20,
        )
        assert_no_lie(place)
    # What was lost comes again, in a newer checkpoint; what is stored isn't asked for again.
    assert before not in sent(receiver)[1:]
    ledger = place.open()
    record(ledger, an_event())
    assert_ledger_sound(place)


@pytest.mark.parametrize("lands", [False, True], ids=["lost", "lands later"])
@pytest.mark.parametrize("step", ["failure", "failure's entry", "failure's position"])
def test_a_failure_is_told_once_wherever_it_is_killed(
    place: Place, receiver: Receiver, step: str, *, lands: bool
):
    receiver.answer = lambda _asked: Reply(500)
    with held(place, step) as connection, anchoring_process(place) as process:
        wait_until_held(connection)
        process.kill()
        process.wait()
        if not lands:
            end_held(connection)
    with anchoring_process(place):
        eventually(lambda: told(place, "operated"), within_s=20)
        receiver.answer = lambda _asked: Reply(204)
        eventually(lambda: len(told(place, "operated")) == 2, within_s=20)
    told_of = [data["operation"] for data in told(place, "operated")]
    assert told_of == ["anchor_failed", "anchor_recovered"]
    assert_ledger_sound(place)


@pytest.mark.parametrize("lands", [False, True], ids=["lost", "lands later"])
@pytest.mark.parametrize("step", ["recovery's entry", "recovery"])
def test_a_recovery_is_told_once_wherever_it_is_killed(
    place: Place, receiver: Receiver, step: str, *, lands: bool
):
    receiver.answer = lambda _asked: Reply(500)
    with anchoring_process(place):
        eventually(lambda: told(place, "operated"), within_s=20)
    receiver.answer = lambda _asked: Reply(200)
    with held(place, step) as connection, anchoring_process(place) as process:
        wait_until_held(connection)
        process.kill()
        process.wait()
        if not lands:
            end_held(connection)
    with anchoring_process(place), place.connect() as connection:
        eventually(lambda: not connection.execute("SELECT FROM failing_sinks").fetchall())
    told_of = [data["operation"] for data in told(place, "operated")]
    assert told_of == ["anchor_failed", "anchor_recovered"]
    assert_no_lie(place)
    assert_ledger_sound(place)
