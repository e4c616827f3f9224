from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.admission import admit
from ledger.control import _check_rights
from ledger.errors import Forbidden, Malformed, Misconfigured
from ledger.events.custom import MAX_TYPE_CHARS, UNREGISTERED, is_custom_name, load_custom_types
from ledger.events.taxonomy import TYPES, Writer, describe
from tests.fixtures.ledgers import ORIGIN, an_emitter
from tests.unit.test_admission import entries_of

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.drafts import Draft, Emitter
    from ledger.events.custom import CustomTypes

NAME = "com.example.points.redeemed"
FILE = f"""
[types."{NAME}"]
zh = "积分兑换"
en = "Points redeemed"
[types."{NAME}".members]
points = "int"
shop = "ref"
cashier = "staff"
"till.id" = "ref"
"till.place" = "text"
"lines[].sku" = "ref"
"extra.*" = "text"
[types."{NAME}".labels]
points = ["积分", "Points"]
"""


def loaded(tmp_path: Path, text: str = FILE) -> CustomTypes:
    path = tmp_path / "types.toml"
    path.write_text(text, encoding="utf-8")
    return load_custom_types(path)


def drafts_of(
    content: str, custom: CustomTypes = UNREGISTERED, emitter: Emitter | None = None, **more: str
) -> list[Draft]:
    subject = more.get("subject", "")
    raw = f'{{"id":"a","type":"{more.get("name", NAME)}"{subject},"data":{content}}}'.encode()
    return admit(raw, emitter or an_emitter(), origin=ORIGIN.encode(), custom=custom)


@pytest.mark.parametrize(
    "name",
    [
        "com.example.thing",
        "com.example.thing.v1",
        "cn.com.jiazheng.order-placed",
        "io.x.0a_b",
        "com.example." + "a" * (MAX_TYPE_CHARS - 12),
        "c-1.a.b",
        "events.a.b",
    ],
)
def test_a_reverse_dns_name_can_be_an_emitters_own_type(name: str):
    assert is_custom_name(name)
    found = UNREGISTERED.find(name)
    assert found is not None
    assert (found.name, found.full, found.custom) == (name, name, True)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "thing",
        "example.thing",
        "com.example.",
        ".com.example",
        "com..example",
        "Com.example.thing",
        "com.Example.thing",
        "com.example.thing ",
        "com.example.thing\n",
        "com.example.zhang三",
        "com.example.-a",
        "com.example._a",
        "1com.example.thing",
        "com.example.13800138000",
        "com.example." + "a" * (MAX_TYPE_CHARS - 11),
        "ledger.example.thing",
        "ledger.record.acessed.v1",
        "record.accessed.v1",
        "record.viewed.often",
        "source.reported.v1",
    ],
)
def test_a_name_that_is_not_one_or_could_be_a_misspelling_is_no_type(name: str):
    assert not is_custom_name(name)
    assert UNREGISTERED.find(name) is None


@given(st.text(max_size=140))
def test_any_name_that_can_be_a_type_is_safe_in_clear(name: str):
    if is_custom_name(name):
        assert name.isascii()
        assert not any(char in name for char in '"\\ \n')


def test_a_misspelt_full_name_is_still_answered_with_the_nearest():
    with pytest.raises(Malformed) as refusal:
        drafts_of("{}", name="record.accessed.v1")
    assert (refusal.value.pointer, refusal.value.hint) == ("/type", "did you mean record.accessed?")


def test_no_noun_of_the_taxonomy_begins_an_own_type():
    assert not any(is_custom_name(f"{name}.more.v1") for name in TYPES)


# -- what becomes of their data ----------------------------------------------------------


def test_data_of_an_unregistered_type_is_sealed_whole():
    content = '{"points":7,"shop":"Chaoyang","till":{"id":"T-1"},"list":[1,2],"none":null}'
    (draft,) = drafts_of(content)
    assert draft.sealed == [
        ("data.points", b"7"),
        ("data.shop", b'"Chaoyang"'),
        ("data.till", b'{"id":"T-1"}'),
        ("data.list", b"[1,2]"),
        ("data.none", b"null"),
    ]
    (entry,) = entries_of([draft])
    assert b"Chaoyang" not in entry
    assert f'"type":"{NAME}"'.encode() in entry
    assert b'"event":{"id":"a","type":"com.example.points.redeemed"}' in entry


def test_members_that_every_type_allows_are_what_they_are_everywhere():
    content = '{"actor":{"id":"e1"},"sequence":7,"backfill":true,"note":"in words","points":7}'
    (draft,) = drafts_of(content)
    assert [name for name, _ in draft.sealed] == ["data.note", "data.points"]
    (entry,) = entries_of([draft])
    assert b'"sequence":7,"backfill":true' in entry
    assert b'"e1"' not in entry
    with pytest.raises(Malformed) as refusal:
        drafts_of('{"sequence":"7"}')
    assert refusal.value.pointer == "/data/sequence"


def test_registered_members_stand_as_their_kinds_say(tmp_path: Path):
    content = (
        '{"points":7,"shop":"S-1","cashier":"e2","till":{"id":"T-1","place":"left","odd":1},'
        '"lines":[{"sku":"K-1","odd":2}],"extra":{"a":1,"b":2},"other":3}'
    )
    (draft,) = drafts_of(content, loaded(tmp_path))
    assert [name for name, _ in draft.sealed] == [
        "data.till.place",
        "data.till.odd",
        "data.lines.0.odd",
        "data.extra.a",
        "data.extra.b",
        "data.other",
    ]
    (entry,) = entries_of([draft])
    assert b'"data":{"points":7,"shop":"S-1","cashier":"' in entry
    assert b'"till":{"id":"T-1"},"lines":[{"sku":"K-1"}]}' in entry
    assert b'"e2"' not in entry.partition(b'"event"')[2].replace(b"example", b"")


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        ('{"points":"seven"}', "/data/points"),
        ('{"shop":"a shop in words"}', "/data/shop"),
        ('{"till":7}', "/data/till"),
        ('{"lines":{}}', "/data/lines"),
        ('{"lines":[{"sku":"a b"}]}', "/data/lines/0/sku"),
        ('{"extra":[]}', "/data/extra"),
    ],
)
def test_a_registered_member_of_another_kind_is_refused_at_its_place(
    tmp_path: Path, content: str, pointer: str
):
    with pytest.raises(Malformed) as refusal:
        drafts_of(content, loaded(tmp_path))
    assert refusal.value.pointer == pointer


def test_an_own_type_can_be_about_somebody_or_nobody():
    (draft,) = drafts_of("{}")
    assert (draft.subject, draft.stream_name) == (None, NAME)
    (draft,) = drafts_of("{}", subject=',"subject":"crm:C-1"')
    assert draft.subject is not None
    assert len(drafts_of("{}", subject=',"subjects":["crm:C-1","crm:C-2"]')) == 2


# -- rights ------------------------------------------------------------------------------


def test_an_emitter_of_all_types_may_write_its_own_and_one_of_some_only_those():
    assert drafts_of("{}", emitter=an_emitter())
    assert drafts_of("{}", emitter=an_emitter(types=frozenset({NAME})))
    for types in ({"record.accessed"}, {NAME + "x"}):
        with pytest.raises(Forbidden) as refusal:
            drafts_of("{}", emitter=an_emitter(types=frozenset(types)))
        assert NAME not in refusal.value.detail
    with pytest.raises(Forbidden):
        drafts_of("{}", emitter=an_emitter(by=Writer.LEDGER))


def test_one_of_own_types_only_may_write_nothing_of_the_taxonomy():
    emitter = an_emitter(types=frozenset({NAME}))
    raw = b'{"id":"a","type":"record.accessed","subject":"crm:1","data":{}}'
    with pytest.raises(Forbidden):
        admit(raw, emitter, origin=ORIGIN.encode())


def test_a_credential_can_be_drawn_for_own_types():
    _check_rights(["crm"], ["crm"], [NAME, "record.accessed"])
    for wrong in ("record.acessed", "ledger.read", "policy.published", "example.thing"):
        with pytest.raises(Malformed):
            _check_rights(["crm"], ["crm"], [wrong])


# -- the file ------------------------------------------------------------------------------


def test_a_registered_type_is_described_as_the_others_are(tmp_path: Path):
    custom = loaded(tmp_path)
    assert custom.sha256 == hashlib.sha256(FILE.encode()).hexdigest()
    (described,) = describe(custom.registered.values())
    assert (described["type"], described["full"], described["zh"]) == (NAME, NAME, "积分兑换")
    members = described["members"]
    assert isinstance(members, dict)
    assert members["points"]["zh"] == "积分"
    assert members["shop"]["en"] == "shop"
    assert members["till.place"]["storage"] == "sealed"


def test_no_file_registers_nothing():
    assert load_custom_types(None) is UNREGISTERED


def test_a_file_without_types_of_its_own_is_read(tmp_path: Path):
    assert loaded(tmp_path, "[types]").registered == {}


HEAD = f'[types."{NAME}"]\nzh = "甲"\nen = "A"\n'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "types = 7",
        "[types",
        "[other]",
        HEAD + "[more]",
        '[types."example.thing"]\nzh = "甲"\nen = "A"',
        '[types."record.accessed"]\nzh = "甲"\nen = "A"',
        '[types."record.accessed.v1"]\nzh = "甲"\nen = "A"',
        f'[types."{NAME}"]\nzh = "甲"',
        f'[types."{NAME}"]\nzh = ""\nen = "A"',
        f'[types."{NAME}"]\nzh = 1\nen = "A"',
        f'types."{NAME}" = 7',
        HEAD + "subject = 'none'",
        HEAD + "members = 7",
        HEAD + "members = { points = 'integer' }",
        HEAD + "members = { points = 'code:nothing' }",
        HEAD + "members = { points = 7 }",
        HEAD + "members = { points = ['int'] }",
        HEAD + "members = { points = { a = 'int' } }",
        HEAD + "members = { 'a.b.c' = 'int' }",
        HEAD + "members = { 'a b' = 'int' }",
        HEAD + "members = { '' = 'int' }",
        HEAD + "members = { 'a12345678' = 'int' }",
        HEAD + "members = { 'a[]' = 'int' }",
        HEAD + "members = { 'a[].*' = 'text' }",
        HEAD + "members = { 'a.*' = 'int' }",
        HEAD + "members = { a = 'int', 'a.b' = 'int' }",
        HEAD + "members = { 'a[].b' = 'int', 'a.b' = 'int' }",
        HEAD + "members = { 'a.*' = 'text', 'a.b' = 'int' }",
        HEAD + "members = { sequence = 'text' }",
        HEAD + "members = { 'actor.name' = 'text' }",
        HEAD + "members = { personal = 'int' }",
        HEAD + "labels = { points = ['甲', 'A'] }",
        HEAD + "members = { points = 'int' }\nlabels = { points = ['甲'] }",
        HEAD + "members = { points = 'int' }\nlabels = { points = '甲A' }",
        HEAD + "members = { points = 'int' }\nlabels = { points = [1, 2] }",
    ],
)
def test_a_file_that_is_not_as_it_must_be_is_refused_at_the_start(tmp_path: Path, text: str):
    with pytest.raises(Misconfigured, match="LEDGER_TYPES"):
        loaded(tmp_path, text)


def test_a_file_that_is_not_there_is_refused_at_the_start(tmp_path: Path):
    with pytest.raises(Misconfigured, match="LEDGER_TYPES"):
        load_custom_types(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"[types]\n# \xff")
    with pytest.raises(Misconfigured, match="LEDGER_TYPES"):
        load_custom_types(tmp_path / "latin.toml")
