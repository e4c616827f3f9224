"""The file that names sinks is read strictly, and what is wrong with it is said with its place."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from ledger.anchors.settings import check_file, make_sinks, read_quorum
from ledger.anchors.sink import Target
from ledger.config import Settings, read_settings
from ledger.core.note import SignatureType, Verifier
from ledger.errors import Misconfigured

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
HOOK = (
    '[[sink]]\nkind = "webhook"\nname = "hook"\nurl = "https://a.example/x?token=s3cret"\n'
    'secret_file = "hook.secret"\n'
)
STAMP = '[[sink]]\nkind = "timestamp"\nname = "tsa"\nurl = "http://a.example"\n'
VERIFIER = Verifier(name="a.example/x", kind=SignatureType.ED25519, public_key=bytes(32))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    secret = tmp_path / "hook.secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    (tmp_path / "not-pem").write_text("no certificate")
    return read_settings({"LEDGER_HOME": str(tmp_path)})


def target(ledger: str = "customers") -> Target:
    return Target(ledger, "a.example/x", VERIFIER, lambda _level, _first, _count: [])


def write(settings: Settings, text: str) -> None:
    (settings.home / "anchors.toml").write_text(text)


def message(settings: Settings, text: str) -> str:
    """Give what is said of a file that makes no sense; it never repeats a value."""
    write(settings, text)
    with pytest.raises(Misconfigured) as wrong:
        make_sinks(settings, target())
    with pytest.raises(Misconfigured):
        check_file(settings)
    said = str(wrong.value)
    assert "s3cret" not in said
    assert SECRET not in said
    assert SECRET[6:] not in said
    return said


def test_without_a_file_there_is_the_directory_only(settings: Settings):
    (only,) = make_sinks(settings, target())
    assert (only.sink.name, only.sink.kind, only.shown) == ("directory", "file", None)
    assert check_file(settings) == []


def test_a_file_that_the_environment_names_must_be_there(tmp_path: Path):
    missing = read_settings(
        {"LEDGER_HOME": str(tmp_path), "LEDGER_ANCHORS": str(tmp_path / "none.toml")}
    )
    with pytest.raises(Misconfigured, match=r"LEDGER_ANCHORS.*none\.toml"):
        make_sinks(missing, target())


def test_a_sink_shows_its_host_and_nothing_more_of_its_address(settings: Settings):
    write(settings, HOOK + "interval_s = 5\n")
    _, hook = make_sinks(settings, target())
    assert (hook.sink.name, hook.sink.kind, hook.shown) == ("hook", "webhook", "https://a.example")
    assert hook.interval_s == 5
    assert "s3cret" not in repr(hook.sink)
    hook.sink.close()


def test_a_sink_can_be_for_some_ledgers_only(settings: Settings):
    write(settings, HOOK + 'ledgers = ["customers"]\n')
    assert [p.sink.name for p in make_sinks(settings, target())] == ["directory", "hook"]
    assert [p.sink.name for p in make_sinks(settings, target("staff"))] == ["directory"]


def test_a_fault_in_another_ledgers_sink_is_noticed_too(settings: Settings):
    write(settings, HOOK.replace("https", "ftp") + 'ledgers = ["staff"]\n')
    with pytest.raises(Misconfigured, match=r"\[\[sink\]\] 1 \(hook\), url"):
        make_sinks(settings, target())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[sink\n", "expected TOML (at line 1"),
        ('x = "s3cret', "expected TOML (at end of document)"),
        ("sink = 1\n", "expected tables [[sink]]"),
        ("[sinks]\n", "expected [[sink]] and [witnesses], found sinks"),
        (HOOK.replace("webhook", "web-hook"), "[[sink]] 1 (hook), kind: expected one of"),
        (HOOK.replace('name = "hook"\n', ""), "[[sink]] 1, name: expected a value, found none"),
        (HOOK.replace('"hook"', '"Hook"'), "[[sink]] 1, name"),
        (HOOK.replace('"hook"', '"directory"'), "[[sink]] 1, name"),
        (HOOK.replace('"hook"', '"hook-12345678"'), "[[sink]] 1, name"),
        (HOOK + HOOK, "[[sink]] 2, name"),
        (HOOK + "ulr = 1\n", "[[sink]] 1 (hook): expected keys among"),
        (HOOK + "ledgers = []\n", "[[sink]] 1 (hook), ledgers"),
        (HOOK + 'ledgers = ["a", "a"]\n', "[[sink]] 1 (hook), ledgers"),
        (HOOK + 'ledgers = "a"\n', "[[sink]] 1 (hook), ledgers"),
        (HOOK + "interval_s = 0\n", "[[sink]] 1 (hook), interval_s: expected a number from 0.1"),
        (HOOK + "interval_s = true\n", "[[sink]] 1 (hook), interval_s"),
        (HOOK + "timeout_s = 1000\n", "[[sink]] 1 (hook), timeout_s"),
        (HOOK.replace("https", "http"), "url: expected a URL that begins with https://"),
        (HOOK.replace("//a", "//user:s3cret@a"), "url: expected a URL without a name and password"),
        (HOOK.replace("a.example", "a.example:99999"), "url: expected a URL"),
        (HOOK.replace("hook.secret", "none.secret"), "secret_file: expected a readable file"),
        (HOOK.replace("hook.secret", "not-pem"), "secret_file: expected"),
        (HOOK + 'ca_file = "not-pem"\n', "ca_file: expected certificates in PEM"),
        (HOOK + 'proxy = "http://me:s3cret@proxy"\n', "proxy"),
        ("[witnesses]\nquorum = 1\n", "[witnesses], quorum"),
        ("[witnesses]\nquroum = 1\n", "[witnesses]"),
        (STAMP, "[[sink]] 1 (tsa), roots"),
        (
            STAMP + 'roots = ["not-pem"]\n',
            "[[sink]] 1 (tsa), roots: expected files of certificates in PEM",
        ),
        ("[[sink]]\n" * 33, "expected at most 32 sinks"),
    ],
)
def test_what_makes_no_sense_is_said_with_its_place(settings: Settings, text: str, said: str):
    found = message(settings, text)
    assert str(settings.home / "anchors.toml") in found
    assert said in found


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_secret_that_others_can_read_is_refused(settings: Settings, mode: int):
    (settings.home / "hook.secret").chmod(mode)
    assert "chmod 600" in message(settings, HOOK)


@pytest.mark.parametrize(
    "secret",
    ["", "two words", "whsec_", "whsec_!!!!", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZI"],
)
def test_a_secret_that_is_not_a_standard_one_is_refused(settings: Settings, secret: str):
    (settings.home / "hook.secret").write_text(secret)
    message(settings, HOOK)


def test_plain_http_is_for_this_machine_itself(settings: Settings):
    for host in ("127.0.0.1:1", "localhost", "[::1]:80"):
        write(settings, HOOK.replace("https://a.example", f"http://{host}"))
        _, hook = make_sinks(settings, target())
        assert hook.shown == f"http://{host}"
        hook.sink.close()


def test_the_quorum_is_among_the_witnesses(settings: Settings):
    assert read_quorum(settings) == 0
    write(settings, "[witnesses]\nquorum = 1\n")
    with pytest.raises(Misconfigured):
        read_quorum(settings)
