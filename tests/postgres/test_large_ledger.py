"""The ledgers that figures are measured on are as sound as any."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ledger.config import read_settings
from ledger.core.checkpoint import open_checkpoint
from ledger.errors import Conflict
from scripts.benchmarks import filling
from tests.fixtures.ledgers import Place, an_event, assert_ledger_sound, record

VERIFIER = Path(__file__).parents[2] / "scripts" / "verify_chain.py"


@pytest.fixture
def filled(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(filling, "BLOCK", 1_000)
    settings = read_settings({"LEDGER_HOME": str(tmp_path), "LEDGER_ANCHOR_INTERVAL_S": "0"})
    large = filling.fill(database, settings, 3_456, name="test")
    assert large.row.name == "test"
    return Place(dsn=database, settings=settings, row=large.row)


def test_a_filled_ledger_is_sound_signed_to_its_head_and_goes_on(filled: Place):
    ledger = filled.open()
    try:
        size, note = ledger.checkpoint()
        assert size == open_checkpoint(note, ledger.signer.verifier, ledger.origin).size == 3_456
        assert record(ledger, an_event(subject="crm:C-7"))["seq"] == 3_457
        repeated = an_event(id="n-3000", subject="crm:C-7")
        with pytest.raises(Conflict):
            record(ledger, repeated)  # it is known that an entry has this id
    finally:
        filled.close(ledger)
    filled.opened.clear()
    assert assert_ledger_sound(filled) == 3_457


def test_the_verifier_finds_nothing_in_a_filled_ledger(filled: Place, tmp_path: Path):
    ledger = filled.open()
    vkey = ledger.keyring.verifier_key()
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_text(ledger.checkpoint()[1])
    filled.close(ledger)
    command = [sys.executable, VERIFIER, "--database", filled.dsn, "--schema", filled.row.schema]
    command += ["--key", vkey, "--checkpoint", checkpoint]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "3456" in done.stdout
