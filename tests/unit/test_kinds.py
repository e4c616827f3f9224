from __future__ import annotations

import json
import re
import string
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Misconfigured
from ledger.events.kinds import SCALAR_KINDS, kind_named
from ledger.events.vocabularies import VOCABULARIES

REF_CHARS = string.ascii_letters + string.digits + "._:/#-"
NAME_CHARS = string.ascii_letters + string.digits + "_.-"
UUID_SHAPE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
EVERY_SPEC = [
    *SCALAR_KINDS,
    *(f"{name}:{vocabulary}" for vocabulary in VOCABULARIES for name in ("code", "codes")),
]


def accepts(spec: str, raw: bytes) -> bool:
    return kind_named(spec).check(raw) is None


def quoted(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()


def all_escaped(text: str) -> bytes:
    return b'"' + b"".join(b"\\u%04x" % ord(char) for char in text) + b'"'


@pytest.mark.parametrize("spec", EVERY_SPEC)
def test_every_kind_accepts_its_own_example(spec: str):
    kind = kind_named(spec)
    assert kind.check(kind.example) is None
    json.loads(kind.example)


@pytest.mark.parametrize("spec", sorted(set(EVERY_SPEC) - {"text", "codes_json"}))
def test_every_kind_but_free_json_refuses_null_and_objects(spec: str):
    assert not accepts(spec, b"null")
    assert not accepts(spec, b'{"a":1}')
    assert "leave the member out" in str(kind_named(spec).check(b"null"))


def is_a_ref(text: str) -> bool:
    if UUID_SHAPE.fullmatch(text):
        return True
    return (
        1 <= len(text) <= 64
        and set(text) <= set(REF_CHARS)
        and re.search("[0-9]{8}", text) is None
        and re.fullmatch("[0-9a-fA-F]{64}", text) is None
    )


@given(st.text(alphabet=REF_CHARS, max_size=70) | st.text(max_size=10) | st.uuids().map(str))
def test_a_reference_is_exactly_what_the_rule_says(text: str):
    assert accepts("ref", quoted(text)) == is_a_ref(text)


@given(
    st.text(alphabet=REF_CHARS, max_size=20),
    st.text(alphabet=string.digits, min_size=8, max_size=20),
    st.text(alphabet=REF_CHARS, max_size=20),
)
def test_no_reference_holds_eight_digits_in_a_row(before: str, digits: str, after: str):
    text = before + digits + after
    refusal = kind_named("ref").check(quoted(text))
    assert refusal is not None
    assert digits not in refusal
    assert "sealed text member such as note" in refusal


@pytest.mark.parametrize("length", range(1, 12))
def test_a_run_of_digits_is_a_reference_up_to_seven(length: int):
    assert accepts("ref", b'"%s"' % (b"7" * length)) == (length <= 7)
    assert accepts("ref", b'"T-%s-x"' % (b"7" * length)) == (length <= 7)
    assert accepts("name", b'"T%s"' % (b"7" * length)) == (length <= 7)


@given(st.binary(min_size=32, max_size=32).map(bytes.hex))
def test_a_bare_digest_is_a_sha256_and_never_a_reference(digest: str):
    assert accepts("sha256", quoted(digest))
    assert not accepts("ref", quoted(digest))
    assert not accepts("ref", quoted(digest.upper()))
    assert not accepts("codes_json", quoted(digest))
    assert not accepts("sha256", quoted(digest.upper())) or digest.isdigit()
    assert not accepts("sha256", quoted(digest[:-1]))


@given(st.uuids().map(str))
def test_a_uuid_is_a_reference_only_in_its_canonical_form(text: str):
    assert accepts("ref", quoted(text))
    digits = "12345678" + text[8:]
    assert accepts("ref", quoted(digits))
    assert not accepts("ref", quoted("{" + digits + "}"))
    assert not accepts("ref", quoted("x" + digits))


@given(st.text(alphabet=NAME_CHARS, max_size=70) | st.text(max_size=10))
def test_a_name_is_exactly_what_the_rule_says(text: str):
    expected = (
        re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", text) is not None
        and re.search("[0-9]{8}", text) is None
    )
    assert accepts("name", quoted(text)) == expected


@given(st.lists(st.sampled_from(["phone", "id_card", "a.b-c", "13800138000", "电话", ""])))
def test_an_array_of_names_is_as_good_as_its_worst_name(names: list[str]):
    raw = json.dumps(names, ensure_ascii=False, separators=(",", ":")).encode()
    assert accepts("names", raw) == (
        bool(names) and all(accepts("name", quoted(name)) for name in names)
    )


def test_an_array_holds_at_most_256_names():
    for count, fine in ((0, False), (1, True), (256, True), (257, False)):
        raw = json.dumps(["phone"] * count, separators=(",", ":")).encode()
        assert accepts("names", raw) is fine


@given(st.sampled_from(["phone", "T-1042", "13800138000", "service", "2026-01-31", "CN", "é"]))
def test_escapes_change_nothing(text: str):
    for spec in ("name", "ref", "code:purpose", "date", "moment", "country", "staff", "codes_json"):
        assert accepts(spec, all_escaped(text)) == accepts(spec, quoted(text))
    for spec in ("names", "refs", "codes:purpose", "staffs"):
        assert accepts(spec, b"[%s]" % all_escaped(text)) == accepts(spec, b"[%s]" % quoted(text))


def test_escapes_hide_no_digits_behind_another_way_of_writing_a_number():
    assert not accepts("codes_json", b'{"\\u0061":0.00000013800138000}')
    assert not accepts("codes_json", b'{"\\u0061":"\\u0031\\u0033800138000"}')
    assert accepts("codes_json", b'{"\\u0061":0.5}')


def test_a_lone_surrogate_is_refused_and_not_an_error():
    for spec in sorted(set(EVERY_SPEC) - {"text"}):
        assert not accepts(spec, b'"\\ud800"')


@given(st.integers(min_value=-5, max_value=2**60))
def test_an_integer_runs_from_zero_to_two_to_the_53rd_less_one(number: int):
    assert accepts("int", b"%d" % number) == (0 <= number <= 2**53 - 1)


@pytest.mark.parametrize("raw", [b"9007199254740991", b"0", b"1"])
def test_the_borders_of_integers_are_inside(raw: bytes):
    assert accepts("int", raw)


@pytest.mark.parametrize(
    "raw", [b"9007199254740992", b"-1", b"-0", b"1.0", b"1e3", b"01", b'"1"', b"true"]
)
def test_what_is_no_integer_token_is_refused(raw: bytes):
    assert not accepts("int", raw)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6))
def test_a_number_is_a_plain_decimal(number: float):
    assert accepts("number", f"{number:.6f}".encode())


@pytest.mark.parametrize("raw", [b"1e5", b"NaN", b"1" * 16, b"0." + b"1" * 16, b'"1"'])
def test_what_is_no_plain_decimal_is_refused(raw: bytes):
    assert not accepts("number", raw)


WHOLE_MINUTES = st.integers(min_value=-23 * 60 - 59, max_value=23 * 60 + 59).map(
    lambda minutes: timezone(timedelta(minutes=minutes))
)


@given(
    st.datetimes(
        min_value=datetime(1900, 1, 1),  # noqa: DTZ001  hypothesis adds the offset
        max_value=datetime(2999, 12, 31),  # noqa: DTZ001  the same
        timezones=WHOLE_MINUTES,
    )
)
def test_every_time_that_python_writes_is_accepted(moment: datetime):
    text = moment.isoformat()
    assert accepts("time", quoted(text))
    assert accepts("moment", quoted(text))
    assert accepts("moment", quoted(text[:10]))
    assert accepts("date", quoted(text[:10]))
    assert not accepts("date", quoted(text))


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("2026-01-31T09:30:00Z", True),
        ("2026-01-31T09:30:00.123456789+08:00", True),
        ("2026-01-31T09:30:00.1234567890+08:00", False),
        ("2024-02-29T00:00:00Z", True),
        ("2026-02-29T00:00:00Z", False),
        ("2100-02-29T00:00:00Z", False),
        ("2026-04-31T00:00:00Z", False),
        ("2026-13-01T00:00:00Z", False),
        ("2026-01-31T24:00:00Z", False),
        ("2026-01-31T09:30:60Z", False),
        ("2026-01-31T09:30:00", False),
        ("2026-01-31 09:30:00Z", False),
        ("2026-01-31", False),
    ],
)
def test_a_time_bears_its_offset_and_exists(text: str, *, fine: bool):
    assert accepts("time", quoted(text)) is fine


@pytest.mark.parametrize(
    ("text", "fine"),
    [("2026-01-31", True), ("2026-02-30", False), ("2023-02-29", False), ("20260131", False)],
)
def test_a_date_is_a_day_that_exists(text: str, *, fine: bool):
    assert accepts("date", quoted(text)) is fine


@given(st.text(alphabet=string.ascii_letters, min_size=2, max_size=2))
def test_a_country_is_two_capitals_that_iso_assigned(text: str):
    if accepts("country", quoted(text)):
        assert text.isupper()
    assert accepts("country", b'"CN"')
    assert not accepts("country", b'"UK"')


@pytest.mark.parametrize("vocabulary", sorted(VOCABULARIES))
def test_a_coded_member_accepts_its_vocabulary_and_nothing_else(vocabulary: str):
    for code in VOCABULARIES[vocabulary].codes:
        assert accepts(f"code:{vocabulary}", quoted(code))
        assert accepts(f"codes:{vocabulary}", b"[%s,%s]" % (quoted(code), quoted(code)))
        assert not accepts(f"code:{vocabulary}", quoted(code + "_"))
        assert not accepts(f"codes:{vocabulary}", b"[%s]" % quoted("x" + code))
    assert not accepts(f"codes:{vocabulary}", b"[]")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**12), max_value=10**12)
    | st.sampled_from(["phone", "R-1", "13800138000", "张三", "", 'a"b', "a\\b"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["phone", "days", "13800138000", "姓名"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


def is_codes(value: object) -> bool:
    match value:
        case str():
            return is_a_ref(value)
        case bool() | None:
            return True
        case int():
            return len(str(abs(value))) < 8
        case list():
            return all(is_codes(item) for item in value)
        case dict():
            return all(is_a_ref(key) and is_codes(item) for key, item in value.items())
    raise AssertionError


@given(json_values, st.booleans())
def test_json_of_codes_holds_nothing_but_references(value: object, ascii_only: bool):  # noqa: FBT001  hypothesis gives it by position
    raw = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":")).encode()
    assert accepts("codes_json", raw) == is_codes(value)


@given(st.text(min_size=1, max_size=40))
def test_a_person_may_be_called_anything_without_control_characters(text: str):
    fine = not any(char < " " for char in text)
    assert accepts("staff", quoted(text)) == fine
    assert accepts("staffs", b"[%s]" % quoted(text)) == fine


@pytest.mark.parametrize(
    ("raw", "fine"),
    [
        (b'"crm:C-10023"', True),
        ('"crm:客户甲"'.encode(), True),
        (b'"crm:"', False),
        (b'":C-1"', False),
        (b'"C-10023"', False),
        (b'"crm:a\\nb"', False),
    ],
)
def test_another_record_is_named_by_its_subject(raw: bytes, *, fine: bool):
    assert accepts("record", raw) is fine


@given(json_values)
def test_sealed_text_takes_any_json(value: object):
    assert accepts("text", json.dumps(value).encode())


@pytest.mark.parametrize("raw", [b"[]", b"[1]", b"[1,22,333]"])
def test_positions_may_be_none_or_many(raw: bytes):
    assert accepts("seqs", raw)


@pytest.mark.parametrize("raw", [b"[0]", b"[-1]", b"[01]", b"[1,]", b'["1"]', b"1"])
def test_a_position_is_a_positive_integer(raw: bytes):
    assert not accepts("seqs", raw)


@given(st.text(alphabet="0123456789abcdefXYZ张三@", min_size=11, max_size=30))
def test_a_refusal_never_repeats_the_value(text: str):
    for spec in EVERY_SPEC:
        refusal = kind_named(spec).check(quoted(text))
        assert refusal is None or text not in refusal


def test_an_unknown_kind_or_vocabulary_is_a_mistake_of_ours():
    for spec in ("refz", "code:nothing", "code", "ref:purpose"):
        with pytest.raises(Misconfigured):
            kind_named(spec)


def test_a_kind_says_how_its_value_is_kept():
    kept = {spec: kind_named(spec).storage for spec in SCALAR_KINDS}
    assert {spec for spec, storage in kept.items() if storage != "clear"} == {
        "text",
        "sealed_sha256",
        "staff",
        "staffs",
        "record",
    }
    assert kept["staff"] == kept["staffs"] == "staff"
    assert kept["record"] == "record"
