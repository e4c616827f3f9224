"""Put a CloudEvent together that came as headers and data (HTTP binding 1.0.2, section 3.1).

Its members stand in one order, whatever order the headers came in: proxies change it, and a
repeat must be the same event. Values are never told to anybody: `ce-subject` names a person.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from ledger.core.strict_json import check_strict
from ledger.errors import Malformed, NotJson

if TYPE_CHECKING:
    from collections.abc import Iterable

    from api.media import Sent

_FIRST: Final = ("specversion", "id", "source", "type", "subject", "time")
_NOT_HEADERS: Final = {
    "data": "expected data in the body",
    "datacontenttype": "expected it as Content-Type",
}
_NAME = re.compile(rb"[a-z0-9]{1,64}")
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_ENCODED = re.compile(rb"%([0-9A-Fa-f]{2})")
_LONE_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_VISIBLE = re.compile(rb"[\t\x20-\x7e]*")


def join_event(sent: Sent, body: bytes) -> bytes:
    """Give a CloudEvent as JSON, its data's tokens as sent.

    Raises:
        Malformed: an attribute stands twice, or is not percent-encoded UTF-8.
        NotJson: the data is not strict JSON by itself.
    """
    attributes = _attributes(sent.attributes)
    if sent.media_type is not None:
        attributes["datacontenttype"] = sent.media_type
    names = [*(name for name in _FIRST if name in attributes), *sorted(attributes.keys() - _FIRST)]
    members = [f"{json.dumps(n)}:{json.dumps(attributes[n], ensure_ascii=False)}" for n in names]
    parts = [member.encode() for member in members]
    if body.strip(b" \t\r\n"):
        _check_alone(body)
        parts.append(b'"data":%b' % body)
    return b"{%b}" % b",".join(parts)


def _check_alone(body: bytes) -> None:
    """Keep data from reaching beyond itself: `{},"type":"…"` would be two members."""
    try:
        check_strict(body)
    except NotJson as error:
        error.pointer = "/data" + error.pointer
        raise


def _attributes(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for header, value in headers:
        if not _NAME.fullmatch(header[3:]):
            raise Malformed("expected headers ce-NAME, each name of a-z 0-9")
        name = header[3:].decode()
        if name in _NOT_HEADERS:
            raise Malformed(_NOT_HEADERS[name], pointer=f"/{name}")
        if name in attributes:
            raise Malformed("expected each header ce-NAME once, found it twice", pointer=f"/{name}")
        attributes[name] = _decode(value, f"/{name}")
    return attributes


def _decode(value: bytes, pointer: str) -> str:
    """Undo quotes, then one round of percent-encoding (section 3.1.3.2)."""
    quoted = _QUOTED.fullmatch(value)
    if quoted is not None:
        value = _ESCAPED.sub(rb"\1", quoted[1])
    if _VISIBLE.fullmatch(value) and not _LONE_PERCENT.search(value):
        try:
            return _ENCODED.sub(lambda match: bytes.fromhex(match[1].decode()), value).decode()
        except UnicodeDecodeError:
            pass
    raise Malformed("expected a header of percent-encoded UTF-8", pointer=pointer)
