"""Which ledgers and credentials one service knows (schema `custody_control`)."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import psycopg

from ledger.drafts import Emitter
from ledger.errors import Forbidden, Malformed, Misconfigured, NotFound, Unauthenticated
from ledger.events.custom import is_custom_name
from ledger.events.taxonomy import TYPES, Writer
from ledger.postgres.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTROL_SCHEMA = "custody_control"
TRUST_S = 5.0
"""How long an authenticated key is believed before the database is asked again."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SOURCE = re.compile(r"[A-Za-z0-9._:/#-]{1,128}")
_NAMESPACE = re.compile(r"[a-z][a-z0-9_-]{0,31}|\*")
_KEY = re.compile(r"(ck_[a-z2-7]{10})_([A-Za-z0-9_-]{43})")
SQL_DIRECTORY = Path(str(files("ledger.postgres"))) / "sql"
"""Where the numbered files of both schemas are, by kind."""

Role = Literal["emitter", "reader"]


class LedgerRow(NamedTuple):
    """A ledger that the service knows."""

    name: str
    origin: str

    @property
    def schema(self) -> str:
        """The schema that holds everything of this ledger."""
        return f"ledger_{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A key's rights; the key itself is never kept."""

    id: str
    """Public identifier, the key's visible prefix."""
    ledger: str
    """The one ledger it is for."""
    role: Role
    """An emitter writes and never reads; a reader reads and never writes."""
    label: str
    """What people call it."""
    sources: tuple[str, ...]
    """Prefixes of `source`; the first is the default."""
    namespaces: tuple[str, ...]
    """Namespaces of subjects; `*` for any."""
    types: tuple[str, ...]
    """Names of event types; empty for all that services write, their own ones too."""

    def emitter(self) -> Emitter:
        """Give the rights to write.

        Raises:
            Forbidden: this credential is for reading.
        """
        if self.role != "emitter":
            raise Forbidden("this credential is for reading; events need an emitter's")
        return _emitter_of(self)


@lru_cache(maxsize=1024)
def _emitter_of(credential: Credential) -> Emitter:
    return Emitter(
        credential=credential.id,
        by=Writer.SERVICE,
        sources=credential.sources,
        namespaces=credential.namespaces,
        types=frozenset(credential.types),
    )


class Control:
    """The registry of ledgers and credentials."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._trusted: dict[bytes, tuple[float, Credential]] = {}

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._dsn, autocommit=True, connect_timeout=5)

    def migrate(self) -> None:
        """Bring the control schema and every ledger's schema up to date."""
        with self._connect() as connection:
            migrate(connection, schema=CONTROL_SCHEMA, directory=SQL_DIRECTORY / "control")
        for row in self.ledgers():
            self.migrate_ledger(row)

    def migrate_ledger(self, row: LedgerRow) -> None:
        """Bring one ledger's schema up to date."""
        with self._connect() as connection:
            migrate(connection, schema=row.schema, directory=SQL_DIRECTORY / "ledger")

    def ledgers(self) -> list[LedgerRow]:
        """Give every ledger, by name."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT name, origin FROM custody_control.ledgers ORDER BY name"
            )
            return [LedgerRow(*row) for row in rows]

    def add_ledger(self, name: str, origin: str) -> LedgerRow:
        """Enter a ledger and make its schema.

        Raises:
            Malformed: the name is not one.
            Misconfigured: a ledger of this name exists.
        """
        if not _NAME.fullmatch(name):
            raise Malformed("expected a ledger name of 1 to 40 of a-z 0-9 _, a letter first")
        row = LedgerRow(name, origin)
        self.migrate_ledger(row)
        with self._connect() as connection:
            try:
                connection.execute(
                    "INSERT INTO custody_control.ledgers (name, origin) VALUES (%s, %s)", row
                )
            except psycopg.errors.UniqueViolation:
                raise Misconfigured(f"ledger {name}: expected none of this name") from None
        return row

    # -- credentials -----------------------------------------------------------

    def add_credential(
        self,
        *,
        ledger: str,
        role: Role,
        label: str,
        sources: Sequence[str] = (),
        namespaces: Sequence[str] = (),
        types: Sequence[str] = (),
    ) -> tuple[Credential, str]:
        """Draw a key; give its rights and, this once, the key.

        Raises:
            Malformed: a source, namespace or type is not one.
        """
        if role == "emitter":
            _check_rights(sources, namespaces, types)
        letters = "abcdefghijklmnopqrstuvwxyz234567"
        credential = Credential(
            id="ck_" + "".join(secrets.choice(letters) for _ in range(10)),
            ledger=ledger,
            role=role,
            label=label,
            sources=tuple(sources),
            namespaces=tuple(namespaces),
            types=tuple(types),
        )
        key = f"{credential.id}_{secrets.token_urlsafe(32)}"
        with self._connect() as connection:
            connection.execute(
                "INSERT INTO custody_control.credentials"
                " (id, ledger, role, label, hash, sources, namespaces, types)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    credential.id,
                    ledger,
                    role,
                    label,
                    _hash(key),
                    list(sources),
                    list(namespaces),
                    list(types),
                ),
            )
        return credential, key

    def credentials(self, ledger: str) -> list[dict[str, Any]]:
        """Give every credential of a ledger, without its hash."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT id, role, label, sources, namespaces, types, created, revoked"
                " FROM custody_control.credentials WHERE ledger = %s ORDER BY created, id",
                (ledger,),
            )
            names = ("id", "role", "label", "sources", "namespaces", "types", "created", "revoked")
            return [dict(zip(names, row, strict=True)) for row in rows]

    def revoke(self, ledger: str, credential_id: str) -> None:
        """End a credential; it is refused everywhere within `TRUST_S`.

        Raises:
            NotFound: there is no such living credential.
        """
        with self._connect() as connection:
            done = connection.execute(
                "UPDATE custody_control.credentials SET revoked = now()"
                " WHERE ledger = %s AND id = %s AND revoked IS NULL",
                (ledger, credential_id),
            )
            if not done.rowcount:
                raise NotFound("expected a living credential of this ledger")
        self._trusted.clear()

    def trusted(self, key: str) -> Credential | None:
        """Give a credential that was checked a moment ago, without asking the database."""
        digest = _hash(key)
        found = self._trusted.get(digest)
        if found is not None and found[0] > time.monotonic():
            return found[1]
        return None

    def authenticate(self, key: str) -> Credential:
        """Give the credential of a key.

        Raises:
            Unauthenticated: there is no such key, or it was revoked.
        """
        match = _KEY.fullmatch(key)
        if match is None:
            raise Unauthenticated("expected a key of the form ck_…")
        with self._connect() as connection:
            row = connection.execute(
                "SELECT hash, revoked, id, ledger, role, label, sources, namespaces, types"
                " FROM custody_control.credentials WHERE id = %s",
                (match[1],),
            ).fetchone()
        digest = _hash(key)
        if row is None or not hmac.compare_digest(row[0], digest) or row[1] is not None:
            raise Unauthenticated("expected a valid key that was not revoked")
        credential = Credential(
            id=row[2],
            ledger=row[3],
            role=row[4],
            label=row[5],
            sources=tuple(row[6]),
            namespaces=tuple(row[7]),
            types=tuple(row[8]),
        )
        if len(self._trusted) > 10_000:
            self._trusted.clear()
        self._trusted[digest] = (time.monotonic() + TRUST_S, credential)
        return credential


def _hash(key: str) -> bytes:
    """Hash a key of 256 random bits; nothing slower is needed against guessing."""
    return hashlib.sha256(key.encode()).digest()


def _check_rights(sources: Sequence[str], namespaces: Sequence[str], types: Sequence[str]) -> None:
    if not sources:
        raise Malformed("an emitter needs at least one source; the first is its default")
    if not all(map(_SOURCE.fullmatch, sources)):
        raise Malformed("expected sources of 1 to 128 of A-Z a-z 0-9 . _ : / # -")
    if not all(map(_NAMESPACE.fullmatch, namespaces)):
        raise Malformed("expected namespaces of a-z 0-9 _ -, or *")
    for name in types:
        own = name in TYPES and Writer.SERVICE in TYPES[name].writers
        if not own and not is_custom_name(name):
            raise Malformed(
                "expected types that services may write, such as record.accessed, "
                "or their own under a reverse-DNS name"
            )
