"""Give signed checkpoints: the newest, and those kept for good."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from api.access import Member, OpenTree  # noqa: TC001 - routes are built from it
from api.answers import json_of, problems, text_of
from api.pages import MAX_SEQ, Limit
from api.reading import NO_STORE
from api.schemas import KeptCheckpoint, KeptCheckpoints

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["checkpoints"])

_NOTE = text_of("text/plain; charset=utf-8", "A C2SP signed note (FORMAT.md 5).")


@router.get(
    "/checkpoint",
    summary="The newest signed checkpoint",
    response_class=Response,
    responses={200: _NOTE, **problems(401, 404, 503)},
)
async def get_checkpoint(tree: OpenTree) -> Response:
    """Give the note; it is no evidence about anybody.

    Any credential of the ledger may have it, or anybody where the service opens tiles.
    """
    _, note = tree.open.ledger.checkpoint()
    return Response(note, 200, NO_STORE, "text/plain")


@router.get(
    "/checkpoints",
    summary="Checkpoints that are kept for good",
    response_class=Response,
    responses={
        200: json_of("KeptCheckpoints", "A page, by size."),
        **problems(401, 404, 422, 503),
    },
)
async def get_checkpoints(
    access: Member,
    *,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="`next` of the page before")] = 0,
    limit: Limit = 100,
) -> Response:
    """Give one an hour and every one that was anchored. Any credential of the ledger may."""
    rows = await asyncio.to_thread(access.open.ledger.tree.checkpoints, after, limit + 1)
    shown = [KeptCheckpoint(size=r.size, note=r.note, signed=r.signed) for r in rows[:limit]]
    following = shown[-1].size if len(rows) > limit else None
    page = KeptCheckpoints(checkpoints=shown, next=following)
    return Response(page.model_dump_json(), 200, NO_STORE, "application/json")


@router.get(
    "/checkpoints/{size}",
    summary="One kept checkpoint, or the newest",
    response_class=Response,
    responses={200: _NOTE, **problems(401, 404, 422, 503)},
)
async def get_kept_checkpoint(
    access: Member, size: Annotated[int, Path(ge=1, le=MAX_SEQ)]
) -> Response:
    """Give the note of this size. Any credential of the ledger may have it."""
    note = await asyncio.to_thread(access.open.ledger.tree.checkpoint, size)
    return Response(note, 200, NO_STORE, "text/plain")
