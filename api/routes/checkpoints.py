"""Give the newest signed checkpoint."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.access import Member  # noqa: TC001 - routes are built from it
from api.answers import problems, text_of
from api.reading import NO_STORE

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["checkpoints"])


@router.get(
    "/checkpoint",
    summary="The newest signed checkpoint",
    response_class=Response,
    responses={
        200: text_of("text/plain; charset=utf-8", "A C2SP signed note (FORMAT.md 5)."),
        **problems(401, 404, 503),
    },
)
async def get_checkpoint(access: Member) -> Response:
    """Give the note. Any credential of the ledger may have it; it is no evidence about anybody."""
    _, note = access.open.ledger.checkpoint()
    return Response(note, 200, NO_STORE, "text/plain")
