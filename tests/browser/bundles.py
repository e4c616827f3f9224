"""Bundles built by FORMAT.md alone: sound ones, and what attackers make of them."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import sys
import zipfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location(
    "verify_chain_beside_the_page", ROOT / "scripts" / "verify_chain.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
vc: Any = importlib.util.module_from_spec(_SPEC)
sys.modules["verify_chain_beside_the_page"] = vc
_SPEC.loader.exec_module(vc)

Files = dict[str, bytes]

ORIGIN = "ledger.example/test-0a1b2c3d"
SIGNING = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
AUDITOR = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))
AUDITOR_NAME = "audit.example/replay"
RECORDS = [f"6f1c9a52-6f0e-4b3a-9c1d-2f6b7a8c9d{number:02x}" for number in range(8)]
ACTORS = [f"e0b8a9e5-6fc4-8610-aa76-d473ce6623c{number}" for number in range(3)]
TYPES = ("record.accessed", "record.updated", "record.exported", "control.performed")
ACCESSES = {f"ledger.record.{name}.v1" for name in ("accessed", "exported", "used", "shared")}


def compact(value: object) -> bytes:
    """Write JSON as entries have it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def leaf_of(entry: bytes) -> bytes:
    """Hash an entry (FORMAT.md 3.1)."""
    return hashlib.sha256(b"\0" + entry).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Hash two nodes (3.2)."""
    return hashlib.sha256(b"\1" + left + right).digest()


def split(count: int) -> int:
    """Give the largest power of two below a count."""
    return 1 << (count - 1).bit_length() - 1


def root_of(leaves: list[bytes]) -> bytes:
    """Give the root of leaves."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    at = split(len(leaves))
    return node(root_of(leaves[:at]), root_of(leaves[at:]))


def inclusion(index: int, leaves: list[bytes]) -> list[bytes]:
    """Give an inclusion proof, from the leaf upwards."""
    if len(leaves) == 1:
        return []
    at = split(len(leaves))
    if index < at:
        return [*inclusion(index, leaves[:at]), root_of(leaves[at:])]
    return [*inclusion(index - at, leaves[at:]), root_of(leaves[:at])]


def chosen_proof(chosen: set[int], leaves: list[bytes], lo: int = 0) -> list[bytes]:
    """Give the proof of chosen leaves (7.7)."""
    if not chosen.intersection(range(lo, lo + len(leaves))):
        return [root_of(leaves)]
    if len(leaves) == 1:
        return []
    at = split(len(leaves))
    left = chosen_proof(chosen, leaves[:at], lo)
    return left + chosen_proof(chosen, leaves[at:], lo + at)


def verifier_key(key: Ed25519PrivateKey = SIGNING, name: str = ORIGIN) -> str:
    """Write a verifier key (5.2)."""
    typed = b"\1" + key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(name.encode() + b"\n" + typed).hexdigest()[:8]
    return f"{name}+{key_id}+{base64.b64encode(typed).decode()}"


def sign(text: str, key: Ed25519PrivateKey = SIGNING, name: str = ORIGIN) -> str:
    """Write a signed note."""
    key_id = bytes.fromhex(verifier_key(key, name).split("+")[1])
    blob = base64.b64encode(key_id + key.sign(text.encode())).decode()
    return f"{text}\n\u2014 {name} {blob}\n"


def checkpoint(leaves: list[bytes], key: Ed25519PrivateKey = SIGNING) -> str:
    """Write a signed checkpoint (5.1)."""
    root = base64.b64encode(root_of(leaves)).decode()
    return sign(f"{ORIGIN}\n{len(leaves)}\n{root}\n", key)


def minute(number: int, rest: str) -> str:
    """Write the time a number of minutes after the year's begin."""
    day, left = divmod(number, 1440)
    return f"2026-01-{day + 1:02d}T{left // 60:02d}:{left % 60:02d}:00{rest}"


@dataclass
class Log:
    """Entries of a ledger."""

    entries: list[bytes] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    heads: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def append(self, stream: str, event: dict[str, Any], sealed: dict[str, str]) -> None:
        """Add an entry."""
        seq = len(self.entries) + 1
        prev = self.leaves[-1] if self.leaves else bytes(32)
        version, link = self.heads.get(stream, (0, None))
        entry = {
            "v": 0,
            "ledger": ORIGIN,
            "seq": seq,
            "prev": prev.hex(),
            "recorded": minute(seq, ".000000Z"),
            "stream": stream,
            "stream_kind": "record",
            "version": version + 1,
            "stream_prev": None if link is None else link.hex(),
            "emitter": {"by": "service", "credential": "ck_example234", "source": "crm"},
            "sealed": sealed,
            "event": event,
        }
        self.entries.append(compact(entry))
        self.leaves.append(leaf_of(self.entries[-1]))
        self.heads[stream] = (version + 1, self.leaves[-1])


def disclosure(salt: str, name: str, value: str) -> str:
    """Write a disclosure (4.3)."""
    raw = base64.urlsafe_b64encode(compact([salt, name, value]))
    return raw.decode().rstrip("=")


def sealing(opened: str) -> str:
    """Give a disclosure's digest."""
    digest = hashlib.sha256(opened.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def note_of(seq: int) -> str:
    """Give the disclosure of an entry's note."""
    return disclosure(f"salt-{seq:018d}", "data.note", f"秘密 {seq}")


@cache
def sound(size: int = 60) -> Log:
    """Give a sound log; not to be changed."""
    log = Log()
    for seq in range(1, size + 1):
        event = {
            "id": f"e{seq}",
            "type": f"ledger.{TYPES[seq * 7 % 4]}.v1",
            "time": minute(seq, "+00:00"),
            "data": {"actor": {"id": ACTORS[seq % 3]}, "fields": ["phone"], "why": "回访"},
        }
        sealed = {"data.note": sealing(note_of(seq))} if seq % 2 else {}
        log.append(RECORDS[seq * 5 % 8], event, sealed)
    return log


def event_of(entry: bytes) -> dict[str, Any]:
    """Give an entry's event."""
    event: dict[str, Any] = json.loads(entry)["event"]
    return event


def matches(entry: bytes, wanted: dict[str, str]) -> bool:
    """Tell whether an entry is an access that a filter lets pass (7.7); times as here written."""
    whole = json.loads(entry)
    event = whole["event"]
    time = event["time"].replace("+00:00", ".000000Z")
    return (
        event["type"] in ACCESSES
        and wanted.get("record", whole["stream"]) == whole["stream"]
        and wanted.get("actor", event["data"]["actor"]["id"]) == event["data"]["actor"]["id"]
        and wanted.get("type", event["type"][7:-3]) == event["type"][7:-3]
        and wanted.get("from_time", time) <= time < wanted.get("to_time", "9999")
    )


def seqs_of(log: Log, scope: dict[str, Any]) -> list[int]:
    """Give the positions of a scope's entries."""
    first, last = scope.get("from", 1), scope.get("to", len(log.entries))
    seqs = range(first, last + 1)
    if scope["kind"] == "record":
        named = b'"stream":"%b"' % scope["record"].encode()
        return [seq for seq in seqs if named in log.entries[seq - 1]]
    if scope["kind"] == "accesses":
        return [seq for seq in seqs if matches(log.entries[seq - 1], scope["filter"])]
    return [*seqs]


def population(log: Log, seqs: Iterable[int]) -> dict[str, Any]:
    """Count the accesses among entries (7.1)."""
    counted = [seq for seq in seqs if event_of(log.entries[seq - 1])["type"] in ACCESSES]
    lines = "".join(f"{seq} {log.leaves[seq - 1].hex()}\n" for seq in counted)
    digest = hashlib.sha256(lines.encode()).hexdigest()
    return {"population": len(counted), "population_sha256": digest}


def bundle(scope: dict[str, Any] | None = None, *, log: Log | None = None) -> Files:
    """Give a sound bundle; of entries 11 to 40 where nothing is said."""
    log = log or sound()
    scope = scope or {"kind": "range", "from": 11, "to": 40}
    seqs = seqs_of(log, scope)
    note = checkpoint(log.leaves)
    rows = [seq for seq in seqs if event_of(log.entries[seq - 1])["type"] in ACCESSES]
    table = "seq,leaf,note\r\n" + "".join(
        f'{seq},{log.leaves[seq - 1].hex()},"a ""quoted"",\r\ncell"\r\n' for seq in rows
    )
    files = {
        "FORMAT.md": b"# The format\n",
        "checkpoint": note.encode(),
        "entries.jsonl": b"".join(log.entries[seq - 1] + b"\n" for seq in seqs),
        **prove(log, seqs, note, is_chosen=scope["kind"] == "accesses"),
        "rows.csv": table.encode(),
        "verifier.html": b"<!doctype html>\n",
    }
    manifest = {
        "format": "custody-ledger/bundle/v0",
        "ledger": ORIGIN,
        "scope": scope,
        "report": {"name": "access-history", "version": "1"},
        "parameters": {},
        "as_of": {"seq": len(log.leaves), "leaf": log.leaves[-1].hex()},
        **population(log, seqs),
        "rows": len(rows),
        "first_seq": seqs[0] if seqs else None,
        "last_seq": seqs[-1] if seqs else None,
        "gaps": [] if scope["kind"] == "range" else None,
        "masking": "tokenise",
        "projection_version": "access_history sha256:00",
        "exclusions": [],
        "completeness": "asserted" if scope["kind"] == "accesses" else "proved",
        "files": {},
        "read_seq": len(log.leaves) + 1,
        "verifier_sha256": None,
        "verify": "python verify_chain.py BUNDLE.zip --key KEY",
    }
    return signed(files, manifest)


def prove(log: Log, seqs: list[int], note: str, *, is_chosen: bool) -> Files:
    """Give the file that binds entries to the checkpoint."""
    if is_chosen:
        hashes = chosen_proof({seq - 1 for seq in seqs}, log.leaves)
        return {"entries.proof": b"".join(hashes)}
    steps = inclusion(seqs[-1] - 1, log.leaves)
    lines = "".join(base64.b64encode(step).decode() + "\n" for step in steps)
    text = f"c2sp.org/tlog-proof@v1\nindex {seqs[-1] - 1}\n{lines}\n{note}"
    return {"last.tlog-proof": text.encode()}


def manifest_of(files: Files) -> dict[str, Any]:
    """Read a bundle's manifest."""
    manifest: dict[str, Any] = json.loads(files["manifest.json"])
    return manifest


def signed(
    files: Files, manifest: dict[str, Any] | None = None, key: Ed25519PrivateKey = SIGNING
) -> Files:
    """Make the manifest of files anew and sign it, as only the holder of a key can."""
    held = {name: raw for name, raw in files.items() if not name.startswith("manifest.")}
    listed = {name: hashlib.sha256(raw).hexdigest() for name, raw in sorted(held.items())}
    text = compact((manifest or manifest_of(files)) | {"files": listed})
    digest = hashlib.sha256(text).hexdigest()
    note = sign(f"custody-ledger manifest v0\n{ORIGIN}\n{digest}\n", key)
    return {**held, "manifest.json": text, "manifest.note": note.encode()}


def attestation(
    files: Files, *, key: Ed25519PrivateKey = AUDITOR, **changes: str | int | bytes
) -> str:
    """Write what an auditor signs who replayed the range of a bundle of accesses (7.8)."""
    manifest = manifest_of(files)
    scope, log = manifest["scope"], sound()
    said: dict[str, Any] = {
        "origin": ORIGIN,
        "from": scope.get("from", 1),
        "to": scope.get("to", 60),
        "size": len(log.leaves),
        "root": root_of(log.leaves),
        "filter": compact(scope.get("filter", {})).decode(),
        "count": manifest["population"],
        "digest": manifest["population_sha256"],
        **changes,
    }
    root = base64.b64encode(said["root"]).decode()
    text = (
        f"custody-ledger attestation v0\n{said['origin']}\nrange {said['from']} {said['to']}\n"
        f"checkpoint {said['size']} {root}\nfilter {said['filter']}\n"
        f"count {said['count']}\ndigest {said['digest']}\n"
    )
    return sign(text, key, AUDITOR_NAME)


def write(path: Path, files: Files, *, stored: bool = False) -> Path:
    """Write a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as made:
        for name, raw in files.items():
            made.writestr(name, raw)
    return path
