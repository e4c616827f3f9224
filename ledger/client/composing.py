"""Write an event as JSON once, in the caller's thread, with a place left for its number.

What can't be JSON is refused here, where the mistake is; what the ledger makes of it is
for the ledger to say. Numbers are given at storing, so the bytes come in two parts.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from os import urandom
from time import time_ns
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ledger.client.limits import MAX_EVENT_BYTES
from ledger.errors import Malformed, TooLarge

if TYPE_CHECKING:
    from collections.abc import Sequence

_encode = msgspec.json.Encoder().encode
_encode_strictly = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=msgspec.to_builtins
).encode
_PLACE = "\x00"
_MARK = secrets.randbits(60)
_MARKED = f'"\\u0000":{_MARK}'.encode()
"""Stands where the numbers go. Nobody knows it, so nothing that is sent can look like it."""


class Composed(NamedTuple):
    """An event's bytes but for its number."""

    id: str
    """The event's id, drawn if it came without."""
    source: str
    """Whose numbers it takes part in."""
    entries: int
    """How many entries it makes: one for each of its subjects."""
    before: bytes
    """JSON up to `"data":{`, where its numbers go."""
    after: bytes
    """JSON from there on."""
    report: bool
    """Whether it is its source's report on itself, which has no `sequence` but tells of them."""

    @property
    def size_bytes(self) -> int:
        """About as many bytes as it will have."""
        return len(self.before) + len(self.after)

    def body(self, numbers: str, instance: str) -> bytes:
        """Give the whole JSON, with its numbers (members, as JSON) in `data`."""
        return self.before + f'{numbers},"instance":"{instance}"'.encode() + self.after


def compose(event: Mapping[str, Any], source: str, *, report: bool = False) -> Composed:
    """Write an event; `id`, `source` and `time` are added where they are missing.

    Raises:
        Malformed: it can't be written as JSON, or brings a number of its own.
        TooLarge: it is past `MAX_EVENT_BYTES`.
    """
    data = event.get("data", {})
    if type(data) is not dict and not isinstance(data, Mapping):
        raise Malformed("expected an object", pointer="/data")
    if "sequence" in data or "instance" in data:
        raise Malformed("expected no sequence or instance: the client counts", pointer="/data")
    whole = {"id": "", "source": source, "time": "", **event}
    whole["id"] = whole["id"] or draw_id()
    whole["time"] = whole["time"] or now()
    whole["data"] = {_PLACE: _MARK, **data}
    try:
        text = _encode(whole)
        if b"null" in text:
            # It could be what the quick encoder makes of a number that JSON doesn't have.
            text = _encode_strictly(whole).encode()
        before, _, after = text.partition(_MARKED)
    except (TypeError, ValueError, RecursionError):
        # The encoder's own words can repeat a value, so they are left behind.
        raise Malformed("expected an event that can be written as JSON in UTF-8") from None
    if not after:
        raise Malformed("expected names without U+0000", pointer="/data")
    if type(whole["id"]) is not str or type(whole["source"]) is not str:
        raise Malformed("expected strings as id and source")
    if len(before) + len(after) > MAX_EVENT_BYTES:
        raise TooLarge(f"expected an event of at most {MAX_EVENT_BYTES} bytes")
    subjects = whole.get("subjects")
    entries = len(subjects) if isinstance(subjects, list | tuple) else 1
    return Composed(whole["id"], whole["source"], entries, before, after, report)


def build(
    event_type: str,
    subject: str | None,
    *,
    actor: str | None = None,
    fields: Sequence[str] | None = None,
    subjects: Sequence[str] | None = None,
    event_id: str | None = None,
    time: str | datetime | None = None,
    **members: Any,
) -> dict[str, Any]:
    """Give an event from the words a caller has; `members` stand in its `data`.

    Raises:
        Malformed: a time without an offset.
    """
    data: dict[str, Any] = {}
    if actor is not None:
        data["actor"] = {"id": actor}
    if fields is not None:
        data["fields"] = list(fields)
    event: dict[str, Any] = {"id": event_id or "", "type": event_type}
    if subject is not None:
        event["subject"] = subject
    if subjects is not None:
        event["subjects"] = list(subjects)
    if time is not None:
        event["time"] = time if isinstance(time, str) else rfc3339(time)
    return {**event, "data": {**data, **members}}


def rfc3339(time: datetime) -> str:
    """Write an aware time in UTC (RFC 3339 section 5.6).

    Raises:
        Malformed: it has no offset.
    """
    if time.tzinfo is None:
        raise Malformed("expected a time with an offset", pointer="/time")
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def now() -> str:
    """Give the present time in UTC."""
    second, nanos = divmod(time_ns(), 1_000_000_000)
    return f"{_second(second)}.{nanos // 1000:06d}Z"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def draw_id() -> str:
    """Draw a random UUID (RFC 9562 section 5.4), in half the time that `uuid` takes."""
    text = urandom(16).hex()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"
