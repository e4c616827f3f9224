"""Answer questions about one record: which it is, what happened to it, how it stands."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID  # noqa: TC003 - routes are built from it

import msgspec
from fastapi import APIRouter, Query, Request, Response

from api.access import Reader  # noqa: TC001 - routes are built from it
from api.answers import body_of, json_of, problems, reference
from api.body import small_body
from api.expectations import parse_body, parse_time
from api.pages import ENTRY_PAGE, MAX_SEQ, Limit, page_of_entries
from api.reading import NO_STORE, record_reading
from api.schemas import RecordFound, SubjectQuestion
from ledger.errors import Malformed, NotFound
from ledger.service import MAX_PAGE
from projections.recorded import read_entry
from projections.views.record_fold import state_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from api.views import Views
    from ledger.service import EntryRow, Ledger
    from projections.recorded import RecordedEvent
    from projections.views.record_state import RecordState

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["records"])


@router.post(
    "/records/lookup",
    summary="Find the record of a subject",
    response_class=Response,
    responses={
        200: json_of("RecordFound", "Its record."),
        **problems(400, 401, 403, 404, 413, 415, 422, 503),
    },
    openapi_extra=body_of(reference("SubjectQuestion")),
)
async def look_up_record(request: Request, access: Reader) -> Response:
    """Give the record of a subject, which stands in the body and never in a URL."""
    body = await small_body(request, access.service.bodies)
    question = parse_body(SubjectQuestion, body)
    record = await asyncio.to_thread(access.open.ledger.find_record, question.subject)
    query = {"record": None if record is None else str(record)}
    await record_reading(access, "lookup", query, rows=int(record is not None))
    if record is None:
        raise NotFound("expected a subject that this ledger has met", pointer="/subject")
    found = RecordFound(record=record).model_dump_json()
    return Response(found, 200, NO_STORE, "application/json")


@router.get(
    "/records/{record}/entries",
    summary="A record's entries by version",
    response_class=Response,
    responses={200: ENTRY_PAGE, **problems(401, 403, 404, 422, 503)},
)
async def get_record_entries(
    request: Request,
    access: Reader,
    record: UUID,
    *,
    after: Annotated[int, Query(ge=-1, le=MAX_SEQ, description="`next` of the page before")] = -1,
    limit: Limit = 100,
) -> Response:
    """Give a stream's entries after a version, each bound to the one before by `stream_prev`."""
    ledger = access.open.ledger
    rows = await asyncio.to_thread(ledger.stream_entries, record, after, limit + 1)
    if not rows and after < 1:
        raise NotFound("expected a record of this ledger")
    query = {"record": str(record), "after": after}
    if rows:
        await record_reading(access, "record-entries", query, rows=min(len(rows), limit))
    return page_of_entries(request, rows, limit, _version_of)


def _version_of(row: EntryRow) -> int:
    """Read the version; the ledger's members stand first (FORMAT.md 1.3)."""
    start = row.entry.index(b',"version":') + 11
    return int(row.entry[start : row.entry.index(b",", start)])


@router.get(
    "/records/{record}/state",
    summary="How a record stands, or stood",
    response_class=Response,
    responses={200: json_of("StateFound", "Its state."), **problems(401, 403, 404, 422, 503)},
)
async def get_record_state(
    access: Reader,
    record: UUID,
    *,
    seq: Annotated[int | None, Query(ge=1, le=MAX_SEQ, description="as of this position")] = None,
    time: Annotated[str | None, Query(description="as of this time of recording")] = None,
) -> Response:
    """Give a record's state: now from the view, or as of a position or time from its entries.

    Now means the view's `position`, which may lag behind the log by `lag` entries.
    """
    if seq is not None and time is not None:
        raise Malformed("expected seq or time, found both")
    moment = None if time is None else parse_time(time)
    _check_past(access.open.head_seq or 0, seq, moment)
    if seq is None and moment is None:
        state, as_of = await asyncio.to_thread(_state_now, access.open.views, record)
    else:
        stands = await asyncio.to_thread(_fold, access.open.ledger, record, seq, moment)
        state, as_of = stands, {"basis": "entries", "seq": seq, "time": time}
    query = {"record": str(record), "seq": seq, "time": time}
    await record_reading(access, "state", query, rows=int(state is not None))
    if state is None:
        raise NotFound("expected a record of this ledger, met by then")
    document = {"as_of": as_of, "state": state}
    return Response(msgspec.json.encode(document), 200, NO_STORE, "application/json")


def _check_past(head_seq: int, seq: int | None, moment: datetime | None) -> None:
    """Refuse to tell of a future: its answer could still become another."""
    if seq is not None and seq > head_seq:
        raise NotFound("expected a position up to the ledger's head")
    if moment is not None and moment > datetime.now(UTC):
        raise Malformed("expected a time that has passed")


def _state_now(views: Views, record: UUID) -> tuple[RecordState | None, dict[str, Any]]:
    position = views.position("record_state")
    state = views.reader.select_state(record)
    return state, {"basis": "view", "seq": position.position, "lag": position.lag}


def _fold(
    ledger: Ledger, record: UUID, seq: int | None, moment: datetime | None
) -> RecordState | None:
    return state_at(_events_of(ledger, record), seq=seq, time=moment)


def _events_of(ledger: Ledger, record: UUID) -> Iterator[RecordedEvent]:
    """Read a record's entries, a page at a time, as far as the fold goes."""
    after = -1
    while rows := ledger.stream_entries(record, after, MAX_PAGE):
        for row in rows:
            event = read_entry(row.entry)
            if event.stream_kind != "record":
                return
            yield event
        after = _version_of(rows[-1])
