from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from eventsourcing.persistence import StoredEvent

from ledger.keys.keyring import load_keyring
from tests.fixtures.ledgers import an_event, prepare, record
from tests.fixtures.postgres import create_database

if TYPE_CHECKING:
    from ledger.postgres.embedded import EmbeddedPostgres

VERIFIER = Path(__file__).resolve().parents[2] / "scripts" / "verify_chain.py"
ENTRIES = 700
"""Enough for two stored tree nodes and a right edge."""


@dataclass(kw_only=True)
class Victim:
    """A ledger's database, with what an auditor holds outside it."""

    dsn: str
    schema: str
    key: str
    checkpoint: Path
    keyring: Path
    seed: bytes
    origin: str
    evidence: Path

    def connect(self) -> psycopg.Connection[Any]:
        """Connect as an owner whose session has switched triggers off."""
        connection = psycopg.connect(self.dsn, autocommit=True)
        connection.execute(f"SET search_path TO {self.schema}")
        connection.execute("SET session_replication_role = replica")
        return connection

    def verify(self, *more: str, key: bool = True, checkpoint: bool = True) -> dict[str, Any]:
        """Run the verifier as an auditor would; give its verdict."""
        command = [sys.executable, str(VERIFIER), "--database", self.dsn, "--schema", self.schema]
        command += ["--json", "--evidence", str(self.evidence)]
        command += ["--key", self.key] if key else []
        command += ["--checkpoint", str(self.checkpoint)] if checkpoint else []
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        verdict: dict[str, Any] = json.loads(done.stdout)
        assert verdict["exit_code"] == done.returncode
        return verdict


@pytest.fixture(scope="session")
def original(
    cluster: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Victim]:
    """Record a log once, close it, and keep its checkpoint outside."""
    home = tmp_path_factory.mktemp("victim")
    dsn = create_database(cluster)
    place = prepare(dsn, home / "home")
    ledger = place.open()
    for first in range(0, ENTRIES, 100):
        events = [
            an_event(
                subject=f"crm:C-{(first + n) % 40}",
                data={
                    "actor": {"id": f"e{n % 7}"},
                    "fields": ["phone"],
                    "note": f"call number {first + n}",
                },
            )
            for n in range(100)
        ]
        record(ledger, *events)
    from uuid import uuid4

    ledger.recorder.insert_events([StoredEvent(uuid4(), 1, "topic", b'{"a":1}')])
    size, note = ledger.checkpoint()
    place.close(ledger)
    checkpoint = home / "outside.checkpoint"
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            f"SELECT note FROM {place.row.schema}.checkpoints ORDER BY size DESC LIMIT 1"
        ).fetchone()
    checkpoint.write_text(row[0] if row else note)
    assert size > ENTRIES
    keyring_path = place.settings.keys_dir / "test.json"
    keyring = load_keyring(keyring_path)
    name = str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])
    return name, Victim(
        dsn=dsn,
        schema=place.row.schema,
        key=keyring.verifier_key(),
        checkpoint=checkpoint,
        keyring=keyring_path,
        seed=keyring.signing,
        origin=keyring.origin,
        evidence=home / "evidence.json",
    )


@pytest.fixture
def victim(original: tuple[str, Victim], cluster: EmbeddedPostgres, tmp_path: Path) -> Victim:
    """Give a copy of the log that a test may attack."""
    template, whole = original
    return Victim(
        dsn=create_database(cluster, template=template),
        schema=whole.schema,
        key=whole.key,
        checkpoint=whole.checkpoint,
        keyring=whole.keyring,
        seed=whole.seed,
        origin=whole.origin,
        evidence=tmp_path / "evidence.json",
    )


Attack = Callable[[psycopg.Connection[Any]], None]
