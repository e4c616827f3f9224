"""Hand out evidence that verifies without anything of ours running."""

from __future__ import annotations

import asyncio
import threading
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO
from uuid import UUID  # noqa: TC003 - schemas are built from it

from fastapi import APIRouter, Request, Response
from pydantic import Field, model_validator
from starlette.requests import ClientDisconnect

from api.access import Reader  # noqa: TC001 - routes are built from it
from api.answers import body_of, problems
from api.body import small_body
from api.expectations import parse_body
from api.pages import MAX_SEQ
from api.reading import NO_STORE, record_reading
from api.schemas import Question
from ledger.errors import NotFound, Unavailable
from projections.exports.bundle import READING, Exported, export
from projections.exports.scopes import WholeRange, WholeRecord

if TYPE_CHECKING:
    from starlette.types import Receive, Send
    from starlette.types import Scope as HttpScope

    from api.access import Access
    from projections.exports.scopes import Scope

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["exports"])

ZIP = "application/zip"
READ_SEQ_HEADER = "Custody-Read-Seq"
PIECE_BYTES = 256 * 1024
MAX_AT_ONCE = 2
"""Bundles made at the same time: each keeps a thread and the database busy."""

_turns = threading.BoundedSemaphore(MAX_AT_ONCE)
_Position = Annotated[int, Field(ge=1, le=MAX_SEQ)]


class ExportQuestion(Question):
    """What to export: one whole record, or one whole range. Subjects never stand in a URL."""

    record: UUID | None = None
    subject: str | None = Field(default=None, min_length=3, max_length=256)
    from_: _Position | None = Field(default=None, alias="from", description="First position.")
    to: _Position | None = Field(default=None, description="Last position.")

    @model_validator(mode="after")
    def _name_one_thing(self) -> ExportQuestion:
        ends = (self.from_, self.to)
        if sum((self.record is not None, self.subject is not None, ends != (None, None))) != 1:
            raise ValueError("expected one of: record; subject; from and to")
        if (self.from_ is None) != (self.to is None) or (self.from_ or 0) > (self.to or 0):
            raise ValueError("expected from and to, from not after to")
        return self


@router.post(
    "/exports",
    summary="An evidence bundle of a record or a range",
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
    openapi_extra=body_of(ExportQuestion.model_json_schema()),
)
async def make_export(request: Request, access: Reader) -> Response:
    """Give a bundle: every entry of a record or a range, the accesses among them, and proofs.

    It speaks as of the newest checkpoint, and the entry that tells of this export comes
    after that. `python verify_chain.py BUNDLE.zip --key KEY` verifies it.
    """
    question = parse_body(ExportQuestion, await small_body(request, access.service.bodies))
    try:
        file, exported = await asyncio.to_thread(_make, access, question)
    except NotFound:
        asked = question.model_dump(mode="json", by_alias=True, exclude={"subject"})
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
    if question.from_ is not None and question.to is not None:
        return WholeRange(first=question.from_, last=question.to)
    record = question.record
    if question.subject is not None:
        record = access.open.ledger.find_record(question.subject)
    if record is None:
        raise NotFound("expected a subject that this ledger has met", pointer="/subject")
    return WholeRecord(record=record)


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
