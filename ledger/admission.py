"""Turn one event as sent into drafts of entries: checked, split, nothing placed yet.

An event is checked against the taxonomy, and what may not stand in an entry is
cut out of its bytes: sealed values, the subject, names of staff (FORMAT.md 1.5 and 4).
Facts are never refused for breaking a policy; what is expected and missing is
only listed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import msgspec

from ledger.core.entry import MAX_ENTRY_BYTES, entry_bound
from ledger.core.strict_json import check_strict, compact
from ledger.drafts import PART, Draft, Emitter, Piece
from ledger.errors import Forbidden, Malformed, TooLarge
from ledger.events.taxonomy import EventType, find_type, kind_named, nearest_type
from ledger.identities import Name, record_name, staff_name
from ledger.member_rules import (
    ArrayRule,
    MemberRule,
    ObjectRule,
    Rule,
    SealedRule,
    item_rule,
    rules_of,
)

MAX_SEALED_BYTES = 65_535
"""Most bytes of JSON that one sealed value may have."""
MAX_BOX_BYTES = 1_048_576
"""Most bytes of JSON that the sealed values of one event may have together."""
MAX_SUBJECTS = 1_000
"""Most subjects one event may name."""
MAX_SUBJECT_CHARS = 256
"""Most characters of a subject, namespace included."""
MAX_STAFF_CHARS = 128
"""Most characters of a name of staff."""

_TOKEN = re.compile(rb'"[A-Za-z0-9._:/#-]{1,128}"')
_DIGITS = re.compile(rb"[0-9]{8}")
_UUID = re.compile(rb'"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"')
_SUBJECT = re.compile(
    r"([a-z][a-z0-9_-]{0,31}):([^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?)"
)
_CONSTANTS: Final = {"specversion": b'"1.0"', "datacontenttype": b'"application/json"'}
_TIME = kind_named("time")
_SMALL_BYTES = 4_096
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_string = msgspec.json.Decoder(str).decode
_strings = msgspec.json.Decoder(list[str]).decode


def admit(raw: bytes, emitter: Emitter, *, origin: bytes, pointer: str = "") -> list[Draft]:
    """Check one event and give a draft for each of its subjects.

    Raises:
        Malformed: it is not strict JSON or not what its type requires.
        Forbidden: type, source or namespace is outside the emitter's rights.
        TooLarge: an entry or a sealed value would be past its limit.
    """
    try:
        return _Admission(raw, emitter).drafts(origin)
    except (Malformed, Forbidden, TooLarge) as error:
        error.pointer = pointer + error.pointer
        raise


class _Admission:
    """The walk over one event's members."""

    __slots__ = ("emitter", "others", "pieces", "present", "raw", "sealed")

    def __init__(self, raw: bytes, emitter: Emitter) -> None:
        self.raw = raw
        self.emitter = emitter
        self.pieces: list[Piece] = [b"{"]
        self.sealed: list[tuple[str, bytes]] = []
        self.others: list[Name] = []
        self.present: set[str] = set()

    def drafts(self, origin: bytes) -> list[Draft]:
        decoded = check_strict(self.raw)
        if not isinstance(decoded, dict):
            raise Malformed("expected an event: a JSON object")
        event_type = _type(decoded.get("type"), self.emitter)
        subjects = self._subjects(decoded, event_type)
        self.raw = compact(self.raw)
        attributes = _members(self.raw)
        source = self._source(attributes)
        event_id = _id(attributes)
        self._walk_event(attributes, event_type)
        incomplete = self._check_tiers(event_type, attributes)
        bound = self._bound(origin)
        emitter = self.emitter.member
        if "source" not in attributes:
            emitter = self.emitter.member_with_source
        return [
            Draft(
                type=event_type,
                source=source,
                event_id=event_id,
                part=part,
                of=len(subjects),
                subject=subject,
                pieces=self.pieces,
                sealed=self.sealed,
                emitter=emitter,
                incomplete=incomplete,
                bound=bound,
                others=self.others,
            )
            for part, subject in enumerate(subjects)
        ]

    # -- who and what ----------------------------------------------------------

    def _subjects(self, decoded: dict[str, Any], event_type: EventType) -> list[Name | None]:
        one, many = decoded.get("subject"), decoded.get("subjects")
        if one is not None and many is not None:
            raise Malformed("expected subject or subjects, found both", pointer="/subjects")
        if one is None and many is None:
            if event_type.subject == "required":
                raise Malformed(
                    f"{event_type.name} needs a subject, such as crm:C-10023", pointer="/subject"
                )
            return [None]
        if event_type.subject == "none":
            raise Malformed(f"{event_type.name} has no subject", pointer="/subject")
        if many is None:
            return [self._subject(one, "/subject")]
        if not isinstance(many, list) or not 1 <= len(many) <= MAX_SUBJECTS:
            raise Malformed(f"expected 1 to {MAX_SUBJECTS} subjects", pointer="/subjects")
        names = [self._subject(text, f"/subjects/{i}") for i, text in enumerate(many)]
        if len(set(names)) != len(names):
            raise Malformed("expected each subject once", pointer="/subjects")
        return list(names)

    def _subject(self, text: object, pointer: str) -> Name:
        match = _SUBJECT.fullmatch(text) if isinstance(text, str) else None
        if match is None or len(match.group()) > MAX_SUBJECT_CHARS:
            raise Malformed(
                f"expected namespace:id of at most {MAX_SUBJECT_CHARS} characters", pointer=pointer
            )
        if match[1] not in self.emitter.namespaces and "*" not in self.emitter.namespaces:
            raise Forbidden("this credential may not write about this namespace", pointer=pointer)
        return record_name(match.group())

    def _source(self, attributes: dict[str, Any]) -> bytes:
        if "source" not in attributes:
            return self.emitter.sources[0].encode()
        raw = bytes(attributes["source"])
        _check_source(raw, self.emitter.sources)
        return raw[1:-1]

    # -- the walk --------------------------------------------------------------

    def _walk_event(self, attributes: dict[str, Any], event_type: EventType) -> None:
        out = self.pieces
        for name, value in attributes.items():
            if name == "data":
                self._shape(bytes(value), b"{", "data")
                self._object(bytes(value), rules_of(event_type.name))
            elif name == "type":
                out.append(b'"type":"%b",' % event_type.full.encode())
            elif name in {"id", "source"}:
                out.append(b'"%b":%b,' % (name.encode(), bytes(value)))
            elif name == "time":
                problem = _TIME.check(bytes(value))
                if problem:
                    raise Malformed(problem, pointer="/time")
                out.append(b'"time":%b,' % bytes(value))
            elif name == "subjects" and bytes(value) != b"null":
                out += (b'"part":', PART, b',"of":%d,' % len(_items(bytes(value))))
            elif name in _CONSTANTS:
                self._constant(name, bytes(value))
            elif name not in {"subject", "subjects"}:
                self._seal(_segment(name), bytes(value))
        _close(out, b"}")

    def _constant(self, name: str, raw: bytes) -> None:
        if raw != _CONSTANTS[name]:
            raise Malformed(f"expected {_CONSTANTS[name].decode()}", pointer=f"/{name}")
        self.pieces.append(b'"%b":%b,' % (name.encode(), raw))

    def _object(self, raw: bytes, within: ObjectRule) -> None:
        """Write a member that is an object, without what is sealed of it."""
        out = self.pieces
        mark = len(out)
        out.append(within.opening)
        rules = within.rules
        present = self.present
        for key, value in _members(raw).items():
            rule = rules.get(key)
            if type(rule) is MemberRule:
                present.add(rule.path)
                member = bytes(value)
                if rule.storage == "clear" and rule.accepts(member):
                    out.append(b"%b%b," % (rule.prefix, member))
                else:
                    self._member(member, rule)
            elif rule is None:
                self._seal(f"{within.at}.{_segment(key)}", bytes(value))
            else:
                self._nested(bytes(value), rule)
        if len(out) == mark + 1:
            del out[mark:]
        else:
            _close(out, b"},")

    def _nested(self, raw: bytes, rule: Rule) -> None:
        if isinstance(rule, ObjectRule):
            self._shape(raw, b"{", rule.at)
            self._object(raw, rule)
        elif isinstance(rule, ArrayRule):
            self._shape(raw, b"[", rule.at)
            self._array(raw, rule)
        elif isinstance(rule, SealedRule):
            self._shape(raw, b"{", rule.at)
            self.present.add(rule.path)
            for name, value in _members(raw).items():
                self._seal(f"{rule.at}.{_segment(name)}", bytes(value))

    def _array(self, raw: bytes, rule: ArrayRule) -> None:
        out = self.pieces
        mark = len(out)
        out.append(rule.opening)
        for index, item in enumerate(_items(raw)):
            within = item_rule(rule, index)
            self._shape(bytes(item), b"{", within.at)
            self._object(bytes(item), within)
        if len(out) == mark + 1:
            del out[mark:]
        else:
            _close(out, b"],")

    def _member(self, raw: bytes, rule: MemberRule) -> None:
        if not rule.accepts(raw):
            problem = rule.kind.check(raw)
            if problem:
                raise Malformed(problem, pointer=_pointer(rule.at))
        if rule.storage == "clear":
            self.pieces.append(b"%b%b," % (rule.prefix, raw))
        elif rule.storage == "sealed":
            self._seal(rule.at, raw)
        elif rule.storage == "staff":
            self._staff(raw, rule)
        else:
            subject = self._subject(_text(raw, rule.at), _pointer(rule.at))
            self._name(rule.prefix + b'"', subject)

    def _staff(self, raw: bytes, rule: MemberRule) -> None:
        """Leave places for pseudonyms: of one person, or of each in an array."""
        if raw[:1] != b"[":
            self._name(rule.prefix + b'"', _person(_text(raw, rule.at), rule.at))
            return
        try:
            names = _strings(raw)
        except msgspec.ValidationError:
            raise Malformed("expected an array of strings", pointer=_pointer(rule.at)) from None
        self.pieces.append(rule.prefix + b"[")
        for index, name in enumerate(names):
            self._name(b'"', _person(name, f"{rule.at}.{index}"))
        _close(self.pieces, b"],")

    def _name(self, before: bytes, name: Name) -> None:
        self.pieces += (before, name, b'",')
        self.others.append(name)

    def _seal(self, at: str, raw: bytes) -> None:
        if len(raw) > MAX_SEALED_BYTES:
            raise TooLarge(
                f"expected at most {MAX_SEALED_BYTES} bytes in a sealed value, found {len(raw)}",
                pointer=_pointer(at),
            )
        self.sealed.append((at, raw))

    @staticmethod
    def _shape(raw: bytes, opening: bytes, at: str) -> None:
        if raw[:1] != opening:
            expected = "an object" if opening == b"{" else "an array"
            raise Malformed(f"expected {expected}", pointer=_pointer(at))

    # -- the whole -------------------------------------------------------------

    def _check_tiers(self, event_type: EventType, attributes: dict[str, Any]) -> tuple[str, ...]:
        missing, incomplete = _tiers(event_type.name, frozenset(self.present))
        if missing:
            needed, pointer = missing
            raise Malformed(f"{event_type.name} needs {needed}", pointer=pointer)
        if "source" in attributes and "time" in attributes:
            return incomplete
        return (*incomplete, *(f"/{n}" for n in ("source", "time") if n not in attributes))

    def _bound(self, origin: bytes) -> int:
        """Give the most bytes an entry of this can have; quickly where it is small.

        Raises:
            TooLarge: an entry, or what is sealed beside it, would be past its limit.
        """
        digests = 57
        if self.sealed:
            boxed = sum([len(value) for _, value in self.sealed])
            if boxed > MAX_BOX_BYTES:
                raise TooLarge(
                    f"expected at most {MAX_BOX_BYTES} bytes in an event's sealed values, "
                    f"found {boxed}"
                )
            # A hidden name's `~1234` can be longer than the name it stands for.
            digests += sum([max(len(name), 5) + 49 for name, _ in self.sealed])
        event = len(self.raw) + 64 + 36 * len(self.pieces)
        if event > _SMALL_BYTES:
            event = sum([len(p) if type(p) is bytes else 36 for p in self.pieces])
        emitter = self.emitter.member_with_source
        bound = entry_bound(origin=origin, emitter=emitter, sealed_bytes=digests, event_bytes=event)
        if bound > MAX_ENTRY_BYTES:
            raise TooLarge(
                f"expected an entry of at most {MAX_ENTRY_BYTES} bytes, found up to {bound}"
            )
        return bound


def _type(name: object, emitter: Emitter) -> EventType:
    if not isinstance(name, str):
        raise Malformed("expected a type, such as record.accessed", pointer="/type")
    event_type = find_type(name)
    if event_type is None:
        nearest = nearest_type(name) if len(name) <= 256 else None
        hint = f"did you mean {nearest}?" if nearest else "see GET /v1/event-types"
        raise Malformed("expected a known type", pointer="/type", hint=hint)
    if event_type.name not in emitter.allowed:
        raise Forbidden(f"this credential may not write {event_type.name}", pointer="/type")
    return event_type


def _id(attributes: dict[str, Any]) -> bytes:
    raw = bytes(attributes.get("id", b""))
    if not _TOKEN.fullmatch(raw) or (_DIGITS.search(raw) and not _UUID.fullmatch(raw)):
        raise Malformed(
            "expected an id of 1 to 128 of A-Z a-z 0-9 . _ : / # - without 8 or more "
            "digits in a row, or a UUID in lower case",
            pointer="/id",
        )
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


@lru_cache(maxsize=4096)
def _tiers(
    type_name: str, present: frozenset[str]
) -> tuple[tuple[str, str] | None, tuple[str, ...]]:
    """Give the first thing required and missing, and pointers of what is expected and missing."""
    event_type = find_type(type_name)
    assert event_type is not None  # noqa: S101 - it was found by this name a moment ago
    missing = event_type.missing(present)
    incomplete = tuple(_pointer("data." + path) for path in event_type.incomplete(present))
    if not missing:
        return None, incomplete
    return (" or ".join(missing[0]), _pointer("data." + missing[0][0])), incomplete


def _close(out: list[Piece], mark: bytes) -> None:
    """End an object or array: the comma after its last member goes."""
    last = out[-1]
    if type(last) is bytes:
        out[-1] = last.removesuffix(b",") + mark


def _person(name: str, at: str) -> Name:
    if not 1 <= len(name) <= MAX_STAFF_CHARS:
        raise Malformed(f"expected 1 to {MAX_STAFF_CHARS} characters", pointer=_pointer(at))
    return staff_name(name)


def _text(raw: bytes, at: str) -> str:
    try:
        return _string(raw)
    except msgspec.DecodeError:
        raise Malformed("expected a string", pointer=_pointer(at)) from None


def _segment(name: str) -> str:
    """Write a member's name as one segment of a path (FORMAT.md 4.1)."""
    return name.replace("~", "~0").replace(".", "~1")


def _pointer(path: str) -> str:
    """Write a path as a JSON pointer, which escapes other characters (RFC 6901 section 3)."""
    names = (part.replace("~1", ".").replace("~0", "~") for part in path.split("."))
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)
