from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from ledger import control
from ledger.cli import group, main, terminal
from ledger.cli.client import header_file, own_url, read_key
from ledger.cli.credentials import header
from ledger.config import read_settings
from ledger.errors import (
    CannotVerify,
    Conflict,
    LedgerError,
    Malformed,
    Misconfigured,
    ReadOnly,
    TamperDetected,
    Unavailable,
)
from ledger.founding import default_origin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

KEY = "ck_" + "a" * 10 + "_" + "B" * 43


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], Result]:
    """Give a function that runs a command which raises, and gives how the program ended."""

    def run(error: BaseException) -> Result:
        @click.command()
        def broken() -> None:
            raise error

        monkeypatch.setattr(group, "load_command", lambda _name: broken)
        return CliRunner().invoke(main, ["verify"])

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TamperDetected("entry 7"), 1),
        (Malformed("expected a string", pointer="/data/x"), 2),
        (Conflict("another event"), 2),
        (Misconfigured("LEDGER_PORT: expected a number"), 2),
        (Unavailable("no database"), 3),
        (ReadOnly("stopped"), 3),
        (CannotVerify("no key"), 4),
        (LedgerError("other"), 2),
        (FileNotFoundError(2, "No such file", "keys.json"), 3),
        (click.FileError("x"), 3),
        (click.UsageError("x"), 2),
        (KeyboardInterrupt(), 130),
        (SystemExit(1), 3),
        (SystemExit(0), 0),
        (RuntimeError("a customer's phone number"), 3),
    ],
)
def test_every_way_to_end_has_an_honest_exit_code(
    failing: Callable[[BaseException], Result], error: BaseException, code: int
):
    assert failing(error).exit_code == code


def test_only_tampering_ends_with_1(failing: Callable[[BaseException], Result]):
    codes = {failing(kind("x")).exit_code for kind in (ValueError, OSError, LedgerError, TypeError)}
    assert 1 not in codes
    assert 0 not in codes


def test_a_fault_of_the_program_is_told_without_the_words_of_its_error(
    failing: Callable[[BaseException], Result],
):
    result = failing(RuntimeError("13800138000"))
    assert "RuntimeError" in result.stderr
    assert "13800138000" not in result.output


def test_a_refusal_names_place_and_hint(failing: Callable[[BaseException], Result]):
    result = failing(Malformed("expected a string", pointer="/data/fields", hint="send one"))
    assert "/data/fields" in result.stderr
    assert "send one" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", group.COMMANDS)
def test_every_command_loads_and_explains_itself(name: str):
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_help_lists_every_command_and_the_exit_codes():
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name in group.COMMANDS:
        assert re.search(rf"^  {name} ", result.output, re.MULTILINE)
    assert "tampering found" in result.output


def test_an_unknown_command_is_a_usage_error():
    assert CliRunner().invoke(main, ["destroy"]).exit_code == 2


@pytest.mark.parametrize(
    "name", ["a", "customers", "a" * 40, "x_1", "", "A", "1a", "a-b", "a" * 41, "../a", "a\n"]
)
def test_a_ledger_name_is_taken_here_exactly_if_the_registry_takes_it(name: str):
    try:
        terminal.LedgerName().convert(name, None, None)
        taken = True
    except click.BadParameter:
        taken = False
    assert taken == bool(control._NAME.fullmatch(name))


@pytest.mark.parametrize("text", [header(KEY), KEY, f"\n {KEY}\n", f"authorization: bearer {KEY}"])
def test_a_key_is_read_from_a_header_or_alone(tmp_path: Path, text: str):
    (tmp_path / "key").write_text(text)
    assert read_key(tmp_path / "key") == KEY


@pytest.mark.parametrize(
    ("text", "kind"), [(None, Unavailable), ("", Misconfigured), ("x", Misconfigured)]
)
def test_a_key_file_without_a_key_is_refused(tmp_path: Path, text: str | None, kind: type):
    if text is not None:
        (tmp_path / "key").write_text(text)
    with pytest.raises(kind, match=str(tmp_path)):
        read_key(tmp_path / "key")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9000"),
        ("0.0.0.0", "http://127.0.0.1:9000"),  # noqa: S104 (nothing is bound)
        ("::", "http://[::1]:9000"),
        ("ledger.example", "http://ledger.example:9000"),
    ],
)
def test_the_service_is_sought_where_it_listens(host: str, url: str):
    assert own_url(read_settings({"LEDGER_HOST": host, "LEDGER_PORT": "9000"})) == url


def test_a_private_file_replaces_another_and_is_readable_by_its_owner_only(tmp_path: Path):
    path = tmp_path / "credentials" / "customers.emitter"
    path.parent.mkdir()
    path.write_text("old")
    path.chmod(0o644)
    terminal.write_private(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["customers.emitter"]


def test_default_origins_end_in_8_random_hex_digits():
    origins = {default_origin("customers") for _ in range(50)}
    assert len(origins) == 50
    assert all(re.fullmatch(r"custody\.local/customers/[0-9a-f]{8}", each) for each in origins)


def test_keys_of_ledgers_and_roles_lie_apart():
    settings = read_settings({"LEDGER_HOME": "/x"})
    names = {
        header_file(settings, ledger, role)
        for ledger in ("a", "b")
        for role in ("emitter", "reader")
    }
    assert len(names) == 4


def test_json_is_one_document_with_text_as_it_is(capsys: pytest.CaptureFixture[str]):
    terminal.print_json({"a": "客户"})
    out = capsys.readouterr().out
    assert "客户" in out
    assert json.loads(out) == {"a": "客户"}
