"""Record in a ledger by which settings its entries came about, where they have changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from uuid import NAMESPACE_URL, uuid5

if TYPE_CHECKING:
    from ledger.service import Ledger

_SETTING: Final = "types"
_MARK: Final = b'"detail":{"setting":"types"'


def declare_types(ledger: Ledger, sha256: str | None) -> None:
    """Record the digest of the file that registers emitters' own types, if it is another now.

    Which of their members stand in clear is decided by that file: an auditor is told when it
    changed, and can ask to see it. A ledger that never had one is not told that it has none.

    Raises:
        Unavailable: it could not be recorded.
    """
    if ledger.recorder.stopped is not None:
        return
    newest = ledger.newest_operated(_MARK)
    last = None if newest is None else json.loads(newest)
    if (last and last["event"]["data"].get("content_sha256")) == sha256:
        return
    data: dict[str, Any] = {"operation": "setting", "detail": {"setting": _SETTING}}
    if sha256 is None:
        data["detail"]["state"] = "none"
    else:
        data["content_sha256"] = sha256
    # Processes that start at once say the same after the same entry: the second repeats it.
    after = 0 if last is None else last["seq"]
    event_id = str(uuid5(NAMESPACE_URL, f"{ledger.origin} {_SETTING} {sha256} after {after}"))
    ledger.append_own("ledger.operated", data, event_id=event_id)
