"""Read what a request's headers say of its events: form, coding, and what is preferred."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.exceptions import HTTPException

from api.body import too_large
from api.encodings import CODINGS
from ledger.bodies import Form

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMS: Final[Mapping[str, Form]] = {
    "application/json": Form.JSON,
    "application/cloudevents+json": Form.EVENT,
    "application/cloudevents-batch+json": Form.BATCH,
    "application/x-ndjson": Form.LINES,
    "application/jsonl": Form.LINES,
}
"""Media types that events are read in."""

_LOOKED_AT = frozenset({b"content-type", b"content-encoding", b"prefer"})
_PLAIN_SAID = [(b"content-type", b"application/json")]
_CLOUD = "application/cloudevents"
_JSON_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,127}/(?:[a-z0-9!#$&^_.+-]{1,127}\+)?json")
_ACCEPT: Final = {"Accept": ", ".join(FORMS)}
_ACCEPT_ENCODING: Final = {"Accept-Encoding": "gzip, zstd, identity"}
_PREFERENCE = re.compile(rb'(?:"(?:[^"\\]|\\.)*+"|[^",])++', re.DOTALL)


class Sent(NamedTuple):
    """What headers say of a body of events."""

    form: Form = Form.JSON
    """How the body holds them."""
    coding: str | None = None
    """How the body is compressed."""
    lenient: bool = False
    """Whether each event is to be judged on its own."""
    media_type: str | None = None
    """The media type, in lower case and without parameters, if it was said."""
    attributes: tuple[tuple[bytes, bytes], ...] = ()
    """Headers that are attributes of a CloudEvent whose data is the body, as sent."""


PLAIN: Final = Sent()
"""One event or an array of them, as JSON."""


def read_headers(headers: list[tuple[bytes, bytes]], limit_bytes: int) -> Sent:
    """Tell how a body is to be read, before any of it is.

    Raises:
        HTTPException: 415, a media type or coding that isn't read.
        TooLarge: the announced length is past the limit.
    """
    said = []
    for header in headers:
        name = header[0]
        if name in _LOOKED_AT or name[:3] == b"ce-":
            said.append(header)
        elif name == b"content-length" and int(header[1]) > limit_bytes:
            raise too_large(limit_bytes)
    # Nearly all requests end here.
    return PLAIN if not said or said == _PLAIN_SAID else _read(said)


def _read(said: list[tuple[bytes, bytes]]) -> Sent:
    attributes = tuple(header for header in said if header[0][:3] == b"ce-")
    media_type = _media_type([value for name, value in said if name == b"content-type"])
    coding = _coding([value for name, value in said if name == b"content-encoding"])
    lenient = _prefers_lenient([value for name, value in said if name == b"prefer"])
    if not attributes or (media_type or "").startswith(_CLOUD):
        # A CloudEvent in the body repeats in headers what it likes (HTTP binding 1.0.2, 3.2.3).
        form = FORMS.get(media_type or "application/json")
        if form is None:
            raise _unsupported("expected events as JSON, CloudEvents or lines of JSON, in UTF-8")
        return Sent(form, coding, lenient, media_type)
    if media_type is not None and not _JSON_TYPE.fullmatch(media_type):
        raise _unsupported("expected data as JSON beside the headers of a CloudEvent")
    return Sent(Form.EVENT, coding, lenient, media_type, attributes)


def _media_type(values: list[bytes]) -> str | None:
    if len(values) > 1:
        raise _unsupported("expected one Content-Type")
    if not values:
        return None
    media_type, _, parameters = values[0].decode("latin-1").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    if charset not in {"", "charset=utf-8"}:
        raise _unsupported("expected UTF-8, and no other parameter")
    return media_type.strip()


def _coding(values: list[bytes]) -> str | None:
    """Give the one content coding (RFC 9110 section 8.4); None where there is none."""
    coding = b",".join(values).decode("latin-1").strip().lower()
    if coding in {"", "identity"}:
        return None
    if coding not in CODINGS:
        raise HTTPException(415, "expected one of gzip and zstd, once", _ACCEPT_ENCODING)
    return coding


def _prefers_lenient(values: list[bytes]) -> bool:
    """Tell whether `handling=lenient` is preferred; the first to say counts (RFC 7240 2)."""
    for preference in _PREFERENCE.findall(b",".join(values)):
        name, _, value = preference.partition(b";")[0].partition(b"=")
        if name.strip().lower() == b"handling":
            return bool(value.strip().strip(b'"').lower() == b"lenient")
    return False


def _unsupported(detail: str) -> HTTPException:
    return HTTPException(415, detail, _ACCEPT)
