"""Tell who asks, and let each credential do what it is for.

Nothing but `/healthz`, `/readyz` and `/verifier.html` answers without a credential, and,
where people have opened them, checkpoint and tiles of hashes. A credential is for
one ledger: of all others it learns nothing, not even whether they exist.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast

import psycopg
from fastapi import Depends, Request

from ledger.control import Credential
from ledger.errors import Forbidden, NotFound, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from api.service import OpenLedger, Service
    from ledger.control import Control

MAX_ASKING = 4
"""Questions about keys that the database gets at the same time."""


class Gate:
    """Gives the credential of a request."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._asking: dict[str, asyncio.Task[Credential]] = {}
        self._turns = asyncio.Semaphore(MAX_ASKING)

    async def credential(self, headers: list[tuple[bytes, bytes]]) -> Credential:
        """Give the credential of the key among a request's headers.

        Raises:
            Unauthenticated: there is no key, or it is not a valid one.
            Unavailable: the database can't say.
        """
        key = bearer_key(headers)
        found = self._control.trusted(key)
        return found if found is not None else await self._ask(key)

    async def _ask(self, key: str) -> Credential:
        """Ask the database once for all who come with the same key at the same time."""
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.create_task(self._authenticate(key))
            self._asking[key] = asking
            asking.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(asking)

    def _forget(self, key: str, done: asyncio.Task[Credential]) -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # looked at, since all who asked may be gone

    async def _authenticate(self, key: str) -> Credential:
        async with self._turns:
            try:
                return await asyncio.to_thread(self._control.authenticate, key)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                raise Unavailable("the database can't be reached") from error


def bearer_key(headers: list[tuple[bytes, bytes]]) -> str:
    """Give the key of `Authorization: Bearer …` (RFC 6750 2.1).

    Raises:
        Unauthenticated: there is no such header.
    """
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip().decode("latin-1")
    raise Unauthenticated("expected a key", hint="send the header Authorization: Bearer ck_…")


def service_of(request: Request) -> Service:
    """Give what the composition root opened."""
    return cast("Service", request.app.state.service)


class Access(NamedTuple):
    """A credential, and the one ledger it opens."""

    credential: Credential
    open: OpenLedger
    service: Service


async def any_credential(request: Request) -> Credential:
    """Let any valid credential in.

    Raises:
        Unauthenticated: there is none.
    """
    return await service_of(request).gate.credential(request.scope["headers"])


async def enter(request: Request) -> Access:
    """Let a credential of the path's ledger in, whatever its role.

    Raises:
        Unauthenticated: there is none.
        NotFound: it is not for this ledger, if there is one of this name.
        Unavailable: the ledger was made after this service started.
    """
    service = service_of(request)
    credential = await service.gate.credential(request.scope["headers"])
    name = request.path_params["ledger"]
    if credential.ledger != name:
        raise NotFound("expected a ledger that this credential is for")
    opened = service.ledgers.get(name)
    if opened is None:
        raise Unavailable("this ledger is not open here yet; the service opens it at its start")
    return Access(credential, opened, service)


async def enter_as_reader(request: Request) -> Access:
    """Let a reader's credential of the path's ledger in.

    Raises:
        Forbidden: the credential is for writing.
    """
    access = await enter(request)
    if access.credential.role != "reader":
        raise Forbidden("this credential is for writing events; reading needs a reader's")
    return access


class Tree(NamedTuple):
    """A ledger's tree, and whether anybody may have it."""

    open: OpenLedger
    public: bool


async def enter_tree(request: Request) -> Tree:
    """Let a credential of the path's ledger to its tree, or anybody where tiles are opened.

    Raises:
        Unauthenticated: there is no credential, and tiles are not opened.
        NotFound: as in `enter`, or there is no such ledger.
        Unavailable: as in `enter`.
    """
    service = service_of(request)
    if not service.settings.open_tiles:
        access = await enter(request)
        return Tree(access.open, public=False)
    opened = service.ledgers.get(request.path_params["ledger"])
    if opened is None:
        raise NotFound("expected a ledger of this service")
    return Tree(opened, public=True)


AnyCredential = Annotated[Credential, Depends(any_credential)]
Member = Annotated[Access, Depends(enter)]
Reader = Annotated[Access, Depends(enter_as_reader)]
OpenTree = Annotated[Tree, Depends(enter_tree)]
