"""Our side of the witness protocol: against a true witness, and against ones that fail or lie."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.anchors.exchange import Exchange
from ledger.anchors.sink import Target
from ledger.anchors.table import SinkTable, Url
from ledger.anchors.witness import MAX_ANSWER_BYTES, MAX_SKEW_S, WitnessSink, make_witness
from ledger.core.checkpoint import open_checkpoint
from ledger.core.note import SignatureType, Signer, open_note, parse_verifier, signature_line
from ledger.errors import Misconfigured, SinkFailed, SplitView, Unavailable
from ledger.witness.protocol import SIZE_TYPE, parse_add_checkpoint
from tests.fixtures.witnesses import Here, InProcess, SmallLog, make_here

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ledger.core.note import Verifier

    Twist = Callable[[httpx.Request, httpx.Response], httpx.Response]


def a_sink(
    here: Here, log: SmallLog, twist: Twist | None = None, *, verifier: Verifier | None = None
) -> WitnessSink:
    wire = InProcess(here.witness) if twist is None else InProcess(here.witness, twist)
    return over(wire, here, log, [verifier or here.witness.verifier])


def over(
    wire: httpx.BaseTransport, here: Here, log: SmallLog, verifiers: Sequence[Verifier]
) -> WitnessSink:
    exchange = Exchange(
        Url("http://witness.example/w1", ""), timeout_s=2, authorities=None, proxy=None
    )
    exchange._client = lambda: httpx.Client(transport=wire)  # type: ignore[method-assign]
    return WitnessSink(
        name="auditor",
        verifiers=verifiers,
        exchange=exchange,
        target=log.target(),
        clock=here.clock,
    )


def fails(sink: WitnessSink, log: SmallLog, size: int) -> str:
    with pytest.raises(SinkFailed) as caught:
        sink.anchor(log.due(size))
    return caught.value.code


def statuses(sink: WitnessSink) -> list[int]:
    wire: Any = sink._exchange._client()._transport
    return [status for _, status in wire.seen]


def instead(status: int, body: bytes = b"", **headers: str) -> Twist:
    return lambda _, __: httpx.Response(
        status, content=body, headers={name.replace("_", "-"): v for name, v in headers.items()}
    )


# -- a true witness ------------------------------------------------------------


def test_each_checkpoint_comes_back_with_the_witnesss_signature(here: Here, log: SmallLog):
    sink = a_sink(here, log)
    for size in (1, 2, 7, 7, 300):
        got = sink.anchor(log.due(size))
        note = got.evidence.decode()
        assert note == log.note(size) + got.lines
        assert open_checkpoint(note, log.signer.verifier, log.origin).size == size
        (cosigned,) = open_note(note, [here.witness.verifier]).signatures
        assert cosigned.time_s == int(here.clock.now)
    assert statuses(sink) == [200] * 5, "it remembers the size, and nothing is asked twice"


def test_a_sink_that_was_started_again_asks_for_the_size(here: Here, log: SmallLog):
    a_sink(here, log).anchor(log.due(5))
    sink = a_sink(here, log)
    sink.anchor(log.due(9))
    assert statuses(sink) == [409, 200]


def test_an_answer_that_was_lost_is_made_good_by_asking_again(here: Here, log: SmallLog):
    lost = [True]

    def lose(_: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if lost:
            lost.clear()
            raise httpx.ReadError("the connection is gone")
        return answer

    sink = a_sink(here, log, lose)
    assert fails(sink, log, 5) == "unreachable"
    assert sink.anchor(log.due(5)).lines
    assert statuses(sink) == [409, 200]


def test_who_is_overtaken_by_another_process_does_not_shout(here: Here, log: SmallLog):
    """The other one has signed more of the same log; our tree has it, our checkpoint not yet."""
    a_sink(here, log).anchor(log.due(9))
    assert fails(a_sink(here, log), log, 5) == "overtaken"

    def mute(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        return httpx.Response(404) if request.method == "GET" else answer

    assert fails(a_sink(here, log, mute), log, 5) == "overtaken"


def test_a_witness_that_lost_its_state_is_named_in_the_log(
    tmp_path: Path, log: SmallLog, caplog: pytest.LogCaptureFixture
):
    here = make_here(tmp_path / "one", log)
    sink = a_sink(here, log)
    sink.anchor(log.due(9))
    new = make_here(tmp_path / "two", log)
    wire = InProcess(new.witness)
    sink._exchange._client = lambda: httpx.Client(transport=wire)  # type: ignore[method-assign]
    sink.verifiers = (new.witness.verifier,)
    assert sink.anchor(log.due(12)).lines
    assert "has lost its state" in caplog.text
    here.close()
    new.close()


# -- every status --------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_request"),
        (403, "key_not_trusted"),
        (404, "not_watched"),
        (408, "busy"),
        (413, "bad_request"),
        (422, "bad_answer"),
        (429, "busy"),
        (500, "unavailable"),
        (502, "unavailable"),
        (503, "unavailable"),
        (204, "bad_answer"),
        (201, "bad_answer"),
        (301, "redirected"),
        (307, "redirected"),
        (418, "bad_answer"),
    ],
)
def test_every_status_is_understood(here: Here, log: SmallLog, status: int, code: str):
    sink = a_sink(here, log, instead(status, b"?", location="http://elsewhere.example/"))
    assert fails(sink, log, 5) == code


def test_a_witness_that_asks_to_wait_is_heard(here: Here, log: SmallLog):
    sink = a_sink(here, log, instead(429, retry_after="77"))
    with pytest.raises(SinkFailed) as caught:
        sink.anchor(log.due(5))
    assert caught.value.retry_after_s == 77


def test_a_true_witness_that_does_not_know_us_says_so(tmp_path: Path, log: SmallLog):
    here = make_here(tmp_path / "w")
    assert fails(a_sink(here, log), log, 5) == "not_watched"
    here.witness.watch(SmallLog(seed=bytes([5]) * 32).vkey)
    assert fails(a_sink(here, log), log, 5) == "key_not_trusted"
    here.close()


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"", SIZE_TYPE),
        (b"5", SIZE_TYPE),
        (b"05\n", SIZE_TYPE),
        (b"-1\n", SIZE_TYPE),
        (b"many\n", SIZE_TYPE),
        (b"9" * 40 + b"\n", SIZE_TYPE),
        (b"3\n", "text/plain"),
        (b"0\n", SIZE_TYPE),
    ],
)
def test_a_409_that_names_no_usable_size_is_a_bad_answer(
    here: Here, log: SmallLog, body: bytes, media_type: str
):
    sink = a_sink(here, log, instead(409, body, content_type=media_type))
    assert fails(sink, log, 5) == "bad_answer"


def test_a_witness_that_names_another_size_each_time_is_left_alone(here: Here, log: SmallLog):
    sizes = iter([1, 2, 3, 1, 2, 3, 1, 2, 3])

    def wander(_: httpx.Request, __: httpx.Response) -> httpx.Response:
        headers = {"content-type": SIZE_TYPE}
        return httpx.Response(409, content=b"%d\n" % next(sizes), headers=headers)

    assert fails(a_sink(here, log, wander), log, 5) == "bad_answer"
    assert next(sizes) == 1, "six questions and no more"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (httpx.ConnectError("refused"), "unreachable"),
        (httpx.ConnectTimeout("slow"), "timeout"),
        (httpx.ReadTimeout("slow"), "timeout"),
        (httpx.RemoteProtocolError("junk"), "unreachable"),
    ],
)
def test_a_witness_that_is_away_or_slow_is_a_failed_sink(
    here: Here, log: SmallLog, error: Exception, code: str
):
    def fail(_: httpx.Request, __: httpx.Response) -> httpx.Response:
        raise error

    assert fails(a_sink(here, log, fail), log, 5) == code


@pytest.mark.parametrize("status", [200, 409, 422, 500])
def test_a_huge_answer_is_not_read_to_its_end(here: Here, log: SmallLog, status: int):
    body = b"x" * (MAX_ANSWER_BYTES + 1)
    sink = a_sink(here, log, instead(status, body, content_type=SIZE_TYPE))
    assert fails(sink, log, 5) == "too_large"


# -- cosignatures that don't count ---------------------------------------------


def a_liar(name: str, seed: int = 7) -> Signer:
    private_key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return Signer.from_private_key(name, private_key, SignatureType.COSIGNATURE)


def saying(line: Callable[[str], str]) -> Twist:
    """Answer 200 with a line made from the checkpoint's text."""

    def answer(request: httpx.Request, _: httpx.Response) -> httpx.Response:
        text = parse_add_checkpoint(request.read()).checkpoint.text()
        return httpx.Response(200, text=line(text))

    return answer


def test_a_cosignature_by_another_key_does_not_count(here: Here, log: SmallLog):
    now = int(here.clock.now)
    name = here.witness.verifier.name
    twist = saying(lambda text: signature_line(text, a_liar(name), time_s=now))
    assert fails(a_sink(here, log, twist), log, 5) == "other_key"


def test_a_bad_signature_in_the_pinned_keys_name_does_not_count(here: Here, log: SmallLog):
    wrong = here.witness._signer
    twist = saying(lambda text: signature_line(text + "more\n", wrong, time_s=1_700_000_000))
    assert fails(a_sink(here, log, twist), log, 5) == "bad_signature"


def test_the_cosignature_of_another_checkpoint_does_not_count(here: Here, log: SmallLog):
    other = log.checkpoint(4).text()
    line = signature_line(other, here.witness._signer, time_s=int(here.clock.now))
    assert fails(a_sink(here, log, saying(lambda _: line)), log, 5) == "bad_signature"


@pytest.mark.parametrize("away_s", [-MAX_SKEW_S - 1, MAX_SKEW_S + 1, -1_700_000_000])
def test_an_old_cosignature_sent_again_or_one_of_tomorrow_does_not_count(
    here: Here, log: SmallLog, away_s: int
):
    time_s = int(here.clock.now) + away_s
    twist = saying(lambda text: signature_line(text, here.witness._signer, time_s=time_s))
    assert fails(a_sink(here, log, twist), log, 5) == "bad_time"


@pytest.mark.parametrize(
    "body", ["", "\n", "ok\n", "<html>\n", "\u2014 w x\n", "\u2014 w AAAA\n\n"]
)
def test_garbage_for_a_cosignature_is_a_bad_answer(here: Here, log: SmallLog, body: str):
    assert fails(a_sink(here, log, saying(lambda _: body)), log, 5) == "bad_answer"


def test_every_flipped_bit_of_the_answer_is_noticed(here: Here, log: SmallLog):
    text = log.checkpoint(5).text()
    line = signature_line(text, here.witness._signer, time_s=int(here.clock.now)).encode()
    sink = a_sink(here, log)
    wire: Any = sink._exchange._client()._transport
    for place in range(len(line)):
        for bit in range(8):
            changed = bytearray(line)
            changed[place] ^= 1 << bit
            wire.twist = instead(200, bytes(changed))
            assert fails(sink, log, 5) in {"bad_signature", "other_key", "bad_answer", "bad_time"}


def test_only_lines_by_pinned_keys_are_kept(here: Here, log: SmallLog):
    def add(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        text = parse_add_checkpoint(request.read()).checkpoint.text()
        stranger = signature_line(text, a_liar("stranger.example"), time_s=1)
        return httpx.Response(200, text=stranger + answer.text + "\u2014 junk AAAAAAAA\n")

    got = a_sink(here, log, add).anchor(log.due(5))
    assert got.lines.count("\n") == 1
    assert here.witness.verifier.name in got.lines


# -- contradictions ------------------------------------------------------------


def test_a_forked_log_is_told_and_shown_what_it_signed_before(here: Here, log: SmallLog):
    a_sink(here, log).anchor(log.due(5))
    for size in (5, 6, 9, 300):
        forked = SmallLog(salt=b"other", fork=3)
        with pytest.raises(SplitView) as caught:
            a_sink(here, forked).anchor(forked.due(size))
        evidence = caught.value.evidence
        assert evidence["proved"]
        ours = open_checkpoint(evidence["ours"], log.signer.verifier, log.origin)
        theirs = open_checkpoint(evidence["theirs"], log.signer.verifier, log.origin)
        assert (ours.size, theirs.size) == (size, 5)
        assert theirs.root == log.checkpoint(5).root
        assert evidence["our_root_there"] == forked.checkpoint(5).root.hex() != theirs.root.hex()
        assert (evidence["status"], "old 5" in evidence["request"]) == (422, True)


def test_a_log_that_was_cut_short_is_told_so(here: Here, log: SmallLog):
    a_sink(here, log).anchor(log.due(9))
    short = SmallLog()
    with pytest.raises(SplitView, match="9 entries") as caught:
        a_sink(here, short).anchor(short.due(5))
    assert caught.value.evidence["proved"]
    assert caught.value.evidence["our_root_there"] is None


def test_a_fork_after_a_running_sinks_own_cosignature_is_noticed_as_well(here: Here, log: SmallLog):
    """The same process: the size is remembered, the tree below is another."""
    sink = a_sink(here, log)
    sink.anchor(log.due(8))
    forked = SmallLog(salt=b"other", fork=3)
    sink._target = forked.target()
    with pytest.raises(SplitView):
        sink.anchor(forked.due(12))
    assert statuses(sink) == [200, 422, 409, 422, 200], "what it holds is asked for twice"


@pytest.mark.parametrize("refusal", [409, 422])
def test_a_witness_that_contradicts_and_shows_nothing_stops_us_but_proves_nothing(
    here: Here, log: SmallLog, refusal: int
):
    sink = a_sink(here, log)
    sink.anchor(log.due(5))

    def deny(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(404)
        if refusal == 409:
            return httpx.Response(409, text="1000000\n", headers={"content-type": SIZE_TYPE})
        return answer if b"old 0" in request.read() else httpx.Response(422)

    with pytest.raises(SplitView) as caught:
        a_sink(here, log, deny).anchor(log.due(9))
    assert not caught.value.evidence["proved"]
    assert caught.value.evidence["theirs"] is None


@pytest.mark.parametrize("refusal", [409, 422])
def test_a_witness_that_refuses_and_shows_a_tree_of_ours_is_only_wrong(
    here: Here, log: SmallLog, refusal: int
):
    a_sink(here, log).anchor(log.due(5))

    def deny(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if request.method == "GET":
            return answer
        if refusal == 409:
            return httpx.Response(409, text="1000000\n", headers={"content-type": SIZE_TYPE})
        return answer if b"old 0" in request.read() else httpx.Response(422)

    assert fails(a_sink(here, log, deny), log, 9) == "contradictory"


def test_a_checkpoint_by_another_key_shows_nothing(here: Here, log: SmallLog):
    forged = SmallLog(seed=bytes([3]) * 32).note(50)

    def deny(request: httpx.Request, _: httpx.Response) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, text=forged)
        return httpx.Response(409, text="50\n", headers={"content-type": SIZE_TYPE})

    with pytest.raises(SplitView) as caught:
        a_sink(here, SmallLog(), deny).anchor(SmallLog().due(9))
    assert not caught.value.evidence["proved"]
    assert fails(a_sink(here, log.grow(60), deny), log, 9) == "overtaken"


def test_a_422_that_passes_is_no_conflict(here: Here, log: SmallLog):
    a_sink(here, log).anchor(log.due(5))
    refusals = [422]

    def once(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if b"old 5" in request.read() and refusals:
            return httpx.Response(refusals.pop())
        return answer

    assert a_sink(here, log, once).anchor(log.due(9)).lines


# -- our own troubles ----------------------------------------------------------


def test_a_proof_that_our_own_tree_does_not_give_is_never_sent(here: Here, log: SmallLog):
    sink = a_sink(here, log)
    sink.anchor(log.due(5))
    due = log.due(9)
    log.leaves[2] = bytes(32)
    with pytest.raises(SinkFailed) as caught:
        sink.anchor(due)
    assert caught.value.code == "own_tree"
    assert statuses(sink) == [200]


def test_a_database_that_is_away_is_a_failed_sink_and_no_conflict(here: Here, log: SmallLog):
    def away(*_: int) -> list[bytes]:
        raise Unavailable("the database can't be reached")

    sink = a_sink(here, log)
    sink.anchor(log.due(5))
    sink._target = Target("test", log.origin, log.signer.verifier, away)
    assert fails(sink, log, 9) == "own_database"


# -- several -------------------------------------------------------------------


def test_of_three_one_down_and_one_lying_leave_one_good_cosignature_each_to_its_own(
    tmp_path: Path, log: SmallLog
):
    """What a quorum of two needs isn't there; with the third back it is."""
    three = [make_here(tmp_path / f"w{n}", log, name=f"witness.example/w{n}") for n in range(3)]

    def away(_: httpx.Request, __: httpx.Response) -> httpx.Response:
        raise httpx.ConnectError("refused")

    name = three[2].witness.verifier.name
    lie = saying(lambda text: signature_line(text, a_liar(name), time_s=1_700_000_000))
    sinks = [a_sink(three[0], log), a_sink(three[1], log, away), a_sink(three[2], log, lie)]
    due = log.due(9)
    note = due.note + sinks[0].anchor(due).lines
    assert [fails(sink, log, 9) for sink in sinks[1:]] == ["unreachable", "other_key"]
    note += a_sink(three[1], log).anchor(due).lines
    keys = [one.witness.verifier for one in three]
    assert len(open_note(note, keys).signatures) == 2
    assert open_checkpoint(note, log.signer.verifier, log.origin).size == 9
    for one in three:
        one.close()


# -- settings ------------------------------------------------------------------


def a_table(**changes: Any) -> SinkTable:
    values: dict[str, Any] = {
        "name": "auditor",
        "url": "https://witness.example/w1",
        "keys": [a_liar("witness.example/w1").verifier.verifier_key()],
        **changes,
    }
    given = {key: value for key, value in values.items() if value is not None}
    return SinkTable(given, where="a table", directory=Path())


def test_a_witness_is_made_from_its_table(log: SmallLog):
    table = a_table()
    sink = make_witness(table, log.target())
    table.finish()
    assert (sink.name, sink.kind) == ("auditor", "witness")
    sink.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"url": None},
        {"url": "ftp://witness.example"},
        {"url": "https://witness.example/?a=b"},
        {"url": "https://me:secret@witness.example/"},
        {"keys": None},
        {"keys": []},
        {"keys": "w+00000000+AAAA"},
        {"keys": ["no key"]},
        {"keys": ["w.example+00000000+BAAA"]},
        {"keys": [SmallLog().vkey]},
        {"keys": [a_liar("w.example").verifier.verifier_key()[:-4] + "AAA="]},
    ],
)
def test_settings_that_make_no_sense_are_refused_without_repeating_them(
    log: SmallLog, changes: dict[str, Any]
):
    with pytest.raises(Misconfigured) as caught:
        make_witness(a_table(**changes), log.target())
    assert "secret" not in str(caught.value)


def test_nothing_that_a_witness_said_reaches_our_log(
    here: Here, log: SmallLog, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(SinkFailed) as caught:
        a_sink(here, log, instead(500, b"a secret of theirs")).anchor(log.due(5))
    assert "secret" not in caplog.text + str(caught.value)
    assert parse_verifier(here.vkey) == here.witness.verifier
