"""Settings, read from the environment once, in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. README.md has the same table; a test compares them."""

    home: Path
    """LEDGER_HOME: where keys, signer's memory, anchors and the embedded database live."""
    database_url: str | None
    """LEDGER_DATABASE_URL: a PostgreSQL server; empty means the embedded one."""
    pg_bin: Path | None
    """LEDGER_PG_BIN: directory of PostgreSQL's programs for the embedded database."""
    host: str
    """LEDGER_HOST: address the service listens on."""
    port: int
    """LEDGER_PORT: port the service listens on."""
    anchor_dir: Path
    """LEDGER_ANCHOR_DIR: directory that gets a file for each anchored checkpoint."""
    anchor_interval_s: float
    """LEDGER_ANCHOR_INTERVAL_S: least seconds between anchored checkpoints; 0 turns it off."""
    anchors_file: Path | None = None
    """LEDGER_ANCHORS: TOML file that names the places outside that take checkpoints."""

    types_file: Path | None = None
    """LEDGER_TYPES: TOML file that registers emitters' own event types."""
    open_tiles: bool = False
    """LEDGER_OPEN_TILES: whether checkpoint and tiles of hashes need no credential."""

    @property
    def keys_dir(self) -> Path:
        """Directory of key files."""
        return self.home / "keys"

    @property
    def memory_dir(self) -> Path:
        """Directory of signers' memories, outside the database on purpose."""
        return self.home / "signer"

    @property
    def evidence_dir(self) -> Path:
        """Directory of what proves that somebody holds another history of a ledger."""
        return self.home / "evidence"

    @property
    def postgres_home(self) -> Path:
        """Directory of the embedded database."""
        return self.home / "postgres"


VARIABLES = {
    "LEDGER_HOME": "directory of keys, signer's memory, anchors and the embedded database"
    " (~/.local/share/custody-ledger; for root /var/lib/custody-ledger)",
    "LEDGER_DATABASE_URL": "a PostgreSQL server (15 or newer) instead of the embedded database",
    "LEDGER_PG_BIN": "directory of PostgreSQL's programs for the embedded database",
    "LEDGER_HOST": "address the service listens on (127.0.0.1)",
    "LEDGER_PORT": "port the service listens on (8420)",
    "LEDGER_ANCHOR_DIR": "directory that gets a file for each anchored checkpoint (HOME/anchors)",
    "LEDGER_ANCHOR_INTERVAL_S": "least seconds between anchored checkpoints (60); 0 turns it off",
    "LEDGER_ANCHORS": "TOML file that names the places outside that take checkpoints"
    " (HOME/anchors.toml; without that file the directory only)",
    "LEDGER_OPEN_TILES": "1 gives checkpoint, tiles of hashes and consistency proofs to anybody,"
    " without a key (0); entries never",
    "LEDGER_TYPES": "TOML file that registers emitters' own event types, with labels and with the"
    " members that stand in clear; without one their data is sealed whole",
    "LEDGER_KEY_FILE": "file with the key that `custody emit` and `custody show` send"
    " (HOME/credentials/LEDGER.emitter and LEDGER.reader)",
}
"""Every variable the product reads, with its meaning and default."""


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read settings from the environment.

    Raises:
        Misconfigured: a value is not what its setting needs.
    """
    env = os.environ if environment is None else environment
    home = Path(env.get("LEDGER_HOME") or _default_home()).absolute()
    pg_bin = env.get("LEDGER_PG_BIN")
    return Settings(
        home=home,
        database_url=env.get("LEDGER_DATABASE_URL") or None,
        pg_bin=Path(pg_bin) if pg_bin else None,
        host=env.get("LEDGER_HOST") or "127.0.0.1",
        port=int(_number(env, "LEDGER_PORT", "8420")),
        anchor_dir=Path(env.get("LEDGER_ANCHOR_DIR") or home / "anchors").absolute(),
        anchor_interval_s=_number(env, "LEDGER_ANCHOR_INTERVAL_S", "60"),
        anchors_file=_file(env.get("LEDGER_ANCHORS")),
        open_tiles=_flag(env, "LEDGER_OPEN_TILES"),
        types_file=_file(env.get("LEDGER_TYPES")),
    )


def _default_home() -> Path:
    """Give a place that the embedded server, which is never root, can enter."""
    if os.geteuid() == 0:
        return Path("/var/lib/custody-ledger")
    return Path.home() / ".local" / "share" / "custody-ledger"


def _file(name: str | None) -> Path | None:
    return Path(name).absolute() if name else None


def _flag(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name) or "0"
    if text not in {"0", "1"}:
        raise Misconfigured(f"{name}: expected 0 or 1")
    return text == "1"


def _number(env: Mapping[str, str], name: str, default: str) -> float:
    text = env.get(name) or default
    try:
        number = float(text)
    except ValueError:
        raise Misconfigured(f"{name}: expected a number") from None
    if not 0 <= number <= 86_400:
        raise Misconfigured(f"{name}: expected a number from 0 to 86400")
    return number
