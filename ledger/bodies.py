"""Cut the body of a request into events, within what one request may be and make."""

from __future__ import annotations

import re
from enum import Enum
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from ledger.admission import MAX_EVENT_BYTES
from ledger.core.strict_json import check_strict
from ledger.errors import Malformed, NotJson, TooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ledger.drafts import Draft

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Most bytes of a request's body, as sent and once expanded."""
MAX_ENTRIES = 10_000
"""Most entries that one request may make."""
MAX_REQUEST_ENTRY_BYTES = 64 * 1024 * 1024
"""Most bytes of entries that one request may make."""

_MANY_COMMAS = 1_000_000
_PLACE = re.compile(r"\(byte ([0-9]+)\)")
_OPEN = re.compile(rb"[ \t\r\n]*(.)", re.DOTALL)
_LINE = re.compile(rb"[^ \t\r\n][^\n]*")
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Form(Enum):
    """How a body holds its events."""

    JSON = "one event, or an array of events"
    EVENT = "one CloudEvent"
    BATCH = "an array of CloudEvents"
    LINES = "an event a line"


def split(body: bytes, form: Form) -> tuple[bool, list[bytes]]:
    """Tell whether a body can hold many events, and cut it into them as sent.

    Raises:
        Malformed: it is not of this form.
        TooLarge: it is past its limit, or has too many events.
    """
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"expected a body of at most {MAX_BODY_BYTES} bytes")
    if form is Form.LINES:
        # A white line is no event; white space around one is left to the line's own ends.
        found = islice(_LINE.finditer(body), MAX_ENTRIES + 1)
        return True, _few([match.group().rstrip(b" \t\r") for match in found])
    start = _OPEN.match(body)
    if form is Form.EVENT or (form is Form.JSON and (start is None or start[1] != b"[")):
        return False, [body]
    if start is None or start[1] != b"[":
        _refuse_array(body, "")
    # An array of nothing but zeros would take 2 GB to be told apart.
    if body.count(b",") > _MANY_COMMAS:
        _check_few(body)
    try:
        raw_events = _items(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        _refuse_array(body, str(error))
    return True, _few(list(map(bytes, raw_events)))


def _few(raw_events: list[bytes]) -> list[bytes]:
    if len(raw_events) > MAX_ENTRIES:
        raise _too_many()
    return raw_events


def _too_many() -> TooLarge:
    return TooLarge(f"expected at most {MAX_ENTRIES} events, found more")


def _check_few(body: bytes) -> None:
    """Refuse an array of too many items before they are kept."""
    try:
        _few_items()(body)
    except msgspec.ValidationError:
        raise _too_many() from None
    except (msgspec.DecodeError, RecursionError):
        return  # decoding it again says why


@cache
def _few_items() -> Callable[[bytes], Any]:
    """Give a decoder that stops at an item too many; that of a list goes on to its end."""
    fields = [(f"_{n}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for n in range(MAX_ENTRIES)]
    items = msgspec.defstruct("Items", fields, array_like=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(items).decode


def _refuse_array(body: bytes, reason: str) -> NoReturn:
    """Say what keeps a body from being an array of events, and where.

    Walking a large one to its wrong place takes minutes: of it only the offset is told.
    """
    if len(body) <= MAX_EVENT_BYTES:
        check_strict(body)
        raise Malformed("expected a JSON array of events")
    place = _PLACE.search(reason)
    offset = f" (offset {place[1]})" if place else ""
    raise NotJson(
        f"expected a JSON array of events{offset}",
        hint="send an event a line, as application/x-ndjson, to be told which one it is",
    )


class Bounds:
    """What a request adds up to. An event that would be too much isn't counted."""

    def __init__(self) -> None:
        self.seen: dict[tuple[bytes, bytes], int] = {}
        self.entries = 0
        self.size_bytes = 0

    def add(self, index: int, drafts: Sequence[Draft]) -> None:
        """Count an event's entries.

        Raises:
            Malformed: its id stands in the request already.
            TooLarge: it is past what one request may make.
        """
        draft = drafts[0]
        key = (draft.source, draft.event_id)
        if key in self.seen:
            raise Malformed(
                f"expected each id once in a request, found it at /{self.seen[key]} too",
                pointer=f"/{index}/id",
            )
        entries = self.entries + len(drafts)
        size_bytes = self.size_bytes + len(drafts) * draft.bound
        if entries > MAX_ENTRIES or size_bytes > MAX_REQUEST_ENTRY_BYTES:
            raise TooLarge(
                f"expected at most {MAX_ENTRIES} entries and {MAX_REQUEST_ENTRY_BYTES} bytes of "
                "them from a request",
                pointer=f"/{index}",
            )
        self.seen[key] = index
        self.entries, self.size_bytes = entries, size_bytes
