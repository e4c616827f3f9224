"""Prove that nothing was altered, alter one byte as the database's owner, and be caught."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Identifier

from ledger.database import open_database
from ledger.errors import CannotVerify, NotFound, TamperDetected, Unavailable
from scripts.demo_ledger import story

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger.config import Settings

VERIFIER = Path(__file__).resolve().parents[1] / "verify_chain.py"
VERIFIED, TAMPERED = 0, 1

SELECT_ENTRY = SQL("SELECT entry FROM {}.entries WHERE seq = %s")
UPDATE_BYTE = SQL("UPDATE {}.entries SET entry = set_byte(entry, %s, %s) WHERE seq = %s")
_MEMBER = b'"time":"'
_MINUTE = 15
"""Place of the minute's last digit in a time, where any digit may stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What verification on this machine needs."""

    settings: Settings
    """Where database and pinned keys are."""
    ledger: str
    """Name of the ledger."""
    folder: Path
    """Where checkpoint, bundle and evidence are kept."""
    checkpoint: Path
    """The checkpoint that came with the receipts: held by the emitter, outside the database."""

    @property
    def pin(self) -> Path:
        """The verifier key that this machine noted when the ledger was made."""
        return self.settings.home / "pins" / f"{self.ledger}.vkey"


def verify_bundle(proof: Proof, bundle: Path) -> None:
    """Run the verifier on a bundle with the pinned key.

    Raises:
        TamperDetected: it found something.
        CannotVerify: it did not reach a verdict.
    """
    arguments = [str(bundle), "--pin", str(proof.pin)]
    story.by_hand(story.shown([".venv/bin/python", "scripts/verify_chain.py", *arguments]))
    _expect(
        _run([sys.executable, str(VERIFIER), *arguments], proof.folder, proof.settings), VERIFIED
    )


def verify_ledger(proof: Proof, wanted: int = VERIFIED) -> str:
    """Run `custody verify`; give its words. Raises as `verify_bundle` does."""
    arguments = ["verify", proof.ledger, "--checkpoint", str(proof.checkpoint)]
    story.by_hand(story.shown(["scripts/custody", *arguments]))
    done = _run([sys.executable, "-m", "ledger.cli", *arguments], proof.folder, proof.settings)
    _expect(done, wanted)
    return done.stdout


def draw_key(settings: Settings, ledger: str, path: Path, rights: list[str]) -> None:
    """Make an emitter's credential with `custody credentials create`.

    Raises:
        Unavailable: it could not be made.
    """
    arguments = ["credentials", "create", ledger, "--role", "emitter"]
    arguments += ["--label", "demonstration", *rights, "--out", str(path)]
    story.by_hand(story.shown(["scripts/custody", *arguments]))
    done = _run([sys.executable, "-m", "ledger.cli", *arguments], settings.home, settings)
    if done.returncode != 0:
        raise Unavailable("the credential could not be made")


def _run(command: list[str], folder: Path, settings: Settings) -> subprocess.CompletedProcess[str]:
    # In the folder: a verifier that finds something writes its evidence where it stands.
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "LEDGER_HOME": str(settings.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    story.quote(done.stdout + done.stderr)
    story.say(f"exit code {done.returncode}")
    return done


def _expect(done: subprocess.CompletedProcess[str], wanted: int) -> None:
    if done.returncode == wanted:
        return
    if done.returncode == TAMPERED:
        raise TamperDetected("the verifier found tampering that this demonstration did not make")
    raise CannotVerify(f"verifier: expected exit code {wanted}, found {done.returncode}")


def attack(proof: Proof, seq: int) -> None:
    """Change one byte of an entry, expect to be caught by name, and put the byte back.

    Raises:
        CannotVerify: the verifier did not notice, or did not name the entry.
        Unavailable: this user of the database may not switch triggers off.
    """
    with _altered(proof, seq):
        words = verify_ledger(proof, TAMPERED)
        if f"entry {seq}:" not in words:
            raise CannotVerify(f"verifier: expected it to name entry {seq}")
        story.say(f"Caught: one byte of entry {seq}, named.")


@contextmanager
def _altered(proof: Proof, seq: int) -> Iterator[None]:
    with open_database(proof.settings) as dsn, psycopg.connect(dsn, autocommit=True) as owner:
        entry = _entry(owner, proof, seq)
        at = entry.find(_MEMBER) + len(_MEMBER) + _MINUTE
        if _MEMBER not in entry or not entry[at : at + 1].isdigit():
            raise NotFound(f"entry {seq}: expected an event with a time")
        true, false = entry[at], entry[at] ^ 1
        said = entry[at - _MINUTE : at].decode()
        story.say(f"Entry {seq} says {said}{chr(true)}. From now on it says {said}{chr(false)}.")
        story.by_hand(_update_by_hand(proof.ledger, at=at, byte=false, seq=seq))
        try:
            _set_byte(owner, proof, at=at, byte=false, seq=seq)
            yield
        finally:
            _set_byte(owner, proof, at=at, byte=true, seq=seq)
            if _entry(owner, proof, seq) != entry:
                raise CannotVerify(f"entry {seq}: expected byte {at} to be {true} again")
            story.say("The byte is back.")


def _update_by_hand(ledger: str, *, at: int, byte: int, seq: int) -> str:
    change = UPDATE_BYTE.format(SQL(f"ledger_{ledger}")).as_string()
    statement = change.replace("%s", "{}").format(at, byte, seq)
    return f'psql -c "SET session_replication_role = replica; {statement}"'


def _schema(proof: Proof) -> Identifier:
    return Identifier(f"ledger_{proof.ledger}")


def _entry(owner: psycopg.Connection[Any], proof: Proof, seq: int) -> bytes:
    row = owner.execute(SELECT_ENTRY.format(_schema(proof)), (seq,)).fetchone()
    if row is None:
        raise NotFound(f"entry {seq}: expected one in this database")
    return bytes(row[0])


def _set_byte(
    owner: psycopg.Connection[Any], proof: Proof, *, at: int, byte: int, seq: int
) -> None:
    try:
        owner.execute("SET session_replication_role = replica")
    except psycopg.errors.InsufficientPrivilege as error:
        raise Unavailable(
            "this user of the database may not switch triggers off; use --no-attack"
        ) from error
    owner.execute(UPDATE_BYTE.format(_schema(proof)), (at, byte, seq))
