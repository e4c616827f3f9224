"""Our ledger before a witness of another maker, and our witness before that maker's log.

The other programs run as processes, from an environment of their own (`peer_python`).
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from ledger.anchors.exchange import Exchange
from ledger.anchors.table import Url
from ledger.anchors.witness import WitnessSink
from ledger.core.note import open_note, parse_verifier
from ledger.errors import SinkFailed, SplitView
from ledger.witness.evidence import EvidenceDirectory
from tests.fixtures.witnesses import WITNESS, SmallLog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fixtures.witnesses import Served, ServeWitness

THEIRS = "witness.other.example/w1"

THEIR_LOG = """
import json, sys, time
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from aics_tlog import (Checkpoint, MerkleTree, format_vkey, parse_note, parse_vkey,
                       sign_checkpoint, verify_checkpoint, vkey_from_ed25519)
from aics_witness.feeder import WitnessClient, merge_cosignatures

origin, url, witness_key = json.loads(sys.argv[1])
key = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"x")
log_key = vkey_from_ed25519(origin, key.public_key().public_bytes_raw())
if url is None:
    print(json.dumps(format_vkey(log_key)))
    sys.exit()
tree = MerkleTree(b"leaf %d" % n for n in range(300))
told = []

def note_of(tree, size):
    signed = sign_checkpoint(Checkpoint(origin, size, tree.root(size)), key, origin)
    return signed.to_bytes()

def submit(client, tree, size):
    note = note_of(tree, size)
    try:
        lines = client.submit(note, tree.consistency_proof)
    except Exception as error:
        return [size, type(error).__name__, getattr(error, "status", None)]
    merged = merge_cosignatures(note, lines)
    found = verify_checkpoint(parse_note(merged), log_key, [parse_vkey(witness_key)], 1,
                              expected_origin=origin, max_age_seconds=60)
    return [size, "ok" if found.ok else repr(found), len(found.witnesses)]

with WitnessClient(url, witness_key) as client:
    for size in (1, 2, 5, 5, 255, 256, 257):
        told.append(submit(client, tree, size))
with WitnessClient(url, witness_key) as client:
    told.append(submit(client, tree, 290))  # it has to ask for the size first
    told.append(submit(client, tree, 280))  # a stale checkpoint
    other = MerkleTree(b"other %d" % n for n in range(300))
    told.append(submit(client, other, 290))
    told.append(submit(client, other, 299))
    told.append(submit(client, tree, 299))
print(json.dumps(told))
"""


@pytest.fixture
def their_witness(peer_python: Path, tmp_path: Path, log: SmallLog) -> Iterator[tuple[str, str]]:
    """Run a witness of another maker that watches the log; give its URL and key."""
    command = [str(peer_python), "-m", "aics_witness"]
    config = ["--config", str(tmp_path / "witness.json")]

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*command, *arguments, *config], capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    key = run("init", "--name", THEIRS)
    run("add-log", "--origin", log.origin, "--vkey", log.vkey)
    process = subprocess.Popen(
        [*command, "serve", *config, "--listen", "127.0.0.1:0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if (found := re.search(r"listening on (http://[^ ]+)", line)) is not None:
            break
    else:
        pytest.fail("the other maker's witness did not start")
    yield found[1], key
    process.kill()
    process.wait()
    process.stderr.close()


def sink_to(url: str, key: str, log: SmallLog) -> WitnessSink:
    return WitnessSink(
        name="other",
        verifiers=[parse_verifier(key)],
        exchange=Exchange(Url(url, url), timeout_s=10, authorities=None, proxy=None),
        target=log.target(),
    )


def test_their_witness_cosigns_our_checkpoints(their_witness: tuple[str, str], log: SmallLog):
    url, key = their_witness
    sink = sink_to(url, key, log)
    for size in (1, 2, 5, 5, 255, 256, 257, 300):
        got = sink.anchor(log.due(size))
        (cosigned,) = open_note(got.evidence.decode(), [parse_verifier(key)]).signatures
        assert cosigned.time_s is not None
        assert abs(cosigned.time_s - time.time()) < 60
    sink.close()
    again = sink_to(url, key, log)
    assert again.anchor(log.due(310)).lines, "started again, it had to ask for the size"
    again.close()


def test_their_refusals_are_understood(their_witness: tuple[str, str]):
    url, key = their_witness
    for other, code in (
        (SmallLog(origin="log.example/unknown"), "not_watched"),
        (SmallLog(seed=bytes([7]) * 32), "key_not_trusted"),
    ):
        sink = sink_to(url, key, other)
        with pytest.raises(SinkFailed) as caught:
            sink.anchor(other.due(5))
        assert caught.value.code == code
        sink.close()


@pytest.mark.parametrize("size", [3, 6, 7, 20])
def test_their_witness_tells_a_split_view_and_shows_what_we_signed(
    their_witness: tuple[str, str], log: SmallLog, size: int
):
    url, key = their_witness
    sink = sink_to(url, key, log)
    sink.anchor(log.due(6))
    sink.close()
    forked = SmallLog(salt=b"other", fork=2)
    going_on = sink_to(url, key, forked)
    with pytest.raises(SplitView) as caught:
        going_on.anchor(forked.due(size))
    going_on.close()
    evidence = caught.value.evidence
    assert evidence["proved"]
    assert evidence["their_size"] == 6
    shown = open_note(evidence["theirs"], [log.signer.verifier, parse_verifier(key)])
    assert len(shown.signatures) == 2


def their_log(peer_python: Path, *arguments: Any) -> Any:
    done = subprocess.run(
        [str(peer_python), "-c", THEIR_LOG, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_our_witness_cosigns_their_log_and_refuses_its_fork(
    peer_python: Path, serve_witness: ServeWitness, tmp_path: Path
):
    """Their client checks our cosignatures, their reader the notes that it makes of them."""
    origin = "log.other.example/test"
    ours: Served = serve_witness(tmp_path / "w", WITNESS)
    ours.here.witness.watch(their_log(peer_python, origin, None, None))
    told = their_log(peer_python, origin, ours.url, ours.vkey)
    assert told == [
        *([size, "ok", 1] for size in (1, 2, 5, 5, 255, 256, 257)),
        [290, "ok", 1],
        [280, "WitnessAhead", None],
        [290, "WitnessRejected", 422],
        [299, "WitnessRejected", 422],
        [299, "ok", 1],
    ]
    kept = EvidenceDirectory(ours.here.directory / "evidence").read()
    assert [(one.doubt, one.size) for one in kept] == [("fork", 299), ("same-size", 290)]


def test_their_reader_takes_what_our_witness_serves_to_monitors(
    peer_python: Path, serve_witness: ServeWitness, tmp_path: Path, log: SmallLog
):
    ours: Served = serve_witness(tmp_path / "w", WITNESS)
    ours.here.witness.watch(log.vkey)
    sink = sink_to(ours.url, ours.vkey, log)
    sink.anchor(log.due(300))
    sink.close()
    origin_hash = hashlib.sha256(log.origin.encode()).hexdigest()
    (tmp_path / "note").write_bytes(httpx.get(f"{ours.url}/{origin_hash}/checkpoint").content)
    command = ["-m", "aics_tlog", "verify-checkpoint", "--note", str(tmp_path / "note")]
    command += ["--origin", log.origin, "--log-key", log.vkey, "--witness-key", ours.vkey]
    done = subprocess.run(
        [str(peer_python), *command, "--quorum", "1", "--max-age", "600"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout)["ok"]
