"""Timestamps by `openssl ts`, checked by us when they come and by openssl afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from ledger.anchors.der import sort_certificates
from ledger.anchors.exchange import Exchange
from ledger.anchors.sink import Due, SinkFailed
from ledger.anchors.table import Url
from ledger.anchors.timestamp import MOST_ANSWER_BYTES, TimestampSink
from tests.fixtures.ledgers import Place, an_event, record
from tests.fixtures.receivers import Asked, Receiver, Reply
from tests.fixtures.timestamp_authority import (
    POLICY,
    REPLY_TYPE,
    Authority,
    found_authority,
    openssl,
    stamping,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOTE = "custody.local/test/0a1b2c3d\n7\nq83vEjRWeJA=\n\n\u2014 custody.local/test/0a1b2c3d AAAA\n"
DUE = Due(7, bytes(32), NOTE)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return found_authority(tmp_path_factory.mktemp("authority") / "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return found_authority(tmp_path_factory.mktemp("authority") / "stranger")


@pytest.fixture
def receiver(authority: Authority) -> Iterator[Receiver]:
    with stamping(authority) as running:
        yield running


def sink(receiver: Receiver, authority: Authority, **options: Any) -> TimestampSink:
    url = Url(receiver.url, receiver.url)
    exchange = Exchange(url, timeout_s=10, authorities=None, proxy=None)
    roots = x509.load_pem_x509_certificates(authority.root.read_bytes())
    return TimestampSink("tsa", exchange, roots, **options)


def code_of(stamper: TimestampSink, due: Due = DUE) -> str:
    with pytest.raises(SinkFailed) as failed:
        stamper.anchor(due)
    stamper.close()
    return failed.value.code


def answering(reply: Callable[[Asked], bytes]) -> Callable[[Asked], Reply]:
    return lambda asked: Reply(200, reply(asked), {"Content-Type": REPLY_TYPE})


def test_a_token_of_openssl_is_taken_and_openssl_accepts_what_is_kept(
    receiver: Receiver, authority: Authority
):
    stamper = sink(receiver, authority)
    anchored = stamper.anchor(DUE)
    assert anchored.media_type == REPLY_TYPE
    assert authority.verify(anchored.evidence, NOTE.encode())
    assert not authority.verify(anchored.evidence, NOTE.encode() + b"x")
    text = openssl(authority.directory, "ts", "-reply", "-in", "kept", "-text").decode()
    assert "Hash Algorithm: sha256" in text
    assert "Nonce: unspecified" not in text
    stamper.close()


def test_certificates_in_the_order_of_the_chain_are_taken_and_kept_as_they_came(
    receiver: Receiver, authority: Authority
):
    """Openssl doesn't sort them as DER wants; with many names one of them shows it."""
    whole = replace(authority, chain=True)
    given: list[bytes] = []
    for name in ("tsa", "aaaa", "a-much-longer-name-than-the-others"):
        if name != "tsa":
            authority.certify(name)
        signer = whole.with_signer(name)

        def stamp(asked: Asked, by: Authority = signer) -> bytes:
            given.append(by.stamp(asked.body))
            return given[-1]

        receiver.answer = answering(stamp)
        stamper = sink(receiver, authority)
        assert stamper.anchor(DUE).evidence == given[-1]
        assert authority.verify(given[-1], NOTE.encode())
        stamper.close()
    assert any(sort_certificates(raw) != raw for raw in given)


def test_each_request_has_a_nonce_of_its_own(receiver: Receiver, authority: Authority):
    stamper = sink(receiver, authority)
    assert stamper.anchor(DUE) != stamper.anchor(DUE)
    assert receiver.asked[0].body != receiver.asked[1].body
    stamper.close()


def test_an_answer_to_an_earlier_request_is_refused(receiver: Receiver, authority: Authority):
    """A replay: right note, right authority, another nonce."""
    earlier = authority.stamp(authority.query(NOTE.encode()))
    receiver.answer = answering(lambda _: earlier)
    assert code_of(sink(receiver, authority)) == "wrong_nonce"


def test_a_token_about_something_else_is_refused(receiver: Receiver, authority: Authority):
    def about_something_else(asked: Asked) -> bytes:
        digest = hashlib.sha256
        return authority.stamp(
            asked.body.replace(digest(NOTE.encode()).digest(), digest(b"other").digest())
        )

    receiver.answer = answering(about_something_else)
    assert code_of(sink(receiver, authority)) == "wrong_imprint"


def test_a_token_of_a_stranger_is_refused(
    receiver: Receiver, authority: Authority, stranger: Authority
):
    receiver.answer = answering(lambda asked: stranger.stamp(asked.body))
    assert code_of(sink(receiver, authority)) == "untrusted"


def test_a_stranger_who_takes_our_authoritys_name_is_refused(
    receiver: Receiver, authority: Authority, tmp_path_factory: pytest.TempPathFactory
):
    impostor = found_authority(tmp_path_factory.mktemp("impostor") / "ours")
    receiver.answer = answering(lambda asked: impostor.stamp(asked.body))
    assert code_of(sink(receiver, authority)) == "untrusted"


def test_a_certificate_that_is_not_for_timestamping_is_refused(
    receiver: Receiver, authority: Authority
):
    """The same key, issuer and number, but certified for a web server: openssl would not sign
    with it, so it is put in the place of the right one."""
    authority.certify("web")
    stamper = authority.with_signer("web")
    right = authority.certificate("web")

    def exchanged(asked: Asked) -> bytes:
        sound = stamper.stamp(asked.body)
        assert right in sound
        return sound.replace(right, wrong)

    wrong = right
    receiver.answer = answering(exchanged)
    accepted = sink(receiver, authority)
    assert accepted.anchor(DUE)
    accepted.close()
    number = str(sum(b"web") + 1000)
    authority.sign_request("web", usage="web", serial=number)
    wrong = authority.certificate("web")
    assert len(wrong) == len(right)
    authority.sign_request("web", usage="stamping", serial=number)
    right = authority.certificate("web")
    assert code_of(sink(receiver, authority)) == "untrusted"


def test_a_certificate_that_has_expired_is_refused(receiver: Receiver, authority: Authority):
    authority.certify("late", days="-1")
    late = authority.with_signer("late")
    receiver.answer = answering(lambda asked: late.stamp(asked.body))
    assert code_of(sink(receiver, authority)) == "untrusted"


@pytest.mark.parametrize("hours", [-2, 2, 24 * 400])
def test_a_token_whose_time_is_not_now_is_refused(
    receiver: Receiver, authority: Authority, hours: int
):
    moved = datetime.now(UTC) + timedelta(hours=hours)
    assert code_of(sink(receiver, authority, clock=lambda: moved)) == "wrong_time"


def test_another_policy_than_the_one_that_was_asked_for_is_refused(
    receiver: Receiver, authority: Authority
):
    wanted = x509.ObjectIdentifier("1.2.3.4.5")
    assert code_of(sink(receiver, authority, policy=wanted)) == "untrusted"
    agreed = sink(receiver, authority, policy=x509.ObjectIdentifier("1.2.3.4.1"))
    assert agreed.anchor(DUE)
    agreed.close()


def test_an_authority_that_rejects_is_believed(receiver: Receiver, authority: Authority):
    receiver.answer = answering(lambda _: authority.stamp(b"no request at all"))
    assert code_of(sink(receiver, authority)) == "not_granted"


@pytest.mark.parametrize("status", [1, 2, 3, 4, 5])
def test_only_granted_without_changes_counts(receiver: Receiver, authority: Authority, status: int):
    def with_status(asked: Asked) -> bytes:
        sound = authority.stamp(asked.body)
        place = sound.index(b"\x30\x03\x02\x01\x00") + 4
        return sound[:place] + bytes([status]) + sound[place + 1 :]

    receiver.answer = answering(with_status)
    assert code_of(sink(receiver, authority)) == "not_granted"


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0", b"\x30\x03\x02\x01\x00", b"<html>captive portal</html>", os.urandom(2_000)],
    ids=["nothing", "zero", "status-only", "html", "random"],
)
def test_garbage_is_refused(receiver: Receiver, authority: Authority, garbage: bytes):
    receiver.answer = answering(lambda _: garbage)
    assert code_of(sink(receiver, authority)) in {"bad_answer", "not_granted"}


def test_bytes_after_the_answer_are_refused(receiver: Receiver, authority: Authority):
    receiver.answer = answering(lambda asked: authority.stamp(asked.body) + b"\0")
    assert code_of(sink(receiver, authority)) == "bad_answer"


def test_every_flipped_bit_of_a_token_is_refused_or_changes_nothing_that_counts(
    receiver: Receiver, authority: Authority
):
    """What openssl accepts about the note may pass; what it refuses must not."""
    stamper = sink(receiver, authority)
    sound: list[bytes] = []
    places = range(0, 400, 5)
    for place in places:

        def flipped(asked: Asked, place: int = place) -> bytes:
            sound.append(authority.stamp(asked.body))
            raw = bytearray(sound[-1])
            raw[place * len(raw) // 400] ^= 1 << place % 8
            return bytes(raw)

        receiver.answer = answering(flipped)
        try:
            taken = stamper.anchor(DUE).evidence
        except SinkFailed:
            continue
        assert authority.verify(taken, NOTE.encode()), place
    assert len(sound) == len(places)
    stamper.close()


def test_an_answer_without_end_is_cut_off(receiver: Receiver, authority: Authority):
    receiver.answer = answering(lambda _: bytes(MOST_ANSWER_BYTES + 1))
    assert code_of(sink(receiver, authority)) == "too_large"


def test_another_content_type_is_refused(receiver: Receiver, authority: Authority):
    receiver.answer = lambda asked: Reply(
        200, authority.stamp(asked.body), {"Content-Type": "text/html"}
    )
    assert code_of(sink(receiver, authority)) == "bad_answer"


def test_an_authority_that_drips_its_answer_is_given_up(receiver: Receiver, authority: Authority):
    receiver.answer = lambda _: Reply(200, bytes(100), {"Content-Type": REPLY_TYPE}, pieces_s=0.1)
    url = Url(receiver.url, receiver.url)
    exchange = Exchange(url, timeout_s=0.5, authorities=None, proxy=None)
    roots = x509.load_pem_x509_certificates(authority.root.read_bytes())
    started = time.monotonic()
    assert code_of(TimestampSink("tsa", exchange, roots)) == "timeout"
    assert time.monotonic() - started < 3


def test_a_ledger_anchored_by_its_settings_has_evidence_that_openssl_accepts(
    place: Place, receiver: Receiver, authority: Authority
):
    (place.settings.home / "anchors.toml").write_text(
        f'[[sink]]\nkind = "timestamp"\nname = "tsa"\nurl = "{receiver.url}"\n'
        f'roots = ["{authority.root}"]\npolicy = "{POLICY}"\n'
    )
    ledger = place.open()
    record(ledger, an_event())
    assert ledger.anchoring.turn()
    (found,) = ledger.anchors.evidence("tsa")
    assert found.note is not None
    assert authority.verify(found.evidence, found.note.encode())
    told = [json.loads(row.entry)["event"]["data"] for row in ledger.entries(3, 9, 9)]
    (data,) = [each for each in told if each["anchor_name"] == "tsa"]
    assert data["anchor"] == "rfc3161"
    assert data["proof_sha256"] == hashlib.sha256(found.evidence).hexdigest()
    assert (data["size"], data["root"]) == (found.size, found.root.hex())
