"""Take events in: the one hot path."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from api.access import enter
from api.answers import json_of, problems, reference
from api.body import first_piece
from api.cloudevents import join_event
from api.direct import DirectRoute
from api.lenient import render_results
from api.media import FORMS, PLAIN, read_headers
from api.problems import problem_of
from ledger.bodies import MAX_BODY_BYTES, Form
from ledger.errors import LedgerError
from ledger.ingest import SMALL_BODY_BYTES, Taken

if TYPE_CHECKING:
    from api.access import Access
    from api.media import Sent
    from ledger.drafts import Emitter

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["events"], route_class=DirectRoute)

_MANY: Final = {"type": "array", "items": reference("Event"), "maxItems": 10_000}
_SCHEMAS: Final[dict[Form, dict[str, Any]]] = {
    Form.JSON: {"oneOf": [reference("Event"), _MANY]},
    Form.EVENT: reference("Event"),
    Form.BATCH: _MANY,
    Form.LINES: {"type": "string", "description": "An event a line; white lines are none."},
}
_BODY: Final = {
    "required": True,
    "content": {media_type: {"schema": _SCHEMAS[form]} for media_type, form in FORMS.items()},
}
_HEADERS: Final = [
    ("Prefer", "`handling=lenient`: judge each event on its own, and answer with `Results`."),
    ("Content-Encoding", "`gzip` or `zstd`: one stream, of at most 64 MiB once expanded."),
    ("ce-specversion", "`1.0`: the body is the data of a CloudEvent, other headers its members."),
]
_PARAMETERS: Final = [
    {"name": name, "in": "header", "description": meaning, "schema": {"type": "string"}}
    for name, meaning in _HEADERS
]
_RECEIPT: Final = {"oneOf": [reference("Receipt"), reference("Receipts"), reference("Results")]}


def _receipt(meaning: str) -> dict[str, object]:
    declared = json_of("", meaning)
    declared["content"]["application/json"]["schema"] = _RECEIPT
    declared["headers"] = {
        "Preference-Applied": {
            "description": "Where events were judged one by one.",
            "schema": {"type": "string"},
        }
    }
    return declared


@router.post(
    "/events",
    summary="Record events, all or none; or each on its own, where that is preferred",
    response_class=Response,
    status_code=201,
    responses={
        201: _receipt("Recorded: durable, sequenced, chained."),
        200: _receipt(
            "Nothing new: every event was recorded before with this content, or refused."
        ),
        **problems(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
    },
    openapi_extra={"requestBody": _BODY, "parameters": _PARAMETERS},
)
async def post_events(request: Request) -> Response:
    """Record events. Safe to repeat: an event is known by its `source` and `id`, for ever.

    A body is an event or an array of events as JSON, a CloudEvent (structured, binary or a
    batch), or an event a line. Nothing is answered before the entries are durable, and nothing
    is recorded if one event of several is refused; the problem's pointer begins with its index.
    With `Prefer: handling=lenient` every other event is recorded, and the answer has a result for
    each. Limits: a body of 64 MiB, 10,000 entries, 65,535 bytes for an entry.
    """
    access = await enter(request)
    try:
        emitter = access.credential.emitter()
        sent = read_headers(request.scope["headers"], MAX_BODY_BYTES)
        first = await first_piece(request, MAX_BODY_BYTES)
        if not first.more and sent.coding is None:
            return await _ingest(access, emitter, first.body, sent)
        bodies = access.service.bodies
        async with bodies.whole(request, first, MAX_BODY_BYTES) as body:
            if sent.coding is None:
                return await _ingest(access, emitter, body, sent)
            async with bodies.expanded(body, sent.coding, MAX_BODY_BYTES) as expanded:
                return await _ingest(access, emitter, expanded, sent)
    except (LedgerError, HTTPException) as error:
        access.service.metrics.refuse(access.open.ledger.name, problem_of(error).slug)
        raise


async def _ingest(access: Access, emitter: Emitter, body: bytes, sent: Sent) -> Response:
    started = time.perf_counter()
    ledger = access.open.ledger
    if sent is not PLAIN:
        if sent.attributes:
            body = await _joined(sent, body)
        if sent.lenient:
            return await _ingest_each(access, emitter, body, sent.form)
    status, receipt = await ledger.ingest(body, emitter, sent.form)
    access.service.metrics.recorded(
        ledger.name, emitter.sources[0], receipt, time.perf_counter() - started
    )
    return Response(receipt, status, media_type="application/json")


async def _joined(sent: Sent, body: bytes) -> bytes:
    if len(body) > SMALL_BODY_BYTES:
        return await asyncio.to_thread(join_event, sent, body)
    return join_event(sent, body)


async def _ingest_each(access: Access, emitter: Emitter, body: bytes, form: Form) -> Response:
    started = time.perf_counter()
    ledger, metrics = access.open.ledger, access.service.metrics
    results = await ledger.ingest_each(body, emitter, form)
    for item in results.items:
        if not isinstance(item, Taken):
            metrics.refuse(ledger.name, problem_of(item).slug)
    response = render_results(results, f"/v1/ledgers/{ledger.name}/checkpoint")
    metrics.recorded(
        ledger.name, emitter.sources[0], bytes(response.body), time.perf_counter() - started
    )
    return response
