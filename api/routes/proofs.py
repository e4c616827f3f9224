"""Prove what the log says: that an entry is in it, and that it only ever grew."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from api.access import (  # noqa: TC001 - routes are built from it
    OpenTree,
    Reader,
)
from api.answers import problems, text_of
from api.pages import MAX_SEQ
from api.reading import NO_STORE
from ledger.core.note import encode_base64

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["proofs"])


@router.get(
    "/entries/{seq}/proof",
    summary="A proof that an entry is under a checkpoint",
    response_class=Response,
    responses={
        200: text_of("text/plain; charset=utf-8", "A C2SP `.tlog-proof`."),
        **problems(401, 403, 404, 422, 503),
    },
)
async def get_proof(
    access: Reader,
    seq: Annotated[int, Path(ge=1, le=MAX_SEQ)],
    size: Annotated[int | None, Query(ge=1, le=MAX_SEQ, description="a kept checkpoint's")] = None,
) -> Response:
    """Give the proof under the newest checkpoint, or under the kept one of `size`.

    It holds hashes and a signature, nothing of what any entry says: no look is recorded.
    """
    proof = await asyncio.to_thread(access.open.ledger.tree.proof, seq, size)
    return Response(proof.text(), 200, NO_STORE, "text/plain")


@router.get(
    "/consistency",
    summary="A proof that the log only grew between two sizes",
    response_class=Response,
    responses={
        200: text_of("text/plain; charset=utf-8", "A base64 hash a line (RFC 9162 2.1.4)."),
        **problems(401, 404, 422, 503),
    },
)
async def get_consistency(
    tree: OpenTree,
    old: Annotated[int, Query(alias="from", ge=0, le=MAX_SEQ)],
    new: Annotated[int, Query(alias="to", ge=0, le=MAX_SEQ)],
) -> Response:
    """Give the proof from `from` to `to` entries; empty where there is nothing to prove.

    Any credential of the ledger may have it, or anybody where the service opens tiles.
    """
    hashes = await asyncio.to_thread(tree.open.ledger.tree.consistency, old, new)
    text = "".join(f"{encode_base64(each)}\n" for each in hashes)
    return Response(text, 200, NO_STORE, "text/plain")
