"""Signed notes against C2SP signed-note and tlog-cosignature, and against forgers."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.note import (
    MAX_SIGNATURES,
    MAX_TIME_S,
    SignatureType,
    Signer,
    Verifier,
    decode_base64,
    open_note,
    parse_verifier,
    sign_note,
    signature_line,
    split_note,
)
from ledger.errors import CannotVerify, Malformed, Misconfigured, TamperDetected

DASH = "\u2014"
TEXT = "custody.example/log\n17\nsecond last line\n"

# The example of signed-note, "Verifier keys".
PUBLISHED_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
PUBLISHED_NOTE = (
    "This is an example message.\n\n"
    f"{DASH} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1"
    "ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)


def private_key(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32))


def signer(seed: int, name: str = "custody.example/log") -> Signer:
    return Signer.from_private_key(name, private_key(seed))


def cosigner(seed: int, name: str = "witness.example/w1") -> Signer:
    return Signer.from_private_key(name, private_key(seed), SignatureType.COSIGNATURE)


LOG = signer(1)
WITNESS = cosigner(2)

names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Z", "C"], exclude_characters="+"),
    min_size=1,
    max_size=20,
).filter(lambda name: not any(map(str.isspace, name)))
texts = st.text(st.characters(codec="utf-8", min_codepoint=0x20) | st.just("\n")).map(
    lambda text: text + "\n"
)


def test_the_published_note_opens_with_the_published_key():
    verifier = parse_verifier(PUBLISHED_KEY)
    note = open_note(PUBLISHED_NOTE, [verifier])
    assert note.text == "This is an example message.\n"
    assert [signature.verifier for signature in note.signatures] == [verifier]
    assert verifier.verifier_key() == PUBLISHED_KEY


def test_the_published_notes_every_changed_character_is_noticed():
    verifier = parse_verifier(PUBLISHED_KEY)
    for place, character in enumerate(PUBLISHED_NOTE):
        for bit in range(7):
            changed = chr(ord(character) ^ 1 << bit)
            forged = PUBLISHED_NOTE[:place] + changed + PUBLISHED_NOTE[place + 1 :]
            with pytest.raises((Malformed, TamperDetected, CannotVerify)):
                open_note(forged, [verifier])


@given(text=texts, name=names, seed=st.integers(0, 2**256 - 1))
def test_any_text_that_can_be_signed_opens_again(text: str, name: str, seed: int):
    by = signer(seed, name)
    note = open_note(sign_note(text, [by]), [parse_verifier(by.verifier.verifier_key())])
    assert note.text == text
    assert [(one.verifier, one.time_s) for one in note.signatures] == [(by.verifier, None)]


@given(text=texts, name=names, time_s=st.integers(0, MAX_TIME_S))
def test_any_cosignature_opens_again_and_tells_its_time(text: str, name: str, time_s: int):
    by = cosigner(3, name)
    note = open_note(sign_note(text, [by], time_s=time_s), [by.verifier])
    assert [(one.verifier, one.time_s) for one in note.signatures] == [(by.verifier, time_s)]


def test_a_cosignature_covers_header_time_and_text():
    line = signature_line(TEXT, WITNESS, time_s=1679315147)
    blob = base64.b64decode(line.split(" ")[2])
    assert blob[:4] == WITNESS.verifier.key_id
    assert int.from_bytes(blob[4:12]) == 1679315147
    message = b"cosignature/v1\ntime 1679315147\n" + TEXT.encode()
    private_key(2).public_key().verify(blob[12:], message)


def test_a_cosignature_with_another_time_is_noticed():
    honest = sign_note(TEXT, [WITNESS], time_s=1000)
    head, encoded = honest.rstrip("\n").rsplit(" ", 1)
    blob = bytearray(base64.b64decode(encoded))
    blob[11] ^= 1
    forged = f"{head} {base64.b64encode(blob).decode()}\n"
    with pytest.raises(TamperDetected):
        open_note(forged, [WITNESS.verifier])


def test_a_cosignature_whose_time_is_past_what_the_format_allows_is_refused():
    time_s = MAX_TIME_S + 1
    raw = private_key(2).sign(f"cosignature/v1\ntime {time_s}\n{TEXT}".encode())
    with pytest.raises(TamperDetected):
        WITNESS.verifier.check(TEXT, time_s.to_bytes(8) + raw)


def test_a_signature_of_one_type_doesnt_serve_as_another():
    same_key = Signer.from_private_key("custody.example/log", private_key(2))
    plain = private_key(2).sign(TEXT.encode())
    assert same_key.verifier.key_id != WITNESS.verifier.key_id
    with pytest.raises(TamperDetected):
        WITNESS.verifier.check(TEXT, bytes(8) + plain)


@pytest.mark.parametrize("length", [0, 7, 8, 63, 65, 71, 73])
def test_a_signature_of_another_length_is_no_signature(length: int):
    for by in (LOG, WITNESS):
        with pytest.raises(TamperDetected):
            by.verifier.check(TEXT, bytes(length))


def test_a_verifier_key_whose_base64_contains_plus_is_parted_at_the_first_two_only():
    seed = next(seed for seed in range(99) if "+" in signer(seed).verifier.verifier_key()[29:])
    verifier = signer(seed).verifier
    assert verifier.verifier_key().count("+") > 2
    assert parse_verifier(verifier.verifier_key()) == verifier


@pytest.mark.parametrize(
    "verifier_key",
    [
        "",
        "example.com/foo",
        "example.com/foo+530d903a",
        "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/bar+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2l",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3Q==",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k\n",
        "example.com/foo+530d903a+",
    ],
)
def test_a_verifier_key_with_any_mistake_is_refused(verifier_key: str):
    with pytest.raises(Malformed):
        parse_verifier(verifier_key)


def test_a_verifier_key_of_a_type_not_known_here_leaves_the_verdict_open():
    encoded = base64.b64encode(b"\x06" + bytes(1312)).decode()
    with pytest.raises(CannotVerify, match="0x06"):
        parse_verifier(f"witness.example/pq+00000000+{encoded}")


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\u00a0b", "a\u2028b", "a\nb", "a\x00b", "\ud800"]
)
def test_a_key_name_with_spaces_plus_or_controls_is_refused(name: str):
    with pytest.raises(Malformed):
        Verifier(name=name, kind=SignatureType.ED25519, public_key=LOG.verifier.public_key)


def test_a_signature_by_an_unknown_key_is_passed_over():
    stranger = signer(9, "stranger.example")
    note = open_note(sign_note(TEXT, [stranger, LOG]), [LOG.verifier])
    assert [signature.verifier for signature in note.signatures] == [LOG.verifier]


def test_an_unknown_signature_of_any_kind_and_length_is_passed_over():
    post_quantum = base64.b64encode(b"\1\2\3\4" + bytes(2428)).decode()
    note = sign_note(TEXT, [LOG]) + f"{DASH} witness.example/pq {post_quantum}\n"
    assert open_note(note, [LOG.verifier]).text == TEXT


def test_a_bad_signature_that_shares_only_name_or_only_id_with_a_known_key_is_passed_over():
    def line(name: str, key_id: bytes) -> str:
        return f"{DASH} {name} {base64.b64encode(key_id + bytes(64)).decode()}\n"

    same_name = line(LOG.verifier.name, b"\0\0\0\0")
    same_id = line("other.example", LOG.verifier.key_id)
    both = line(LOG.verifier.name, LOG.verifier.key_id)
    honest = sign_note(TEXT, [LOG])
    assert open_note(honest + same_name + same_id, [LOG.verifier]).text == TEXT
    with pytest.raises(TamperDetected):
        open_note(honest + both, [LOG.verifier])


def test_a_note_signed_only_by_strangers_leaves_the_verdict_open():
    with pytest.raises(CannotVerify):
        open_note(sign_note(TEXT, [LOG]), [signer(9).verifier])
    with pytest.raises(CannotVerify):
        open_note(sign_note(TEXT, [LOG]), [])


def test_a_bad_signature_by_one_known_key_isnt_outweighed_by_a_good_one():
    good = signature_line(TEXT, LOG)
    bad = signature_line("another text\n", signer(2))
    with pytest.raises(TamperDetected):
        open_note(f"{TEXT}\n{good}{bad}", [LOG.verifier, signer(2).verifier])


def test_a_key_that_signs_twice_counts_once():
    lines = [signature_line(TEXT, WITNESS, time_s=time_s) for time_s in (1000, 2000)]
    note = open_note(f"{TEXT}\n{''.join(lines)}", [WITNESS.verifier, WITNESS.verifier])
    assert [signature.time_s for signature in note.signatures] == [1000]


@pytest.mark.parametrize("count", [16, MAX_SIGNATURES])
def test_a_note_may_bear_many_signatures(count: int):
    signers = [signer(seed) for seed in range(1, count + 1)]
    note = open_note(sign_note(TEXT, signers), [by.verifier for by in signers])
    assert [one.verifier for one in note.signatures] == [by.verifier for by in signers]


def test_a_note_with_more_signatures_than_the_limit_is_refused():
    line = signature_line(TEXT, LOG)
    with pytest.raises(Malformed):
        open_note(f"{TEXT}\n{line * (MAX_SIGNATURES + 1)}", [LOG.verifier])


def test_the_last_empty_line_ends_the_text():
    text = "first\n\nsecond\n\n\n"
    assert open_note(sign_note(text, [LOG]), [LOG.verifier]).text == text


def test_a_note_within_a_notes_text_isnt_taken_for_its_signatures():
    inner = sign_note("inner\n", [signer(9)])
    outer = open_note(sign_note(inner, [LOG]), [LOG.verifier, signer(9).verifier])
    assert outer.text == inner
    assert [one.verifier for one in outer.signatures] == [LOG.verifier]


@pytest.mark.parametrize("line_end", ["\u0085", "\u2028", "\u2029"])
def test_only_a_line_feed_ends_a_line(line_end: str):
    text = f"one{line_end}line\n"
    assert open_note(sign_note(text, [LOG]), [LOG.verifier]).text == text


@pytest.mark.parametrize("control", [*map(chr, range(10)), *map(chr, range(11, 32)), "\ud800"])
def test_control_characters_and_lone_surrogates_are_refused_anywhere(control: str):
    honest = sign_note(TEXT, [LOG])
    for place in (0, 3, len(TEXT) + 1, len(honest) - 1):
        with pytest.raises(Malformed):
            open_note(honest[:place] + control + honest[place:], [LOG.verifier])
    with pytest.raises(Malformed):
        sign_note(f"a{control}b\n", [LOG])


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "\n\n",
        "text\n",
        "text\n\n",
        "text\n\n\n",
        f"\n{DASH} a AAAAAAA=\n",
        f"text\n{DASH} a AAAAAAA=\n",
        f"text\n\n{DASH} a AAAAAAA=",
        f"text\r\n\r\n{DASH} a AAAAAAA=\r\n",
        "text\n\n- a AAAAAAA=\n",
        f"text\n\n{DASH}  a AAAAAAA=\n",
        f"text\n\n{DASH} a  AAAAAAA=\n",
        f"text\n\n{DASH} a AAAAAAA= \n",
        f"text\n\n{DASH} a b AAAAAAA=\n",
        f"text\n\n{DASH} a+b AAAAAAA=\n",
        f"text\n\n{DASH} a\u00a0b AAAAAAA=\n",
        f"text\n\n{DASH}  AAAAAAA=\n",
        f"text\n\n{DASH} a \n",
        f"text\n\n{DASH} a AAAAAA==\n",
        f"text\n\n{DASH} a AAAAAAB=\n",
        f"text\n\n{DASH} a AAAAAAA\n",
        f"text\n\n{DASH} a AAAA-_A=\n",
        f"text\n\n{DASH} a AAAAAAA=\nanything\n",
        f"text\n\n{DASH} a AAAAAAA=\n{DASH} a",
    ],
)
def test_a_note_out_of_form_is_refused(note: str):
    with pytest.raises(Malformed):
        split_note(note)


def test_a_note_in_form_is_cut_into_text_and_lines():
    text, lines = split_note(f"text\n\n{DASH} a AAECAwQ=\n")
    assert text == "text\n"
    assert [(line.name, line.key_id, line.signature) for line in lines] == [
        ("a", b"\0\1\2\3", b"\4")
    ]


@pytest.mark.parametrize(
    "encoded", ["A", "AA", "AA=", "AB==", "AAA=\n", "AA==AA==", "AA====", "A A=", "é"]
)
def test_base64_in_another_spelling_is_refused(encoded: str):
    with pytest.raises(Malformed):
        decode_base64("test", encoded)


def test_two_different_keys_under_one_name_and_id_are_a_wrong_setting():
    # Found by counting up from zero: the first two of these keys that share an id.
    first, second = (
        replace(LOG.verifier, public_key=number.to_bytes(32)) for number in (57029, 93465)
    )
    assert first.key_id == second.key_id
    with pytest.raises(Misconfigured):
        open_note(sign_note(TEXT, [LOG]), [LOG.verifier, first, second])


def test_a_callable_can_sign_in_the_place_of_a_private_key():
    elsewhere = replace(LOG, sign=lambda message: private_key(1).sign(message))
    assert sign_note(TEXT, [elsewhere]) == sign_note(TEXT, [LOG])


def test_a_signer_that_gives_no_signature_is_a_wrong_setting():
    broken = replace(LOG, sign=lambda _message: b"")
    with pytest.raises(Misconfigured):
        sign_note(TEXT, [broken])


@pytest.mark.parametrize("time_s", [None, -1, MAX_TIME_S + 1])
def test_a_cosigner_needs_a_time(time_s: int | None):
    with pytest.raises(Misconfigured):
        sign_note(TEXT, [WITNESS], time_s=time_s)


def test_a_note_needs_a_signer():
    with pytest.raises(Misconfigured):
        sign_note(TEXT, [])


@pytest.mark.parametrize("text", ["", "no line feed at the end", "tab\there\n"])
def test_a_text_that_cant_be_in_a_note_isnt_signed(text: str):
    with pytest.raises(Malformed):
        sign_note(text, [LOG])
