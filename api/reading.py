"""Leave an entry for every look at evidence, before it is answered.

What was asked is sealed in the entry, and names records and staff by pseudonym
only. If the look can't be recorded it is not answered: nobody reads unseen.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from api.access import Access
    from ledger.sequencing import Placed

NO_STORE = {"Cache-Control": "no-store"}
"""Evidence stays out of caches: a look from a cache would leave no entry."""


async def record_reading(
    access: Access, report: str, query: dict[str, Any], *, rows: int
) -> Placed:
    """Record that a credential read evidence.

    Args:
        access: whose credential, and which ledger.
        report: name of what was read, such as `entries`.
        query: what was asked, JSON-ready; it is sealed.
        rows: how many rows the answer has.

    Raises:
        Unavailable: it could not be recorded.
    """
    event = {
        "actor": {"id": access.credential.id, "kind": "service"},
        "report": report,
        "query": {name: value for name, value in query.items() if value is not None},
        "rows": rows,
    }
    return await asyncio.to_thread(access.open.ledger.append_own, "ledger.read", event)
