from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.disclosure import (
    box_binding,
    check_disclosures,
    commit,
    context,
    digest,
    make_disclosure,
    open_box,
    pseudonym,
    read_disclosure,
    safe_name,
    seal_box,
    staff_disclosure,
    unwrap,
    wrap,
)
from ledger.errors import CannotVerify, Malformed, TamperDetected

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
NONCE = bytes(12)
STREAM = UUID(int=7).bytes
CTX = context(b"custody.local/test", b"crm", b"7f3c", 0)
AAD = box_binding(b"custody.local/test", STREAM, 5)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
NAMED = st.lists(st.tuples(TEXT, VALUES), min_size=1, max_size=6, unique_by=lambda pair: pair[0])


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@given(NAMED)
def test_what_is_committed_and_sealed_opens_to_the_same_and_fits_its_digests(values: Any):
    committed = commit(KEY, CTX, [(name, as_json(value)) for name, value in values])
    disclosures = [disclosure for _, disclosure in committed]
    box = seal_box(KEY, CTX, AAD, disclosures, NONCE)
    opened = open_box(KEY, CTX, AAD, box)
    assert opened == disclosures
    check_disclosures([digest(d).decode() for d in disclosures], opened)
    assert [read_disclosure(d) for d in opened] == values


def test_the_construction_is_the_one_in_format_md_section_4():
    """Computed here a second time, from the document alone."""

    def lp(raw: bytes) -> bytes:
        return len(raw).to_bytes(4, "big") + raw

    def b64(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    ctx = lp(b"L") + lp(b"crm/a") + lp(b"id-1") + (3).to_bytes(4, "big")
    assert context(b"L", b"crm/a", b"id-1", 3) == ctx
    event_key = hmac.digest(KEY, b"ledger/sd/v1/event" + ctx, "sha256")
    salt = b64(hmac.digest(event_key, b"salt\0data.note", "sha256")[:16])
    disclosure = b64(f'["{salt}","data.note",{{"b":1.0,"a":"中"}}]'.encode())
    ((shown, found),) = commit(KEY, ctx, [("data.note", '{"b":1.0,"a":"中"}'.encode())])
    assert (shown, found.decode()) == ("data.note", disclosure)
    assert digest(found).decode() == b64(hashlib.sha256(disclosure.encode()).digest())


def test_committing_is_deterministic_and_every_part_of_the_context_matters():
    values = [("subject", b'"crm:C-1"'), ("data.note", b'"words"')]
    first = commit(KEY, CTX, values)
    assert commit(KEY, CTX, values) == first
    others = [
        (OTHER_KEY, CTX),
        (KEY, context(b"custody.local/other", b"crm", b"7f3c", 0)),
        (KEY, context(b"custody.local/test", b"shop", b"7f3c", 0)),
        (KEY, context(b"custody.local/test", b"crm", b"7f3d", 0)),
        (KEY, context(b"custody.local/test", b"crm", b"7f3c", 1)),
        (KEY, context(b"custody.local/test", b"cr", b"m7f3c", 0)),
    ]
    digests = [{digest(d) for _, d in commit(key, ctx, values)} for key, ctx in others]
    digests.append({digest(d) for _, d in first})
    assert len(set.union(*digests)) == 2 * len(digests)


def test_equal_values_under_two_names_have_other_salts_and_digests():
    a, b = commit(KEY, CTX, [("data.a", b"1"), ("data.b", b"1")])
    assert digest(a[1]) != digest(b[1])
    salts = [json.loads(base64.urlsafe_b64decode(d + b"==="))[0] for _, d in (a, b)]
    assert salts[0] != salts[1]


@pytest.mark.parametrize(
    "name",
    [
        "data.personal.a~0b",
        "data.personal.a~1b",
        "data.personal.13800138000",
        "data.personal.x12345678",
        "data.personal.1234.5678901234",
        "data.personal.",
        "",
        "data.personal.Frieda Muster",
        "data.personal.电话",
        'data.personal."',
        "data.personal.-a",
        "data.personal." + "x" * 65,
        "data.personal.line\n",
    ],
)
def test_a_name_that_tells_something_is_hidden(name: str):
    assert not safe_name(name)
    committed = commit(KEY, CTX, [(name, b"1"), ("data.note", b"2"), (name + "!", b"3")])
    assert [shown for shown, _ in committed] == ["~1", "data.note", "~2"]
    assert read_disclosure(committed[0][1]) == (name, 1)


@pytest.mark.parametrize(
    "name", ["subject", "data.note", "data.evidence.0.name", "data.personal.phone_2-a", "x1234567"]
)
def test_a_plain_name_stands_in_clear(name: str):
    assert safe_name(name)


def test_every_bit_of_a_box_is_guarded():
    disclosures = [make_disclosure(b"salt", "note", b'"words"')]
    box = seal_box(KEY, CTX, AAD, disclosures, NONCE)
    for at in range(len(box)):
        for bit in range(8):
            changed = bytearray(box)
            changed[at] ^= 1 << bit
            with pytest.raises(TamperDetected):
                open_box(KEY, CTX, AAD, bytes(changed))
    for size in range(len(box)):
        with pytest.raises(TamperDetected):
            open_box(KEY, CTX, AAD, box[:size])


@pytest.mark.parametrize(
    ("key", "ctx", "aad"),
    [
        (OTHER_KEY, CTX, AAD),
        (KEY, context(b"custody.local/test", b"crm", b"7f3c", 1), AAD),
        (KEY, CTX, box_binding(b"custody.local/test", STREAM, 6)),
        (KEY, CTX, box_binding(b"custody.local/test", UUID(int=8).bytes, 5)),
        (KEY, CTX, box_binding(b"custody.local/tess", STREAM, 5)),
    ],
)
def test_a_box_opens_for_its_own_entry_only(key: bytes, ctx: bytes, aad: bytes):
    box = seal_box(KEY, CTX, AAD, [b"abc"], NONCE)
    with pytest.raises(TamperDetected):
        open_box(key, ctx, aad, box)


def test_disclosures_that_do_not_fit_an_entry_are_told_apart():
    committed = [d for _, d in commit(KEY, CTX, [("data.a", b"1"), ("data.b", b"2")])]
    digests = [digest(d).decode() for d in committed]
    check_disclosures(digests, committed)
    with pytest.raises(TamperDetected):
        check_disclosures(digests, committed[::-1])
    with pytest.raises(CannotVerify):
        check_disclosures(digests, committed[:1])
    for at in range(len(committed[0])):
        changed = bytearray(committed[0])
        changed[at] ^= 1
        with pytest.raises(TamperDetected):
            check_disclosures(digests, [bytes(changed), committed[1]])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"!",
        b"e30",
        b"WzEsMl0",
        b"WzEsIm4iLDNd",
        b"WyJzIiwxLDNd",
        b"\xff",
        b"WyJzIiwibiIsMSwyXQ",
    ],
)
def test_what_is_no_disclosure_is_malformed(raw: bytes):
    with pytest.raises(Malformed):
        read_disclosure(raw)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_a_disclosure_or_malformed(raw: bytes):
    try:
        name, _ = read_disclosure(base64.urlsafe_b64encode(raw).rstrip(b"="))
    except Malformed:
        return
    assert isinstance(name, str)


@given(TEXT, TEXT)
def test_a_pseudonym_stands_for_one_name_under_one_key(name: str, other: str):
    found = pseudonym(staff_disclosure(KEY, name))
    assert (found.version, found.variant) == (8, "specified in RFC 4122")
    assert (found == pseudonym(staff_disclosure(KEY, other))) == (name == other)
    assert found != pseudonym(staff_disclosure(OTHER_KEY, name))
    assert read_disclosure(staff_disclosure(KEY, name)) == ("staff", name)


def test_a_wrapped_key_opens_for_its_owner_and_epoch_only():
    wrapped = wrap(KEY, b"owner", b"secret", NONCE)
    assert unwrap(KEY, b"owner", wrapped) == b"secret"
    for kek, binding in ((OTHER_KEY, b"owner"), (KEY, b"other")):
        with pytest.raises(TamperDetected):
            unwrap(kek, binding, wrapped)
    for at in range(len(wrapped)):
        changed = bytearray(wrapped)
        changed[at] ^= 1
        with pytest.raises(TamperDetected):
            unwrap(KEY, b"owner", bytes(changed))
        with pytest.raises(TamperDetected):
            unwrap(KEY, b"owner", wrapped[:at])
