"""Checkpoints against C2SP tlog-checkpoint, and against logs that pose as others."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.checkpoint import (
    Checkpoint,
    open_checkpoint,
    parse_checkpoint,
    parse_decimal,
    sign_checkpoint,
)
from ledger.core.note import SignatureType, Signer, sign_note
from ledger.errors import CannotVerify, LedgerError, Malformed, Misconfigured, TamperDetected

ORIGIN = "example.com/behind-the-sofa"
ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
PUBLISHED_TEXT = f"{ORIGIN}\n20852163\n{ROOT}\n"
DASH_LINE = "\u2014 looks.like/a-signature AAAAAAA="


def log_signer(seed: int = 1, name: str = ORIGIN) -> Signer:
    return Signer.from_private_key(name, Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32)))


def witness() -> Signer:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    return Signer.from_private_key("witness.example", key, SignatureType.COSIGNATURE)


lines = st.text(st.characters(codec="utf-8", min_codepoint=0x20), min_size=1)
checkpoints = st.builds(
    Checkpoint,
    origin=lines,
    size=st.integers(0, 2**63 - 1),
    root=st.binary(min_size=32, max_size=32),
    extensions=st.lists(lines, max_size=3).map(tuple),
)


def test_the_published_text_is_read_and_written_alike():
    checkpoint = parse_checkpoint(PUBLISHED_TEXT)
    assert (checkpoint.origin, checkpoint.size) == (ORIGIN, 20852163)
    assert checkpoint.root.hex().startswith("0ac5186a91863e8e")
    assert checkpoint.text() == PUBLISHED_TEXT


@given(checkpoints)
def test_every_checkpoint_comes_back_from_its_text(checkpoint: Checkpoint):
    assert parse_checkpoint(checkpoint.text()) == checkpoint


@given(
    st.integers(0, len(PUBLISHED_TEXT)),
    st.integers(0, 3),
    st.text(st.sampled_from("0129+/=\n\t aJ\u0661"), max_size=4),
)
def test_a_text_edited_anywhere_is_refused_or_written_back_alike(at: int, cut: int, put: str):
    text = PUBLISHED_TEXT[:at] + put + PUBLISHED_TEXT[at + cut :]
    try:
        checkpoint = parse_checkpoint(text)
    except Malformed:
        return
    assert checkpoint.text() == text


@pytest.mark.parametrize(
    "digits",
    [
        "",
        "00",
        "01",
        "-0",
        "+1",
        "1 ",
        "1_0",
        "1e3",
        "0x1",
        "\u0661",
        "1\n",
        "9" * 5000,
        str(2**63),
    ],
)
def test_a_decimal_in_another_spelling_or_too_large_is_refused(digits: str):
    with pytest.raises(Malformed):
        parse_decimal("test", digits)


@pytest.mark.parametrize("number", [0, 1, 10, 2**63 - 1])
def test_a_decimal_is_read(number: int):
    assert parse_decimal("test", str(number)) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        f"{ORIGIN}\n1\n",
        f"{ORIGIN}\n1\n{ROOT}",
        f"\n1\n{ROOT}\n",
        f"{ORIGIN}\n\n{ROOT}\n",
        f"{ORIGIN}\n01\n{ROOT}\n",
        f"{ORIGIN}\n1\n\n",
        f"{ORIGIN}\n1\n{ROOT}\n\n",
        f"{ORIGIN}\n1\n{ROOT}\n\nextension\n",
        f"{ORIGIN}\n1\n{ROOT[:-1]}\n",
        f"{ORIGIN}\n1\n{ROOT[:-2]}J=\n",
        f"{ORIGIN}\n1\n{ROOT[4:]}\n",
        f"{ORIGIN}\n1\nAAAA{ROOT}\n",
        f"{ORIGIN}\r\n1\r\n{ROOT}\r\n",
        f"{ORIGIN}\u2028\n1\u2028{ROOT}\n",
    ],
)
def test_a_text_out_of_form_is_refused(text: str):
    with pytest.raises(Malformed):
        parse_checkpoint(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": ""},
        {"origin": "two\nlines"},
        {"origin": "tab\t"},
        {"origin": "\ud800"},
        {"size": -1},
        {"size": 2**63},
        {"root": bytes(31)},
        {"extensions": ("",)},
        {"extensions": ("two\nlines",)},
    ],
)
def test_a_checkpoint_that_couldnt_be_read_again_cant_be_made(changes: dict[str, object]):
    fields: dict[str, object] = {"origin": ORIGIN, "size": 1, "root": bytes(32)}
    with pytest.raises(Malformed):
        Checkpoint(**{**fields, **changes})  # type: ignore[arg-type]


@given(checkpoints, st.integers(1, 2**64))
def test_a_signed_checkpoint_opens_with_its_key_and_origin(checkpoint: Checkpoint, seed: int):
    by = log_signer(seed)
    note = sign_note(checkpoint.text(), [by])
    assert open_checkpoint(note, by.verifier, checkpoint.origin) == checkpoint


def test_extension_lines_are_kept_under_the_signature():
    text = f"{PUBLISHED_TEXT}first extension\n{DASH_LINE}\n"
    opened = open_checkpoint(sign_note(text, [log_signer()]), log_signer().verifier, ORIGIN)
    assert opened.extensions == ("first extension", DASH_LINE)
    assert opened.text() == text


def test_every_flipped_bit_of_a_signed_checkpoint_is_noticed():
    by = log_signer()
    committed = sign_checkpoint(parse_checkpoint(PUBLISHED_TEXT), [by]).encode()
    for place in range(len(committed)):
        for bit in range(8):
            changed = bytearray(committed)
            changed[place] ^= 1 << bit
            with pytest.raises((LedgerError, UnicodeDecodeError)):
                open_checkpoint(changed.decode(), by.verifier, ORIGIN)


def test_a_checkpoint_of_another_log_by_the_same_key_is_noticed():
    other = Checkpoint(origin="example.com/other", size=1, root=bytes(32))
    note = sign_note(other.text(), [log_signer()])
    with pytest.raises(TamperDetected, match="another log"):
        open_checkpoint(note, log_signer().verifier, ORIGIN)


def test_a_checkpoint_by_another_key_of_the_same_name_leaves_the_verdict_open():
    note = sign_checkpoint(parse_checkpoint(PUBLISHED_TEXT), [log_signer(2)])
    with pytest.raises(CannotVerify):
        open_checkpoint(note, log_signer(1).verifier, ORIGIN)


def test_a_signed_text_that_is_no_checkpoint_is_refused():
    note = sign_note("a letter\n", [log_signer()])
    with pytest.raises(Malformed):
        open_checkpoint(note, log_signer().verifier, ORIGIN)


def test_the_key_of_another_log_doesnt_sign():
    checkpoint = parse_checkpoint(PUBLISHED_TEXT)
    with pytest.raises(Misconfigured):
        sign_checkpoint(checkpoint, [log_signer(), log_signer(2, "example.com/other")])


def test_old_and_new_key_and_a_witness_sign_one_checkpoint():
    checkpoint = parse_checkpoint(PUBLISHED_TEXT)
    signers = [log_signer(1), log_signer(2), witness()]
    note = sign_checkpoint(checkpoint, signers, time_s=1679315147)
    for by in signers:
        assert open_checkpoint(note, by.verifier, ORIGIN) == checkpoint
