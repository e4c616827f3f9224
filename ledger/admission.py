"""Turn one event as sent into drafts of entries: checked, split, nothing placed yet.

An event is checked against the taxonomy, and what may not stand in an entry is
cut out of its bytes: sealed values, the subject, names of staff (FORMAT.md 1.5 and 4).
Facts are never refused for breaking a policy; what is expected and missing is
only listed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ledger.attributes import (
    check_specversion,
    id_of,
    is_plain_json,
    source_of,
    subject_of,
    subjects_of,
    type_of,
)
from ledger.core.entry import MAX_ENTRY_BYTES, entry_bound
from ledger.core.strict_json import check_strict, compact
from ledger.drafts import PART, Draft, Emitter, Piece, stream_name
from ledger.errors import Forbidden, Malformed, TooLarge
from ledger.events.custom import UNREGISTERED, CustomTypes
from ledger.events.taxonomy import EventType, kind_named
from ledger.identities import Name, staff_name
from ledger.member_rules import (
    ArrayRule,
    MemberRule,
    ObjectRule,
    Rule,
    SealedRule,
    item_rule,
    rules_of,
    tiers_of,
)
from ledger.paths import pointer_to, segment

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""Most bytes of an event as sent, white space included."""
MAX_SEALED_BYTES = 65_535
"""Most bytes of JSON that one sealed value may have."""
MAX_BOX_BYTES = 1_048_576
"""Most bytes of JSON that the sealed values of one event may have together."""
MAX_STAFF_CHARS = 128
"""Most characters of a name of staff."""

_TIME = kind_named("time")
_SMALL_BYTES = 4_096
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_string = msgspec.json.Decoder(str).decode
_strings = msgspec.json.Decoder(list[str]).decode


def admit(
    raw: bytes,
    emitter: Emitter,
    *,
    origin: bytes,
    pointer: str = "",
    custom: CustomTypes = UNREGISTERED,
    cloud: bool = False,
) -> list[Draft]:
    """Check one event and give a draft for each of its subjects.

    Args:
        raw: the event as sent.
        emitter: who sent it.
        origin: the ledger's.
        pointer: the event's place in the request, before that of each refusal.
        custom: the emitters' own types.
        cloud: whether it was sent as a CloudEvent.

    Raises:
        Malformed: it is not strict JSON or not what its type requires.
        Forbidden: type, source or namespace is outside the emitter's rights.
        TooLarge: an entry or a sealed value would be past its limit.
    """
    try:
        return _Admission(raw, emitter).drafts(origin, custom, cloud=cloud)
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

    def drafts(self, origin: bytes, custom: CustomTypes, *, cloud: bool) -> list[Draft]:
        if len(self.raw) > MAX_EVENT_BYTES:
            raise TooLarge(f"expected an event of at most {MAX_EVENT_BYTES} bytes")
        decoded = check_strict(self.raw)
        if not isinstance(decoded, dict):
            raise Malformed("expected an event: a JSON object")
        event_type = type_of(decoded.get("type"), self.emitter, custom)
        subjects = subjects_of(decoded, event_type, self.emitter)
        self.raw = compact(self.raw)
        attributes = _members(self.raw)
        if cloud:
            attributes = _without_null(attributes)
        if cloud or "specversion" in attributes or "data_base64" in attributes:
            check_specversion(attributes, needed=cloud)
        source = source_of(attributes, self.emitter)
        event_id = id_of(attributes)
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
                stream_name="" if subject is not None else stream_name(event_type, source),
                pieces=self.pieces,
                sealed=self.sealed,
                emitter=emitter,
                incomplete=incomplete,
                bound=bound,
                others=self.others,
            )
            for part, subject in enumerate(subjects)
        ]

    # -- the walk --------------------------------------------------------------

    def _walk_event(self, attributes: dict[str, Any], event_type: EventType) -> None:
        out = self.pieces
        for name, value in attributes.items():
            if name == "data":
                self._shape(bytes(value), b"{", "data")
                self._object(bytes(value), rules_of(event_type))
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
            elif name not in {"subject", "subjects"}:
                self._other(name, bytes(value))
        _close(out, b"}")

    def _other(self, name: str, raw: bytes) -> None:
        """Write what can have one value only; seal the rest."""
        if name == "specversion":
            self.pieces.append(b'"specversion":"1.0",')
        elif name == "datacontenttype" and is_plain_json(raw):
            self.pieces.append(b'"datacontenttype":"application/json",')
        else:
            self._seal(segment(name), raw)

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
                self._seal(f"{within.at}.{segment(key)}", bytes(value))
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
                self._seal(f"{rule.at}.{segment(name)}", bytes(value))

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
                raise Malformed(problem, pointer=pointer_to(rule.at))
        if rule.storage == "clear":
            self.pieces.append(b"%b%b," % (rule.prefix, raw))
        elif rule.storage == "sealed":
            self._seal(rule.at, raw)
        elif rule.storage == "staff":
            self._staff(raw, rule)
        else:
            subject = subject_of(_text(raw, rule.at), self.emitter, pointer_to(rule.at))
            self._name(rule.prefix + b'"', subject)

    def _staff(self, raw: bytes, rule: MemberRule) -> None:
        """Leave places for pseudonyms: of one person, or of each in an array."""
        if raw[:1] != b"[":
            self._name(rule.prefix + b'"', _person(_text(raw, rule.at), rule.at))
            return
        try:
            names = _strings(raw)
        except msgspec.ValidationError:
            raise Malformed("expected an array of strings", pointer=pointer_to(rule.at)) from None
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
                pointer=pointer_to(at),
            )
        self.sealed.append((at, raw))

    @staticmethod
    def _shape(raw: bytes, opening: bytes, at: str) -> None:
        if raw[:1] != opening:
            expected = "an object" if opening == b"{" else "an array"
            raise Malformed(f"expected {expected}", pointer=pointer_to(at))

    # -- the whole -------------------------------------------------------------

    def _check_tiers(self, event_type: EventType, attributes: dict[str, Any]) -> tuple[str, ...]:
        missing, incomplete = tiers_of(event_type, frozenset(self.present))
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


def _without_null(attributes: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """Leave out what is null: in CloudEvents it is as if absent (JSON format 1.0.2, 2.2)."""
    return {name: value for name, value in attributes.items() if bytes(value) != b"null"}


def _close(out: list[Piece], mark: bytes) -> None:
    """End an object or array: the comma after its last member goes."""
    last = out[-1]
    if type(last) is bytes:
        out[-1] = last.removesuffix(b",") + mark


def _person(name: str, at: str) -> Name:
    if not 1 <= len(name) <= MAX_STAFF_CHARS:
        raise Malformed(f"expected 1 to {MAX_STAFF_CHARS} characters", pointer=pointer_to(at))
    return staff_name(name)


def _text(raw: bytes, at: str) -> str:
    try:
        return _string(raw)
    except msgspec.DecodeError:
        raise Malformed("expected a string", pointer=pointer_to(at)) from None
