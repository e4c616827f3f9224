"""Answer what became of each event of a request (RFC 7240, `Prefer: handling=lenient`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from api.problems import document_of
from ledger.ingest import Taken
from ledger.receipts import event_receipt

if TYPE_CHECKING:
    from ledger.errors import LedgerError
    from ledger.ingest import Results

APPLIED = {"Preference-Applied": "handling=lenient"}


def render_results(results: Results, pending: str) -> Response:
    """Give the answer: 201 where an entry was made, else 200.

    Args:
        results: of each event, in the order sent.
        pending: where to fetch a checkpoint that is still to come.
    """
    items = [_result(item) for item in results.items]
    document: dict[str, Any] = {"results": items, "checkpoint": results.checkpoint}
    if results.checkpoint is None and any("receipt" in item for item in items):
        document["checkpoint_pending"] = pending
    made = any(item["status"] == 201 for item in items)
    body = msgspec.json.encode(document)
    return Response(body, 201 if made else 200, APPLIED, "application/json")


def _result(item: Taken | LedgerError) -> dict[str, Any]:
    if not isinstance(item, Taken):
        problem = document_of(item)
        return {"status": problem["status"], "problem": problem}
    status = 200 if item.placed[0].repeated else 201
    return {"status": status, "receipt": event_receipt(item.drafts, item.placed)}
