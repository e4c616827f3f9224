"""Tell what is done, and with which command anybody does the same by hand."""

from __future__ import annotations

import itertools
import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_numbers = itertools.count(1)


def chapter(title: str) -> None:
    """Begin a step."""
    print(f"\n{next(_numbers)}. {title}\n", flush=True)


def say(text: str) -> None:
    """Say one thing."""
    print(f"   {text}", flush=True)


def by_hand(*lines: str) -> None:
    """Show the command that does the same."""
    for line in lines:
        print(f"   $ {line}", flush=True)


def quote(text: str) -> None:
    """Repeat what a program said, word by word."""
    for line in text.rstrip().splitlines():
        print(f"   | {line}", flush=True)


def shown(arguments: Sequence[object]) -> str:
    """Write arguments as a shell takes them."""
    return shlex.join(str(each) for each in arguments)


def warn(text: str) -> None:
    """Say on stderr what went wrong."""
    print(f"demo: {text}", file=sys.stderr, flush=True)
