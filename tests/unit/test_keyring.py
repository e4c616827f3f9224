from __future__ import annotations

import base64
import hmac
import json
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ledger.core.note import parse_verifier
from ledger.errors import Misconfigured
from ledger.keys.keyring import load_keyring, make_keyring, save_keyring

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "test.json"


def test_a_key_file_comes_back_as_it_was_and_only_its_owner_reads_it(path: Path):
    keyring = replace(make_keyring("custody.local/a"), epochs={1: bytes(32), 2: bytes(range(32))})
    save_keyring(path, keyring)
    assert load_keyring(path) == keyring
    assert keyring.epoch == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_key_file_is_never_written_over(path: Path):
    keyring = make_keyring("custody.local/a")
    save_keyring(path, keyring)
    with pytest.raises(Misconfigured, match="found one"):
        save_keyring(path, make_keyring("custody.local/a"))
    assert load_keyring(path) == keyring


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_key_file_that_others_can_touch_is_refused(path: Path, mode: int):
    save_keyring(path, make_keyring("custody.local/a"))
    path.chmod(mode)
    with pytest.raises(Misconfigured, match=f"{mode:04o}"):
        load_keyring(path)


def test_a_key_file_that_is_absent_is_named(path: Path):
    with pytest.raises(Misconfigured, match=r"test\.json"):
        load_keyring(path)


BROKEN: dict[str, Callable[[Any], str]] = {
    "not JSON": lambda _: "{",
    "not an object": lambda _: "[]",
    "another format": lambda d: json.dumps({**d, "format": "custody-ledger/keyring/v9"}),
    "no origin": lambda d: json.dumps({k: v for k, v in d.items() if k != "origin"}),
    "a short key": lambda d: json.dumps({**d, "lookup_key": base64.b64encode(bytes(31)).decode()}),
    "a key that isn't base64": lambda d: json.dumps({**d, "signing_key": "*" * 44}),
    "an epoch that isn't a number": lambda d: json.dumps({**d, "epochs": {"x": d["lookup_key"]}}),
    "epochs that are no object": lambda d: json.dumps({**d, "epochs": []}),
    "no epoch": lambda d: json.dumps({**d, "epochs": {}}),
    "an origin that isn't text": lambda d: json.dumps({**d, "origin": 1}),
    "bytes that are no text": lambda _: "\udcff",
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_key_file_is_refused_without_a_word_of_its_secrets(
    path: Path, broken: Callable[[dict[str, str]], str]
):
    save_keyring(path, make_keyring("custody.local/a"))
    document = json.loads(path.read_text())
    path.write_bytes(broken(document).encode(errors="surrogateescape"))
    with pytest.raises(Misconfigured) as refusal:
        load_keyring(path)
    assert document["lookup_key"] not in str(refusal.value)


def test_no_secret_shows_when_a_keyring_is_printed():
    keyring = make_keyring("custody.local/a")
    shown = f"{keyring!r} {keyring} {[keyring]}"
    for secret in (keyring.signing, keyring.lookup, *keyring.epochs.values()):
        assert repr(secret) not in shown
        assert secret.hex() not in shown
        assert base64.b64encode(secret).decode() not in shown
    assert "custody.local/a" in shown


def test_every_ledger_draws_keys_of_its_own():
    one, two = make_keyring("custody.local/a"), make_keyring("custody.local/a")
    secrets = {s for k in (one, two) for s in (k.signing, k.lookup, *k.epochs.values())}
    assert len(secrets) == 6


def test_keys_of_one_keyring_serve_one_purpose_each():
    keyring = make_keyring("custody.local/a")
    assert keyring.accept_key == hmac.digest(keyring.lookup, b"accepted", "sha256")
    assert keyring.accept_key != keyring.lookup
    assert keyring.verifier_key().startswith("custody.local/a+")
    assert parse_verifier(keyring.verifier_key()) == keyring.signer().verifier
