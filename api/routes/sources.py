"""Say of each source whether something of it is missing, and how long it has been silent."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response

from api.access import Reader  # noqa: TC001 - routes are built from it
from api.answers import json_of, problems
from api.pages import Limit  # noqa: TC001 - routes are built from it
from api.reading import NO_STORE, record_reading
from ledger.errors import Malformed
from projections.sources import SourceRow, select_sources
from projections.views.source_sequences import SourceSequences

if TYPE_CHECKING:
    from api.views import Views
    from projections.queries import ViewPosition
    from projections.views.source_sequences import Key
    from projections.views.source_state import SourceState

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["sources"])

MAX_SILENT_S = 10 * 366 * 86_400

_PAGE = json_of("SourcePage", "A page of sources; `Link: rel=next` where there is more.")
_PAGE["headers"] = {
    "Link": {"description": "The next page, where there is one.", "schema": {"type": "string"}}
}


@router.get(
    "/sources",
    summary="What is missing of each source, and how long it has been silent",
    response_class=Response,
    responses={200: _PAGE, **problems(401, 403, 404, 422, 503)},
)
async def get_sources(
    request: Request,
    access: Reader,
    *,
    silent_for_s: Annotated[
        int, Query(ge=0, le=MAX_SILENT_S, description="only those silent for so many seconds")
    ] = 0,
    with_gaps: Annotated[
        bool, Query(description="only those of which numbers are missing")
    ] = False,
    after: Annotated[str, Query(max_length=2_000, description="`next` of the page before")] = "",
    limit: Limit = 100,
) -> Response:
    """Give each source, and each of its instances, by name.

    Numbers (`sequence`) are contiguous per source and instance where an emitter gives them:
    what is missing was never sent, was lost, or is still to come. Rows rest on the view's
    `position`, which may lag behind the log by `lag` entries; `silent_s` is as of now.
    """
    start = _read_key(after)
    rows, position = await asyncio.to_thread(
        _find, access.open.views, start, silent_for_s, limit + 1, with_gaps=with_gaps
    )
    shown = rows[:limit]
    query = {"silent_for_s": silent_for_s or None, "with_gaps": with_gaps or None}
    await record_reading(access, "sources", query, rows=len(shown))
    following = _write_key(shown[-1].state) if len(rows) > len(shown) else None
    headers = dict(NO_STORE)
    if following is not None:
        url = request.url.include_query_params(after=following)
        headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    document = {
        "sources": [_row(row) for row in shown],
        "next": following,
        "as_of": {"basis": "view", "seq": position.position, "lag": position.lag},
    }
    return Response(msgspec.json.encode(document), 200, headers, "application/json")


def _find(
    views: Views, start: Key, silent_for_s: int, limit: int, *, with_gaps: bool
) -> tuple[list[SourceRow], ViewPosition]:
    position = views.position(SourceSequences.name)
    rows = select_sources(
        views.reader, after=start, silent_for_s=silent_for_s, with_gaps=with_gaps, limit=limit
    )
    return rows, position


def _write_key(state: SourceState) -> str:
    """Write where a page ended, so that it can stand in a URL whatever names there are."""
    raw = json.dumps([state.source, state.instance]).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _read_key(after: str) -> Key:
    if not after:
        return "", ""
    try:
        raw = base64.urlsafe_b64decode(after + "=" * (-len(after) % 4))
        source, instance = msgspec.json.decode(raw, type=tuple[str, str])
    except (ValueError, msgspec.MsgspecError):
        raise Malformed("after: expected `next` of the page before") from None
    if "\0" in source + instance:
        raise Malformed("after: expected `next` of the page before")
    return source, instance


def _row(row: SourceRow) -> dict[str, Any]:
    state = row.state
    return {
        "source": state.source,
        "instance": state.instance or None,
        "events": state.events,
        "first_recorded": state.first_recorded,
        "last_recorded": state.last_recorded,
        "last_seq": state.last_seq,
        "silent_s": max(round(row.silent_s, 3), 0.0),
        "backfill": state.backfill,
        "incomplete": state.incomplete,
        "sequence": _numbers(row),
        "late": _lateness(state),
        "report": _report(row),
    }


def _numbers(row: SourceRow) -> dict[str, Any] | None:
    state = row.state
    if state.last_sequence is None:
        return None
    return {
        "first": state.first_sequence,
        "last": state.last_sequence,
        "numbered": state.numbered,
        "missing": state.missing,
        "gap_count": state.gaps,
        "gaps": row.gaps,
        "repeats": state.repeats,
        "last_repeat_seq": state.last_repeat_seq,
        "went_back": state.went_back,
        "last_back_seq": state.last_back_seq,
    }


def _lateness(state: SourceState) -> dict[str, Any]:
    return {
        "timed": state.timed,
        "mean_s": round(state.late_ms / state.timed / 1000, 3) if state.timed else None,
        "max_s": state.late_max_ms / 1000,
        "over_minute": state.late_minute,
        "over_hour": state.late_hour,
        "over_day": state.late_day,
        "ahead": state.ahead,
    }


def _report(row: SourceRow) -> dict[str, Any] | None:
    state = row.state
    if row.unreceived is None:
        return None
    return {
        "seq": state.report_seq,
        "recorded": state.report_recorded,
        "reports": state.reports,
        "count": state.report_count,
        "last_sequence": state.report_last_sequence,
        "until": state.report_until,
        "unreceived": row.unreceived,
        "agrees": row.unreceived == 0,
    }
