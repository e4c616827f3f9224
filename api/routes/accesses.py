"""Answer who looked, and why."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from fastapi import APIRouter, Request, Response

from api.access import Reader  # noqa: TC001 - routes are built from it
from api.answers import body_of, json_of, problems, reference
from api.body import small_body
from api.expectations import parse_body, parse_time
from api.reading import NO_STORE, record_reading
from api.schemas import AccessQuestion
from ledger.errors import NotFound

if TYPE_CHECKING:
    from uuid import UUID

    from api.service import OpenLedger
    from ledger.service import Ledger
    from projections.queries import AccessRow, ViewPosition

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["accesses"])


class _Found(NamedTuple):
    """A page of accesses, with one row more where there is one."""

    record: UUID | None
    actor: UUID | None
    rows: list[AccessRow]
    position: ViewPosition
    names: dict[UUID, str]


@router.post(
    "/accesses/query",
    summary="Who looked, and why",
    response_class=Response,
    responses={
        200: json_of("AccessPage", "A page of accesses."),
        **problems(400, 401, 403, 404, 413, 415, 422, 503),
    },
    openapi_extra=body_of(reference("AccessQuestion")),
)
async def query_accesses(request: Request, access: Reader) -> Response:
    """Give accesses by position, of one record, of one person, or of all.

    Staff stand as pseudonyms; `names` asks for who they are, where that can still be told.
    The rows rest on the view's `position`, which may lag behind the log by `lag` entries.
    """
    question = parse_body(AccessQuestion, await small_body(request, access.service.bodies))
    found = await asyncio.to_thread(_find, access.open, question)
    shown = found.rows[: question.limit]
    await record_reading(access, "accesses", _asked(question, found), rows=len(shown))
    following = shown[-1].seq if len(found.rows) > len(shown) else None
    document = {
        "rows": [_row(row, found.names if question.names else None) for row in shown],
        "next": following,
        "as_of": {
            "basis": "view",
            "seq": found.position.position,
            "lag": found.position.lag,
        },
    }
    return Response(msgspec.json.encode(document), 200, NO_STORE, "application/json")


def _find(opened: OpenLedger, question: AccessQuestion) -> _Found:
    record, actor = _record(opened.ledger, question), _actor(opened.ledger, question)
    position = opened.views.position("access_history")
    rows = opened.views.reader.select_accesses(
        record=record,
        actor=actor,
        from_time=parse_time(question.from_, "/from"),
        to_time=parse_time(question.to, "/to"),
        after_seq=question.after,
        limit=question.limit + 1,
    )
    people = {p for row in rows for p in (row.actor, row.on_behalf_of) if p is not None}
    names = opened.ledger.staff_names(list(people)) if question.names else {}
    return _Found(record, actor, rows, position, names)


def _record(ledger: Ledger, question: AccessQuestion) -> UUID | None:
    if question.subject is None:
        return question.record
    record = ledger.find_record(question.subject)
    if record is None:
        raise NotFound("expected a subject that this ledger has met", pointer="/subject")
    return record


def _actor(ledger: Ledger, question: AccessQuestion) -> UUID | None:
    if question.actor is None:
        return question.actor_pseudonym
    actor = ledger.find_staff(question.actor)
    if actor is None:
        raise NotFound("expected somebody whom this ledger has met", pointer="/actor")
    return actor


def _asked(question: AccessQuestion, found: _Found) -> dict[str, Any]:
    """Give what was asked, with pseudonyms in place of the clear subject and name."""
    return {
        "record": None if found.record is None else str(found.record),
        "actor": None if found.actor is None else str(found.actor),
        "from": question.from_,
        "to": question.to,
        "after": question.after or None,
        "names": question.names or None,
    }


def _row(row: AccessRow, names: dict[UUID, str] | None) -> dict[str, Any]:
    """Render a row; names of people stand beside their pseudonyms where they were asked for."""
    rendered = row._asdict()
    rendered["leaf"] = row.leaf.hex()
    if names is not None:
        for member in ("actor", "on_behalf_of"):
            pseudonym = rendered[member]
            rendered[f"{member}_name"] = None if pseudonym is None else names.get(pseudonym)
    return rendered
