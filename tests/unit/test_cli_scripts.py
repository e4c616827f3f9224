"""The scripts that start everything, and the lock they install."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
SCRIPTS = [ROOT / "scripts" / name for name in ("up", "test", "custody", "lock")]


def locked() -> dict[str, str]:
    """Give the lock's versions by name, joined lines first."""
    lines = LOCK.replace("\\\n", "").splitlines()
    found = {}
    for line in lines:
        match = re.fullmatch(
            r"([a-z0-9-]+)==([^ ]+) (?:; .*? )?(?: *--hash=sha256:[0-9a-f]{64})+", line
        )
        assert match, line
        found[match[1]] = match[2]
    return found


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_a_script_is_executable_and_plain_shell(path: Path):
    assert os.access(path, os.X_OK)
    assert path.read_text(encoding="utf-8").startswith("#!/bin/sh\n")
    for each in (path, ROOT / "scripts" / "env"):
        subprocess.run(["sh", "-n", each], check=True)


def test_every_line_of_the_lock_pins_one_version_with_hashes():
    assert len(locked()) > 30


def test_the_lock_names_no_index_and_no_place_on_a_machine():
    without_hashes = re.sub(r"--hash=sha256:[0-9a-f]{64}", "", LOCK)
    assert "/" not in without_hashes
    assert "--" not in without_hashes
    assert "@" not in without_hashes


def test_the_lock_holds_every_dependency_that_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[\[><=;! ]", each, maxsplit=1)[0] for group in groups for each in group}
    assert names <= set(locked())


@pytest.mark.parametrize("package", ["psycopg-binary", "cryptography", "msgspec", "pydantic-core"])
def test_packages_with_binaries_are_locked_for_more_than_one_machine(package: str):
    block = LOCK.split(f"\n{package}==")[1].split("\n\n")[0].split("==")[0]
    assert block.count("--hash=") > 20


@pytest.mark.parametrize("name", ["up", "test", "custody"])
def test_a_machine_without_a_python_is_told_what_to_install(tmp_path: Path, name: str):
    """Run a copy, since this checkout has its environment already."""
    copy = tmp_path / "clone"
    (copy / "scripts").mkdir(parents=True)
    for each in (name, "env"):
        (copy / "scripts" / each).write_bytes((ROOT / "scripts" / each).read_bytes())
    for each in ("requirements.lock", "pyproject.toml"):
        (copy / each).write_bytes((ROOT / each).read_bytes())
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in ("sh", "cat", "cmp", "dirname"):
        (programs / program).symlink_to(_which(program))
    done = subprocess.run(
        ["/bin/sh", copy / "scripts" / name],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "No Python 3.11, 3.12, 3.13 or 3.14 was found" in done.stderr
    assert not (copy / ".venv").exists()


def _which(program: str) -> str:
    return subprocess.run(
        ["/bin/sh", "-c", f"command -v {program}"], capture_output=True, text=True, check=True
    ).stdout.strip()
