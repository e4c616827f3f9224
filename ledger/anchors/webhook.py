"""Post each checkpoint to somebody else's server, signed, until it says that it has it.

Source: Standard Webhooks 1.0. The body is JSON; `webhook-signature` is `v1,` and the base64
HMAC-SHA-256 over `id.timestamp.body` under a secret that both sides have. `webhook-id` is
made from ledger and checkpoint, so that a receiver drops what comes again. The secret only
keeps strangers away; what the checkpoint is worth stands in the note, under the ledger's key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING

from ledger.anchors.exchange import make_exchange
from ledger.anchors.sink import Anchored, SinkFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledger.anchors.exchange import Answer, Exchange
    from ledger.anchors.sink import Due, Target
    from ledger.anchors.table import SinkTable

MOST_ANSWER_BYTES = 4_096
"""Most bytes of an answer; all of it is kept."""
EVENT_TYPE = "ledger.checkpoint"
GONE = 410
_PREFIX = "whsec_"
_LEAST_SECRET_BYTES, _MOST_SECRET_BYTES = 24, 64


class WebhookSink:
    """Posts checkpoints; its evidence is what was asked, and answered, as JSON."""

    kind = "webhook"

    def __init__(
        self,
        name: str,
        exchange: Exchange,
        secret: bytes,
        target: Target,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._exchange = exchange
        self._secret = secret
        self._origin = target.origin
        self._clock = clock

    def anchor(self, due: Due) -> Anchored:
        """Post a checkpoint.

        Raises:
            SinkFailed: it was not taken. 410 says that it never will be.
        """
        message_id = webhook_id(self._origin, due)
        body = webhook_body(self._origin, due)
        moment = str(int(self._clock()))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": moment,
            "webhook-signature": sign_webhook(self._secret, message_id, moment, body),
        }
        answer = self._exchange.post(body, headers, most_bytes=MOST_ANSWER_BYTES)
        _check_status(answer)
        evidence = {
            "webhook_id": message_id,
            "webhook_timestamp": moment,
            "body_sha256": hashlib.sha256(body).hexdigest(),
            "status": answer.status,
            "date": answer.date,
            "media_type": answer.media_type,
            "answer_base64": base64.b64encode(answer.body).decode(),
        }
        return Anchored(json.dumps(evidence).encode() + b"\n", "application/json")

    def close(self) -> None:
        """Let the connection go."""
        self._exchange.close()


def make_webhook(table: SinkTable, target: Target) -> WebhookSink:
    """Make a webhook sink: `url`, `secret_file`, `timeout_s`, `ca_file`, `proxy`."""
    secret = _read_secret(table)
    return WebhookSink(table.text("name"), make_exchange(table, plain=False), secret, target)


def webhook_id(origin: str, due: Due) -> str:
    """Give the id of a checkpoint's message: the same however often it is sent."""
    text = f"{origin}\n{due.size}\n{due.root.hex()}".encode()
    return f"checkpoint_{hashlib.sha256(text).hexdigest()[:32]}"


def webhook_body(origin: str, due: Due) -> bytes:
    """Write the message: the checkpoint's parts, and the signed note that proves them."""
    data = {
        "origin": origin,
        "size": due.size,
        "root": base64.b64encode(due.root).decode(),
        "note": due.note,
    }
    document = {"type": EVENT_TYPE, "data": data}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def sign_webhook(secret: bytes, message_id: str, moment: str, body: bytes) -> str:
    """Give the header `webhook-signature` (Standard Webhooks, "Signature scheme")."""
    signed = b"%b.%b.%b" % (message_id.encode(), moment.encode(), body)
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def _read_secret(table: SinkTable) -> bytes:
    """Read `whsec_` and base64 of 24 to 64 bytes, as the specification has it."""
    expected = f"{_PREFIX} and the base64 of {_LEAST_SECRET_BYTES} to {_MOST_SECRET_BYTES} bytes"
    text = table.secret("secret_file")
    if not text.startswith(_PREFIX):
        raise table.wrong("secret_file", expected)
    try:
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise table.wrong("secret_file", expected) from None
    if not _LEAST_SECRET_BYTES <= len(secret) <= _MOST_SECRET_BYTES:
        raise table.wrong("secret_file", expected)
    return secret


def _check_status(answer: Answer) -> None:
    if 200 <= answer.status < 300:
        return
    if answer.status == GONE:
        raise SinkFailed("gone", "the receiver wants no more of these", final=True)
    raise SinkFailed(
        "refused",
        f"expected a status from 200 to 299, found {answer.status}",
        retry_after_s=answer.retry_after_s,
    )
