"""What commands share in speaking to a terminal, a pipe or a file."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LEDGER = re.compile(r"[a-z][a-z0-9_]{0,39}")


class LedgerName(click.ParamType[str]):
    """A ledger's name, which is also part of file names."""

    name = "ledger"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take a name that `ledger.control` would take."""
        if not isinstance(value, str) or not _LEDGER.fullmatch(value):
            self.fail("expected 1 to 40 of a-z 0-9 _, a letter first", param, ctx)
        return value


json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout."
)
ledger_argument: Callable[[Any], Any] = click.argument("ledger", type=LedgerName())


def print_json(document: Any) -> None:
    """Write one JSON document on stdout."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=1))


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show that something takes a while: on stderr, and only if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415 (most calls never need it)

    with Console(stderr=True).status(what):
        yield


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; whole and durable, or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
