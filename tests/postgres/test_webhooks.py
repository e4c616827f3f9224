"""Webhooks to a real server: what is sent, what counts as taken, where no secret goes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import ssl
import time
from typing import TYPE_CHECKING, Any

import pytest

from ledger.anchors.exchange import Exchange
from ledger.anchors.sink import Due, SinkFailed
from ledger.anchors.table import Url
from ledger.anchors.webhook import MOST_ANSWER_BYTES, WebhookSink
from ledger.core.checkpoint import open_checkpoint
from tests.fixtures.anchors import anchoring_of, target_of
from tests.fixtures.ledgers import Place, an_event, record
from tests.fixtures.receivers import Receiver, Reply, receiving
from tests.fixtures.timestamp_authority import found_authority, openssl
from tests.http.support import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ledger.service import Ledger

SECRET = bytes(range(32))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def hook_to(url: str, ledger: Ledger, *, timeout_s: float = 5, **options: Any) -> WebhookSink:
    address = Url(f"{url}/in?token=s3cret", url)
    given: dict[str, Any] = {"authorities": None, "proxy": None, **options}
    exchange = Exchange(address, timeout_s=timeout_s, **given)
    return WebhookSink("hook", exchange, SECRET, target_of(ledger))


def due_of(ledger: Ledger) -> Due:
    size, note = ledger.checkpoint()
    return Due(size, open_checkpoint(note, ledger.signer.verifier, ledger.origin).root, note)


def failure(hook: WebhookSink, ledger: Ledger) -> SinkFailed:
    with pytest.raises(SinkFailed) as failed:
        hook.anchor(due_of(ledger))
    hook.close()
    assert "s3cret" not in str(failed.value)
    return failed.value


def test_a_receiver_gets_the_checkpoint_and_can_check_who_sent_it(
    ledger: Ledger, receiver: Receiver
):
    hook = hook_to(receiver.url, ledger)
    receiver.answer = lambda _asked: Reply(201, b'{"kept":7}', {"Content-Type": "application/json"})
    anchored = hook.anchor(due_of(ledger))
    hook.close()
    (asked,) = receiver.asked
    # As Standard Webhooks says that a receiver checks.
    signed = b".".join(
        [
            asked.headers["webhook-id"].encode(),
            asked.headers["webhook-timestamp"].encode(),
            asked.body,
        ]
    )
    digest = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert asked.headers["webhook-signature"] == f"v1,{digest}"
    assert abs(int(asked.headers["webhook-timestamp"]) - time.time()) < 5
    data = json.loads(asked.body)["data"]
    checkpoint = open_checkpoint(data["note"], ledger.signer.verifier, ledger.origin)
    assert data["origin"] == ledger.origin
    assert data["size"] == checkpoint.size
    assert base64.b64decode(data["root"]) == checkpoint.root
    evidence = json.loads(anchored.evidence)
    assert evidence["status"] == 201
    assert base64.b64decode(evidence["answer_base64"]) == b'{"kept":7}'
    assert evidence["body_sha256"] == hashlib.sha256(asked.body).hexdigest()


def test_the_published_example_of_standard_webhooks_is_signed_alike():
    from ledger.anchors.webhook import sign_webhook

    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    found = sign_webhook(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_checkpoint_that_comes_again_bears_the_same_id(
    place: Place, ledger: Ledger, receiver: Receiver
):
    receiver.answer = lambda _asked: Reply(500)
    anchoring = anchoring_of(place, ledger, hook_to(receiver.url, ledger), interval_s=3_600)
    anchoring._keepers[0]._wait_s = 0.01
    anchoring.turn()
    receiver.answer = lambda _asked: Reply(200)
    assert anchoring.turn()
    record(ledger, an_event())
    anchoring._keepers[0]._rounds._chosen_s = float("-inf")
    assert anchoring.turn()
    ids = [asked.headers["webhook-id"] for asked in receiver.asked]
    assert ids[0] == ids[1] != ids[2]
    anchoring.close()


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_status_of_success_is_enough(ledger: Ledger, receiver: Receiver, status: int):
    receiver.answer = lambda _asked: Reply(status)
    hook = hook_to(receiver.url, ledger)
    assert json.loads(hook.anchor(due_of(ledger)).evidence)["status"] == status
    hook.close()


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_any_other_is_a_failure_that_is_tried_again(
    ledger: Ledger, receiver: Receiver, status: int
):
    receiver.answer = lambda _asked: Reply(status, headers={"Retry-After": "77"})
    failed = failure(hook_to(receiver.url, ledger), ledger)
    assert (failed.code, failed.final, failed.retry_after_s) == ("refused", False, 77)


def test_gone_means_never_again(ledger: Ledger, receiver: Receiver):
    receiver.answer = lambda _asked: Reply(410)
    failed = failure(hook_to(receiver.url, ledger), ledger)
    assert (failed.code, failed.final) == ("gone", True)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(ledger: Ledger, receiver: Receiver, status: int):
    receiver.answer = lambda _asked: Reply(status, headers={"Location": receiver.url})
    assert failure(hook_to(receiver.url, ledger), ledger).code == "redirected"
    assert len(receiver.asked) == 1


def test_an_answer_without_end_is_cut_off(ledger: Ledger, receiver: Receiver):
    receiver.answer = lambda _asked: Reply(200, bytes(MOST_ANSWER_BYTES + 1))
    assert failure(hook_to(receiver.url, ledger), ledger).code == "too_large"


def test_compressed_answers_are_neither_asked_for_nor_opened(ledger: Ledger, receiver: Receiver):
    """A bomb would expand after the bound was checked."""
    receiver.answer = lambda _asked: Reply(200, b"\x1f\x8b bomb", {"Content-Encoding": "gzip"})
    hook = hook_to(receiver.url, ledger)
    evidence = json.loads(hook.anchor(due_of(ledger)).evidence)
    hook.close()
    assert base64.b64decode(evidence["answer_base64"]) == b"\x1f\x8b bomb"
    assert receiver.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("way", ["hangs", "drips its body", "drips headers"])
def test_a_receiver_that_is_too_slow_is_given_up(ledger: Ledger, receiver: Receiver, way: str):
    receiver.answer = receiver.hang
    if way == "drips its body":
        receiver.answer = lambda _asked: Reply(200, bytes(200), pieces_s=0.05)
    elif way == "drips headers":
        receiver.answer = lambda _asked: Reply(200, headers_s=0.05)
    started = time.monotonic()
    assert failure(hook_to(receiver.url, ledger, timeout_s=0.3), ledger).code == "timeout"
    assert time.monotonic() - started < 2


def test_nobody_there_is_unreachable(ledger: Ledger):
    hook = hook_to(f"http://127.0.0.1:{free_port()}", ledger)
    assert failure(hook, ledger).code == "unreachable"


def test_a_server_whose_certificate_we_do_not_trust_gets_nothing(ledger: Ledger, tmp_path: Path):
    authority = found_authority(tmp_path / "ca")
    (authority.directory / "web.cnf").write_text("[web]\nsubjectAltName = IP:127.0.0.1\n")
    authority.certify("web")
    directory = authority.directory
    signing = ["x509", "-req", "-in", "web.csr", "-CA", "root.pem", "-CAkey", "root.key"]
    more = ["-days", "2", "-extfile", "web.cnf", "-extensions", "web", "-out", "web.pem"]
    openssl(directory, *signing, "-set_serial", "7", *more)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "web.pem", directory / "web.key")
    with receiving(context) as receiver:
        assert failure(hook_to(receiver.url, ledger), ledger).code == "untrusted"
        assert receiver.asked == []
        trusting = ssl.create_default_context(cafile=str(authority.root))
        hook = hook_to(receiver.url, ledger, authorities=trusting)
        assert hook.anchor(due_of(ledger))
        other = hook_to(
            receiver.url.replace("127.0.0.1", "localhost"), ledger, authorities=trusting
        )
        assert failure(other, ledger).code == "untrusted"
        hook.close()


def test_the_environment_does_not_turn_requests_aside(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    """Neither a proxy nor a netrc file of the environment counts."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    hook = hook_to(receiver.url, ledger)
    assert hook.anchor(due_of(ledger))
    hook.close()
    assert "authorization" not in receiver.asked[0].headers


def test_a_proxy_of_the_settings_is_used(ledger: Ledger, receiver: Receiver):
    hook = hook_to("http://elsewhere.invalid", ledger, proxy=receiver.url)
    assert hook.anchor(due_of(ledger))
    hook.close()
    assert receiver.asked[0].headers["host"] == "elsewhere.invalid"


def test_no_secret_reaches_the_log_the_entries_or_the_evidence(
    place: Place, ledger: Ledger, receiver: Receiver, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    anchoring = anchoring_of(place, ledger, hook_to(receiver.url, ledger))
    for status in (500, 500, 500, 200):
        receiver.answer = lambda _asked, status=status: Reply(status)
        record(ledger, an_event())
        anchoring.turn()
    anchoring.close()
    with place.connect() as connection:
        rows = connection.execute("SELECT convert_from(entry, 'utf8') FROM entries").fetchall()
        rows += connection.execute("SELECT convert_from(evidence, 'utf8') FROM anchors").fetchall()
        rows += connection.execute("SELECT reason FROM failing_sinks").fetchall()
    texts = [caplog.text, *(text for (text,) in rows)]
    assert len(texts) > 6
    for secret in ("s3cret", base64.b64encode(SECRET).decode(), receiver.url):
        assert not [text for text in texts if secret in text]
