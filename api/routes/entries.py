"""Give entries by position, their bytes exactly as they were hashed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from api.access import Reader  # noqa: TC001 - routes are built from it
from api.answers import problems, text_of
from api.pages import ENTRY_PAGE, MAX_SEQ, Limit, page_of_entries
from api.reading import NO_STORE, record_reading
from ledger.errors import NotFound

if TYPE_CHECKING:
    from ledger.service import EntryRow

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["entries"])

LEAF_HEADER = "Custody-Leaf"


@router.get(
    "/entries",
    summary="Entries by position",
    response_class=Response,
    responses={200: ENTRY_PAGE, **problems(401, 403, 404, 422, 503)},
)
async def get_entries(
    request: Request,
    access: Reader,
    *,
    first: Annotated[int, Query(alias="from", ge=1, le=MAX_SEQ)] = 1,
    last: Annotated[int, Query(alias="to", ge=1, le=MAX_SEQ)] = MAX_SEQ,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="`next` of the page before")] = 0,
    limit: Limit = 100,
) -> Response:
    r"""Give entries `from` … `to`, as JSON, or one a line for `Accept: application/x-ndjson`.

    Lines hash to their leaves: `printf '\0%s' "$line" | sha256sum`.
    """
    start = max(first, min(after + 1, MAX_SEQ))
    rows = await asyncio.to_thread(access.open.ledger.entries, start, last, limit + 1)
    query = {"from": start, "to": None if last == MAX_SEQ else last}
    if rows:
        await record_reading(access, "entries", query, rows=min(len(rows), limit))
    return page_of_entries(request, rows, limit, _seq_of)


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
async def get_entry(access: Reader, seq: Annotated[int, Path(ge=1, le=MAX_SEQ)]) -> Response:
    """Give one entry, with its leaf hash in `Custody-Leaf`."""
    rows = await asyncio.to_thread(access.open.ledger.entries, seq, seq, 1)
    if not rows:
        raise NotFound("expected a position up to the ledger's head")
    await record_reading(access, "entries", {"from": seq, "to": seq}, rows=1)
    headers = {**NO_STORE, LEAF_HEADER: rows[0].leaf.hex()}
    return Response(rows[0].entry, 200, headers, "application/json")


def _seq_of(row: EntryRow) -> int:
    return row.seq
