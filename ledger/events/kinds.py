"""Say of a member's value whether it stands in clear, and check what may.

A kind works on the value's compact JSON bytes exactly as they were sent: this is
the hot path of every event, so a scalar costs one match or one look-up in a set.
What stands in clear is a code of a closed vocabulary, a name, a reference, a
number, a time or a digest; everything else is sealed (design.md, invariant 4;
FORMAT.md, "What is clear and what is sealed"). A value is never repeated in the
words that refuse it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from ledger.errors import Misconfigured
from ledger.events.patterns import (
    NAME,
    POSITION,
    REF,
    SHA256,
    STAFF,
    SUBJECT,
    TOKEN,
    accepts_codes_json,
    accepts_date,
    accepts_int,
    accepts_moment,
    accepts_time,
    array,
    is_country,
    is_ref,
    matches,
    one_of,
    without_escapes,
)
from ledger.events.vocabularies import VOCABULARIES

if TYPE_CHECKING:
    from collections.abc import Callable

Storage: TypeAlias = Literal["clear", "sealed", "staff", "record"]
"""clear: stays in the entry; sealed: salted digest, opens with the customer's key;
staff: a person's random pseudonym; record: another record's UUID."""

_SEALED_ADVICE: Final = "; put anything else into a sealed text member such as note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Tell what a member may hold and how it is kept."""

    name: str
    """Kind as `taxonomy.toml` writes it, without a vocabulary: `code`, `ref`, `staff` …"""
    storage: Storage
    """How the value is kept."""
    vocabulary: str | None = None
    """Vocabulary of a coded member."""
    expects: str = field(repr=False, compare=False)
    """What is expected, in words that continue "expected …"."""
    example: bytes = field(repr=False, compare=False)
    """A value that this kind accepts, as compact JSON."""
    accepts: Callable[[bytes], object] = field(repr=False, compare=False)
    """Truthy for compact JSON bytes that this kind allows."""
    reads_escapes: bool = field(default=False, repr=False, compare=False)
    """Whether `accepts` understands escapes by itself; else they are undone for it."""

    def check(self, raw: bytes) -> str | None:
        """Return None for a value that is fine, else a short sentence of what was expected.

        Args:
            raw: the value as compact JSON bytes, exactly as sent. That it is
                valid JSON was established by whoever cut it out.
        """
        if self.accepts(raw):
            return None
        if b"\\" in raw and not self.reads_escapes and self.accepts(without_escapes(raw)):
            return None
        if raw == b"null":
            return f"expected {self.expects}; leave the member out when there is none"
        return f"expected {self.expects}"


class _Sort(NamedTuple):
    """What one line of the table of kinds says."""

    storage: Storage
    expects: str
    example: bytes
    accepts: Callable[[bytes], object]
    reads_escapes: bool = False


_NAME_WORDS: Final = (
    "letter first, then up to 63 of [A-Za-z0-9_.-], without 8 digits in a row" + _SEALED_ADVICE
)
_REF_WORDS: Final = (
    "1 to 64 of [A-Za-z0-9._:/#-] without 8 digits in a row, or a lower-case UUID, "
    "and no bare SHA-256" + _SEALED_ADVICE
)
_MOMENT_WORDS: Final = "a date YYYY-MM-DD or a time with offset such as 2026-01-31T09:30:00+08:00"
_EXAMPLE_SHA256: Final = b'"' + b"0a" * 32 + b'"'

_SORTS: Final[dict[str, _Sort]] = {
    "name": _Sort("clear", f"a name: {_NAME_WORDS}", b'"front-desk"', matches(NAME)),
    "names": _Sort(
        "clear",
        f"an array of 1 to 256 names, each {_NAME_WORDS}",
        b'["phone"]',
        matches(array(NAME, 256)),
    ),
    "ref": _Sort("clear", f"a reference: {_REF_WORDS}", b'"T-1042"', is_ref),
    "refs": _Sort(
        "clear",
        f"an array of 1 to 256 references, each {_REF_WORDS}",
        b'["P-7"]',
        matches(array(REF, 256)),
    ),
    "int": _Sort("clear", "an integer from 0 to 9007199254740991", b"1", accepts_int),
    "number": _Sort(
        "clear",
        "a decimal number without exponent, at most 15 digits on either side of the point",
        b"92.5",
        matches(rb"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?"),
    ),
    "bool": _Sort("clear", "true or false", b"true", frozenset((b"true", b"false")).__contains__),
    "time": _Sort(
        "clear",
        "a time with offset such as 2026-01-31T09:30:00+08:00 (RFC 3339)",
        b'"2026-01-31T09:30:00+08:00"',
        accepts_time,
    ),
    "date": _Sort("clear", "a date YYYY-MM-DD", b'"2026-01-31"', accepts_date),
    "moment": _Sort("clear", _MOMENT_WORDS, b'"2026-01-31"', accepts_moment),
    "country": _Sort(
        "clear",
        "an ISO 3166 alpha-2 country code in upper case",
        b'"CN"',
        is_country,
    ),
    "sha256": _Sort(
        "clear", "a SHA-256 as 64 lower-case hex digits", _EXAMPLE_SHA256, matches(SHA256)
    ),
    "seq": _Sort("clear", "an entry's position: 1, 2, 3 …", b"1", matches(POSITION)),
    "seqs": _Sort(
        "clear",
        "an array of entries' positions: 1, 2, 3 …",
        b"[1,2]",
        matches(array(POSITION, 10_000, least=0)),
    ),
    "codes_json": _Sort(
        "clear",
        f"JSON whose every string and key is {_REF_WORDS}; numbers below 8 digits",
        b'{"fields":["phone"],"days":30}',
        accepts_codes_json,
        reads_escapes=True,
    ),
    "token": _Sort(
        "clear",
        "1 to 255 printable ASCII, no space, quote or backslash",
        b'"a.example/b"',
        matches(TOKEN),
    ),
    "tokens": _Sort(
        "clear",
        "an array of strings of 1 to 255 printable ASCII, no space, quote or backslash",
        b'["a.example/b"]',
        matches(array(TOKEN, 256, least=0)),
    ),
    "text": _Sort("sealed", "any JSON value", b'"in words"', lambda _raw: True, reads_escapes=True),
    "sealed_sha256": _Sort(
        "sealed", "a SHA-256 as 64 lower-case hex digits", _EXAMPLE_SHA256, matches(SHA256)
    ),
    "staff": _Sort(
        "staff",
        "a person's id as a non-empty string of at most 256 bytes",
        b'"e0117"',
        matches(STAFF),
    ),
    "staffs": _Sort(
        "staff",
        "an array of 1 to 256 persons' ids, each a non-empty string of at most 256 bytes",
        b'["e0117"]',
        matches(array(STAFF, 256)),
    ),
    "record": _Sort("record", "a subject as namespace:id", b'"crm:C-10024"', matches(SUBJECT)),
}


def _code_kind(name: str, vocabulary: str) -> Kind:
    """Build the kind of one code (`code`) or of an array of codes (`codes`)."""
    codes = list(VOCABULARIES[vocabulary].codes)
    words = f"vocabulary {vocabulary}: {', '.join(codes)}"
    one = b'"%s"' % codes[0].encode()
    if name == "code":
        accepts: Callable[[bytes], object] = one_of(codes)
        expects, example = f"a code of the {words}", one
    else:
        item = b'"(?:%s)"' % b"|".join(re.escape(code.encode()) for code in codes)
        accepts = matches(array(item, 256))
        expects, example = f"an array of 1 to 256 codes of the {words}", b"[%s]" % one
    return Kind(
        name=name,
        storage="clear",
        vocabulary=vocabulary,
        expects=expects,
        example=example,
        accepts=accepts,
    )


@cache
def kind_named(spec: str) -> Kind:
    """Return the kind that `taxonomy.toml` calls `spec`, such as `ref` or `code:purpose`.

    Raises:
        Misconfigured: no kind or no vocabulary bears this name.
    """
    name, _, vocabulary = spec.partition(":")
    if name in ("code", "codes") and vocabulary in VOCABULARIES:
        return _code_kind(name, vocabulary)
    sort = _SORTS.get(spec)
    if sort is None:
        raise Misconfigured(f"taxonomy.toml: no kind {spec!r}; expected one of {sorted(_SORTS)}")
    return Kind(name=name, **sort._asdict())


SCALAR_KINDS: Final = tuple(_SORTS)
"""Every kind that needs no vocabulary, by name."""
