"""FORMAT.md against the product, and its worked example against nothing but the document."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import struct
import uuid

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.format_document import FORMAT, render_document

TEXT = FORMAT.read_text(encoding="utf-8")
EXAMPLE = TEXT[TEXT.index("## 9. Worked example") :]
SENT, ENTRIES, LEAVES, DISCLOSURES, (STAFF,), (VERIFIER,), NOTE = (
    block.split("\n") for block in re.findall(r"```\n(.*?)\n```", EXAMPLE, re.DOTALL)
)
SEED, KEY, STAFF_KEY = map(bytes.fromhex, re.findall(r"`([0-9a-f]{64})`", EXAMPLE)[:3])


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def lp(text: str) -> bytes:
    return struct.pack(">I", len(text.encode())) + text.encode()


def test_generated_sections_are_what_the_product_makes():
    assert render_document() == TEXT


def test_example_leaves_are_hashes_of_the_entries_bytes():
    assert [hashlib.sha256(b"\0" + e.encode()).hexdigest() for e in ENTRIES] == LEAVES


def test_example_chain_and_streams_link():
    entries = [json.loads(e) for e in ENTRIES]
    assert [e["prev"] for e in entries] == ["0" * 64, *LEAVES[:2]]
    assert [e["stream_prev"] for e in entries] == [None, None, LEAVES[1]]
    assert [e["version"] for e in entries] == [1, 1, 2]


def test_example_root_and_checkpoint_recompute():
    one, two, three = map(bytes.fromhex, LEAVES)
    pair = hashlib.sha256(b"\1" + one + two).digest()
    root = hashlib.sha256(b"\1" + pair + three).digest()
    origin, size, encoded, blank, signature = NOTE
    assert root.hex() in EXAMPLE
    assert (origin, size, encoded, blank) == (
        json.loads(ENTRIES[0])["ledger"],
        "3",
        base64.b64encode(root).decode(),
        "",
    )
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    public = key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(origin.encode() + b"\n\x01" + public).digest()[:4]
    signed = base64.b64encode(key_id + key.sign("\n".join(NOTE[:3]).encode() + b"\n")).decode()
    assert signature == f"— {origin} {signed}"
    typed = base64.b64encode(bytes([1]) + public).decode()
    assert f"{origin}+{key_id.hex()}+{typed}" == VERIFIER


def test_example_digests_open_to_the_disclosures():
    sealed = json.loads(ENTRIES[1])["sealed"]
    for (name, digest), disclosure in zip(sealed.items(), DISCLOSURES, strict=True):
        assert digest == b64url(hashlib.sha256(disclosure.encode()).digest())
        salt, opened_name, _ = json.loads(base64.urlsafe_b64decode(disclosure + "=="))
        ctx = lp(json.loads(ENTRIES[1])["ledger"]) + lp("crm") + lp("7f3c-1") + bytes(4)
        event_key = hmac.digest(KEY, b"ledger/sd/v1/event" + ctx, "sha256")
        mac = hmac.digest(event_key, b"salt\0" + name.encode(), "sha256")
        assert (salt, opened_name) == (b64url(mac[:16]), name)


def test_example_keeps_the_tokens_as_sent():
    raw = base64.urlsafe_b64decode(DISCLOSURES[1] + "==").decode()
    assert raw.endswith('"回电\\u0020138"]')
    assert '"note":"回电\\u0020138"' in SENT[0]


def test_example_pseudonym_commits_to_the_name():
    salt, label, name = json.loads(base64.urlsafe_b64decode(STAFF + "=="))
    expected = b64url(hmac.digest(STAFF_KEY, b"ledger/sd/v1/staff", "sha256")[:16])
    assert (salt, label, name) == (expected, "staff", "e0117")
    raw = bytearray(hashlib.sha256(STAFF.encode()).digest()[:16])
    raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80
    actor = json.loads(ENTRIES[1])["event"]["data"]["actor"]["id"]
    assert uuid.UUID(bytes=bytes(raw)) == uuid.UUID(actor)


def test_example_ledger_stream_recomputes():
    opened = json.loads(ENTRIES[0])
    name = f"{opened['ledger']}#{opened['event']['type']}"
    assert uuid.uuid5(uuid.NAMESPACE_URL, name) == uuid.UUID(opened["stream"])


def test_no_personal_value_of_the_example_stands_in_an_entry():
    for entry in ENTRIES:
        assert not any(word in entry for word in ("C-10023", "e0117", "回电", "138"))
