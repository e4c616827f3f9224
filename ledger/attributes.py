"""Check what an event says beside its `data`: type, id, source, subjects, and how it is written.

Nothing here keeps what was sent: a refusal says what was expected, and where.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ledger.errors import Forbidden, Malformed
from ledger.events.taxonomy import find_type, nearest_type
from ledger.identities import record_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ledger.drafts import Emitter
    from ledger.events.custom import CustomTypes
    from ledger.events.taxonomy import EventType
    from ledger.identities import Name

MAX_SUBJECTS = 1_000
"""Most subjects one event may name."""
MAX_SUBJECT_CHARS = 256
"""Most characters of a subject, namespace included."""

_TOKEN = re.compile(rb'"[A-Za-z0-9._:/#-]{1,128}"')
_DIGITS = re.compile(rb"[0-9]{8}")
_UUID = re.compile(rb'"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"')
_SUBJECT = re.compile(
    r"([a-z][a-z0-9_-]{0,31}):([^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?)"
)
_POPULATION: Final = "population.count"
_JSON_TYPE: Final = b'"application/json"'
_MEDIA_TYPE = re.compile(
    r"[a-z0-9][a-z0-9!#$&^_.-]*/(?:json|[a-z0-9][a-z0-9!#$&^_.-]*\+json) *(?:;[\x20-\x7e]*)?",
    re.IGNORECASE,
)
_string = msgspec.json.Decoder(str).decode


def type_of(name: object, emitter: Emitter, custom: CustomTypes) -> EventType:
    """Give an event's type.

    Raises:
        Malformed: there is none of this name; the hint has the nearest.
        Forbidden: it is outside the emitter's rights.
    """
    if not isinstance(name, str):
        raise Malformed("expected a type, such as record.accessed", pointer="/type")
    event_type = find_type(name) or custom.find(name)
    if event_type is None:
        nearest = nearest_type(name) if len(name) <= 256 else None
        hint = f"did you mean {nearest}?" if nearest else "see GET /v1/event-types"
        raise Malformed(
            "expected a known type, or one of your own under a reverse-DNS name",
            pointer="/type",
            hint=hint,
        )
    if event_type.name not in emitter.allowed and not emitter.may_write_own(event_type):
        # An emitter's own name is a value that was sent.
        named = "this type" if event_type.custom else event_type.name
        raise Forbidden(f"this credential may not write {named}", pointer="/type")
    return event_type


def id_of(attributes: Mapping[str, Any]) -> bytes:
    """Give an event's id, without quotes.

    Raises:
        Malformed: it is not one.
    """
    raw = bytes(attributes.get("id", b""))
    if not _TOKEN.fullmatch(raw) or (_DIGITS.search(raw) and not _UUID.fullmatch(raw)):
        raise Malformed(
            "expected an id of 1 to 128 of A-Z a-z 0-9 . _ : / # - without 8 or more "
            "digits in a row, or a UUID in lower case",
            pointer="/id",
        )
    return raw[1:-1]


def source_of(attributes: Mapping[str, Any], emitter: Emitter) -> bytes:
    """Give an event's effective source, without quotes (FORMAT.md 1.4).

    Raises:
        Malformed: it is not one.
        Forbidden: the emitter may not write as it.
    """
    if "source" not in attributes:
        return emitter.sources[0].encode()
    raw = bytes(attributes["source"])
    _check_source(raw, emitter.sources)
    return raw[1:-1]


@lru_cache(maxsize=1024)
def _check_source(raw: bytes, prefixes: tuple[str, ...]) -> None:
    if not _TOKEN.fullmatch(raw) or _DIGITS.search(raw):
        raise Malformed(
            "expected a source of 1 to 128 of A-Z a-z 0-9 . _ : / # - "
            "without 8 or more digits in a row",
            pointer="/source",
        )
    source = raw[1:-1].decode()
    if not any(_within(source, prefix) for prefix in prefixes):
        raise Forbidden("this credential may not write as this source", pointer="/source")


def _within(source: str, prefix: str) -> bool:
    """Tell whether a source is the prefix or below it, at a boundary of `/ : #`."""
    if not source.startswith(prefix):
        return False
    rest = source[len(prefix) :]
    return not rest or prefix[-1:] in "/:#" or rest[0] in "/:#"


def subjects_of(
    decoded: Mapping[str, Any], event_type: EventType, emitter: Emitter
) -> Sequence[Name | None]:
    """Give whom an event is about; one None where it is about nobody that it names.

    Raises:
        Malformed: subjects are missing, or not what the type allows.
        Forbidden: a namespace is outside the emitter's rights.
    """
    one, many = decoded.get("subject"), decoded.get("subjects")
    if one is not None and many is not None:
        raise Malformed("expected subject or subjects, found both", pointer="/subjects")
    if one is None and many is None:
        if event_type.subject == "required":
            _check_population(decoded, event_type)
        return [None]
    if event_type.subject == "none":
        raise Malformed(f"{event_type.name} has no subject", pointer="/subject")
    if many is None:
        return [subject_of(one, emitter, "/subject")]
    if not isinstance(many, list) or not 1 <= len(many) <= MAX_SUBJECTS:
        raise Malformed(f"expected 1 to {MAX_SUBJECTS} subjects", pointer="/subjects")
    names = [subject_of(text, emitter, f"/subjects/{i}") for i, text in enumerate(many)]
    if len(set(names)) != len(names):
        raise Malformed("expected each subject once", pointer="/subjects")
    return names


def _check_population(decoded: Mapping[str, Any], event_type: EventType) -> None:
    """Let an event count those whom it can't name (FORMAT.md 2.1)."""
    content = decoded.get("data")
    population = content.get("population") if isinstance(content, dict) else None
    counts = _POPULATION in event_type.members
    if counts and isinstance(population, dict) and "count" in population:
        return
    instead = f", or data.{_POPULATION} where they can't be named" if counts else ""
    raise Malformed(
        f"{event_type.name} needs a subject, such as crm:C-10023{instead}", pointer="/subject"
    )


def subject_of(text: object, emitter: Emitter, pointer: str) -> Name:
    """Give one data subject.

    Raises:
        Malformed: it is not one.
        Forbidden: its namespace is outside the emitter's rights.
    """
    match = _SUBJECT.fullmatch(text) if isinstance(text, str) else None
    if match is None or len(match.group()) > MAX_SUBJECT_CHARS:
        raise Malformed(
            f"expected namespace:id of at most {MAX_SUBJECT_CHARS} characters", pointer=pointer
        )
    if match[1] not in emitter.namespaces and "*" not in emitter.namespaces:
        raise Forbidden("this credential may not write about this namespace", pointer=pointer)
    return record_name(match.group())


def check_specversion(attributes: Mapping[str, Any], *, needed: bool) -> None:
    """Refuse another version of CloudEvents than 1.0, and data that is not JSON.

    Args:
        attributes: the event's members.
        needed: whether it was sent as a CloudEvent, which has to say its version.

    Raises:
        Malformed: as it says.
    """
    if "specversion" in attributes or needed:
        raw = bytes(attributes.get("specversion", b""))
        if raw != b'"1.0"':
            raise Malformed('expected "1.0"', pointer="/specversion")
    if "data_base64" in attributes:
        raise Malformed("expected data as JSON, in the member data", pointer="/data_base64")


def is_plain_json(raw: bytes) -> bool:
    """Tell whether a `datacontenttype` is the plain one, which stands in clear.

    Raises:
        Malformed: it is no type of JSON.
    """
    if raw == _JSON_TYPE:
        return True
    try:
        text = _string(raw)
    except msgspec.DecodeError:
        text = ""
    if len(text) > 256 or not _MEDIA_TYPE.fullmatch(text):
        raise Malformed(
            "expected application/json or another type of JSON", pointer="/datacontenttype"
        )
    return False
