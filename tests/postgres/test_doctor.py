"""The doctor finds what is wrong, says what to do, and changes nothing."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner

from ledger.anchors.sink import Due, SinkFailed, SplitView
from ledger.cli import main
from projections.schema import migrate_views
from tests.fixtures.anchors import Told, anchoring_of
from tests.fixtures.ledgers import Place, an_event, record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ledger.service import Ledger

Findings = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def sound(place: Place) -> Place:
    """Give a ledger with an entry, its views' tables, and nothing wrong."""
    place.settings.home.chmod(0o755)
    ledger = place.open()
    record(ledger, an_event())
    assert ledger.anchoring.turn()
    with place.connect() as connection:
        migrate_views(connection, schema=place.row.schema)
    place.close(ledger)
    return place


def environment(place: Place, **more: str) -> dict[str, str]:
    return {
        "LEDGER_HOME": str(place.settings.home),
        "LEDGER_DATABASE_URL": place.dsn,
        **more,
    }


def examine(place: Place, **more: str) -> tuple[int, Findings]:
    """Run the doctor; give its exit code and what isn't ok, by check and about."""
    done = CliRunner().invoke(main, ["doctor", "--json"], env=environment(place, **more))
    document = json.loads(done.stdout)
    assert document["verdict"] == done.exit_code
    return done.exit_code, {
        (found["check"], found["about"]): found
        for found in document["findings"]
        if found["level"] != "ok"
    }


def only(place: Place, check: str, about: str = "", **more: str) -> tuple[int, dict[str, Any]]:
    """Expect one finding beside the warnings of a fresh home."""
    code, found = examine(place, **more)
    usual = {("anchors file", ""), ("disk", "home"), ("disk", "anchors")}
    assert set(found) - usual == {(check, about)} - usual
    assert found[check, about]["advice"]
    return code, found[check, about]


def tree(place: Place) -> dict[str, tuple[int, bytes]]:
    home = place.settings.home
    return {
        str(path.relative_to(home)): (path.stat().st_mode, path.read_bytes())
        for path in sorted(home.rglob("*"))
        if path.is_file()
    }


def test_a_sound_home_has_nothing_bad(sound: Place):
    code, found = examine(sound)
    assert code == 0
    assert all(finding["level"] == "warn" for finding in found.values())
    # Two directories of one machine are no anchor worth the name.
    assert "this machine only" in found["anchors file", ""]["detail"]


def test_looking_changes_nothing(sound: Place):
    before = tree(sound)
    with sound.connect() as connection:
        entries = connection.execute("SELECT count(*) FROM entries").fetchone()
        examine(sound)
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == entries
    assert tree(sound) == before


def test_looking_beside_a_running_service_disturbs_nobody(sound: Place):
    ledger = sound.open()
    assert ledger.notary.signs
    for _ in range(2):
        assert examine(sound)[0] == 0
        assert record(ledger, an_event())["checkpoint"] is not None
    assert ledger.notary.signs


def test_words_say_the_same_as_json(sound: Place):
    (sound.settings.keys_dir / "test.json").chmod(0o644)
    done = CliRunner().invoke(main, ["doctor"], env=environment(sound))
    assert done.exit_code == 4
    assert "BAD   secrets: " in done.stdout
    assert "chmod 600" in done.stdout
    assert "ok    database: PostgreSQL" in done.stdout


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_file_that_others_can_read_is_found(sound: Place, mode: int):
    (sound.settings.keys_dir / "test.json").chmod(mode)
    code, found = examine(sound)
    assert code == 4
    assert f"{mode:04o}" in found["secrets", ""]["detail"]
    assert "mode 0600" in found["ledger", "test"]["detail"]


def test_a_home_that_others_can_write_to_is_found(sound: Place):
    sound.settings.home.chmod(0o777)
    assert only(sound, "home")[0] == 4


def test_a_file_of_sinks_that_makes_no_sense_is_found(sound: Place):
    (sound.settings.home / "anchors.toml").write_text('[[sink]]\nname = "x"\nkind = "pigeon"\n')
    code, found = examine(sound)
    assert code == 2
    assert "kind: expected one of" in found["anchors file", ""]["detail"]
    assert ("ledger", "test") in found


def test_a_sink_for_a_ledger_that_is_not_there_is_a_warning(sound: Place, tmp_path: Path):
    (sound.settings.home / "anchors.toml").write_text(
        f'[[sink]]\nname = "copy"\nkind = "directory"\npath = "{tmp_path}"\nledgers = ["tset"]\n'
    )
    code, found = examine(sound)
    assert code == 0
    assert "ledger tset: there is none" in found["anchors file", ""]["detail"]


def test_anchoring_that_is_turned_off_is_a_warning(sound: Place):
    code, finding = only(sound, "anchors file", LEDGER_ANCHOR_INTERVAL_S="0")
    assert (code, finding["level"]) == (0, "warn")


def test_a_setting_that_makes_no_sense_is_found(sound: Place):
    code, found = examine(sound, LEDGER_PORT="eighty")
    assert code == 2
    assert list(found) == [("settings", "")]


def test_a_database_that_is_away_is_found(sound: Place):
    code, found = examine(sound, LEDGER_DATABASE_URL="host=/nowhere dbname=none")
    assert code == 3
    assert ("database", "") in found


def test_no_database_yet_is_found_and_none_is_made(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir(0o700)
    settings = {"LEDGER_HOME": str(home), "LEDGER_DATABASE_URL": ""}
    done = CliRunner().invoke(main, ["doctor", "--json"], env=settings)
    assert done.exit_code == 3
    assert list(home.iterdir()) == []


def test_a_schema_that_is_behind_is_a_warning(sound: Place):
    with sound.connect() as connection:
        connection.execute("DELETE FROM migrations WHERE number = 2")
    code, found = examine(sound)
    assert code == 0
    assert "version 1, the program has" in found["migrations", sound.row.schema]["detail"]


def test_a_schema_that_is_ahead_is_bad(sound: Place):
    with sound.connect() as connection:
        connection.execute(
            "INSERT INTO migrations SELECT 99, 'later', sha256 FROM migrations LIMIT 1"
        )
    assert only(sound, "migrations", sound.row.schema)[0] == 2


def empty_memory(place: Place) -> None:
    (place.settings.memory_dir / "test.memory").write_bytes(b"")


def lost_memory(place: Place) -> None:
    (place.settings.memory_dir / "test.memory").unlink()


def torn_memory(place: Place) -> None:
    (place.settings.memory_dir / "test.memory").write_bytes(os.urandom(1_024))


@pytest.mark.parametrize(
    ("damage", "check"),
    [(empty_memory, "signer"), (lost_memory, "signer"), (torn_memory, "ledger")],
)
def test_a_signers_memory_that_knows_nothing_is_bad(
    sound: Place, damage: Callable[[Place], None], check: str
):
    damage(sound)
    assert only(sound, check, "test")[0] == 4
    lost = damage is lost_memory
    assert (sound.settings.memory_dir / "test.memory").exists() != lost


def alter(place: Place, *statements: str) -> None:
    """Change what is stored as the database's owner can: no trigger fires."""
    with place.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]


def test_a_log_that_contradicts_what_was_signed_is_tampering(sound: Place):
    alter(sound, "UPDATE entries SET leaf = sha256('another') WHERE seq = 2")
    code, found = examine(sound)
    assert code == 1
    assert "another root was signed" in found["signer", "test"]["detail"]


def test_a_log_that_is_behind_what_was_signed_is_bad_but_may_be_an_old_backup(sound: Place):
    last = "(SELECT seq, leaf FROM entries WHERE seq = 2)"
    alter(
        sound,
        "DELETE FROM entries WHERE seq = 3",
        f"UPDATE head SET (seq, leaf) = {last}",
    )
    code, found = examine(sound)
    assert code == 4
    assert "restore the newer database" in found["signer", "test"]["advice"]


def test_evidence_of_a_split_view_is_tampering(sound: Place):
    ledger = sound.open()
    sink = Told()

    def contradict(_due: Due) -> None:
        raise SplitView("another root", evidence={})

    sink.act = contradict
    anchoring_of(sound, ledger, sink).turn()
    code, finding = only(sound, "split view", "test")
    assert code == 1
    assert "split-view-3-told.json" in finding["detail"]


def failing(place: Place, reason: str) -> Ledger:
    (place.settings.home / "hook.secret").write_text("whsec_" + "QUFB" * 10)
    (place.settings.home / "hook.secret").chmod(0o600)
    (place.settings.home / "anchors.toml").write_text(
        '[[sink]]\nname = "hook"\nkind = "webhook"\nurl = "https://a.invalid/?t=s3cret"\n'
        'secret_file = "hook.secret"\n'
    )
    ledger = place.open()
    sink = Told("hook")

    def fail(_due: Due) -> None:
        raise SinkFailed(reason, "as a test wants")

    sink.act = fail
    anchoring_of(place, ledger, sink).turn()
    return ledger


def test_a_sink_that_fails_is_bad_and_its_secrets_are_not_shown(sound: Place):
    failing(sound, "untrusted")
    code, finding = only(sound, "anchor", "test/hook")
    assert code == 4
    assert "untrusted" in finding["detail"]
    assert "root" in finding["advice"]
    done = CliRunner().invoke(main, ["doctor"], env=environment(sound))
    assert "s3cret" not in done.output


def test_a_sink_that_has_nothing_yet_or_is_late_is_a_warning(sound: Place):
    ledger = failing(sound, "untrusted")
    ledger.anchors.recovered("hook")
    code, finding = only(sound, "anchor", "test/hook")
    assert (code, finding["level"]) == (0, "warn")
    alter(sound, "UPDATE anchors SET anchored = now() - interval '2 days'")
    assert ("anchor", "test/directory") not in examine(sound)[1]  # there is nothing newer
    record(ledger, an_event())
    assert "2 d" in examine(sound)[1]["anchor", "test/directory"]["detail"]


def test_a_view_that_is_far_behind_is_a_warning(sound: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("projections.checks.BEHIND", 1)
    code, found = examine(sound)
    assert code == 0
    assert found["view", "test/record_state"]["level"] == "warn"


def test_views_without_tables_are_a_warning(place: Place):
    place.settings.home.chmod(0o755)
    place.close(place.open())
    code, found = examine(place)
    assert code == 0
    assert ("views", "test") in found


def test_a_database_without_ledgers_says_how_to_make_one(database: str, tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir(0o700)
    settings = {"LEDGER_HOME": str(home), "LEDGER_DATABASE_URL": database}
    done = CliRunner().invoke(main, ["doctor", "--json"], env=settings)
    assert done.exit_code == 2
    with psycopg.connect(database) as connection:
        made = connection.execute("SELECT FROM pg_namespace WHERE nspname LIKE 'custody%'")
        assert made.fetchall() == []
