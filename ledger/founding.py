"""Make a ledger, and its credentials, so that the log itself tells of both."""

from __future__ import annotations

import os
from concurrent.futures import TimeoutError as TooLate
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ledger.control import LedgerRow
from ledger.errors import LedgerError, Misconfigured, NotFound, Unavailable
from ledger.keys.keyring import load_keyring, make_keyring, save_keyring
from ledger.service import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ledger.config import Settings
    from ledger.control import Control, Credential, Role

ANY_NAMESPACE = "ANY"
"""How an entry writes the right to every namespace; no namespace has capitals."""


class Rights(NamedTuple):
    """What a new credential may do."""

    role: Role
    label: str
    sources: Sequence[str] = ()
    namespaces: Sequence[str] = ()
    types: Sequence[str] = ()


class Office:
    """The place where ledgers and credentials are made: settings, database and registry."""

    def __init__(self, settings: Settings, dsn: str, control: Control) -> None:
        self.settings = settings
        self.control = control
        self._dsn = dsn
        self._opened: Ledger | None = None

    def keys_file(self, name: str) -> Path:
        """Give the place of a ledger's key file."""
        return self.settings.keys_dir / f"{name}.json"

    def pin_file(self, name: str) -> Path:
        """Give the place where this machine remembers a ledger's verifier key."""
        return self.settings.home / "pins" / f"{name}.vkey"

    def ledger(self, name: str) -> LedgerRow:
        """Give a ledger by name.

        Raises:
            NotFound: there is none.
        """
        for row in self.control.ledgers():
            if row.name == name:
                return row
        raise NotFound(f"ledger {name}: expected one of this name; `custody init` makes it")

    def found(self, name: str, origin: str | None = None) -> str:
        """Make keys, schema and entry 1 of a new ledger; give its verifier key.

        Raises:
            Misconfigured: the ledger or its key file exists.
        """
        self.draw_keys(name, origin)
        key = self.prepare(name)
        with self.open(name):
            return key  # opening writes entry 1

    def draw_keys(self, name: str, origin: str | None = None) -> None:
        """Make the key file of a new ledger.

        It comes first: without it nothing that follows could be used, and if it is all that a
        crash leaves, `prepare` goes on from it.

        Raises:
            Misconfigured: the ledger or its key file exists.
        """
        if any(row.name == name for row in self.control.ledgers()):
            raise Misconfigured(f"ledger {name}: expected none of this name")
        save_keyring(self.keys_file(name), make_keyring(origin or default_origin(name)))

    def prepare(self, name: str) -> str:
        """Make what is still missing of a ledger that has its key file; give its verifier key.

        Raises:
            Misconfigured: this machine has seen another verifier key for it before.
        """
        keyring = load_keyring(self.keys_file(name))
        row = LedgerRow(name, keyring.origin)
        if row not in self.control.ledgers():
            self.control.add_ledger(name, keyring.origin)
        return self._pin(name, keyring.verifier_key())

    def _pin(self, name: str, key: str) -> str:
        """Remember a verifier key when it is first seen; give it.

        Raises:
            Misconfigured: another one was seen before.
        """
        pin = self.pin_file(name)
        if not pin.exists():
            pin.parent.mkdir(exist_ok=True)
            pin.write_text(key + "\n", encoding="utf-8")
        if pin.read_text(encoding="utf-8").strip() != key:
            raise Misconfigured(f"{pin}: expected the key of {self.keys_file(name)}, found another")
        return key

    def create_credential(self, ledger: str, rights: Rights) -> tuple[Credential, str]:
        """Draw a key; give its rights and, this once, the key. An entry tells of it.

        A credential whose entry can't be recorded is revoked at once.

        Raises:
            Malformed: a source, namespace or type is not one.
            Unavailable: it could not be recorded.
        """
        with self.open(ledger) as opened:
            credential, key = self.control.add_credential(ledger=ledger, **rights._asdict())
            try:
                _record(opened, credential.id, "created", rights)
            except BaseException:
                self.control.revoke(ledger, credential.id)
                raise
        return credential, key

    def revoke_credential(self, ledger: str, credential_id: str) -> None:
        """End a credential; an entry tells of it.

        Raises:
            NotFound: there is no such living credential.
            Unavailable: it is ended, but that could not be recorded.
        """
        self.ledger(ledger)
        self.control.revoke(ledger, credential_id)
        try:
            with self.open(ledger) as opened:
                _record(opened, credential_id, "revoked")
        except LedgerError as error:
            raise Unavailable(
                f"{credential_id} is revoked, but the entry that tells of it could not be "
                f"recorded: {error}"
            ) from error

    @contextmanager
    def open(self, name: str) -> Iterator[Ledger]:
        """Give a ledger that records; one that is open here already is given again.

        Beside a running service this is a second writer, which the recorder allows for; whoever
        holds the signer's lock signs for both.

        Raises:
            NotFound: there is none of this name.
        """
        if self._opened is not None and self._opened.name == name:
            yield self._opened
            return
        ledger = Ledger(self.ledger(name), self.settings, self._dsn)
        try:
            ledger.start()
            self._opened = ledger
            yield ledger
        finally:
            self._opened = None
            ledger.close()


def default_origin(name: str) -> str:
    """Give an origin that no other ledger has: it ends in 8 random hex digits."""
    return f"custody.local/{name}/{os.urandom(4).hex()}"


def _record(ledger: Ledger, credential_id: str, change: str, rights: Rights | None = None) -> None:
    data: dict[str, object] = {"credential": credential_id, "change": change}
    if rights is not None:
        data["roles"] = [rights.role]
        if rights.sources:
            data["sources"] = list(rights.sources)
        if rights.namespaces:
            names = rights.namespaces
            data["namespaces"] = [ANY_NAMESPACE if name == "*" else name for name in names]
    try:
        ledger.append_own("ledger.credential_changed", data)
    except TooLate:
        raise Unavailable("the ledger did not answer in time") from None
