"""`custody witness` as a process of its own: over HTTP, from the command line, and killed."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from ledger.cli import witness_server
from ledger.core.checkpoint import open_checkpoint, parse_checkpoint
from ledger.core.note import open_note, parse_verifier, split_note
from ledger.witness.place import make_place, open_place
from ledger.witness.protocol import MAX_REQUEST_BYTES, SIZE_TYPE, parse_size, read_cosignatures
from tests.fixtures.witnesses import (
    ROOT,
    WITNESS,
    ServeWitness,
    SmallLog,
    StartWitness,
    WitnessProcess,
    custody,
)


@pytest.fixture
def running(witness_process: StartWitness, tmp_path: Path, log: SmallLog) -> WitnessProcess:
    """A witness that is served and watches the log."""
    started = witness_process(tmp_path / "w")
    done = custody("witness", "--directory", tmp_path / "w", "add", log.vkey)
    assert done.returncode == 0, done.stderr
    return started


def post(witness: WitnessProcess, body: bytes) -> httpx.Response:
    return httpx.post(f"{witness.url}/add-checkpoint", content=body, timeout=20)


# -- over HTTP -----------------------------------------------------------------


def test_a_log_added_while_it_runs_is_cosigned_at_once(running: WitnessProcess, log: SmallLog):
    before = int(time.time())
    answer = post(running, log.request(0, 5))
    assert answer.status_code == 200
    text = log.checkpoint(5).text()
    (found,) = read_cosignatures(text, answer.content, [parse_verifier(running.vkey)])
    assert before <= found.time_s <= int(time.time())


def test_every_status_goes_over_the_wire(running: WitnessProcess, log: SmallLog):
    assert post(running, log.request(0, 5)).status_code == 200
    assert post(running, b"junk").status_code == 400
    assert post(running, log.request(7, 5)).status_code == 400
    assert post(running, SmallLog(seed=bytes([1]) * 32).request(0, 5)).status_code == 403
    assert post(running, SmallLog(origin="log.example/x").request(0, 5)).status_code == 404
    conflict = post(running, log.request(3, 9))
    assert (conflict.status_code, conflict.content) == (409, b"5\n")
    assert conflict.headers["content-type"] == SIZE_TYPE
    assert parse_size(conflict.content) == 5
    assert post(running, log.request(5, 9, proof=[bytes(32)])).status_code == 422
    assert post(running, log.request(5, 9)).status_code == 200


def test_the_newest_checkpoint_is_served_by_the_hash_of_the_origin(
    running: WitnessProcess, log: SmallLog
):
    origin_hash = hashlib.sha256(log.origin.encode()).hexdigest()
    url = f"{running.url}/{origin_hash}/checkpoint"
    assert httpx.get(url).status_code == 404
    line = post(running, log.request(0, 5)).text
    found = httpx.get(url)
    assert found.text == log.note(5) + line
    assert found.headers["content-type"] == "text/plain; charset=utf-8"
    head = httpx.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert httpx.get(url.upper().replace("HTTP", "http")).status_code == 404


def test_other_paths_and_methods_are_refused(running: WitnessProcess):
    assert httpx.get(f"{running.url}/healthz").text == "ok\n"
    for path in ("/", "/checkpoint", "/add-checkpoint/", "/sign-subtree", "/../key.json"):
        assert httpx.get(running.url + path).status_code == 404
        assert httpx.post(running.url + path).status_code == 404
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        answer = httpx.request(method, f"{running.url}/add-checkpoint")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("chunked", ["whole", "chunked"])
def test_a_body_that_is_too_long_is_refused_before_its_end(running: WitnessProcess, chunked: str):
    body = b"x" * (MAX_REQUEST_BYTES + 1)
    content = iter([body, b"more"]) if chunked == "chunked" else body
    answer = httpx.post(f"{running.url}/add-checkpoint", content=content)
    assert answer.status_code == 413
    assert post(running, b"x" * MAX_REQUEST_BYTES).status_code == 400


def test_sixteen_large_signatures_by_others_fit(running: WitnessProcess, log: SmallLog):
    """As large as post-quantum signatures are: 2,432 bytes each."""
    import base64

    blob = base64.b64encode(bytes(4 + 8 + 2420)).decode()
    note = log.note(5) + "".join(f"\u2014 w.example/{n} {blob}\n" for n in range(60))
    assert post(running, log.request(0, 5, note=note)).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for_for_ever(tmp_path: Path, log: SmallLog):
    import asyncio

    from ledger.witness.asgi import WitnessApp
    from tests.fixtures.witnesses import make_here

    here = make_here(tmp_path / "w", log)
    sent: list[int] = []

    async def slow() -> dict[str, object]:
        await asyncio.sleep(60)
        raise AssertionError

    async def keep(message: dict[str, object]) -> None:
        if "status" in message:
            sent.append(int(str(message["status"])))

    app = WitnessApp(here.witness, body_timeout_s=0.05)
    scope = {"type": "http", "method": "POST", "path": "/add-checkpoint"}
    asyncio.run(app(scope, slow, keep))  # type: ignore[arg-type]
    assert sent == [408]
    here.close()


def test_a_sender_who_leaves_disturbs_nobody(running: WitnessProcess, log: SmallLog):
    parts = urlsplit(running.url)
    for _ in range(5):
        with socket.create_connection((parts.hostname, parts.port or 0)) as connection:
            connection.sendall(
                b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 99\r\n"
            )
            connection.sendall(b"\r\nold 0\n")
    assert post(running, log.request(0, 5)).status_code == 200
    assert running.stop() == 0


def test_who_never_finishes_a_request_is_cut_off(
    serve_witness: ServeWitness, tmp_path: Path, log: SmallLog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(witness_server, "REQUEST_TIMEOUT_S", 0.3)
    served = serve_witness(tmp_path / "w")
    served.here.witness.watch(log.vkey)
    address = urlsplit(served.url).hostname, urlsplit(served.url).port or 0
    for sent in (b"", b"POST /add-ch", b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nX: "):
        with socket.create_connection(address, timeout=5) as connection:
            connection.sendall(sent)
            assert connection.recv(1000) == b""
    slow = httpx.post(f"{served.url}/add-checkpoint", content=log.request(0, 5))
    assert slow.status_code == 200


def test_headers_without_end_are_refused(running: WitnessProcess):
    parts = urlsplit(running.url)
    with socket.create_connection((parts.hostname, parts.port or 0), timeout=5) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n" + b"X-Filler: 0123456789\r\n" * 2_000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"{running.url}/healthz").status_code == 200


# -- killed --------------------------------------------------------------------


def test_killed_in_the_middle_it_holds_whatever_it_has_cosigned(
    witness_process: StartWitness, tmp_path: Path
):
    """Two forks press on from many threads; the witness is killed and started again."""
    forks = [SmallLog(salt=salt).grow(400) for salt in (b"", b"forged")]
    make_place(tmp_path / "w", WITNESS)
    assert custody("witness", "--directory", tmp_path / "w", "add", forks[0].vkey).returncode == 0
    got: list[tuple[int, bytes]] = []
    for _ in range(4):
        running = witness_process(tmp_path / "w")
        stop = threading.Event()
        threads = [
            threading.Thread(target=press, args=(running, fork, got, stop)) for fork in forks * 2
        ]
        for thread in threads:
            thread.start()
        wanted, until = len(got) + random.randint(1, 15), time.monotonic() + 30
        while len(got) < wanted and time.monotonic() < until:
            time.sleep(0.001)
        running.kill()
        stop.set()
        for thread in threads:
            thread.join()
    assert len(got) >= 4, "it was busy each time"
    roots: dict[int, set[bytes]] = {}
    for size, root in got:
        roots.setdefault(size, set()).add(root)
    assert all(len(found) == 1 for found in roots.values())
    _, store, _ = open_place(tmp_path / "w")
    for size, (root,) in roots.items():
        held = store.at_size(forks[0].origin, size)
        assert held is not None
        assert held.root == root
    newest = store.newest(forks[0].origin)
    assert newest is not None
    assert newest.size >= max(roots)
    (winner,) = (fork for fork in forks if fork.checkpoint(newest.size).root == newest.root)
    assert all(winner.checkpoint(size).root == root for size, (root,) in roots.items())
    store.close()


def press(
    running: WitnessProcess, fork: SmallLog, got: list[tuple[int, bytes]], stop: threading.Event
) -> None:
    old = 0
    with httpx.Client(timeout=5) as client:
        for step in itertools.count():
            if stop.is_set():
                return
            size = min(old + 1 + step % 2, 400)
            try:
                answer = client.post(
                    f"{running.url}/add-checkpoint", content=fork.request(old, size)
                )
            except httpx.HTTPError:
                return
            if answer.status_code == 200:
                text = fork.checkpoint(size).text()
                read_cosignatures(text, answer.content, [parse_verifier(running.vkey)])
                got.append((size, fork.checkpoint(size).root))
                old = size
            elif answer.status_code == 409:
                old = min(parse_size(answer.content), 400)


# -- the command line ----------------------------------------------------------


def test_init_prints_a_key_that_others_can_pin(tmp_path: Path):
    done = custody("witness", "--directory", tmp_path / "w", "init", "witness.example/w1", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    verifier = parse_verifier(document["verifier_key"])
    assert (verifier.name, verifier.kind) == ("witness.example/w1", 4)
    key_file = tmp_path / "w" / "key.json"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    secret = json.loads(key_file.read_text())["private_key"]
    assert secret not in done.stdout + done.stderr
    again = custody("witness", "--directory", tmp_path / "w", "init", "witness.example/w1")
    assert again.returncode == 2
    assert json.loads(key_file.read_text())["private_key"] == secret


def test_the_directory_is_in_the_home_unless_said(tmp_path: Path):
    import os

    environment = {**os.environ, "LEDGER_HOME": str(tmp_path / "home")}
    done = custody("witness", "init", "witness.example/w1", env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home" / "witness" / "key.json").is_file()


def test_what_makes_no_sense_is_said_and_ends_with_2(tmp_path: Path, log: SmallLog):
    directory = ("--directory", tmp_path / "w")
    for command in (["add", log.vkey], ["serve"], ["status"]):
        assert custody("witness", *directory, *command).returncode == 2
    assert custody("witness", *directory, "init", "two words").returncode == 2
    assert custody("witness", *directory, "init", "w.example/1").returncode == 0
    assert custody("witness", *directory, "add", "nonsense").returncode == 2
    for listen in ("8421", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999"):
        assert custody("witness", *directory, "serve", "--listen", listen).returncode == 2


def test_a_port_that_is_taken_is_said_and_ends_with_3(running: WitnessProcess):
    address = running.url.removeprefix("http://")
    done = custody("witness", "--directory", running.directory, "serve", "--listen", address)
    assert done.returncode == 3


def test_status_lists_what_is_held_and_ends_with_1_once_a_log_has_split(
    running: WitnessProcess, log: SmallLog
):
    status = ("witness", "--directory", running.directory, "status")
    assert "nothing cosigned yet" in custody(*status).stdout
    post(running, log.request(0, 5))
    done = custody(*status, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["ledgers"]
    assert (found["origin"], found["size"]) == (log.origin, 5)
    assert found["root"] == log.checkpoint(5).root.hex()
    assert found["root"] in custody(*status).stdout
    assert post(running, SmallLog(salt=b"forged").request(5, 5)).status_code == 422
    done = custody(*status, "--json")
    assert done.returncode == 1
    assert "signed two trees" in done.stderr
    (one,) = json.loads(done.stdout)["evidence"]
    assert one["doubt"] == "same-size"
    document = json.loads(Path(one["file"]).read_text(encoding="utf-8"))
    for side in ("held", "shown"):
        assert open_checkpoint(document[side], log.signer.verifier, log.origin).size == 5


def test_a_tree_without_proof_ends_status_with_4_until_it_is_proved(
    running: WitnessProcess, log: SmallLog
):
    status = ("witness", "--directory", running.directory, "status")
    post(running, log.request(0, 4))
    assert post(running, log.request(4, 7, proof=[bytes(32)] * 2)).status_code == 422
    done = custody(*status)
    assert (done.returncode, "unproved" in done.stdout) == (4, True)
    assert post(running, log.request(4, 7)).status_code == 200
    done = custody(*status)
    assert (done.returncode, "unproved" in done.stdout) == (0, False)


def test_a_stopped_witness_can_be_asked_for_its_status(running: WitnessProcess, log: SmallLog):
    post(running, log.request(0, 5))
    assert running.stop() == 0
    assert "size 5" in custody("witness", "--directory", running.directory, "status").stdout
    assert not list(running.directory.glob("*-wal")), "one file is the whole state"


def test_a_restarted_witness_cosigns_with_the_same_key(
    running: WitnessProcess, witness_process: StartWitness, log: SmallLog
):
    post(running, log.request(0, 5))
    running.kill()
    again = witness_process(running.directory)
    assert again.vkey == running.vkey
    assert post(again, log.request(0, 9)).content == b"5\n"
    line = post(again, log.request(5, 9)).text
    opened = open_note(log.note(9) + line, [parse_verifier(running.vkey)])
    assert parse_checkpoint(opened.text).size == 9
    assert len(split_note(log.note(9) + line)[1]) == 2


def test_it_needs_no_database_server_and_nothing_else_of_the_product():
    program = (
        "import sys; from ledger.cli.group import load_command; load_command('witness')\n"
        "import ledger.witness.asgi\n"
        "bad = {'psycopg', 'eventsourcing', 'fastapi', 'starlette', 'msgspec', 'httpx'}\n"
        "print(sorted(bad & set(sys.modules)), [m for m in sys.modules if m == 'api'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] []\n"
