from __future__ import annotations

import os
import stat
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.checkpoint import open_checkpoint
from ledger.errors import Misconfigured, ReadOnly
from ledger.keys.keyring import make_keyring
from ledger.signing import CheckpointSigner, Signed, SignerMemory

KEYRING = make_keyring("custody.local/test")
SLOT_BYTES = 512
USED_BYTES = 88


def root(size: int) -> bytes:
    return sha256(b"%d" % size).digest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "signer" / "test.memory"


def test_a_checkpoint_is_signed_and_remembered_across_restarts(path: Path):
    memory = SignerMemory(path)
    assert memory.last is None
    signer = CheckpointSigner(KEYRING, memory)
    for size in (1, 5, 6):
        note = signer.sign(size, root(size))
        checkpoint = open_checkpoint(note, KEYRING.signer().verifier, "custody.local/test")
        assert (checkpoint.size, checkpoint.root) == (size, root(size))
        assert SignerMemory(path).last == Signed(size, root(size))
    memory.close()


def test_nothing_smaller_and_no_other_root_is_ever_signed(path: Path):
    signer = CheckpointSigner(KEYRING, SignerMemory(path))
    note = signer.sign(5, root(5))
    assert signer.sign(5, root(5)) == note
    restarted = CheckpointSigner(KEYRING, SignerMemory(path))
    for size, found in ((4, root(4)), (0, root(0)), (5, root(4))):
        with pytest.raises(ReadOnly):
            restarted.sign(size, found)
    with pytest.raises(ReadOnly):
        signer.sign(5, root(4))
    assert signer.sign(4, root(4)) == note  # covered by what it has signed meanwhile
    assert signer.recall() == Signed(5, root(5))


def test_the_same_tree_is_signed_again_after_a_restart(path: Path):
    CheckpointSigner(KEYRING, SignerMemory(path)).sign(5, root(5))
    before = path.read_bytes()
    again = CheckpointSigner(KEYRING, SignerMemory(path)).sign(5, root(5))
    assert open_checkpoint(again, KEYRING.signer().verifier, "custody.local/test").size == 5
    assert path.read_bytes() == before


@pytest.mark.parametrize("stored", [1, 2, 3, 4])
def test_a_tear_at_any_byte_of_the_newest_slot_leaves_the_one_before(path: Path, stored: int):
    memory = SignerMemory(path)
    for size in range(1, stored):
        memory.store(Signed(size, root(size)))
    before = path.read_bytes().ljust(2 * SLOT_BYTES, b"\0")
    memory.store(Signed(stored, root(stored)))
    after = path.read_bytes().ljust(2 * SLOT_BYTES, b"\0")
    at = next(i for i in range(2 * SLOT_BYTES) if before[i] != after[i]) // SLOT_BYTES * SLOT_BYTES
    for torn in range(1, USED_BYTES):
        mixed = before[:at] + after[at : at + torn] + before[at + torn :]
        if mixed in {before, after}:
            continue
        path.write_bytes(mixed)
        if stored == 1:
            with pytest.raises(Misconfigured):
                SignerMemory(path)
        else:
            assert SignerMemory(path).last == Signed(stored - 1, root(stored - 1))


@given(st.integers(0, 2 * SLOT_BYTES - 1), st.integers(1, 255))
def test_a_changed_byte_never_makes_a_memory_of_something_never_signed(at: int, change: int):
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "memory"
        memory = SignerMemory(path)
        for size in (3, 4):
            memory.store(Signed(size, root(size)))
        content = bytearray(path.read_bytes().ljust(2 * SLOT_BYTES, b"\0"))
        content[at] ^= change
        path.write_bytes(content)
        memory.reload()
        assert memory.last in {Signed(3, root(3)), Signed(4, root(4))}
        memory.close()


def test_what_is_no_memory_is_named(path: Path):
    path.parent.mkdir()
    path.write_bytes(b"something else")
    with pytest.raises(Misconfigured, match=r"test\.memory"):
        SignerMemory(path)


def test_only_its_owner_can_read_a_memory(path: Path):
    SignerMemory(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_one_process_at_a_time_signs_and_the_next_knows_what_was_signed(path: Path):
    one, two = (CheckpointSigner(KEYRING, SignerMemory(path)) for _ in range(2))
    assert one.take_place()
    assert not two.take_place()
    for size in range(1, 8):
        one.sign(size, root(size))
    one.leave_place()
    assert two.take_place()
    with pytest.raises(ReadOnly):
        two.sign(6, root(6))
    two.sign(9, root(9))
    assert one.recall() == Signed(9, root(9))


def test_a_failed_store_is_forgotten_and_hits_the_same_slot_again(path: Path):
    memory = SignerMemory(path)
    signer = CheckpointSigner(KEYRING, memory)
    signer.sign(1, root(1))
    signer.sign(2, root(2))
    real, full = os.dup(memory._file), os.open("/dev/full", os.O_RDWR)
    os.dup2(full, memory._file)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            signer.sign(3, root(3))
    assert memory.last == Signed(2, root(2))
    os.dup2(real, memory._file)
    signer.sign(3, root(3))
    content = bytearray(path.read_bytes())
    content[SLOT_BYTES] ^= 1  # the third is in the second slot, over the first
    path.write_bytes(content)
    assert SignerMemory(path).last == Signed(2, root(2))
    os.close(real)
    os.close(full)


def test_a_memory_that_began_knows_the_empty_log(path: Path):
    signer = CheckpointSigner(KEYRING, SignerMemory(path))
    signer.begin()
    assert signer.recall() == Signed(0, sha256(b"").digest())
    signer.sign(1, root(1))
    assert signer.recall() == Signed(1, root(1))
