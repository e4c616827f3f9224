"""Pseudonyms and keys of subjects, staff and streams (FORMAT.md 4.4, 4.6, 4.7).

A name is found by a keyed look-up; its pseudonym and its key stand wrapped under
an epoch's key in rows that can be deleted.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple
from uuid import UUID, uuid4

from ledger.core.disclosure import (
    KEY_BYTES,
    NONCE_BYTES,
    open_box,
    pseudonym,
    read_disclosure,
    seal_box,
    staff_disclosure,
    unwrap,
    wrap,
)
from ledger.errors import CannotVerify

if TYPE_CHECKING:
    from ledger.keys.keyring import Keyring


class Name(NamedTuple):
    """Somebody in clear: only in memory, never in an entry."""

    kind: Literal["record", "staff"]
    clear: str


def record_name(subject: str) -> Name:
    """Name a data subject."""
    return Name("record", subject)


def staff_name(name: str) -> Name:
    """Name a member of staff."""
    return Name("staff", name)


@dataclass(slots=True, kw_only=True, eq=False)
class Identity:
    """A pseudonym with its key."""

    id: UUID
    """Pseudonym of staff, or the UUID of a record or stream."""
    text: bytes
    """The same as text, as it stands in entries."""
    key: bytes
    """K: 32 bytes that seal what belongs to it."""


class IdentityRow(NamedTuple):
    """A row of `identities`: from a look-up to a wrapped pseudonym."""

    lookup: bytes
    epoch: int
    wrapped: bytes


class KeyRow(NamedTuple):
    """A row of `keys`: from a pseudonym to its wrapped key, and a sealed name for staff."""

    id: UUID
    epoch: int
    wrapped: bytes
    name_box: bytes | None


class Wrapping:
    """Makes and opens the rows of one ledger's identities and keys."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def lookup(self, name: Name) -> bytes:
        """Give the keyed look-up of a name (FORMAT.md 4.6, 4.7)."""
        message = name.kind.encode() + b"\0" + name.clear.encode()
        return hmac.digest(self._keyring.lookup, message, "sha256")

    def new(self, name: Name) -> tuple[Identity, IdentityRow, KeyRow]:
        """Give a name its pseudonym and key, with the rows that keep them."""
        key = os.urandom(KEY_BYTES)
        box = None
        if name.kind == "record":
            identity_id = uuid4()
        else:
            disclosure = staff_disclosure(key, name.clear)
            identity_id = pseudonym(disclosure)
            box = seal_box(key, b"staff", identity_id.bytes, [disclosure], os.urandom(NONCE_BYTES))
        lookup = self.lookup(name)
        epoch = self._keyring.epoch
        kek = self._keyring.epochs[epoch]
        row = wrap(kek, _lookup_binding(lookup), identity_id.bytes, os.urandom(NONCE_BYTES))
        identity = _identity(identity_id, key)
        return identity, IdentityRow(lookup, epoch, row), self.key_row(identity, box)

    def key_row(self, identity: Identity, name_box: bytes | None = None) -> KeyRow:
        """Give the row that keeps an identity's key."""
        epoch = self._keyring.epoch
        wrapped = wrap(
            self._keyring.epochs[epoch],
            _key_binding(identity.id),
            identity.key,
            os.urandom(NONCE_BYTES),
        )
        return KeyRow(identity.id, epoch, wrapped, name_box)

    def stream(self, stream_id: UUID) -> tuple[Identity, KeyRow]:
        """Give a stream without subject its key, with the row that keeps it."""
        identity = _identity(stream_id, os.urandom(KEY_BYTES))
        return identity, self.key_row(identity)

    def open_identity(self, row: IdentityRow) -> UUID:
        """Give the pseudonym that a look-up leads to."""
        return UUID(bytes=unwrap(self._kek(row.epoch), _lookup_binding(row.lookup), row.wrapped))

    def open_key(self, row: KeyRow) -> Identity:
        """Give an identity back with its key."""
        return _identity(row.id, unwrap(self._kek(row.epoch), _key_binding(row.id), row.wrapped))

    def open_name(self, row: KeyRow) -> str | None:
        """Give the name behind a member of staff's pseudonym; None where none is kept."""
        if row.name_box is None:
            return None
        identity = self.open_key(row)
        disclosure = open_box(identity.key, b"staff", row.id.bytes, row.name_box)[0]
        return str(read_disclosure(disclosure)[1])

    def _kek(self, epoch: int) -> bytes:
        try:
            return self._keyring.epochs[epoch]
        except KeyError:
            raise CannotVerify(f"epoch key {epoch}: expected in the key file, absent") from None


def _identity(identity_id: UUID, key: bytes) -> Identity:
    return Identity(id=identity_id, text=str(identity_id).encode(), key=key)


def _lookup_binding(lookup: bytes) -> bytes:
    return b"ledger/lookup/v1" + lookup


def _key_binding(identity_id: UUID) -> bytes:
    return b"ledger/key/v1" + identity_id.bytes
