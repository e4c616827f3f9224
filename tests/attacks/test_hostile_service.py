"""The verifier against services that show a log wrongly, built by C2SP tlog-tiles alone."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit import test_verify_chain_pure as made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

vc = made.vc
VERIFIED, TAMPERED, USAGE, UNAVAILABLE, INCOMPLETE = range(5)
SIZE = 600
KEY = "ck_reader"


def tiles_of(log: made.MemoryLog, size: int) -> dict[str, bytes]:
    """Give every file of a log at one size, by name."""
    row, level, files = log.leaves[:size], 0, dict[str, bytes]()
    while row:
        for index in range(-(-len(row) // 256)):
            part = row[index * 256 : index * 256 + 256]
            width = "" if len(part) == 256 else f".p/{len(part)}"
            files[f"tile/{level}/{index:03d}{width}"] = b"".join(part)
            if level == 0:
                entries = [each.entry for each in log.table[index * 256 : index * 256 + len(part)]]
                joined = b"".join(len(each).to_bytes(2) + each for each in entries)
                files[f"tile/entries/{index:03d}{width}"] = joined
        whole = len(row) // 256 * 256
        row = [made.root_of(row[at : at + 256]) for at in range(0, whole, 256)]
        level += 1
    return files | {"checkpoint": made.checkpoint(log.leaves[:size]).encode()}


@dataclass
class Shown:
    """A service on this machine that gives whatever a test wants."""

    files: dict[str, bytes]
    url: str = ""
    answer: Callable[[Any, str], bool] | None = None
    """Answers a request in its own way, or says that it did not."""
    asked: list[str] = field(default_factory=list)
    needs_key: bool = True

    def verify(self, folder: Path, *more: str, credential: bool = True) -> tuple[int, Any]:
        """Run the verifier; give exit code and verdict."""
        (folder / "reader").write_text(f"Authorization: Bearer {KEY}\n")
        (folder / "held").write_text(made.checkpoint(made.sound(SIZE).leaves[:300]))
        command = ["--log", self.url, "--key", made.verifier_key(), "--json"]
        command += ["--checkpoint", str(folder / "held"), "--evidence", str(folder / "evidence")]
        command += ["--credential", str(folder / "reader")] if credential else []
        code = vc.main([*command, *more])
        return code, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shown: Shown

    def do_GET(self) -> None:
        name = self.path.removeprefix("/v1/ledgers/x/")
        self.shown.asked.append(name)
        if self.shown.answer is not None and self.shown.answer(self, name):
            return
        allowed = self.headers.get("Authorization") == f"Bearer {KEY}"
        if not allowed and (self.shown.needs_key or "entries" in name):
            self.give(401, b"no")
        elif name in self.shown.files:
            self.give(200, self.shown.files[name])
        else:
            self.give(404, b"none")

    def give(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing: whoever asks hangs up where an answer is too long."""


@contextmanager
def showing(shown: Shown) -> Iterator[Shown]:
    handler = type("Handler", (_Handler,), {"shown": shown})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    shown.url = f"http://127.0.0.1:{server.server_port}/v1/ledgers/x"
    try:
        yield shown
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def service() -> Iterator[Shown]:
    with showing(Shown(tiles_of(made.sound(SIZE), SIZE))) as shown:
        yield shown


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nobody: how long is another matter than whether."""
    monkeypatch.setattr(vc.time, "sleep", lambda _: None)


@pytest.fixture
def verdict(service: Shown, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Give a function that runs the verifier on the service and gives its verdict."""

    def run(*more: str, **options: Any) -> dict[str, Any]:
        code, _ = service.verify(tmp_path, *more, **options)
        out, err = capsys.readouterr()
        found: dict[str, Any] = json.loads(out) if out else {"exit_code": code, "said": err}
        assert found["exit_code"] == code
        return found

    return run


def test_a_sound_service_is_verified_by_entries_and_all_tiles(service: Shown, verdict: Any):
    found = verdict()
    assert found["exit_code"] == VERIFIED, found
    assert set(service.files) <= set(service.asked)
    assert any("doesn't show" in each for each in found["not_checked"])


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, 513])
def test_services_of_every_size_around_a_tile_are_verified(
    service: Shown, verdict: Any, size: int, tmp_path: Path
):
    service.files = tiles_of(made.sound(SIZE), size)
    if size < 300:
        note = made.checkpoint(made.sound(SIZE).leaves[:size])
        (tmp_path / "same").write_text(note)
        assert verdict()["kinds"] == ["truncated"]  # the checkpoint held is of size 300
    else:
        assert verdict()["exit_code"] == VERIFIED


def test_a_partial_tile_that_has_become_a_full_one_is_read_from_that(service: Shown, verdict: Any):
    newer, older = (tiles_of(made.sound(SIZE), size) for size in (512, 400))
    files = newer | {name: older[name] for name in older if name.startswith("tile/1")}
    service.files = files | {"checkpoint": made.checkpoint(made.sound(SIZE).leaves[:400]).encode()}
    assert verdict()["exit_code"] == VERIFIED


def test_without_a_credential_only_hashes_are_read_and_it_is_said(service: Shown, verdict: Any):
    service.needs_key = False
    found = verdict(credential=False)
    assert found["exit_code"] == INCOMPLETE
    assert found["verdict"].startswith("hashes are one tree and signed by the pinned key")
    assert any("what stands in the entries" in each for each in found["not_checked"])
    assert not any("entries" in each for each in service.asked)
    assert "chained" not in found["holds"]


def test_a_credential_that_is_refused_is_no_verdict(verdict: Any):
    found = verdict(credential=False)
    assert (found["exit_code"], "--credential" in found["said"]) == (UNAVAILABLE, True)


@pytest.mark.parametrize("seq", [1, 2, 256, 257, 300, 513, 600])
def test_an_entry_altered_in_its_bundle_is_named(service: Shown, verdict: Any, seq: int):
    log = made.sound(SIZE)
    made.change(log, seq, made.other_bytes(log, seq))
    service.files = tiles_of(log, SIZE) | {"checkpoint": service.files["checkpoint"]}
    found = verdict()
    assert (found["kinds"], found["first_bad"]["seq"]) == (["altered"], seq)


def test_an_entry_altered_in_bundle_and_tiles_disagrees_with_the_checkpoint(
    service: Shown, verdict: Any
):
    log = made.sound(SIZE)
    made.change(log, 100, made.other_bytes(log, 100), leaf_too=True)
    made.rechain(log, 100)
    service.files = tiles_of(log, SIZE) | {"checkpoint": service.files["checkpoint"]}
    found = verdict()
    assert "rewritten" in found["kinds"]
    service.files = tiles_of(log, SIZE)  # signed anew, by whoever has the key
    assert verdict()["kinds"] == ["rewritten"]


@pytest.mark.parametrize("name", ["tile/0/000", "tile/0/002.p/88", "tile/1/000.p/2"])
@pytest.mark.parametrize("spoil", ["flip", "short", "long", "empty"])
def test_a_tile_of_hashes_that_is_wrong_is_found(
    service: Shown, verdict: Any, name: str, spoil: str
):
    raw = service.files[name]
    flipped = raw[:40] + bytes([raw[40] ^ 1]) + raw[41:]
    wrong = {"flip": flipped, "short": raw[:-1], "long": raw + b"x", "empty": b""}
    service.files[name] = wrong[spoil]
    assert verdict()["exit_code"] == TAMPERED
    service.needs_key = False
    assert verdict(credential=False)["exit_code"] == TAMPERED


@pytest.mark.parametrize("spoil", ["short", "long", "empty", "length", "one less", "html"])
def test_a_bundle_of_entries_that_is_wrong_is_found(service: Shown, verdict: Any, spoil: str):
    name = "tile/entries/001"
    raw = service.files[name]
    first = 2 + int.from_bytes(raw[:2])
    service.files[name] = {
        "short": raw[:-1],
        "long": raw + b"\0\1x",
        "empty": b"",
        "length": b"\xff\xff" + raw[2:],
        "one less": raw[first:],
        "html": b"<html>no</html>",
    }[spoil]
    found = verdict()
    assert found["exit_code"] == TAMPERED
    assert 257 <= (found["first_bad"]["seq"]) <= 512


def test_answers_without_end_are_cut_off(service: Shown, verdict: Any):
    def endless(handler: Any, name: str) -> bool:
        if name != "tile/0/001":
            return False
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        try:
            while True:
                handler.wfile.write(bytes(2**16))
        except OSError:
            return True

    service.answer = endless
    assert verdict()["exit_code"] == TAMPERED


def test_a_checkpoint_without_end_is_no_verdict(service: Shown, verdict: Any):
    service.files["checkpoint"] += b"\n" * 2**20
    assert verdict()["exit_code"] == UNAVAILABLE


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 403, 418, 500, 503])
def test_answers_that_are_no_log_are_no_verdict(service: Shown, verdict: Any, status: int):
    def other(handler: Any, name: str) -> bool:
        if not name.startswith("tile/entries/001"):
            return False
        handler.give(status, b"", Location=f"{service.url}/tile/entries/001", Retry_After="0")
        return True

    service.answer = other
    found = verdict()
    assert found["exit_code"] == UNAVAILABLE
    assert str(status) in found["said"]
    assert service.asked.count("tile/entries/001") <= vc.Fetch.TRIES


def test_a_service_that_is_away_for_a_moment_is_asked_again(service: Shown, verdict: Any):
    refused: dict[str, int] = {}

    def away(handler: Any, name: str) -> bool:
        refused[name] = refused.get(name, 0) + 1
        if refused[name] > 2:
            return False
        if refused[name] == 1:
            handler.give(503, b"", Retry_After="1")
        else:
            handler.close_connection = True  # without an answer
        return True

    service.answer = away
    assert verdict()["exit_code"] == VERIFIED


def test_an_answer_that_is_cut_off_is_asked_for_again_and_then_no_verdict(
    service: Shown, verdict: Any
):
    def cut(handler: Any, name: str) -> bool:
        if name != "tile/0/001":
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", "8192")
        handler.end_headers()
        handler.wfile.write(bytes(100))
        handler.close_connection = True
        return True

    service.answer = cut
    found = verdict()
    assert (found["exit_code"], "cut off" in found["said"]) == (UNAVAILABLE, True)


def test_a_tile_that_the_checkpoint_needs_and_the_service_lacks_is_no_verdict(
    service: Shown, verdict: Any
):
    del service.files["tile/0/001"]
    found = verdict()
    assert (found["exit_code"], "tile/0/001" in found["said"]) == (UNAVAILABLE, True)


def test_a_server_that_dies_in_the_middle_is_no_verdict(service: Shown, verdict: Any):
    def dying(handler: Any, _: str) -> bool:
        if len(service.asked) < 4:
            return False
        handler.close_connection = True
        handler.connection.close()
        return True

    service.answer = dying
    assert verdict()["exit_code"] == UNAVAILABLE


def test_a_checkpoint_that_goes_back_is_found(service: Shown, verdict: Any):
    older = made.checkpoint(made.sound(SIZE).leaves[:400]).encode()

    def back(handler: Any, name: str) -> bool:
        if name != "checkpoint" or service.asked.count("checkpoint") < 2:
            return False
        handler.give(200, older)
        return True

    service.answer = back
    found = verdict()
    assert found["kinds"] == ["truncated"]
    assert "went back from size 600 to 400" in found["findings"][0]["what"]


def test_two_checkpoints_of_one_size_are_a_split_view_and_both_are_kept(
    service: Shown, verdict: Any
):
    other = made.checkpoint([bytes(32)] * SIZE)

    def split(handler: Any, name: str) -> bool:
        if name != "checkpoint" or service.asked.count("checkpoint") < 2:
            return False
        handler.give(200, other.encode())
        return True

    service.answer = split
    found = verdict()
    assert found["kinds"] == ["rewritten"]
    assert "split view at size 600" in found["findings"][0]["what"]
    notes = {each["note"] for each in found["checkpoints"]}
    assert {other, service.files["checkpoint"].decode()} <= notes


def test_a_checkpoint_held_of_the_same_size_and_another_root_is_a_split_view(
    verdict: Any, tmp_path: Path
):
    (tmp_path / "other").write_text(made.checkpoint([bytes(32)] * SIZE))
    found = verdict("--checkpoint", str(tmp_path / "other"))
    assert any("split view" in each["what"] for each in found["findings"])
    assert any("both signed" in each["what"] for each in found["findings"])


def test_a_checkpoint_of_another_key_is_found(service: Shown, verdict: Any):
    leaves = made.sound(SIZE).leaves
    service.files["checkpoint"] = made.checkpoint(leaves, made.OTHER).encode()
    assert "rewritten" in verdict()["kinds"]


def test_another_answer_to_the_same_question_is_told(service: Shown, verdict: Any):
    """Altered when first read, right when it is examined: the verdict is on what was examined."""
    log = made.sound(SIZE)
    made.change(log, 300, made.other_bytes(log, 300))
    bad, good = tiles_of(log, SIZE)["tile/entries/001"], service.files["tile/entries/001"]

    def changing(handler: Any, name: str) -> bool:
        if name != "tile/entries/001":
            return False
        handler.give(200, bad if service.asked.count(name) == 1 else good)
        return True

    service.answer = changing
    found = verdict()
    assert found["exit_code"] == VERIFIED
    assert any("other bytes were given" in each for each in found["not_checked"])


def test_a_stream_that_the_service_forked_is_found(service: Shown, verdict: Any):
    log = made.sound(SIZE)
    stream = next(row.stream for row in log.table[20:] if row.stream.decode() in made.RECORDS)
    heads = dict(log.heads)
    for _ in range(2):  # both follow the same entry
        log.heads[stream] = heads[stream]
        log.append(stream.decode(), "record", {"type": "ledger.record.accessed.v1"})
    service.files = tiles_of(log, SIZE + 2)
    found = verdict()
    assert (found["exit_code"], found["first_bad"]["seq"]) == (TAMPERED, SIZE + 2)


def test_a_stream_that_is_begun_twice_is_found(service: Shown, verdict: Any):
    log = made.sound(SIZE)
    del log.heads[made.RECORDS[0].encode()]
    log.append(made.RECORDS[0], "record", {"type": "ledger.record.accessed.v1"})
    service.files = tiles_of(log, SIZE + 1)
    assert verdict()["first_bad"]["seq"] == SIZE + 1


def test_a_service_of_another_ledger_is_usage(verdict: Any, tmp_path: Path):
    other = made.verifier_key(name="ledger.example/other-0a1b2c3d")
    (tmp_path / "pins").write_text(other)
    assert verdict("--pin", str(tmp_path / "pins"))["exit_code"] == USAGE


def test_addresses_that_are_none_are_usage(verdict: Any, service: Shown):
    for url in ("ftp://x/y", "http://", "https://u:p@host/x", "http://host/x?y=1", "http://h:x/"):
        service.url = url
        assert verdict()["exit_code"] == USAGE, url
    service.url = "http://127.0.0.1:1/x"
    assert verdict()["exit_code"] == UNAVAILABLE


def test_the_credential_is_in_no_message(service: Shown, verdict: Any, tmp_path: Path):
    service.files["tile/0/001"] = b""
    assert KEY not in json.dumps(verdict())
    assert KEY not in (tmp_path / "evidence").read_text()
    (tmp_path / "broken").write_text("Bearer a\nb")
    found = verdict("--credential", str(tmp_path / "broken"))
    assert (found["exit_code"], "a\nb" in found["said"]) == (USAGE, False)


def test_a_slow_answer_ends_some_time(
    service: Shown, verdict: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(vc.Fetch, "WHOLE_S", 0.05)
    monkeypatch.setattr(vc.Fetch, "TRIES", 2)
    pause = threading.Event()

    def slow(handler: Any, name: str) -> bool:
        if name != "tile/0/001":
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", "8192")
        handler.end_headers()
        for _ in range(40):
            handler.wfile.write(b"x")
            pause.wait(0.02)
        handler.close_connection = True
        return True

    service.answer = slow
    begun = time.monotonic()
    assert verdict()["exit_code"] == UNAVAILABLE
    assert time.monotonic() - begun < 5
