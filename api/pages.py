"""Join pages of entries: their bytes are spliced, never read and written again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Query
from starlette.responses import Response

from api.answers import json_of
from api.reading import NO_STORE
from ledger.service import MAX_PAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request

    from ledger.service import EntryRow

NDJSON = "application/x-ndjson"
MAX_SEQ = 2**63 - 1

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="most entries of the page")]

ENTRY_PAGE: Final = json_of("EntryPage", "A page; `Link: rel=next` where there is more.")
ENTRY_PAGE["content"][NDJSON] = {"schema": {"type": "string"}}
ENTRY_PAGE["headers"] = {
    "Link": {"description": "The next page, where there is one.", "schema": {"type": "string"}}
}


def page_of_entries(
    request: Request,
    rows: Sequence[EntryRow],
    limit: int,
    key: Callable[[EntryRow], int],
) -> Response:
    """Give a page as JSON, or one entry a line where the request accepts that.

    Args:
        request: what was asked.
        rows: the rows; those past the limit only tell that there is more.
        limit: most rows of the page.
        key: gives what a row is found by, to go on after.
    """
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
