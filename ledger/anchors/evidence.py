"""Keep the proof of a split view where nothing can lose it, and let it stop the ledger.

Somebody outside holds a checkpoint that contradicts one we signed: either the log was
rewritten, or somebody signs with our key. Going on would destroy the proof's worth. As long
as the file lies there the ledger records and signs nothing, restarts included; people who
have understood what happened move it away.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ledger.core.entry import format_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BEGINNING = "split-view-"
FORMAT = "custody-ledger/split-view/v0"


def split_views(directory: Path, ledger: str) -> list[str]:
    """Give the names of the files that keep a ledger from recording, in order.

    A draft counts as well: who was killed while writing it had a reason to write.
    """
    try:
        names = [path.name for path in (directory / ledger).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if name.lstrip(".").startswith(_BEGINNING))


def keep_split_view(directory: Path, ledger: str, name: str, document: Mapping[str, Any]) -> Path:
    """Make a proof durable; one that is there already stays as it is.

    Args:
        directory: of all ledgers' evidence.
        ledger: the ledger's local name.
        name: what tells this proof from others: size and sink.
        document: ready for JSON.

    Raises:
        OSError: it can't be made durable.
    """
    place = directory / ledger
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    final = place / f"{_BEGINNING}{name}.json"
    if final.exists():
        return final
    found = format_time(datetime.now(UTC)).decode()
    whole = {"format": FORMAT, "ledger": ledger, "found": found, **document}
    raw = json.dumps(whole, ensure_ascii=False, indent=1).encode() + b"\n"
    draft = final.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(handle)
    draft.replace(final)
    for above in (place, directory, directory.parent):
        _flush(above)
    return final


def _flush(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
