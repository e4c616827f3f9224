"""The bytes between a log and a witness (C2SP tlog-witness, "add-checkpoint")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.note import SignatureType, Signer, signature_line
from ledger.core.tiles import MAX_TREE_SIZE
from ledger.errors import CannotVerify, LedgerError, Malformed, TamperDetected
from ledger.witness.protocol import (
    MAX_PROOF_HASHES,
    MAX_REQUEST_BYTES,
    AddCheckpoint,
    log_note,
    parse_add_checkpoint,
    parse_size,
    read_cosignatures,
)
from tests.fixtures.witnesses import SmallLog

if TYPE_CHECKING:
    from collections.abc import Callable

HASHES = st.lists(st.binary(min_size=32, max_size=32), max_size=MAX_PROOF_HASHES)
SIZES = st.integers(0, MAX_TREE_SIZE)
NOTE = SmallLog().note(5)

SPEC_EXAMPLE = """\
old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

\u2014 example.com/behind-the-sofa \
Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
\u2014 example.com/behind-the-sofa \
opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
"""


def test_the_example_of_the_specification_is_read_and_written_again_byte_for_byte():
    request = parse_add_checkpoint(SPEC_EXAMPLE.encode())
    assert request.old_size == 20852014
    assert len(request.proof) == 4
    assert request.checkpoint.origin == "example.com/behind-the-sofa"
    assert request.checkpoint.size == 20852163
    assert request.body() == SPEC_EXAMPLE.encode()


@given(SIZES, HASHES)
def test_what_is_written_is_read_again(old: int, hashes: list[bytes]):
    request = AddCheckpoint(old_size=old, proof=tuple(hashes), note=NOTE)
    assert parse_add_checkpoint(request.body()) == request
    assert len(request.body()) < MAX_REQUEST_BYTES


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_comes_is_a_request_or_malformed(body: bytes):
    try:
        request = parse_add_checkpoint(body)
    except Malformed:
        return
    assert request.body() == body


@given(st.data())
def test_a_request_that_was_cut_or_changed_is_malformed_or_itself(data: st.DataObject):
    """There is one spelling of each request: what passes is written as it came."""
    body = bytearray(SmallLog().request(3, 7))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        request = parse_add_checkpoint(bytes(body))
    except Malformed:
        return
    assert request.body() == bytes(body)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("old 3", "old 03"),
        lambda text: text.replace("old 3", "old -3"),
        lambda text: text.replace("old 3", "old +3"),
        lambda text: text.replace("old 3", "old 3 "),
        lambda text: text.replace("old 3", "old\t3"),
        lambda text: text.replace("old 3", "Old 3"),
        lambda text: text.replace("old 3", "old"),
        lambda text: text.replace("old 3", "old \u0663"),
        lambda text: text.replace("old 3", f"old {MAX_TREE_SIZE + 1}"),
        lambda text: text.replace("old 3\n", ""),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("old 3\n", "old 3\nAAAA\n"),
        lambda text: text.replace("old 3\n", "old 3\n!\n"),
        lambda text: text.replace("\n\n", "\n", 1),
        lambda text: "\ufeff" + text,
        lambda text: text[:-1],
        lambda text: text + "\n",
        lambda text: text.replace("\n7\n", "\n07\n"),
        lambda _: "",
        lambda _: "old 3\n\n",
    ],
)
def test_every_other_spelling_is_malformed(change: Callable[[str], str]):
    text = SmallLog().request(3, 7).decode()
    with pytest.raises(Malformed):
        parse_add_checkpoint(change(text).encode())


def test_63_hashes_pass_and_64_do_not():
    parse_add_checkpoint(SmallLog().request(3, 7, proof=[bytes(32)] * 63))
    body = SmallLog().request(3, 7, proof=[]).decode()
    line = "A" * 43 + "=\n"
    parse_add_checkpoint(body.replace("old 3\n", "old 3\n" + line * 63).encode())
    with pytest.raises(Malformed, match="at most 63"):
        parse_add_checkpoint(body.replace("old 3\n", "old 3\n" + line * 64).encode())


@given(SIZES)
def test_a_size_is_read_as_it_was_written(size: int):
    assert parse_size(f"{size}\n".encode()) == size


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"1", b"01\n", b"1\n\n", b" 1\n", b"-1\n", b"1\r\n", b"\xff\n", b"9" * 30]
)
def test_every_other_size_is_malformed(body: bytes):
    with pytest.raises(Malformed):
        parse_size(body)


# -- cosignatures --------------------------------------------------------------


def a_cosigner(name: str = "w.example/1", seed: int = 1) -> Signer:
    private_key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return Signer.from_private_key(name, private_key, SignatureType.COSIGNATURE)


TEXT = SmallLog().checkpoint(5).text()
LINE = signature_line(TEXT, a_cosigner(), time_s=1_700_000_000)


def test_lines_by_other_keys_are_passed_over():
    other = signature_line(TEXT, a_cosigner("w.example/2", 2), time_s=5)
    (found,) = read_cosignatures(TEXT, (other + LINE).encode(), [a_cosigner().verifier])
    assert (found.line, found.time_s) == (LINE, 1_700_000_000)


def test_a_witness_with_two_keys_gives_two_cosignatures_and_a_repeated_line_counts_once():
    other = a_cosigner("w.example/1", 2)
    lines = LINE + signature_line(TEXT, other, time_s=7) + LINE
    keys = [a_cosigner().verifier, other.verifier]
    found = read_cosignatures(TEXT, lines.encode(), keys)
    assert [one.time_s for one in found] == [1_700_000_000, 7]
    assert len({one.line for one in found}) == 2


def test_a_cosignature_of_another_checkpoint_does_not_count():
    other = SmallLog().checkpoint(6).text()
    with pytest.raises(TamperDetected):
        read_cosignatures(other, LINE.encode(), [a_cosigner().verifier])


def test_what_was_added_to_a_note_can_be_taken_away_again():
    added = NOTE + LINE + signature_line(TEXT, a_cosigner("w.example/2", 2), time_s=5)
    assert log_note(added, SmallLog().origin) == log_note(NOTE, SmallLog().origin) == NOTE


def test_no_line_by_a_pinned_key_is_no_cosignature():
    with pytest.raises(CannotVerify):
        read_cosignatures(TEXT, LINE.encode(), [a_cosigner(seed=2).verifier])


@pytest.mark.parametrize(
    "answer", [b"", b"\n", b"ok\n", LINE.encode()[:-1], b"\xff\n", (LINE + "\n" + LINE).encode()]
)
def test_what_is_not_signature_lines_is_malformed(answer: bytes):
    with pytest.raises(Malformed):
        read_cosignatures(TEXT, answer, [a_cosigner().verifier])


def test_every_flipped_bit_of_a_cosignature_is_noticed():
    line = LINE.encode()
    for place in range(len(line)):
        for bit in range(8):
            changed = bytearray(line)
            changed[place] ^= 1 << bit
            with pytest.raises(LedgerError):
                read_cosignatures(TEXT, bytes(changed), [a_cosigner().verifier])
