"""Give entries, their bytes exactly as they were hashed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated
from uuid import UUID  # noqa: TC003 - routes are built from it

from fastapi import APIRouter, Path, Query, Request, Response

from api.access import Reader, service_of
from api.answers import body_of, json_of, problems, reference, text_of
from api.body import small_body
from api.expectations import parse_body
from api.reading import NO_STORE, record_reading
from api.schemas import RecordFound, SubjectQuestion
from ledger.errors import NotFound
from ledger.service import MAX_PAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ledger.service import EntryRow

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["entries"])

NDJSON = "application/x-ndjson"
LEAF_HEADER = "Custody-Leaf"
_MAX_SEQ = 2**63 - 1

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="most entries of the page")]
Position = Annotated[int, Query(ge=1, le=_MAX_SEQ)]

_PAGE = json_of("EntryPage", "A page; `Link: rel=next` where there is more.")
_PAGE["content"][NDJSON] = {"schema": {"type": "string"}}
_PAGE["headers"] = {
    "Link": {"description": "The next page, where there is one.", "schema": {"type": "string"}}
}


@router.get(
    "/entries",
    summary="Entries by position",
    response_class=Response,
    responses={200: _PAGE, **problems(401, 403, 404, 422, 503)},
)
async def get_entries(
    request: Request,
    access: Reader,
    *,
    first: Annotated[int, Query(alias="from", ge=1, le=_MAX_SEQ)] = 1,
    last: Annotated[int, Query(alias="to", ge=1, le=_MAX_SEQ)] = _MAX_SEQ,
    after: Annotated[int, Query(ge=0, le=_MAX_SEQ, description="`next` of the page before")] = 0,
    limit: Limit = 100,
) -> Response:
    r"""Give entries `from` … `to`, as JSON, or one a line for `Accept: application/x-ndjson`.

    Lines hash to their leaves: `printf '\0%s' "$line" | sha256sum`.
    """
    start = max(first, min(after + 1, _MAX_SEQ))
    rows = await asyncio.to_thread(access.open.ledger.entries, start, last, limit + 1)
    query = {"from": start, "to": None if last == _MAX_SEQ else last}
    if rows:
        await record_reading(access, "entries", query, rows=min(len(rows), limit))
    return _page(request, rows, limit, _seq_of)


@router.get(
    "/entries/{seq}",
    summary="One entry's bytes",
    response_class=Response,
    responses={
        200: {
            **text_of("application/json", "The entry, byte for byte."),
            "headers": {
                LEAF_HEADER: {"description": "Leaf hash, hex.", "schema": {"type": "string"}}
            },
        },
        **problems(401, 403, 404, 422, 503),
    },
)
async def get_entry(access: Reader, seq: Annotated[int, Path(ge=1, le=_MAX_SEQ)]) -> Response:
    """Give one entry, with its leaf hash in `Custody-Leaf`."""
    rows = await asyncio.to_thread(access.open.ledger.entries, seq, seq, 1)
    if not rows:
        raise NotFound("expected a position up to the ledger's head")
    await record_reading(access, "entries", {"from": seq, "to": seq}, rows=1)
    headers = {**NO_STORE, LEAF_HEADER: rows[0].leaf.hex()}
    return Response(rows[0].entry, 200, headers, "application/json")


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
    body = await small_body(request, service_of(request).bodies)
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
    responses={200: _PAGE, **problems(401, 403, 404, 422, 503)},
)
async def get_record_entries(
    request: Request,
    access: Reader,
    record: UUID,
    *,
    after: Annotated[int, Query(ge=-1, le=_MAX_SEQ, description="`next` of the page before")] = -1,
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
    return _page(request, rows, limit, _version_of)


def _seq_of(row: EntryRow) -> int:
    return row.seq


def _version_of(row: EntryRow) -> int:
    """Read the version; the ledger's members stand first (FORMAT.md 1.3)."""
    start = row.entry.index(b',"version":') + 11
    return int(row.entry[start : row.entry.index(b",", start)])


def _page(
    request: Request,
    rows: Sequence[EntryRow],
    limit: int,
    key: Callable[[EntryRow], int],
) -> Response:
    """Join a page's bytes; rows past the limit only tell that there is more."""
    shown = rows[:limit]
    following = key(shown[-1]) if len(rows) > limit else None
    headers = dict(NO_STORE)
    if following is not None:
        url = request.url.include_query_params(after=following)
        headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    if NDJSON in request.headers.get("accept", ""):
        return Response(b"".join(row.entry + b"\n" for row in shown), 200, headers, NDJSON)
    items = (
        b'{"seq":%d,"leaf":"%b","entry":%b}' % (row.seq, row.leaf.hex().encode(), row.entry)
        for row in shown
    )
    body = b'{"entries":[%b],"next":%b}' % (b",".join(items), json.dumps(following).encode())
    return Response(body, 200, headers, "application/json")
