"""Strict reading of JSON that keeps every token as it was sent (FORMAT.md 1.5).

The common case runs in C: one pass of the standard decoder with hooks. Only a
refusal is looked at again, slowly, to say where it stands.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ledger.errors import NotJson

MAX_DEPTH = 32
"""Levels of nesting that an event may have, itself the first."""

# Possessive: a match that can backtrack keeps a hundred bytes for each one it has read.
_STRING = r'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_TOKEN = re.compile(rf"({_STRING})|({_NUMBER})|(true|false|null)|([\[\]{{}}:,])|([ \t\r\n]+)")
_COMPACT = re.compile(rb'(?>"[^"\\]*(?:\\.[^"\\]*)*"|[^" \t\r\n]+)+')
_WHITE = re.compile(rb"[ \t\r\n]")
_SUSPECT_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[^\[\]{}"]+')
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


def check_strict(raw: bytes) -> Any:
    """Refuse JSON that two readers could read differently; give it decoded.

    Numbers are given as the strings of their tokens, so that none is too big.

    Raises:
        NotJson: bad UTF-8, bad syntax, a name twice in an object, U+0000, a lone
            surrogate, NaN or Infinity, or more than `MAX_DEPTH` levels.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise NotJson(f"expected UTF-8, found another byte at offset {error.start}") from None
    try:
        value, end = _SCAN(text, 0)
        if end != len(text):
            value = _DECODER.decode(text)  # white space around it, or more than one value
    except (ValueError, RecursionError, StopIteration):
        value = _decode_slowly(text)
    if "\\u" in text and _SUSPECT_ESCAPE.search(text) and not _is_plain(value):
        raise _explain(text)
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
        raise _explain(text)
    return value


def _decode_slowly(text: str) -> Any:
    """Decode what the scanner did not take at its first character."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        raise _explain(text) from None


def compact(raw: bytes) -> bytes:
    """Drop white space outside strings and change nothing else."""
    if _WHITE.search(raw) is None:
        return raw
    return b"".join(_COMPACT.findall(raw))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _refuse_constant(_: str) -> None:
    raise ValueError


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=str, parse_float=str, parse_constant=_refuse_constant
)


_SCAN: Any = _DECODER.scan_once  # type: ignore[attr-defined]


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
    if isinstance(value, dict):
        return all(_is_plain(k) and _is_plain(v) for k, v in value.items())
    return not isinstance(value, list) or all(map(_is_plain, value))


def _depth(raw: bytes) -> int:
    # One kind of bracket: replacing two kinds in turn would peel two levels at a time.
    brackets = _BRACKETS.sub(b"", raw).translate(_ONE_KIND)
    depth = 0
    while brackets:
        brackets = brackets.replace(b"[]", b"")
        depth += 1
        if depth > MAX_DEPTH:
            break
    return depth


def _explain(text: str) -> NotJson:
    """Find the first thing that is wrong, by the grammar of RFC 8259, and its place."""
    return _Explainer(text).run()


class _Explainer:
    """A slow walk over tokens that knows at every moment where it stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.offset = 0
        self.path: list[str] = []

    def run(self) -> NotJson:
        try:
            self._value(1)
            if self._peek() is not None:
                raise self._error("expected the end after the value")
        except NotJson as error:
            return error
        return self._error("expected strict JSON")

    def _error(self, detail: str) -> NotJson:
        escaped = (part.replace("~", "~0").replace("/", "~1") for part in self.path)
        pointer = "".join("/" + part for part in escaped)
        return NotJson(f"{detail} (offset {self.offset})", pointer=pointer)

    def _peek(self) -> tuple[int, str] | None:
        while self.offset < len(self.text):
            match = _TOKEN.match(self.text, self.offset)
            if match is None:
                raise self._error("expected a JSON value, name or separator")
            if match.lastindex != 5:
                return match.lastindex or 0, match.group()
            self.offset = match.end()
        return None

    def _take(self) -> tuple[int, str]:
        found = self._peek()
        if found is None:
            raise self._error("expected more, found the end")
        self.offset += len(found[1])
        return found

    def _expect(self, mark: str) -> None:
        if self._take()[1] != mark:
            raise self._error(f"expected {mark!r}")

    def _string(self, token: str) -> str:
        decoded: str = json.loads(token)
        if "\x00" in decoded:
            raise self._error("expected no character U+0000")
        if not _is_plain(decoded):
            raise self._error("expected no lone surrogate")
        return decoded

    def _value(self, depth: int) -> None:
        kind, token = self._take()
        if kind == 1:
            self._string(token)
        elif token.startswith(("{", "[")):
            if depth > MAX_DEPTH:
                raise self._error(f"expected at most {MAX_DEPTH} levels of nesting")
            (self._object if token.startswith("{") else self._array)(depth)
        elif kind == 4:
            raise self._error("expected a value")

    def _object(self, depth: int) -> None:
        names: set[str] = set()
        if self._peek_is("}"):
            return
        while True:
            kind, token = self._take()
            if kind != 1:
                raise self._error("expected a name in quotes")
            name = self._string(token)
            self.path.append(name if len(name) <= 64 else "…")
            if name in names:
                raise self._error("expected each name once in an object, found it twice")
            names.add(name)
            self._expect(":")
            self._value(depth + 1)
            self.path.pop()
            if self._next("}"):
                return

    def _array(self, depth: int) -> None:
        index = 0
        if self._peek_is("]"):
            return
        while True:
            self.path.append(str(index))
            self._value(depth + 1)
            self.path.pop()
            index += 1
            if self._next("]"):
                return

    def _peek_is(self, mark: str) -> bool:
        found = self._peek()
        if found is not None and found[1] == mark:
            self.offset += 1
            return True
        return False

    def _next(self, closing: str) -> bool:
        token = self._take()[1]
        if token not in {closing, ","}:
            raise self._error(f"expected ',' or {closing!r}")
        return token == closing
