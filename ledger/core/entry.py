"""The bytes of one entry (FORMAT.md section 1), built once and read back."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import TYPE_CHECKING, NewType
from uuid import UUID, uuid5

from ledger.core.strict_json import check_strict, compact
from ledger.errors import Malformed, TamperDetected

if TYPE_CHECKING:
    from datetime import datetime

Seq = NewType("Seq", int)
"""Position in the log: 1, 2, 3 … without gap."""

FORMAT_VERSION = 0
MAX_ENTRY_BYTES = 65_535
"""C2SP tlog-tiles prefix each entry of a bundle with a u16be length."""

ZERO_LEAF = bytes(32)
"""What entry 1 names as the entry before it."""

_NAMESPACE_URL = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
_TEMPLATE = (
    b'{"v":0,"ledger":"%b","seq":%d,"prev":"%b","recorded":"%b","stream":"%b",'
    b'"stream_kind":"%b","version":%d,"stream_prev":%b,"emitter":%b,"sealed":{%b},"event":%b}'
)
_OVERHEAD = len(_TEMPLATE) + 2 * 19 + 2 * 66 + 27 + 36 + 9
"""Most that the ledger's own members add, beside origin, emitter, sealed and event."""


def build_entry(
    *,
    origin: bytes,
    seq: int,
    prev: bytes,
    recorded: bytes,
    stream: bytes,
    kind: bytes,
    version: int,
    stream_prev: bytes | None,
    emitter: bytes,
    sealed: bytes,
    event: bytes,
) -> bytes:
    """Join an entry's bytes; the event stands last (FORMAT.md 1.2, 1.3).

    Args:
        origin: the ledger's.
        seq: position in the log.
        prev: hex leaf hash of the entry before.
        recorded: UTC time as `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
        stream: the stream's UUID as text.
        kind: `record`, `ledger` or `aggregate`.
        version: place in the stream.
        stream_prev: hex leaf hash of the stream's entry before; None for its first.
        emitter: the member, an object.
        sealed: the inside of the member.
        event: the member, an object.
    """
    return _TEMPLATE % (
        origin,
        seq,
        prev,
        recorded,
        stream,
        kind,
        version,
        b"null" if stream_prev is None else b'"%b"' % stream_prev,
        emitter,
        sealed,
        event,
    )


def entry_bound(*, origin: bytes, emitter: bytes, sealed_bytes: int, event_bytes: int) -> int:
    """Give the most bytes an entry of these parts can have, wherever it is placed."""
    return _OVERHEAD + len(origin) + len(emitter) + sealed_bytes + event_bytes


def tail_of(entry: bytes) -> bytes:
    """Give what the sender determined of an entry: `sealed` and `event`, as one slice.

    The ledger's own members stand first and none of them can hold the mark, so
    the first occurrence is the member itself (FORMAT.md 1.3).
    """
    return entry[entry.index(b',"sealed":{') :]


def format_time(moment: datetime) -> bytes:
    """Write an aware UTC time as entries have it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()


def ledger_stream(origin: str, name: str) -> UUID:
    """Give the stream of what has no subject; anyone can recompute it (FORMAT.md 2.1).

    Args:
        origin: the ledger's.
        name: a type's full form, or `source:` and a source where a population is counted.
    """
    return uuid5(_NAMESPACE_URL, f"{origin}#{name}")


def wrap_state(topic: str, state: bytes) -> bytes:
    """Write an aggregate's stored event as an entry's `event` (FORMAT.md 1.6)."""
    quoted = json.dumps(topic, ensure_ascii=False).encode()
    if _is_compact_json(state):
        return b'{"topic":%b,"state":%b}' % (quoted, state)
    return b'{"topic":%b,"state_b64":"%b"}' % (quoted, base64.b64encode(state))


def unwrap_state(entry: bytes, topic: str) -> bytes:
    """Give back the state's bytes of an aggregate's entry, unchanged.

    Raises:
        TamperDetected: the event is not what `wrap_state` makes for this topic.
    """
    event = entry[entry.index(b',"event":{') + 9 : -1]
    start = b'{"topic":%b,' % json.dumps(topic, ensure_ascii=False).encode()
    if event.startswith(start + b'"state":'):
        return event[len(start) + 8 : -1]
    if event.startswith(start + b'"state_b64":"'):
        with suppress(ValueError):
            return base64.b64decode(event[len(start) + 13 : -2], validate=True)
    raise TamperDetected("event of an aggregate: expected its topic and state")


def _is_compact_json(state: bytes) -> bool:
    if state[:1] != b"{" or compact(state) != state:
        return False
    try:
        check_strict(b'{"event":%b}' % state)
    except Malformed:
        return False
    return True
