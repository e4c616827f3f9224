"""A bundle's entries and checkpoint, checked with openssl and sha256sum alone."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# The log builder of the pure tests; loaded by path, since tests are folders by kind.
_PATH = Path(__file__).parents[1] / "unit" / "test_verify_chain_pure.py"
_SPEC = importlib.util.spec_from_file_location("log_by_format", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
made: Any = importlib.util.module_from_spec(_SPEC)
sys.modules["log_by_format"] = made
_SPEC.loader.exec_module(made)

pytestmark = pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("sha256sum")), reason="needs openssl, sha256sum"
)

WALK = r"""
prev=
while IFS= read -r line; do
  stated=$(printf '%s' "$line" | sed -E 's/^[^}]*"prev":"([0-9a-f]{64})".*$/\1/')
  if [ -n "$prev" ] && [ "$stated" != "$prev" ]; then echo "broken"; exit 1; fi
  prev=$(printf '\0%s' "$line" | sha256sum | cut -d' ' -f1)
done
echo "$prev"
"""
ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")


def walk(lines: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["sh", "-c", WALK], input=lines, capture_output=True, check=False)


def test_sha256sum_alone_follows_a_range():
    files = made.bundle_files(11, 40)
    result = walk(files["entries.jsonl"])
    assert result.returncode == 0
    assert result.stdout.decode().strip() == made.sound().leaves[39].hex()


def test_sha256sum_alone_sees_a_range_with_a_line_left_out():
    lines = made.bundle_files(11, 40)["entries.jsonl"].splitlines(keepends=True)
    del lines[5]
    assert walk(b"".join(lines)).stdout == b"broken\n"


@pytest.mark.parametrize("name", ["checkpoint", "manifest.note"])
@pytest.mark.parametrize("spoiled", [False, True])
def test_openssl_alone_checks_a_signed_note(tmp_path: Path, name: str, *, spoiled: bool):
    text, _, line = made.bundle_files()[name].decode().rpartition("\n\n")
    signature = base64.b64decode(line.split()[2])[4:]
    public = base64.b64decode(made.verifier_key().split("+", 2)[2])[1:]
    (tmp_path / "key.der").write_bytes(ED25519_SPKI + public)
    (tmp_path / "signature").write_bytes(signature)
    (tmp_path / "text").write_text(text + ("\n" if not spoiled else "\n\n"))
    command = "openssl pkeyutl -verify -pubin -keyform DER -inkey key.der -rawin -in text -sigfile"
    result = subprocess.run(
        [*command.split(), "signature"], cwd=tmp_path, capture_output=True, check=False
    )
    assert (result.returncode == 0) is not spoiled


def test_the_manifest_lists_what_sha256sum_computes(tmp_path: Path):
    files = made.bundle_files()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    stated = json.loads(files["manifest.json"])["files"]
    sums = "".join(f"{digest}  {name}\n" for name, digest in stated.items())
    result = subprocess.run(
        ["sha256sum", "--check", "--strict"],
        input=sums.encode(),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
