"""Hand out evidence that verifies without anything of ours running."""

from __future__ import annotations

import asyncio
import threading
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from api.access import Reader  # noqa: TC001 - routes are built from it
from api.answers import body_of, problems, reference
from api.body import small_body
from api.expectations import parse_body, parse_time
from api.reading import NO_STORE, record_reading
from api.schemas_evidence import ExportQuestion
from ledger.errors import Malformed, NotFound, Unavailable
from projections.exports.bundle import READING, Exported, export
from projections.exports.chosen import AccessFilter, ChosenAccesses
from projections.exports.scopes import WholeRange, WholeRecord

if TYPE_CHECKING:
    from datetime import datetime

    from starlette.types import Receive, Send
    from starlette.types import Scope as HttpScope

    from api.access import Access
    from api.schemas_evidence import AccessesWanted
    from ledger.service import Ledger
    from projections.exports.scopes import Scope

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["exports"])

ZIP = "application/zip"
READ_SEQ_HEADER = "Custody-Read-Seq"
PIECE_BYTES = 256 * 1024
MAX_AT_ONCE = 2
"""Bundles made at the same time: each keeps a thread and the database busy."""

_FIRST_YEAR, _LAST_YEAR = 1900, 2999

_turns = threading.BoundedSemaphore(MAX_AT_ONCE)


@router.post(
    "/exports",
    summary="An evidence bundle of a record, a range, or accesses",
    response_class=Response,
    responses={
        200: {
            "description": "A zip with everything that its verification needs (FORMAT.md 7).",
            "content": {ZIP: {"schema": {"type": "string", "format": "binary"}}},
            "headers": {
                "Content-Disposition": {
                    "description": "A file name that tells nothing of any subject.",
                    "schema": {"type": "string"},
                },
                READ_SEQ_HEADER: {
                    "description": "Position of the entry that tells of this export.",
                    "schema": {"type": "integer"},
                },
            },
        },
        **problems(400, 401, 403, 404, 413, 415, 422, 503),
    },
    openapi_extra=body_of(reference("ExportQuestion")),
)
async def make_export(request: Request, access: Reader) -> Response:
    """Give a bundle: every entry of a record or a range, or accesses alone, and proofs.

    Of a record and a range it is proved that nothing is missing; of accesses it is asserted,
    until somebody replays the range (`custody attest`).

    It speaks as of the newest checkpoint, and the entry that tells of this export comes
    after that. `python verify_chain.py BUNDLE.zip --key KEY` verifies it.
    """
    question = parse_body(ExportQuestion, await small_body(request, access.service.bodies))
    try:
        file, exported = await asyncio.to_thread(_make, access, question)
    except NotFound:
        people: Any = {"subject": True, "accesses": {"subject", "actor"}}
        asked = question.model_dump(mode="json", by_alias=True, exclude=people, exclude_none=True)
        await record_reading(access, READING, asked, rows=0)
        raise
    return FileAnswer(file, exported)


def _make(access: Access, question: ExportQuestion) -> tuple[BinaryIO, Exported]:
    """Write the bundle to a file that is gone when it is closed."""
    if not _turns.acquire(blocking=False):
        raise Unavailable("other exports are being made", retry_after_s=5)
    try:
        scope = _scope(access, question)
        file: BinaryIO = TemporaryFile()  # noqa: SIM115 - outlives this
        try:
            opened, reader = access.open, access.credential.id
            exported = export(opened.ledger, opened.views.reader, scope, file, reader=reader)
        except BaseException:
            file.close()
            raise
        return file, exported
    finally:
        _turns.release()


def _scope(access: Access, question: ExportQuestion) -> Scope:
    if question.accesses is not None:
        wanted = _filter(access.open.ledger, question.accesses)
        return ChosenAccesses(filter=wanted, first=question.from_ or 1, last=question.to)
    if question.from_ is not None and question.to is not None:
        return WholeRange(first=question.from_, last=question.to)
    record = question.record
    if question.subject is not None:
        record = access.open.ledger.find_record(question.subject)
    if record is None:
        raise NotFound("expected a subject that this ledger has met", pointer="/subject")
    return WholeRecord(record=record)


def _filter(ledger: Ledger, wanted: AccessesWanted) -> AccessFilter:
    """Put pseudonyms in the place of people; somebody never met has none to filter by."""
    record, actor = wanted.record, wanted.actor_pseudonym
    if wanted.subject is not None and (record := ledger.find_record(wanted.subject)) is None:
        detail = "expected a subject that this ledger has met"
        raise NotFound(detail, pointer="/accesses/subject")
    if wanted.actor is not None and (actor := ledger.find_staff(wanted.actor)) is None:
        detail = "expected somebody whom this ledger has met"
        raise NotFound(detail, pointer="/accesses/actor")
    return AccessFilter(
        record=record,
        actor=actor,
        type=wanted.type,
        from_time=_time(wanted.from_time, "/accesses/from_time"),
        to_time=_time(wanted.to_time, "/accesses/to_time"),
    )


def _time(text: str | None, pointer: str) -> datetime | None:
    moment = parse_time(text, pointer)
    if moment is not None and not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        detail = f"expected a year from {_FIRST_YEAR} to {_LAST_YEAR}, as events have it"
        raise Malformed(detail, pointer=pointer)
    return moment


class FileAnswer(Response):
    """Sends a file, piece by piece, and closes it however that ends."""

    def __init__(self, file: BinaryIO, exported: Exported) -> None:
        size_bytes = file.seek(0, 2)
        super().__init__(
            None,
            200,
            {
                **NO_STORE,
                "Content-Length": str(size_bytes),
                "Content-Disposition": f'attachment; filename="{exported.name}"',
                READ_SEQ_HEADER: str(exported.read_seq),
                "X-Content-Type-Options": "nosniff",
            },
            ZIP,
        )
        self._file = file

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        """Send all of it.

        Raises:
            ClientDisconnect: there is nobody to send it to.
        """
        _ = scope, receive
        with self._file as file:
            start = {"status": self.status_code, "headers": self.raw_headers}
            await _send(send, {"type": "http.response.start", **start})
            file.seek(0)
            more = True
            while more:
                piece = await asyncio.to_thread(file.read, PIECE_BYTES)
                more = len(piece) == PIECE_BYTES
                body = {"body": piece, "more_body": more}
                await _send(send, {"type": "http.response.body", **body})


async def _send(send: Send, message: dict[str, Any]) -> None:
    try:
        await send(message)
    except OSError:  # how the server says that the client went away
        raise ClientDisconnect from None
