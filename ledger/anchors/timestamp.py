"""Have a timestamp authority say when a checkpoint was there.

Source: RFC 3161. The imprint is the SHA-256 of the signed note's bytes, the request bears a
nonce and asks for the certificate. What comes back counts only when its signature leads to
a root from the settings, it is about this note and this request, and its time is now:
nobody who reads it later has to trust us, nor the database.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    PKIStatus,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from ledger.anchors.der import sort_certificates
from ledger.anchors.exchange import make_exchange
from ledger.anchors.sink import Anchored, SinkFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rfc3161_client import TimeStampRequest, TimeStampResponse

    from ledger.anchors.exchange import Exchange
    from ledger.anchors.sink import Due, Target
    from ledger.anchors.table import SinkTable

QUERY_TYPE, REPLY_TYPE = "application/timestamp-query", "application/timestamp-reply"
MOST_ANSWER_BYTES = 64 * 1024
"""Most bytes of an answer: a token with a chain of certificates has about 6 KiB."""
SKEW = timedelta(minutes=5)
"""How far the authority's clock may be from ours. The certificate is checked for the time
that the token names, so a key that leaked later could name an earlier one."""
_OID = r"[0-2](\.(0|[1-9][0-9]*))+"
_SHA256 = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")


class TimestampSink:
    """Asks one authority; its evidence is the DER of the whole answer."""

    kind = "rfc3161"

    def __init__(
        self,
        name: str,
        exchange: Exchange,
        roots: Sequence[x509.Certificate],
        *,
        intermediates: Sequence[x509.Certificate] = (),
        policy: x509.ObjectIdentifier | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.name = name
        self._exchange = exchange
        self._roots = list(roots)
        self._intermediates = list(intermediates)
        self._policy = policy
        self._clock = clock

    def anchor(self, due: Due) -> Anchored:
        """Get a token for a checkpoint's note, and check it before it counts.

        Raises:
            SinkFailed: there was none, or it proves nothing.
        """
        note = due.note.encode()
        request = (
            TimestampRequestBuilder()
            .data(note)
            .hash_algorithm(HashAlgorithm.SHA256)
            .nonce(nonce=True)
            .cert_request(cert_request=True)
            .build()
        )
        answer = self._exchange.post(
            request.as_bytes(), {"Content-Type": QUERY_TYPE}, most_bytes=MOST_ANSWER_BYTES
        )
        if answer.status != 200:
            raise SinkFailed(
                "refused",
                f"expected status 200, found {answer.status}",
                retry_after_s=answer.retry_after_s,
            )
        if answer.media_type != REPLY_TYPE:
            raise SinkFailed("bad_answer", f"expected {REPLY_TYPE}, found another type")
        self._check(answer.body, request, note)
        return Anchored(answer.body, REPLY_TYPE)

    def close(self) -> None:
        """Let the connection go."""
        self._exchange.close()

    def _check(self, raw: bytes, request: TimeStampRequest, note: bytes) -> None:
        """Check an answer in full.

        1. it is one DER document, and grants what was asked, unchanged
        2. its signature and certificates lead to a root of ours, for timestamping
        3. nonce, policy and imprint are the request's
        4. its time is now

        Raises:
            SinkFailed: one of these doesn't hold.
        """
        response = _decode(raw)
        if response.status != PKIStatus.GRANTED:
            raise SinkFailed("not_granted", f"expected status granted, found {response.status}")
        try:
            info = response.tst_info
            if info.message_imprint.hash_algorithm != _SHA256:
                raise SinkFailed("wrong_imprint", "expected a token over a SHA-256")
            if info.message_imprint.message != hashlib.sha256(note).digest():
                raise SinkFailed("wrong_imprint", "the token is about something else")
            if info.nonce != request.nonce:
                raise SinkFailed("wrong_nonce", "the token answers another request")
            self._verify(response, request, note)
            apart = abs(info.gen_time - self._clock())
        except ValueError as error:
            raise SinkFailed("bad_answer", "expected a token that can be read") from error
        if apart > SKEW:
            raise SinkFailed("wrong_time", f"the token's time is {apart} from ours")

    def _verify(self, response: TimeStampResponse, request: TimeStampRequest, note: bytes) -> None:
        builder = VerifierBuilder(
            policy_id=self._policy,
            intermediates=list(self._intermediates),
            roots=list(self._roots),
            nonce=request.nonce,
        )
        try:
            builder.build().verify_message(response, note)
        except VerificationError as error:
            raise SinkFailed("untrusted", "the token's signature leads to no root of ours") from (
                error
            )


def make_timestamp(table: SinkTable, _target: Target) -> TimestampSink:
    """Make a timestamp sink: `url`, `roots`, `intermediates`, `policy`, `timeout_s`, `proxy`."""
    roots = _certificates(table, "roots")
    if not roots:
        raise table.wrong("roots", "a file with the authority's root certificates in PEM")
    intermediates = _certificates(table, "intermediates")
    policy = x509.ObjectIdentifier(table.text("policy", _OID)) if table.has("policy") else None
    return TimestampSink(
        table.text("name"),
        make_exchange(table, plain=True),  # the token proves itself, whoever brought it
        roots,
        intermediates=intermediates,
        policy=policy,
    )


def _certificates(table: SinkTable, key: str) -> list[x509.Certificate]:
    found: list[x509.Certificate] = []
    for raw in table.files(key):
        try:
            found += x509.load_pem_x509_certificates(raw)
        except ValueError:
            raise table.wrong(key, "files of certificates in PEM") from None
    return found


def _decode(raw: bytes) -> TimeStampResponse:
    try:
        ordered = sort_certificates(raw)
        response = decode_timestamp_response(ordered)
        whole = response.as_bytes() == ordered
    except ValueError as error:
        raise SinkFailed("bad_answer", "expected a timestamp response") from error
    if not whole:
        raise SinkFailed("bad_answer", "expected one DER document and nothing after it")
    return response
