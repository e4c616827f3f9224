"""Take events in: the one hot path."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from api.access import enter
from api.answers import body_of, json_of, problems, reference
from api.body import check_json, first_piece
from api.direct import DirectRoute
from api.problems import problem_of
from ledger.errors import LedgerError
from ledger.service import MAX_BODY_BYTES

if TYPE_CHECKING:
    from api.access import Access
    from ledger.drafts import Emitter

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["events"], route_class=DirectRoute)

_ONE_OR_MANY = {
    "oneOf": [
        reference("Event"),
        {"type": "array", "items": reference("Event"), "maxItems": 10_000},
    ]
}
_RECEIPT = {"oneOf": [reference("Receipt"), reference("Receipts")]}


def _receipt(meaning: str) -> dict[str, object]:
    declared = json_of("", meaning)
    declared["content"]["application/json"]["schema"] = _RECEIPT
    return declared


@router.post(
    "/events",
    summary="Record one event, or an array of events, all or none",
    response_class=Response,
    status_code=201,
    responses={
        201: _receipt("Recorded: durable, sequenced, chained."),
        200: _receipt("Every event was recorded before, with this content."),
        **problems(400, 401, 403, 404, 409, 413, 415, 422, 503),
    },
    openapi_extra=body_of(_ONE_OR_MANY),
)
async def post_events(request: Request) -> Response:
    """Record events. Safe to repeat: an event is known by its `source` and `id`, for ever.

    Nothing is answered before the entries are durable, and nothing is recorded if
    one event of an array is refused. Limits: a body of 64 MiB, 10,000 entries, 65,535
    bytes for an entry.
    """
    access = await enter(request)
    try:
        emitter = access.credential.emitter()
        check_json(request.scope["headers"], MAX_BODY_BYTES)
        first = await first_piece(request, MAX_BODY_BYTES)
        if not first.more:
            return await _ingest(access, emitter, first.body)
        async with access.service.bodies.whole(request, first, MAX_BODY_BYTES) as body:
            return await _ingest(access, emitter, body)
    except LedgerError as error:
        access.service.metrics.refuse(access.open.ledger.name, problem_of(error).slug)
        raise


async def _ingest(access: Access, emitter: Emitter, body: bytes) -> Response:
    started = time.perf_counter()
    ledger = access.open.ledger
    status, receipt = await ledger.ingest(body, emitter)
    access.service.metrics.recorded(
        ledger.name, emitter.sources[0], receipt, time.perf_counter() - started
    )
    return Response(receipt, status, media_type="application/json")
