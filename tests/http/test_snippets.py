"""The README's snippets for senders, run as they stand against a ledger as `custody up` makes it.

Only the address is another, since the test's port is. Those are run whose toolchain is on
this machine.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.fixtures.postgres import short_directory
from tests.http.support import free_port
from tests.http.test_demo import Company, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
SECTIONS = {"README.md": "Sending events", "README.zh-CN.md": "发送事件"}
ADDRESS = "http://127.0.0.1:8420"
TYPESCRIPT = ("typescript@5.9.3", "@types/node@20.19.25")


def snippets(readme: str) -> list[tuple[str, str]]:
    """Give language and text of each snippet, in order."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    section = text.split(f"\n## {SECTIONS[readme]}\n")[1].split("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)


def snippet(language: str, number: int = 0) -> str:
    found = [text for each, text in snippets("README.md") if each == language]
    return found[number]


@pytest.fixture(scope="module")
def company(new_database: Callable[[], str]) -> Iterator[Company]:
    """Serve a ledger whose home is `.custody` in the directory where snippets are run."""
    with short_directory() as directory:
        home = directory / ".custody"
        home.mkdir(mode=0o711)
        made = Company(home, new_database())
        process = start(made)
        try:
            yield made
        finally:
            process.terminate()
            process.communicate(timeout=60)


def run(company: Company, *command: str | Path, **environment: str) -> str:
    """Run a program where a reader of the README would."""
    done = subprocess.run(
        command,
        cwd=company.home.parent,
        env={**company.environment, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write(company: Company, name: str, text: str) -> Path:
    port = company.environment["LEDGER_PORT"]
    path = company.home.parent / name
    assert ADDRESS in text
    path.write_text(text.replace(ADDRESS, f"http://127.0.0.1:{port}"), encoding="utf-8")
    return path


def recorded(company: Company, event_id: str) -> dict[str, Any]:
    """Give the one event of an id that the log holds."""
    found = [
        entry["event"]
        for entry in map(json.loads, company.entries())
        if entry["event"].get("id") == event_id
    ]
    assert len(found) == 1
    event: dict[str, Any] = found[0]
    return event


def needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not on this machine")
    return found


def test_both_languages_have_the_same_snippets():
    assert snippets("README.md") == snippets("README.zh-CN.md")
    languages = [language for language, _ in snippets("README.md")]
    assert languages == ["sh", "python", "python", "java", "go", "ts"]


def test_curl(company: Company):
    needs("curl")
    script = write(company, "curl.sh", snippet("sh"))
    receipt = json.loads(run(company, "sh", script))
    assert receipt["id"] == "curl-1"
    assert recorded(company, "curl-1")["data"]["fields"] == ["phone"]
    assert json.loads(run(company, "sh", script))["repeated"]


def test_python(company: Company):
    before = len(company.entries())
    said = run(company, sys.executable, write(company, "send.py", snippet("python")))
    assert "Receipt(" in said
    (entry,) = map(json.loads, company.entries()[before:])
    assert entry["event"]["data"]["sequence"] >= 1
    assert (company.home.parent / "crm.outbox").exists()


def test_fastapi(company: Company, monkeypatch: pytest.MonkeyPatch):
    path = write(company, "readme_app.py", snippet("python", 1))
    monkeypatch.chdir(company.home.parent)
    spec = importlib.util.spec_from_file_location("readme_app", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "readme_app", module)
    spec.loader.exec_module(module)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=module.app)
        async with (
            module.lifespan(module.app),
            httpx.AsyncClient(transport=transport, base_url="http://app") as http,
        ):
            answer = await http.get("/customers/C-1")
            await module.app.state.ledger.flush(20)
            return answer

    before = len(company.entries())
    assert asyncio.run(ask()).json()["customer"] == "C-1"
    (entry,) = map(json.loads, company.entries()[before:])
    assert entry["event"]["type"] == "ledger.record.accessed.v1"


def test_java(company: Company):
    java = needs("java")
    version = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    major = re.search(r'version "(\d+)', version)
    if major is None or int(major[1]) < 17:
        pytest.skip("this machine's Java is older than 17")
    directory = company.home.parent / "java"
    directory.mkdir(exist_ok=True)
    receipt = json.loads(run(company, java, write(company, "java/Main.java", snippet("java"))))
    assert receipt["id"] == "java-1"
    assert recorded(company, "java-1")["data"]["purpose"] == "service"


def test_go(company: Company):
    go = needs("go")
    program = write(company, "main.go", snippet("go"))
    said = run(company, go, "run", program, GOTOOLCHAIN="local", GO111MODULE="off")
    assert json.loads(said)["id"] == "go-1"
    assert recorded(company, "go-1")["data"]["purpose"] == "service"


def test_typescript(company: Company):
    node, npm = needs("node"), needs("npm")
    compiler = typescript(npm)
    program = write(company, "main.mts", snippet("ts"))
    run(
        company,
        node,
        compiler / "typescript" / "bin" / "tsc",
        "--strict",
        "--target",
        "es2022",
        "--module",
        "nodenext",
        "--types",
        "node",
        "--typeRoots",
        compiler / "@types",
        program,
    )
    said = run(company, node, program.with_suffix(".mjs"))
    assert said.startswith("ts-1 ")
    assert recorded(company, "ts-1")["data"]["purpose"] == "service"


def typescript(npm: str) -> Path:
    """Give the packages of the compiler, installed once into the user's cache.

    Where they can't be had the test is skipped, but not by CI, which has a network.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "custody-ledger-tests" / "-".join(TYPESCRIPT).replace("/", "-")
    packages = place / "node_modules"
    if not (packages / "typescript" / "bin" / "tsc").exists():
        place.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [
                npm,
                "install",
                "--prefix",
                place,
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                *TYPESCRIPT,
            ],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if done.returncode:
            assert not os.environ.get("CI"), done.stderr
            pytest.skip("the compiler can't be installed here")
    return packages


def test_a_snippet_of_a_ledger_that_is_away_fails(company: Company):
    """Only then does a test that it succeeds say something."""
    path = company.home.parent / "away.py"
    text = snippet("python").replace(ADDRESS, f"http://127.0.0.1:{free_port()}")
    path.write_text(
        text.replace("wait_recorded(30)", "wait_recorded(1)").replace("crm.outbox", "a")
    )
    with pytest.raises(AssertionError, match="Unavailable"):
        run(company, sys.executable, path)
