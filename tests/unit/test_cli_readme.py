"""What the README says in tables is what the program says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api import body, encodings
from api.app import create_app
from ledger import admission, attributes, bodies, service
from ledger.cli.group import COMMANDS
from ledger.config import VARIABLES, read_settings
from ledger.core import entry, strict_json
from ledger.events import custom
from projections.exports import bundle

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.zh-CN.md")
MIB = 1024 * 1024


def rows(name: str, start: str) -> dict[str, str]:
    """Give the rows of a README's tables whose first cell starts with some text."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(rf"^\| `?({start}[^`|]*?)`? \| (.*) \|$", text, re.MULTILINE)
    assert len(dict(found)) == len(found)
    return dict(found)


def test_the_settings_are_those_that_are_read():
    assert rows("README.md", "LEDGER_") == VARIABLES


@pytest.mark.parametrize("name", READMES)
def test_every_setting_stands_in_each_readme(name: str):
    assert list(rows(name, "LEDGER_")) == list(VARIABLES)


@pytest.mark.parametrize("name", READMES)
def test_every_command_stands_in_each_readme(name: str):
    assert list(rows(name, "custody ")) == [f"custody {command}" for command in COMMANDS]


@pytest.mark.parametrize("name", READMES)
def test_every_route_stands_in_each_readme(name: str, tmp_path: Path):
    app = create_app(read_settings({"LEDGER_HOME": str(tmp_path)}), "host=/nowhere")
    paths = app.openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path in paths for method in paths[path]}
    assert set(rows(name, "(?:GET|POST|PUT|DELETE|PATCH) ")) == routes


@pytest.mark.parametrize("name", READMES)
def test_every_limit_stands_in_each_readme_with_its_value(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    table = text.split("\n## ")[[*re.findall(r"\n## (.*)", text)].index(LIMITS[name]) + 1]
    said = [cell for _, cell in re.findall(r"^\| (.*) \| (.*) \|$", table, re.MULTILINE)][1:]
    numbers = [int(re.sub(r"[^0-9]", "", cell)) * (MIB if "MiB" in cell else 1) for cell in said]
    assert numbers == [
        entry.MAX_ENTRY_BYTES,
        bodies.MAX_BODY_BYTES,
        1 << encodings.MAX_WINDOW_LOG,
        body.MAX_HELD_BYTES,
        body.BODY_TIMEOUT_S,
        admission.MAX_EVENT_BYTES,
        bodies.MAX_ENTRIES,
        bodies.MAX_REQUEST_ENTRY_BYTES,
        admission.MAX_SEALED_BYTES,
        admission.MAX_BOX_BYTES,
        attributes.MAX_SUBJECTS,
        attributes.MAX_SUBJECT_CHARS,
        custom.MAX_TYPE_CHARS,
        admission.MAX_STAFF_CHARS,
        strict_json.MAX_DEPTH,
        service.MAX_PAGE,
        bundle.MAX_ENTRIES,
    ]


LIMITS = {"README.md": "Limits", "README.zh-CN.md": "限制"}


def test_both_readmes_have_the_same_parts_and_the_same_code():
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in READMES]
    shapes = [re.findall(r"^(?:#+ |\d\. |- |\| `)", text, re.MULTILINE) for text in texts]
    assert shapes[0] == shapes[1]
    blocks = [re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for text in texts]
    code = [[re.sub(r" *#.*", "", block) for block in each] for each in blocks]
    assert code[0] == code[1]


@pytest.mark.parametrize("name", [*READMES, "CHANGELOG.md", "ledger/DECISIONS.md"])
def test_every_file_that_a_document_names_is_there(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:ledger|projections|api|scripts|tests)/[A-Za-z0-9_./-]*)`", text))
    assert named
    assert {path for path in named if not (ROOT / path).exists()} == set()
