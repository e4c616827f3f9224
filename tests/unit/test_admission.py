from __future__ import annotations

import base64
import itertools
import json
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.admission import (
    MAX_BOX_BYTES,
    MAX_SEALED_BYTES,
    MAX_STAFF_CHARS,
    admit,
)
from ledger.attributes import MAX_SUBJECT_CHARS, MAX_SUBJECTS
from ledger.core.entry import MAX_ENTRY_BYTES
from ledger.core.strict_json import check_strict, compact
from ledger.errors import Forbidden, LedgerError, Malformed, NotJson, Refused, TooLarge
from ledger.events.taxonomy import TYPES, EventType, Writer, smallest_content
from ledger.identities import Identity, Name, Wrapping
from ledger.keys.keyring import make_keyring
from ledger.sequencing import Group, Head
from tests.fixtures.ledgers import ORIGIN, an_emitter, an_event

if TYPE_CHECKING:
    from ledger.drafts import Draft, Emitter

WRAPPING = Wrapping(make_keyring(ORIGIN))
UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ALL_TYPES = sorted(TYPES)


def drafts_of(event: Any, emitter: Emitter | None = None) -> list[Draft]:
    raw = event if isinstance(event, bytes) else json.dumps(event, ensure_ascii=False).encode()
    return admit(raw, emitter or an_emitter(), origin=ORIGIN.encode())


def entries_of(drafts: list[Draft]) -> list[bytes]:
    """Place drafts after the empty log, everybody being new."""
    group = Group(
        origin=ORIGIN.encode(),
        after=Head(0, bytes(32), ""),
        recorded="2026-01-31T01:30:00.000000Z",
        heads={},
    )
    known: dict[Name, Identity] = {}
    for draft in drafts:
        for name in (*draft.others, *([draft.subject] if draft.subject else [])):
            if name not in known:
                known[name] = WRAPPING.new(name)[0]
        stream = known[draft.subject] if draft.subject else WRAPPING.stream(uuid4())[0]
        group.heads.setdefault(stream.id, (0, None))
        group.place_draft(draft, known, stream)
    return group.entries


def an_emitter_of(event_type: EventType) -> Emitter:
    return an_emitter(by=min(event_type.writers))


def refused(event: Any, emitter: Emitter | None = None) -> Refused:
    with pytest.raises(Refused) as refusal:
        drafts_of(event, emitter)
    return refusal.value


def with_data(**members: Any) -> dict[str, Any]:
    event = an_event()
    return {**event, "data": {**event["data"], **members}}


# -- events as somebody could send them, and what must become of them ---------------


class Token(str):
    """A number as it is written."""

    __slots__ = ()


SECRET_LETTERS = st.text("BCDFGHJKLMNPQRSTVWXZ", min_size=12, max_size=16)
NUMBERS = st.sampled_from(["0", "-0", "1.50", "1E+2", "12345678901234567890123", "0.10e-3"]).map(
    Token
)
ODD_NAMES = [
    "{} x",
    "a.{}",
    "~{}",
    '"{}"',
    "\\{}",
    "{}/",
    "12345678{}",
    "电{}",
    "{}\n",
    "-{}",
    "data.personal.{}",
]


@st.composite
def secrets(draw: st.DrawFn, secret: str, depth: int = 2) -> Any:
    """Give a value of any shape that holds the secret, in a value or in an odd name."""
    shape = draw(st.integers(0, 5 if depth else 1))
    if shape == 0:
        return secret
    if shape == 1:
        return draw(st.sampled_from(["中 {}", '"{}"', "{}\\", "x/{}\t"])).format(secret)
    inner = draw(secrets(secret, depth - 1))
    if shape == 2:
        return [draw(NUMBERS), inner, None, True]
    if shape == 3:
        return {draw(st.sampled_from(ODD_NAMES)).format(secret): inner, "n": draw(NUMBERS)}
    if shape == 4:
        return {"fields": inner, "actor": {"id": inner}, "a": {}, "b": []}
    return [[inner], {"deep": [inner]}]


def example(event_type: EventType, path: str) -> Any:
    return json.loads(event_type.members[path].example, parse_int=Token, parse_float=Token)


@st.composite
def contents(draw: st.DrawFn, event_type: EventType, secret: str) -> dict[str, Any]:
    """Give `data` with what is required and any of the rest, secrets wherever they may be."""
    needed = {*event_type.required, *(group[0] for group in event_type.required_any)}
    optional = sorted(set(event_type.members) - needed)
    chosen = needed | set(draw(st.lists(st.sampled_from(optional), max_size=8)))
    data: dict[str, Any] = {}
    for path in draw(st.permutations(sorted(chosen))):
        storage = event_type.members[path].storage
        value = example(event_type, path)
        if storage == "staff":
            value = [secret, f"x {secret}"] if isinstance(value, list) else f"Frau {secret}"
        elif storage == "record":
            value = f"crm:{secret}-2"
        elif storage == "sealed" and event_type.members[path].name == "text":
            value = draw(secrets(secret))
        head, _, rest = path.partition(".")
        if rest == "*":
            data[head] = {draw(st.sampled_from(["phone", *ODD_NAMES])).format(secret): value}
        elif head.endswith("[]"):
            items = data.setdefault(head[:-2], [{}, {}])
            items[draw(st.integers(0, 1))][rest] = value
        elif rest:
            data.setdefault(head, {})[rest] = value
        else:
            data[head] = value
    within = [v for n, v in data.items() if isinstance(v, dict) and n not in event_type.members]
    for place in (data, *within):
        if draw(st.booleans()):
            name = draw(st.sampled_from(["unheard_of", "Note", *ODD_NAMES]))
            place.setdefault(name.format(secret), draw(secrets(secret)))
    return data


@st.composite
def events(draw: st.DrawFn) -> tuple[EventType, dict[str, Any], str]:
    event_type = TYPES[draw(st.sampled_from(ALL_TYPES))]
    secret = draw(SECRET_LETTERS)
    event: dict[str, Any] = {
        "id": draw(st.sampled_from(["a-1", str(UUID(int=9))])),
        "type": draw(st.sampled_from([event_type.name, event_type.full])),
        "data": draw(contents(event_type, secret)),
    }
    if event_type.subject == "required" or (
        event_type.subject == "optional" and draw(st.booleans())
    ):
        several = [f"crm:{secret}", f"crm:x{secret}"][: draw(st.integers(1, 2))]
        event |= {"subjects": several} if draw(st.booleans()) else {"subject": several[0]}
        event |= draw(st.sampled_from([{}, {"subject": event.get("subject")}]))
    optional = {
        "source": "crm/web",
        "time": "2026-01-31T09:30:00+08:00",
        "specversion": "1.0",
        "datacontenttype": "application/json",
        "traceparent": draw(secrets(secret)),
        "sequence": draw(NUMBERS),
        f"{secret}.x": draw(secrets(secret)),
    }
    for name in draw(st.lists(st.sampled_from(sorted(optional)), unique=True)):
        event[name] = optional[name]
    return event_type, dict(draw(st.permutations(list(event.items())))), secret


NEVER_ESCAPED = {"id", "source", "specversion", "datacontenttype"}


def write(value: Any, draw: st.DrawFn, *, escape: bool = True) -> str:
    """Write JSON with white space and escapes somebody might use."""
    gap = draw(st.sampled_from(["", "", " ", "\r\n\t"]))
    if isinstance(value, Token):
        return value + gap
    if isinstance(value, dict):
        members = (
            write(name, draw) + ":" + write(member, draw, escape=name not in NEVER_ESCAPED)
            for name, member in value.items()
        )
        return "{" + gap + ",".join(members) + "}" + gap
    if isinstance(value, list):
        return "[" + gap + ",".join(write(item, draw) for item in value) + "]" + gap
    if isinstance(value, str) and escape and value and draw(st.integers(0, 4)) == 0:
        head = "".join(f"\\u{ord(char):04X}" for char in value[:5])
        return f'"{head}{json.dumps(value[5:])[1:]}{gap}'
    return json.dumps(value, ensure_ascii=False) + gap


class Model:
    """FORMAT.md 1.5 and 4.1 said a second time, over decoded values instead of bytes."""

    NAMED = "a pseudonym"

    def __init__(self, event_type: EventType, event: dict[str, Any], part: int) -> None:
        self.type = event_type
        self.sealed: list[tuple[str, Any]] = []
        self.event = self._event(event, part)

    def _event(self, event: dict[str, Any], part: int) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for name, value in event.items():
            if name == "data":
                if left := self._object(value, "", "data"):
                    told["data"] = left
            elif name == "type":
                told["type"] = self.type.full
            elif name == "subjects":
                told |= {"part": str(part), "of": str(len(value))}
            elif name in {*NEVER_ESCAPED, "time"}:
                told[name] = value
            elif name != "subject":
                self.sealed.append((segment(name), value))
        return told

    def _object(self, value: dict[str, Any], path: str, at: str) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for name, member in value.items():
            inner, place = f"{path}{name}", f"{at}.{segment(name)}"
            kind = self.type.members.get(inner)
            within = [known for known in self.type.members if known.startswith(inner + ".")]
            if kind is not None and "." not in name:
                if kind.storage == "clear":
                    told[name] = member
                elif kind.storage == "sealed":
                    self.sealed.append((place, member))
                else:
                    told[name] = (
                        [self.NAMED] * len(member) if isinstance(member, list) else self.NAMED
                    )
            elif f"{inner}.*" in within:
                self.sealed += [(f"{place}.{segment(n)}", v) for n, v in member.items()]
            elif within and "." not in name:
                if left := self._object(member, inner + ".", place):
                    told[name] = left
            elif not path and any(k.startswith(f"{name}[].") for k in self.type.members):
                items = [
                    self._object(item, f"{name}[].", f"{place}.{n}")
                    for n, item in enumerate(member)
                ]
                if kept := [item for item in items if item]:
                    told[name] = kept
            else:
                self.sealed.append((place, member))
        return told


def segment(name: str) -> str:
    return name.replace("~", "~0").replace(".", "~1")


def in_order(value: Any) -> Any:
    """Make the order of members count in a comparison, and pseudonyms all alike."""
    if isinstance(value, dict):
        return [(name, in_order(member)) for name, member in value.items()]
    if isinstance(value, list):
        return [in_order(item) for item in value]
    is_uuid = isinstance(value, str) and UUID_TEXT.fullmatch(value) and value != str(UUID(int=9))
    return Model.NAMED if is_uuid else value


def encodings(secret: str) -> set[bytes]:
    """Give every way in which the secret could stand in bytes without being a digest."""
    raw = secret.encode()
    found = {raw, raw.lower(), raw.hex().encode(), raw.hex().upper().encode(), raw[::-1]}
    found.add("".join(f"\\u{ord(char):04x}" for char in secret).encode())
    found.add("".join(f"\\u{ord(char):04X}" for char in secret).encode())
    for shift in range(3):
        # Without the characters at the ends, which depend on what stands beside it.
        whole = base64.b64encode(b"\0" * shift + raw)
        found.add(whole[4 : len(whole) // 4 * 4 - 4])
    return found


@settings(max_examples=100)
@given(events(), st.data())
def test_an_entry_tells_what_is_clear_as_sent_and_nothing_else(sent: Any, data: Any):
    event_type, event, secret = sent
    raw = write(event, data.draw).encode()
    drafts = drafts_of(raw, an_emitter_of(event_type))
    assert len(drafts) == max(1, len(event.get("subjects") or []))
    for part, (draft, entry) in enumerate(zip(drafts, entries_of(drafts), strict=True)):
        model = Model(event_type, event, part)
        told = check_strict(entry)
        assert in_order(told["event"]) == in_order(model.event)
        assert [(at, check_strict(value)) for at, value in draft.sealed] == model.sealed
        assert len(told["sealed"]) == len(draft.sealed) + (draft.subject is not None)
        assert len(entry) <= draft.bound
        assert compact(entry) == entry
        plain = json.dumps(told, ensure_ascii=False).encode()
        for needle in encodings(secret):
            assert needle not in entry
            assert needle not in plain


@pytest.mark.parametrize("name", ALL_TYPES)
def test_the_smallest_event_of_every_type_is_admitted(name: str):
    event_type = TYPES[name]
    event: dict[str, Any] = {"id": "a", "type": name, "data": smallest_content(event_type)}
    if event_type.subject == "required":
        event["subject"] = "crm:C-10023"
    (draft,) = drafts_of(event, an_emitter_of(event_type))
    (entry,) = entries_of([draft])
    told = check_strict(entry)
    assert told["event"]["type"] == event_type.full
    for path, kind in event_type.members.items():
        if kind.storage in {"staff", "record"} and path in event_type.required:
            assert b'"e0117"' not in entry
            assert b"C-10024" not in entry


@pytest.mark.parametrize("name", ALL_TYPES)
def test_each_required_member_is_asked_for_by_its_place(name: str):
    event_type = TYPES[name]
    for path in event_type.required:
        content = smallest_content(event_type)
        place = content
        *parents, last = path.split(".")
        for parent in parents:
            place = place[parent]
        del place[last]
        event: dict[str, Any] = {"id": "a", "type": name, "data": content}
        if event_type.subject == "required":
            event["subject"] = "crm:C-10023"
        refusal = refused(event, an_emitter_of(event_type))
        assert isinstance(refusal, Malformed)
        assert refusal.pointer == "/data/" + path.replace(".", "/")
        assert name in refusal.detail


# -- tokens --------------------------------------------------------------------------


def test_numbers_strings_and_order_stay_as_sent_and_white_space_goes():
    raw = (
        b'{ "data" : {"fields":["pho\\u006ee" , "email"],\n "actor":{ "kind":"pers\\u006fn",'
        b'"id":"e1"}, "sequence": 0, "no\\u0074e": { "a" : 1.0e+2 , "b":"\\u4e2d \xe4\xb8\xad" }},'
        b' "subject" : "crm:C-1","type":"record.accessed", "id":"x" }'
    )
    (draft,) = drafts_of(raw)
    (entry,) = entries_of([draft])
    event = entry[entry.index(b'"event":') + 8 : -1]
    pseudonym = re.compile(rb'"id":"[0-9a-f-]{36}"')
    assert pseudonym.sub(b'"id":"P"', event) == (
        b'{"data":{"fields":["pho\\u006ee","email"],"actor":{"kind":"pers\\u006fn","id":"P"},'
        b'"sequence":0},"type":"ledger.record.accessed.v1","id":"x"}'
    )
    assert draft.sealed == [("data.note", b'{"a":1.0e+2,"b":"\\u4e2d \xe4\xb8\xad"}')]


@pytest.mark.parametrize(
    "data",
    [
        {"origin": {"ip": "10.0.0.1"}},
        {"origin": {}},
        {"evidence": []},
        {"evidence": [{"name": "a.pdf"}, {}]},
        {"personal": {}},
        {"personal": {"phone": "1"}},
    ],
)
def test_objects_and_arrays_of_which_nothing_is_left_are_not_there(data: dict[str, Any]):
    (draft,) = drafts_of(with_data(**data))
    told = check_strict(entries_of([draft])[0])["event"]["data"]
    assert list(told) == ["actor", "fields", "activity"]


def test_data_of_which_nothing_is_left_is_not_there():
    ledger = an_emitter(by=Writer.LEDGER)
    (draft,) = drafts_of({"id": "a", "type": "ledger.read", "data": {"query": "x"}}, ledger)
    told = check_strict(entries_of([draft])[0])["event"]
    assert told == {"id": "a", "type": "ledger.ledger.read.v1"}
    assert [at for at, _ in draft.sealed] == ["data.query"]


def test_arrays_of_objects_keep_what_is_clear_of_each():
    digest = sha256(b"").hexdigest()
    evidence = [{"name": "a.pdf", "sha256": digest}, {"sha256": digest, "page": 3}, {"name": "b"}]
    (draft,) = drafts_of(with_data(evidence=evidence))
    told = check_strict(entries_of([draft])[0])
    assert told["event"]["data"]["evidence"] == [{"sha256": digest}] * 2
    assert [at for at, _ in draft.sealed] == [
        "data.evidence.0.name",
        "data.evidence.1.page",
        "data.evidence.2.name",
    ]


def test_names_that_look_like_paths_are_no_paths():
    """A member named `actor.id` is not the member `id` of `actor`."""
    event = with_data(**{"actor.id": "e9", "evidence[]": [1], "personal.*": 2, "~1": 3, "0": 4})
    (draft,) = drafts_of({**event, "data.note": 5, "": 6})
    told = check_strict(entries_of([draft])[0])
    assert [at for at, _ in draft.sealed] == [
        "data.actor~1id",
        "data.evidence[]",
        "data.personal~1*",
        "data.~01",
        "data.0",
        "data~1note",
        "",
    ]
    assert list(told["sealed"]) == ["subject", "~1", "~2", "~3", "~4", "data.0", "~5", "~6"]
    assert list(told["event"]["data"]) == ["actor", "fields", "activity"]


# -- subjects ------------------------------------------------------------------------


def test_no_subject_is_null_or_left_out():
    granted = {
        "id": "a",
        "type": "access.granted",
        "data": smallest_content(TYPES["access.granted"]),
    }
    for nothing in ({}, {"subject": None}, {"subjects": None}, {"subject": None, "subjects": None}):
        (draft,) = drafts_of({**granted, **nothing})
        assert (draft.subject, draft.part, draft.of) == (None, 0, 1)
        assert draft.sealed == []
        assert set(check_strict(entries_of([draft])[0])["event"]) == {"id", "type", "data"}
    refusal = refused({**granted, "subject": "crm:C-1"})
    assert (type(refusal), refusal.pointer) == (Malformed, "/subject")


def test_one_of_several_subjects_is_part_and_of():
    event = an_event(subject=None, subjects=["crm:a", "crm:b", "crm:c"])
    drafts = drafts_of(event)
    told = [check_strict(entry)["event"] for entry in entries_of(drafts)]
    assert [(t["part"], t["of"]) for t in told] == [("0", "3"), ("1", "3"), ("2", "3")]
    assert [draft.subject.clear for draft in drafts if draft.subject] == ["crm:a", "crm:b", "crm:c"]
    (draft,) = drafts_of(an_event(subject=None, subjects=["crm:a"]))
    told = [check_strict(entry)["event"] for entry in entries_of([draft])]
    assert (told[0]["part"], told[0]["of"]) == ("0", "1")
    (draft,) = drafts_of(an_event(subjects=None))
    assert "of" not in check_strict(entries_of([draft])[0])["event"]


@pytest.mark.parametrize(
    ("change", "pointer", "error"),
    [
        ({"subject": None}, "/subject", Malformed),
        ({"subject": None, "subjects": []}, "/subjects", Malformed),
        ({"subject": None, "subjects": "crm:a"}, "/subjects", Malformed),
        ({"subject": None, "subjects": {"a": 1}}, "/subjects", Malformed),
        ({"subject": None, "subjects": ["crm:a", "crm:b", "crm:a"]}, "/subjects", Malformed),
        ({"subject": None, "subjects": ["crm:a", "crm:\u0061"]}, "/subjects", Malformed),
        ({"subject": None, "subjects": ["crm:a", 1]}, "/subjects/1", Malformed),
        ({"subject": None, "subjects": ["crm:a", None]}, "/subjects/1", Malformed),
        ({"subject": None, "subjects": ["crm:a", "hr:b"]}, "/subjects/1", Forbidden),
        ({"subject": "crm:b", "subjects": ["crm:a"]}, "/subjects", Malformed),
        ({"subject": ""}, "/subject", Malformed),
        ({"subject": 7}, "/subject", Malformed),
        ({"subject": ["crm:a"]}, "/subject", Malformed),
        ({"subject": "C-1"}, "/subject", Malformed),
        ({"subject": "crm:"}, "/subject", Malformed),
        ({"subject": ":a"}, "/subject", Malformed),
        ({"subject": "CRM:a"}, "/subject", Malformed),
        ({"subject": "crm: a"}, "/subject", Malformed),
        ({"subject": "crm:a "}, "/subject", Malformed),
        ({"subject": "crm:a\nb"}, "/subject", Malformed),
        ({"subject": "crm:a\n"}, "/subject", Malformed),
        ({"subject": "hr:a"}, "/subject", Forbidden),
        ({"subject": "crmx:a"}, "/subject", Forbidden),
    ],
)
def test_what_names_no_data_subject_is_refused_at_its_place(
    change: dict[str, Any], pointer: str, error: type[Refused]
):
    refusal = refused(an_event(**change))
    assert (type(refusal), refusal.pointer) == (error, pointer)


@pytest.mark.parametrize(
    "subject", ["crm:a", "crm:a b", "crm:a:b", "crm:中文", "crm:é", "crm:\u00a0x"]
)
def test_what_names_a_data_subject_is_kept_character_by_character(subject: str):
    (draft,) = drafts_of(an_event(subject=subject))
    assert draft.subject == Name("record", subject)


# -- rights --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "source", "within"),
    [
        ("crm", "crm", True),
        ("crm", "crm/web", True),
        ("crm", "crm:web", True),
        ("crm", "crm#1", True),
        ("crm", "crm-web", False),
        ("crm", "crm.web", False),
        ("crm", "crm2", False),
        ("crm", "cr", False),
        ("crm", "CRM", False),
        ("crm", "x/crm", False),
        ("crm/", "crm/web", True),
        ("crm/", "crm/", True),
        ("crm/", "crm", False),
        ("//crm.example/a", "//crm.example/a/b", True),
        ("//crm.example/a", "//crm.example/ab", False),
    ],
)
def test_a_source_is_the_prefix_or_below_it(prefix: str, source: str, within: object):
    emitter = an_emitter(sources=("other", prefix))
    if within:
        (draft,) = drafts_of(an_event(source=source), emitter)
        assert draft.source == source.encode()
        assert draft.emitter == emitter.member
    else:
        refusal = refused(an_event(source=source), emitter)
        assert (type(refusal), refusal.pointer) == (Forbidden, "/source")


def test_an_event_without_source_is_from_the_first_of_its_credential():
    emitter = an_emitter(sources=("crm/a", "crm/b"))
    (draft,) = drafts_of(an_event(), emitter)
    assert draft.source == b"crm/a"
    told = check_strict(entries_of([draft])[0])
    assert told["emitter"] == {"by": "service", "credential": "ck_aaaaaaaaaa", "source": "crm/a"}
    assert "/source" in draft.incomplete


@pytest.mark.parametrize("source", ["", "a b", "crm/12345678", "x" * 129, 7, None, "crm\u0000"])
def test_what_is_no_source_is_refused(source: Any):
    refusal = refused(an_event(source=source), an_emitter(sources=("crm", "x")))
    assert isinstance(refusal, Malformed)


@pytest.mark.parametrize("namespaces", [("crm",), ("hr", "crm"), ("*",)])
def test_a_namespace_is_one_of_the_credentials_or_any(namespaces: tuple[str, ...]):
    drafts_of(an_event(), an_emitter(namespaces=namespaces))
    refusal = refused(an_event(), an_emitter(namespaces=("hr", "crm2", "c")))
    assert isinstance(refusal, Forbidden)


def test_another_record_that_is_named_must_be_in_the_credentials_namespaces_too():
    event = an_event(type="record.linked", data={"actor": {"id": "e1"}, "other": "hr:b"})
    refusal = refused(event)
    assert (type(refusal), refusal.pointer) == (Forbidden, "/data/other")


@pytest.mark.parametrize("name", ALL_TYPES)
def test_a_type_is_written_by_those_who_may_and_by_no_other(name: str):
    event_type = TYPES[name]
    event: dict[str, Any] = {"id": "a", "type": name, "data": smallest_content(event_type)}
    if event_type.subject == "required":
        event["subject"] = "crm:C-1"
    for writer in Writer:
        if writer in event_type.writers:
            drafts_of(event, an_emitter(by=writer))
            drafts_of(event, an_emitter(by=writer, types=frozenset({name})))
        else:
            assert isinstance(refused(event, an_emitter(by=writer)), Forbidden)
            forced = an_emitter(by=writer, types=frozenset({name}))
            assert isinstance(refused(event, forced), Forbidden)
        others = frozenset(TYPES) - {name}
        refusal = refused(event, an_emitter(by=writer, types=others))
        assert (type(refusal), refusal.pointer) == (Forbidden, "/type")


def test_an_unknown_type_is_answered_with_the_nearest_and_not_repeated():
    refusal = refused(an_event(type="record.acessed"))
    assert refusal.pointer == "/type"
    assert refusal.hint is not None
    assert "record.accessed" in refusal.hint
    assert "acessed" not in refusal.detail
    for odd in (None, 7, ["record.accessed"], "", "x" * 100_000):
        assert isinstance(refused(an_event(type=odd)), Malformed)


# -- the other members ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"id": ""}, "/id"),
        ({"id": "a b"}, "/id"),
        ({"id": "x" * 129}, "/id"),
        ({"id": "13800138000"}, "/id"),
        ({"id": 7}, "/id"),
        ({"id": "A0000000-0000-0000-0000-000000000009"}, "/id"),
        ({"time": "yesterday"}, "/time"),
        ({"time": "2026-01-31T09:30:00"}, "/time"),
        ({"time": None}, "/time"),
        ({"specversion": "0.3"}, "/specversion"),
        ({"datacontenttype": "text/plain"}, "/datacontenttype"),
        ({"data": []}, "/data"),
        ({"data": None}, "/data"),
        ({"data": {"actor": "e1", "fields": ["phone"]}}, "/data/actor"),
        ({"data": {"actor": {"id": ""}, "fields": ["phone"]}}, "/data/actor/id"),
        ({"data": {"actor": {"id": 7}, "fields": ["phone"]}}, "/data/actor/id"),
        ({"data": {"actor": {"id": "e"}, "fields": []}}, "/data/fields"),
        ({"data": {"actor": {"id": "e"}, "fields": "phone"}}, "/data/fields"),
    ],
)
def test_what_a_member_may_not_hold_is_refused_at_its_place(change: dict[str, Any], pointer: str):
    refusal = refused(an_event(**change))
    assert (type(refusal), refusal.pointer) == (Malformed, pointer)


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        ({"purpose": "because"}, "/data/purpose"),
        ({"reason_ref": "call 13800138000"}, "/data/reason_ref"),
        ({"evidence": {}}, "/data/evidence"),
        ({"evidence": [{}, 7]}, "/data/evidence/1"),
        ({"evidence": [{}, {"sha256": "x"}]}, "/data/evidence/1/sha256"),
        ({"personal": "x"}, "/data/personal"),
        ({"origin": "10.0.0.1"}, "/data/origin"),
        ({"sequence": -1}, "/data/sequence"),
        ({"a.b/c~d": "x" * MAX_SEALED_BYTES}, "/data/a.b~1c~0d"),
        ({"personal": {"a/b": "x" * MAX_SEALED_BYTES}}, "/data/personal/a~1b"),
    ],
)
def test_a_pointer_leads_to_the_member_that_is_refused(data: dict[str, Any], pointer: str):
    assert refused(with_data(**data)).pointer == pointer


def test_a_pointer_begins_where_the_event_stands_in_the_request():
    with pytest.raises(Refused) as refusal:
        admit(b'{"id":"a"}', an_emitter(), origin=b"o", pointer="/7")
    assert refusal.value.pointer == "/7/type"
    with pytest.raises(NotJson) as not_json:
        admit(b'{"id":"a","id":"b"}', an_emitter(), origin=b"o", pointer="/7")
    assert not_json.value.pointer == "/7/id"


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"x"', b"7", b"", b"{"])
def test_what_is_no_object_is_no_event(raw: bytes):
    assert isinstance(refused(raw), Malformed)


@given(events(), st.data())
def test_a_refusal_never_repeats_what_was_sent(sent: Any, data: Any):
    """Each event is spoilt in one member; whatever the words are, the secret isn't in them."""
    event_type, event, secret = sent
    places = [(event, name) for name in event] + [(event["data"], name) for name in event["data"]]
    place, name = data.draw(st.sampled_from(places))
    place[name] = data.draw(st.sampled_from([secret, [secret], {"x": [secret]}, f"crm:{secret}\n"]))
    raw = write(event, data.draw).encode()
    refusal: LedgerError | None = None
    try:
        drafts_of(raw, an_emitter_of(event_type))
    except LedgerError as error:
        refusal = error
    if refusal is not None:
        assert isinstance(refusal, Refused)
        assert secret not in f"{refusal} {refusal.detail} {refusal.hint} {refusal!r}"
        assert secret not in refusal.pointer or secret in name


# -- limits --------------------------------------------------------------------------


def longest(fits: Any) -> int:
    """Give the largest number that still fits."""
    low, high = 0, 2_000_000
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def test_an_entrys_limit_is_met_exactly_and_said_with_numbers():
    def event_of(size: int) -> dict[str, Any]:
        count, rest = divmod(size, 64)
        refs = [f"{'P' * 63}{n % 10}" for n in range(count)] + (["Q" * rest] if rest else [])
        data = {"actor": {"id": "e"}, "kind": "nda", "parties": refs[:256]}
        event = {"id": "a", "type": "agreement.recorded", "data": data}
        if refs[256:]:
            data["scope"] = refs[256:]
        return event

    def fits(size: int) -> bool:
        try:
            drafts_of(event_of(size))
        except TooLarge:
            return False
        return True

    most = longest(fits)
    (draft,) = drafts_of(event_of(most))
    assert MAX_ENTRY_BYTES - 80 < draft.bound <= MAX_ENTRY_BYTES
    (entry,) = entries_of([draft])
    assert len(entry) <= draft.bound
    refusal = refused(event_of(most + 1))
    assert isinstance(refusal, TooLarge)
    assert str(MAX_ENTRY_BYTES) in refusal.detail


def test_a_sealed_value_may_be_so_long_and_no_longer():
    drafts_of(with_data(note="x" * (MAX_SEALED_BYTES - 2)))
    drafts_of(json.dumps(with_data(note="x" * (MAX_SEALED_BYTES - 2)), indent=4).encode())
    refusal = refused(with_data(note="x" * (MAX_SEALED_BYTES - 1)))
    assert (type(refusal), refusal.pointer) == (TooLarge, "/data/note")


def test_all_sealed_values_of_an_event_may_be_so_long_and_no_longer():
    count, size = 32, MAX_BOX_BYTES // 32
    personal = {f"p{n}": "x" * (size - 2) for n in range(count)}
    drafts_of(with_data(personal=personal))
    personal["p0"] += "x"
    assert isinstance(refused(with_data(personal=personal)), TooLarge)


@pytest.mark.parametrize("name", ["{}", "电{}", "{} ", "{}{}", "é"])
def test_however_many_values_are_sealed_no_entry_is_past_its_bound(name: str):
    """A hidden name is written `~1`, which can be longer than what it hides."""
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 2_000)]
    for count in (1, 11, 101, 1_001, 1_150, 1_200, 2_000):
        values = {name.replace("{}", letter): 1 for letter in letters[:count]}
        try:
            (draft,) = drafts_of({**an_event(), **values})
        except TooLarge:
            assert count > 1_001
            continue
        (entry,) = entries_of([draft])
        assert len(entry) <= draft.bound <= MAX_ENTRY_BYTES


def test_an_event_may_name_so_many_subjects_and_no_more():
    def event_of(count: int) -> dict[str, Any]:
        return an_event(subject=None, subjects=[f"crm:{n}" for n in range(count)])

    drafts = drafts_of(event_of(MAX_SUBJECTS))
    assert len(drafts) == MAX_SUBJECTS
    last = entries_of(drafts)[-1]
    assert check_strict(last)["event"]["part"] == str(MAX_SUBJECTS - 1)
    assert len(last) <= drafts[-1].bound
    assert refused(event_of(MAX_SUBJECTS + 1)).pointer == "/subjects"


def test_a_subject_and_a_name_of_staff_may_be_so_long_and_no_longer():
    drafts_of(an_event(subject="crm:" + "中" * (MAX_SUBJECT_CHARS - 4)))
    assert refused(an_event(subject="crm:" + "x" * (MAX_SUBJECT_CHARS - 3))).pointer == "/subject"
    for length, fits in ((MAX_STAFF_CHARS, True), (MAX_STAFF_CHARS + 1, False)):
        event = with_data(actor={"id": "x" * length})
        if fits:
            drafts_of(event)
        else:
            assert refused(event).pointer == "/data/actor/id"


# -- incomplete ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_TYPES)
def test_what_is_expected_and_missing_is_listed_and_nothing_refused(name: str):
    event_type = TYPES[name]
    event: dict[str, Any] = {"id": "a", "type": name, "data": smallest_content(event_type)}
    if event_type.subject == "required":
        event["subject"] = "crm:C-1"
    (draft,) = drafts_of(event, an_emitter_of(event_type))
    assert draft.incomplete[-2:] == ("/source", "/time")
    for group in event_type.expected:
        pointer = "/data/" + group[0].removesuffix(".*").replace(".", "/")
        given_already = any(
            path in event_type.required or any(path == g[0] for g in event_type.required_any)
            for path in group
        )
        assert (pointer in draft.incomplete) != given_already


def test_an_event_with_all_that_is_expected_is_complete():
    full = with_data(reason_ref="T-1", grant_ref="G-1", masked=True)
    (draft,) = drafts_of({**full, "source": "crm", "time": "2026-01-31T09:30:00+08:00"})
    assert draft.incomplete == ()


def test_every_order_of_the_events_members_makes_a_sound_entry():
    event = an_event(trace="x")
    for order in itertools.permutations(event):
        (draft,) = drafts_of({name: event[name] for name in order})
        told = check_strict(entries_of([draft])[0])["event"]
        assert list(told) == [name for name in order if name not in {"subject", "trace"}]
