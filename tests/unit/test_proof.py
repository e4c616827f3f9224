"""Proofs in a file against C2SP tlog-proof, and against changes anywhere in them."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.checkpoint import Checkpoint, sign_checkpoint
from ledger.core.merkle import leaf_hash, prove_inclusion, root_at
from ledger.core.note import Signer
from ledger.core.proof import LogProof, check_proof, parse_proof
from ledger.errors import CannotVerify, LedgerError, Malformed, TamperDetected

if TYPE_CHECKING:
    from collections.abc import Sequence

ORIGIN = "custody.example/log"
LEAVES = [leaf_hash(b"entry %d" % index) for index in range(11)]
SIGNER = Signer.from_private_key(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))
STRANGER = Signer.from_private_key(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"s" * 32))


def read(level: int, first: int, count: int, /) -> Sequence[bytes]:
    assert level == 0
    return LEAVES[first : first + count]


def signed_checkpoint(size: int = len(LEAVES), by: Signer = SIGNER) -> str:
    checkpoint = Checkpoint(origin=ORIGIN, size=size, root=root_at(size, read))
    return sign_checkpoint(checkpoint, [by])


def proof_of(index: int, size: int = len(LEAVES), extra: bytes = b"") -> LogProof:
    return LogProof(
        index=index,
        hashes=tuple(prove_inclusion(index, size, read)),
        checkpoint_note=signed_checkpoint(size),
        extra=extra,
    )


PROOF = proof_of(6)


def test_a_proofs_text_is_laid_out_as_specified():
    first, second, *_ = [base64.b64encode(one).decode() for one in PROOF.hashes]
    text = replace(PROOF, extra=b"more").text()
    assert text.startswith(f"c2sp.org/tlog-proof@v1\nextra bW9yZQ==\nindex 6\n{first}\n{second}\n")
    assert text.endswith(f"=\n\n{PROOF.checkpoint_note}")
    assert text.count("\n\n") == 2


@given(
    index=st.integers(0, 2**63 - 1),
    hashes=st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple),
    extra=st.binary(),
)
def test_every_proof_comes_back_from_its_text(index: int, hashes: tuple[bytes, ...], extra: bytes):
    proof = LogProof(index=index, hashes=hashes, checkpoint_note=PROOF.checkpoint_note, extra=extra)
    assert parse_proof(proof.text()) == proof


def test_every_leaf_of_every_small_log_is_proved():
    for size in range(1, len(LEAVES) + 1):
        for index in range(size):
            check_proof(proof_of(index, size).text(), LEAVES[index], SIGNER.verifier, ORIGIN)


def test_extra_bytes_neither_help_nor_hinder():
    check_proof(proof_of(6, extra=b"anything").text(), LEAVES[6], SIGNER.verifier, ORIGIN)


def test_every_flipped_bit_of_a_proof_is_noticed():
    committed = PROOF.text().encode()
    for place in range(len(committed)):
        for bit in range(8):
            changed = bytearray(committed)
            changed[place] ^= 1 << bit
            with pytest.raises((LedgerError, UnicodeDecodeError)):
                check_proof(changed.decode(), LEAVES[6], SIGNER.verifier, ORIGIN)


def test_a_proof_doesnt_serve_another_leaf():
    with pytest.raises(TamperDetected):
        check_proof(PROOF.text(), LEAVES[5], SIGNER.verifier, ORIGIN)


def test_a_leaf_that_isnt_a_hash_is_refused():
    with pytest.raises(Malformed):
        check_proof(PROOF.text(), b"entry 6", SIGNER.verifier, ORIGIN)


def test_a_proof_doesnt_serve_under_another_checkpoint_of_the_log():
    moved = replace(PROOF, checkpoint_note=signed_checkpoint(10))
    with pytest.raises(TamperDetected):
        check_proof(moved.text(), LEAVES[6], SIGNER.verifier, ORIGIN)


def test_a_proof_for_another_origin_is_noticed():
    with pytest.raises(TamperDetected):
        check_proof(PROOF.text(), LEAVES[6], SIGNER.verifier, "custody.example/other")


def test_a_proof_signed_by_a_stranger_leaves_the_verdict_open():
    forged = replace(PROOF, checkpoint_note=signed_checkpoint(by=STRANGER))
    with pytest.raises(CannotVerify):
        check_proof(forged.text(), LEAVES[6], SIGNER.verifier, ORIGIN)


HEADER = "c2sp.org/tlog-proof@v1\n"
HASH = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "head",
    [
        "",
        "c2sp.org/tlog-proof@v2\nindex 6\n",
        HEADER,
        f"{HEADER}index\n",
        f"{HEADER}index 06\n",
        f"{HEADER}index -1\n",
        f"{HEADER}index 6 \n",
        f"{HEADER}index {2**63}\n",
        f"{HEADER}index 6\nextra AAAA\n",
        f"{HEADER}extra \nindex 6\n",
        f"{HEADER}extra AB==\nindex 6\n",
        f"{HEADER}extra AAAA\nextra AAAA\nindex 6\n",
        f"{HEADER}index 6\nindex 6\n",
        f"{HEADER}index 6\n{HASH[:-1]}\n",
        f"{HEADER}index 6\nAAAA\n",
        f"{HEADER}index 6\n\n{HASH}\n",
        f"{HEADER}index 6\n" + f"{HASH}\n" * 64,
        f"{HEADER}\nindex 6\n",
        f"{HEADER}index 6\r\n",
    ],
)
def test_a_proof_out_of_form_is_refused(head: str):
    assert parse_proof(f"{HEADER}index 6\n{HASH}\n\n{PROOF.checkpoint_note}").index == 6
    with pytest.raises(Malformed):
        parse_proof(f"{head}\n{PROOF.checkpoint_note}")


@pytest.mark.parametrize(
    "checkpoint_note", ["", "no checkpoint\n", "letter\n\n\u2014 a AAAAAAA=\n"]
)
def test_a_proof_without_a_checkpoint_is_refused(checkpoint_note: str):
    with pytest.raises(Malformed):
        parse_proof(f"{HEADER}index 0\n\n{checkpoint_note}")


@pytest.mark.parametrize("changes", [{"index": -1}, {"hashes": (bytes(31),)}, {"index": 2**63}])
def test_a_proof_that_couldnt_be_read_again_cant_be_made(changes: dict[str, object]):
    with pytest.raises(Malformed):
        replace(PROOF, **changes)  # type: ignore[arg-type]
