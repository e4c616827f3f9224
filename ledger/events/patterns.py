"""Match a member's compact JSON bytes: one precompiled pattern for each shape.

Patterns work on bytes as sent. Possessive quantifiers keep every match linear; the
look-ahead `(?![0-9])` after at most seven digits is what refuses a run of eight
(FORMAT.md, "What is clear and what is sealed"). Nothing here looks at escapes:
`without_escapes` writes a value again for the rare sender that uses them.
"""

from __future__ import annotations

import json
import re
from calendar import isleap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_INT: Final = 2**53 - 1
"""Largest integer that every JSON reader keeps exactly (RFC 8259 §6)."""

NAME: Final = rb'"(?=[^"]{1,64}")[A-Za-z](?:[A-Za-z_.-]++|[0-9]{1,7}+(?![0-9]))*+"'
UUID: Final = rb'"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"'
REF: Final = (
    rb'(?:"(?=[^"]{1,64}")(?![0-9A-Fa-f]{64}")(?:[A-Za-z._:/#-]++|[0-9]{1,7}+(?![0-9]))++"|'
    + UUID
    + rb")"
)
SHA256: Final = rb'"[0-9a-f]{64}"'
TOKEN: Final = rb'"[!#-\[\]-~]{1,255}"'
POSITION: Final = rb"[1-9][0-9]{0,14}"
_DAY: Final = (
    rb"(?:19|2[0-9])[0-9]{2}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    rb"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|[12][0-9]))"
)
_CLOCK: Final = (
    rb"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
    rb"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
STAFF: Final = rb'"(?:[^"\\\x00-\x1f]|\\["\\]){1,256}+"'
SUBJECT: Final = rb'"[A-Za-z0-9._-]{1,64}:(?:[^"\\\x00-\x1f]|\\["\\]){1,512}+"'
_STRING_OR_NUMBER: Final = re.compile(rb'("(?:[^"\\]++|\\.)*+")|(-?[0-9][0-9.eE+-]*+)')

_ISO_3166: Final = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL "
    "BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV "
    "CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD "
    "GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM "
    "IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK "
    "LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW "
    "MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR "
    "PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS "
    "ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY "
    "UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
)


def array(item: bytes, most: int, *, least: int = 1) -> bytes:
    """Write the pattern of an array of items."""
    items = rb"%s(?:,%s){0,%d}" % (item, item, most - 1)
    return rb"\[%s\]" % items if least else rb"\[(?:%s)?\]" % items


def one_of(words: Iterable[str]) -> Callable[[bytes], object]:
    """Return the look-up of a JSON string in a closed set of words."""
    return frozenset(b'"%s"' % word.encode() for word in words).__contains__


def matches(pattern: bytes) -> Callable[[bytes], object]:
    """Return the bound full match of a pattern."""
    return re.compile(pattern).fullmatch


is_country: Final = one_of(_ISO_3166.split())
is_ref: Final = matches(REF)
_is_int: Final = matches(rb"0|[1-9][0-9]{0,15}")
_is_day: Final = matches(b'"' + _DAY + b'"')
_is_time: Final = matches(b'"' + _DAY + b"T" + _CLOCK + b'"')


def accepts_int(raw: bytes) -> bool:
    """Accept an integer token from 0 to 2^53-1."""
    return bool(_is_int(raw)) and (len(raw) < 16 or int(raw) <= MAX_INT)


def _leap_day_exists(raw: bytes) -> bool:
    """Refuse 29 February of a year that has none; every other day was matched."""
    return raw[5:11] != b"-02-29" or isleap(int(raw[1:5]))


def accepts_date(raw: bytes) -> bool:
    """Accept a calendar day."""
    return bool(_is_day(raw)) and _leap_day_exists(raw)


def accepts_time(raw: bytes) -> bool:
    """Accept a time with its offset (RFC 3339 §5.6, upper case, no leap second)."""
    return bool(_is_time(raw)) and _leap_day_exists(raw)


def accepts_moment(raw: bytes) -> bool:
    """Accept a day or a time: a due date rarely has an hour."""
    return accepts_date(raw) if len(raw) == 12 else accepts_time(raw)


def accepts_codes_json(raw: bytes) -> bool:
    """Accept JSON whose every string is a reference and no number could be a phone's."""
    for string, number in _STRING_OR_NUMBER.findall(raw):
        if string:
            if not is_ref(string) and not (b"\\" in string and is_ref(without_escapes(string))):
                return False
        elif re.search(rb"[0-9]{8}", number):
            return False
    return True


def without_escapes(raw: bytes) -> bytes:
    """Write JSON again with as few escapes as possible, for judging only."""
    try:
        value = json.loads(raw.decode())
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return b""
