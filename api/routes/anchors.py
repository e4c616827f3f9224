"""Give what the places outside gave back for checkpoints, for anybody to check."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Response

from api.access import Member  # noqa: TC001 - routes are built from it
from api.answers import json_of, problems
from api.pages import MAX_SEQ
from api.reading import NO_STORE
from api.schemas import Anchor, AnchorEvidence, AnchorFailure, Anchors, Witnessed
from ledger.errors import Malformed
from ledger.witness.protocol import log_note

if TYPE_CHECKING:
    from ledger.anchors import quorum
    from ledger.anchors.keeper import Standing
    from ledger.anchors.store import EvidenceRow, FailingRow
    from ledger.service import Ledger

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["checkpoints"])


@router.get(
    "/anchors",
    summary="Where checkpoints are held outside, and the evidence for it",
    response_class=Response,
    responses={200: json_of("Anchors", "Every sink, by name."), **problems(401, 404, 422, 503)},
)
async def get_anchors(
    access: Member,
    *,
    size: Annotated[
        int | None, Query(ge=1, le=MAX_SEQ, description="of this checkpoint, not the newest")
    ] = None,
) -> Response:
    """Give each sink's standing and evidence. Any credential of the ledger may have them."""
    found = await asyncio.to_thread(_anchors, access.open.ledger, size)
    return Response(found.model_dump_json(), 200, NO_STORE, "application/json")


def _anchors(ledger: Ledger, size: int | None) -> Anchors:
    """Put together what settings and tables know; a sink that was removed keeps its evidence."""
    standing = {each.sink: each for each in ledger.anchoring.standing()}
    failing = {row.sink: row for row in ledger.anchors.failing()}
    rows = ledger.anchors.evidence(size=size)
    evidence = {row.sink: _as_given(row, ledger.origin) for row in rows}
    kinds = {row.sink: row.kind for row in ledger.anchors.newest()}
    kinds |= {name: each.kind for name, each in standing.items()}
    return Anchors(
        sinks=[
            _anchor(name, kind, standing.get(name), failing.get(name), evidence.get(name))
            for name, kind in sorted(kinds.items())
        ],
        witnessed=_witnessed(ledger.anchoring.witnessed()),
        split_views=ledger.anchoring.split_views(),
    )


def _as_given(row: EvidenceRow, origin: str) -> EvidenceRow:
    """Take away what witnesses have added to the note since; what is no note stays as it is."""
    with suppress(Malformed):
        return row._replace(note=row.note and log_note(row.note, origin))
    return row


def _witnessed(found: quorum.Witnessed | None) -> Witnessed | None:
    return None if found is None else Witnessed(**found._asdict(), failing=found.failing)


def _anchor(
    name: str,
    kind: str,
    standing: Standing | None,
    failing: FailingRow | None,
    evidence: EvidenceRow | None,
) -> Anchor:
    return Anchor(
        name=name,
        kind=kind,
        configured=standing is not None,
        place=standing.shown if standing else None,
        failing=AnchorFailure(since=failing.since, reason=failing.reason) if failing else None,
        evidence=_evidence(evidence) if evidence else None,
    )


def _evidence(row: EvidenceRow) -> AnchorEvidence:
    return AnchorEvidence(
        size=row.size,
        root=row.root.hex(),
        note=row.note,
        anchored=row.anchored,
        seq=row.seq,
        media_type=row.media_type,
        sha256=hashlib.sha256(row.evidence).hexdigest(),
        base64=base64.b64encode(row.evidence).decode(),
    )
