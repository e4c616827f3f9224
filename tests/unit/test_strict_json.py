from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.strict_json import MAX_DEPTH, check_strict, compact
from ledger.errors import NotJson

WHITE = st.text(alphabet=" \t\r\n", max_size=3)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
NUMBER = st.from_regex(
    r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?", fullmatch=True
)


def escaped(draw: st.DrawFn, text: str) -> str:
    """Write a string with each character as itself or in one of its escapes."""
    parts = []
    for char in text:
        plain = json.dumps(char, ensure_ascii=False)[1:-1]
        full = json.dumps(char)[1:-1] if ord(char) > 0x7F else f"\\u{ord(char):04x}"
        other = draw(
            st.sampled_from([plain, full, full.replace("\\u", "\\u").upper().replace("\\U", "\\u")])
        )
        parts.append("\\/" if char == "/" and other == full else other)
    return '"' + "".join(parts) + '"'


@st.composite
def documents(draw: st.DrawFn, depth: int = 4) -> tuple[str, Any]:
    """Give JSON as somebody could send it, and what it decodes to, numbers as tokens."""

    def spaced(text: str) -> str:
        return draw(WHITE) + text + draw(WHITE)

    shape = draw(
        st.sampled_from(["word", "number", "text", "array", "object"] if depth else ["text"])
    )
    if shape == "word":
        word = draw(st.sampled_from(["true", "false", "null"]))
        return spaced(word), json.loads(word)
    if shape == "number":
        number = draw(NUMBER)
        return spaced(number), number
    if shape == "text":
        text = draw(TEXT)
        return spaced(escaped(draw, text)), text
    count = draw(st.integers(0, 3))
    items = [draw(documents(depth - 1)) for _ in range(count)]
    if shape == "array":
        inside = ",".join(text for text, _ in items) or draw(WHITE)
        return spaced(f"[{inside}]"), [value for _, value in items]
    names = draw(st.lists(TEXT, min_size=count, max_size=count, unique=True))
    pairs = [
        spaced(escaped(draw, n)) + ":" + text for n, (text, _) in zip(names, items, strict=True)
    ]
    inside = ",".join(pairs) or draw(WHITE)
    return spaced("{" + inside + "}"), {n: v for n, (_, v) in zip(names, items, strict=True)}


@given(documents())
def test_valid_json_is_read_as_the_standard_reader_does_with_numbers_as_sent(document: Any):
    text, expected = document
    found = check_strict(text.encode())
    assert found == expected
    assert found == json.loads(text, parse_int=str, parse_float=str)


def without_white_space(text: str) -> str:
    """Drop white space outside strings, one character at a time."""
    kept, within, escape = "", False, False
    for char in text:
        if within or char not in " \t\r\n":
            kept += char
        if char == '"' and not escape:
            within = not within
        escape = within and char == "\\" and not escape
    return kept


@given(documents())
def test_compacting_drops_white_space_outside_strings_and_nothing_else(document: Any):
    text, _ = document
    found = compact(text.encode())
    assert found == without_white_space(text).encode()
    assert compact(found) == found
    assert check_strict(found) == check_strict(text.encode())


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused_as_not_json(raw: bytes):
    try:
        expected = json.loads(raw.decode(), parse_int=str, parse_float=str, parse_constant=refuse)
    except ValueError:
        with pytest.raises(NotJson):
            check_strict(raw)
    else:
        found = read_or_refusal(raw)
        if isinstance(found, NotJson):
            assert re.search("twice|surrogate|0000", str(found))
        else:
            assert found == expected


def read_or_refusal(raw: bytes) -> Any:
    try:
        return check_strict(raw)
    except NotJson as error:
        return error


def refuse(_: str) -> None:
    raise ValueError


@given(documents(), st.data())
def test_a_damaged_byte_is_read_or_refused_and_never_fails_otherwise(document: Any, data: Any):
    raw = bytearray(document[0].encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.sampled_from(b'"\\{}[]:,\x00\x1f0e-\xff\xed u'))
    found = read_or_refusal(bytes(raw))
    if isinstance(found, NotJson):
        assert not found.pointer or found.pointer.startswith("/")


REFUSED = {
    "a name twice": (b'{"a":1,"a":1}', "/a", "twice"),
    "a name twice, deep": (b'{"x":[0,{"b":{"c":1,"d":2,"c":3}}]}', "/x/1/b/c", "twice"),
    "a name twice, once escaped": (b'{"ab":1,"\\u0061b":2}', "/ab", "twice"),
    "an empty name twice": (b'{"":1,"":2}', "/", "twice"),
    "a name twice with slash and tilde": (b'{"a/b~c":1,"a/b~c":2}', "/a~1b~0c", "twice"),
    "U+0000 escaped": (b'{"a":["\\u0000"]}', "/a/0", "U+0000"),
    "U+0000 in a name": (b'{"a":{"x\\u0000":1}}', "/a", "U+0000"),
    "U+0000 raw": (b'{"a":"\x00"}', "/a", "expected"),
    "a raw line feed": (b'{"a":"\n"}', "/a", "expected"),
    "a lone high surrogate": (b'{"a":"\\ud800"}', "/a", "surrogate"),
    "a lone low surrogate": (b'["x","\\udfff"]', "/1", "surrogate"),
    "surrogates the wrong way round": (b'{"a":"\\udc00\\ud800"}', "/a", "surrogate"),
    "a lone surrogate in a name": (b'{"\\uD8AB":1}', "", "surrogate"),
    "a surrogate in UTF-8": (b'{"a":"\xed\xa0\x80"}', "", "UTF-8"),
    "bad UTF-8": (b'{"a":"\xff"}', "", "UTF-8"),
    "overlong UTF-8": (b'"\xc0\x80"', "", "UTF-8"),
    "a byte order mark": (b'\xef\xbb\xbf{"a":1}', "", "expected"),
    "UTF-16": ('{"a":1}'.encode("utf-16-le"), "", "expected"),
    "NaN": (b'{"a":NaN}', "/a", "expected"),
    "Infinity": (b'{"a":[1,Infinity]}', "/a/1", "expected"),
    "minus Infinity": (b'{"a":-Infinity}', "/a", "expected"),
    "a leading zero": (b'{"a":01}', "", "expected ','"),
    "a leading plus": (b'{"a":+1}', "/a", "expected"),
    "a bare point": (b'{"a":1.}', "", "expected"),
    "digits of another script": ('{"a":\u0661}'.encode(), "/a", "expected"),
    "a trailing comma": (b'{"a":[1,]}', "/a/1", "expected"),
    "a comma before the end": (b'{"a":1,}', "", "name"),
    "a comment": (b'{"a":1/**/}', "", "expected"),
    "single quotes": (b"{'a':1}", "", "expected"),
    "white space of another kind": ('{"a":\u00a01}'.encode(), "/a", "expected"),
    "two values": (b"{} {}", "", "end"),
    "nothing": (b"", "", "end"),
    "an open object": (b'{"a":{"b":1}', "", "end"),
    "an escape that isn't one": (b'{"a":"\\x41"}', "/a", "expected"),
    "a short escape": (b'{"a":"\\u12"}', "/a", "expected"),
    "an escape with a sign": (b'{"a":"\\u+123"}', "/a", "expected"),
}


@pytest.mark.parametrize(("raw", "pointer", "words"), REFUSED.values(), ids=REFUSED)
def test_what_two_readers_could_read_differently_is_refused_with_its_place(
    raw: bytes, pointer: str, words: str
):
    with pytest.raises(NotJson) as refusal:
        check_strict(raw)
    assert refusal.value.pointer == pointer
    assert words in refusal.value.detail


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":"\\ud83d\\ude00"}',
        b'{"a":"\\\\u0000"}',
        b'{"a":"\\\\ud800"}',
        '{"a":"\ufeff\u2028\u0001"}'.encode().replace(b"\x01", b"\\u0001"),
        b'{"a":"\\u005cu0000"}',
        b'{"a":{"b":1},"b":{"a":1}}',
        b'[{"a":1},{"a":1}]',
        b'{"a":1,"A":1}',
    ],
)
def test_what_only_looks_forbidden_is_accepted(raw: bytes):
    assert check_strict(raw) == json.loads(raw, parse_int=str)


@pytest.mark.parametrize(
    "token",
    ["0", "-0", "1.0", "1e5", "1E+05", "-0.10e-7", "9" * 400, "1e999999999", "0." + "1" * 300],
)
def test_a_number_is_kept_token_by_token(token: str):
    raw = b'{"a":[%b]}' % token.encode()
    assert check_strict(raw) == {"a": [token]}
    assert compact(raw) == raw


def nested(levels: int, kinds: str) -> bytes:
    """Nest values so deep, turning through the kinds of brackets; strings hold some more."""
    text = '"[[[{{{"'
    for level in range(levels):
        text = f"[{text}]" if kinds[level % len(kinds)] == "[" else f'{{"]}}":{text}}}'
    return text.encode()


@pytest.mark.parametrize("kinds", ["[", "{", "[{", "{[", "[[{", "{{{["])
def test_nesting_is_bounded_at_exactly_32_levels(kinds: str):
    assert MAX_DEPTH == 32
    check_strict(nested(32, kinds))
    check_strict(b'{"a":[%b,%b],"b":{}}' % (nested(30, kinds), nested(30, kinds)))
    for levels in (33, 34, 40, 64, 65, 5000):
        with pytest.raises(NotJson, match="32 levels"):
            check_strict(nested(levels, kinds))


@given(st.lists(st.sampled_from("[{"), min_size=25, max_size=40))
def test_any_mixture_of_brackets_is_counted(kinds: list[str]):
    raw = nested(len(kinds), "".join(kinds))
    if len(kinds) <= MAX_DEPTH:
        check_strict(raw)
    else:
        with pytest.raises(NotJson, match="32 levels"):
            check_strict(raw)


def test_many_values_side_by_side_are_not_deep():
    raw = b"[" + b",".join([b'{"a":[{}]}'] * 1000) + b"]"
    assert len(check_strict(raw)) == 1000


def test_words_of_a_refusal_never_hold_a_value():
    for raw in (
        b'{"a":"secret","a":"secret"}',
        b'{"a":"secret\\ud800"}',
        b'["secret" "secret"]',
        b'{"a":secret}',
        b'{"a":"secret',
    ):
        with pytest.raises(NotJson) as refusal:
            check_strict(raw)
        assert "secret" not in str(refusal.value) + refusal.value.pointer


def test_a_refusal_of_much_costs_little():
    """Explaining looks at every character once; a long string must not be kept as choices."""
    import tracemalloc

    raw = b'{"a":"' + b"x" * 1_000_000 + b'","a":1}'
    tracemalloc.start()
    with pytest.raises(NotJson, match="twice"):
        check_strict(raw)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * len(raw)
