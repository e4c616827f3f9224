"""The permitted directions of imports (design.md, "Layers and permitted imports")."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("ledger", "projections", "api")
MODULES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))
STDLIB = frozenset(sys.stdlib_module_names)
WRITE_SIDE_LIBRARIES = {"click", "cryptography", "eventsourcing", "msgspec", "psycopg", "rich"}
LIBRARIES_OF_ROOMS = {
    "ledger.anchors": {"httpx", "rfc3161_client"},
    "ledger.cli.witness": {"uvicorn"},
}
"""What only some rooms of the write side need beside the libraries of all."""
ROOMS_OF_THEIR_OWN = {
    "ledger.core": {"cryptography"},
    "ledger.client": {"httpx", "msgspec"},
    "ledger.witness": {"cryptography"},
}
"""Rooms that use nothing of the ledger but its core, since others run them: with what libraries."""
CLOSED_TO_READERS = (
    "ledger.recorder",
    "ledger.submission_queue",
    "ledger.following",
    "ledger.group_lookup",
    "ledger.group_builder",
    "ledger.appending",
    "ledger.signing",
    "ledger.notary",
)


def imports_of(source: str) -> set[str]:
    """Give every module that a source imports, at its top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            assert node.module is not None
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def is_within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def offences(place: str, source: str) -> list[str]:
    """Give what a module at a dotted place imports and must not."""
    return sorted(module for module in imports_of(source) if not is_permitted(place, module))


def is_permitted(place: str, module: str) -> bool:
    root = module.partition(".")[0]
    if root in STDLIB:
        return True
    if root in {"scripts", "tests"}:
        return False
    for room, libraries in ROOMS_OF_THEIR_OWN.items():
        if is_within(place, room):
            known = is_within(module, room, "ledger.core", "ledger.errors", *libraries)
            return known or module == "ledger"
    if is_within(place, "ledger"):
        rooms = [
            libraries for room, libraries in LIBRARIES_OF_ROOMS.items() if place.startswith(room)
        ]
        return root in {"ledger", *WRITE_SIDE_LIBRARIES}.union(*rooms)
    if is_within(place, "projections"):
        return root != "api" and not is_within(module, *CLOSED_TO_READERS)
    return True


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_module_imports_only_what_its_layer_may(path: Path):
    assert offences(dotted(path), path.read_text(encoding="utf-8")) == []


def test_the_verifier_imports_nothing_of_ours_and_psycopg_only_where_it_is_used():
    path = ROOT / "scripts" / "verify_chain.py"
    source = path.read_text(encoding="utf-8")
    roots = {module.partition(".")[0] for module in imports_of(source)}
    assert roots - STDLIB <= {"cryptography", "psycopg"}
    at_top = [node for node in ast.parse(source).body if isinstance(node, ast.Import)]
    assert "psycopg" not in {alias.name for node in at_top for alias in node.names}


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("ledger.core.entry", "import psycopg"),
        ("ledger.core.entry", "from ledger.config import Settings"),
        ("ledger.core.entry", "def f():\n    import msgspec"),
        ("ledger.service", "from projections import runner"),
        ("ledger.service", "import api.app"),
        ("ledger.service", "import fastapi"),
        ("ledger.service", "import httpx"),
        ("ledger.client.outbox", "from ledger.config import Settings"),
        ("ledger.client.outbox", "import psycopg"),
        ("ledger.witness.store", "from ledger.anchors.sink import Due"),
        ("ledger.core.note", "from ledger.witness import protocol"),
        ("projections.runner", "from ledger import recorder"),
        ("projections.runner", "from ledger.appending import Appender"),
        ("projections.runner", "from ledger.signing import SignerMemory"),
        ("projections.runner", "import ledger.notary"),
        ("projections.runner", "from api.app import create_app"),
        ("api.app", "import tests.fixtures"),
        ("api.app", "from scripts import demo"),
    ],
)
def test_an_import_against_the_directions_is_noticed(place: str, source: str):
    assert offences(place, source)
