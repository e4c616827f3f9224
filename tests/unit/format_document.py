"""Write the generated sections of FORMAT.md: `python tests/unit/format_document.py --write`.

The table of clear and sealed members comes from the taxonomy, the worked example from
the product's own code with keys that everybody may know. Tests compare both with the
document, and recompute the example without the product's code.
"""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import UUID

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.admission import admit
from ledger.core.checkpoint import Checkpoint, sign_checkpoint
from ledger.core.disclosure import commit, context, pseudonym, staff_disclosure
from ledger.core.entry import ledger_stream
from ledger.core.merkle import RightEdge
from ledger.core.note import Signer
from ledger.drafts import Emitter
from ledger.events.taxonomy import Writer, clear_sealed_table
from ledger.identities import Identity, record_name, staff_name
from ledger.sequencing import Group, Head

FORMAT = Path(__file__).resolve().parents[2] / "ledger" / "FORMAT.md"
ORIGIN = "custody.local/example/0a1b2c3d"
SEED = bytes(range(32))
RECORD_KEY = bytes([1]) * 32
STAFF_KEY = bytes([2]) * 32
RECORD = UUID("6f1c9a52-6f0e-4b3a-9c1d-2f6b7a8c9d0e")
FIRST_SENT = (
    '{"id":"7f3c-1", "type":"record.accessed", "subject":"crm:C-10023", "data":{"actor":'
    '{"id":"e0117"}, "fields":["phone"], "activity":"support-desk", "note":"回电\\u0020138"}}'
)
SECOND_SENT = (
    '{"id":"7f3c-2","type":"ledger.record.exported.v1","source":"crm","subject":"crm:C-10023",'
    '"time":"2026-11-22T10:00:00+08:00","data":{"actor":{"id":"e0117"},"fields":["phone"],'
    '"format":"csv","masking":"none"}}'
)
SENT = (FIRST_SENT, SECOND_SENT)


KEYS = (
    "Keys that everybody may know, so that every value below can be recomputed: the Ed25519 "
    f"seed `{SEED.hex()}`, K of the record's stream `{RECORD_KEY.hex()}`, K of the member of staff "
    f"`{STAFF_KEY.hex()}`. The record's UUID was drawn as `{RECORD}`."
)


def identity(identity_id: UUID, key: bytes) -> Identity:
    return Identity(id=identity_id, text=str(identity_id).encode(), key=key)


def build_example() -> dict[str, object]:
    """Place three entries with fixed keys."""
    signer = Signer.from_private_key(ORIGIN, Ed25519PrivateKey.from_private_bytes(SEED))
    key = signer.verifier.verifier_key()
    opened = (
        '{"id":"00000000-0000-4000-8000-000000000001","type":"ledger.opened","data":'
        f'{{"origin":"{ORIGIN}","keys":["{key}"],"format":0}}}}'
    )
    own = Emitter(
        credential="", by=Writer.LEDGER, sources=("custody",), namespaces=("*",), types=frozenset()
    )
    crm = Emitter(
        credential="ck_example234",
        by=Writer.SERVICE,
        sources=("crm",),
        namespaces=("crm",),
        types=frozenset(),
    )
    staff = identity(pseudonym(staff_disclosure(STAFF_KEY, "e0117")), STAFF_KEY)
    record = identity(RECORD, RECORD_KEY)
    names = {staff_name("e0117"): staff, record_name("crm:C-10023"): record}
    stream = identity(ledger_stream(ORIGIN, "ledger.ledger.opened.v1"), bytes(32))
    group = Group(
        origin=ORIGIN.encode(),
        after=Head(0, bytes(32), ""),
        recorded="2026-11-22T02:00:00.000001Z",
        heads={stream.id: (0, None), record.id: (0, None)},
    )
    origin = ORIGIN.encode()
    group.place_draft(admit(opened.encode(), own, origin=origin)[0], names, stream)
    drafts = [admit(text.encode(), crm, origin=origin)[0] for text in SENT]
    for draft in drafts:
        group.place_draft(draft, names, record)
    first = [("subject", b'"crm:C-10023"'), *drafts[0].sealed]
    ctx = context(origin, b"crm", b"7f3c-1", 0)
    edge = RightEdge()
    edge.extend(group.leaves)
    checkpoint = Checkpoint(origin=ORIGIN, size=3, root=edge.root())
    return {
        "entries": [entry.decode() for entry in group.entries],
        "leaves": [leaf.hex() for leaf in group.leaves],
        "disclosures": [d.decode() for _, d in commit(RECORD_KEY, ctx, first)],
        "staff": staff_disclosure(STAFF_KEY, "e0117").decode(),
        "note": sign_checkpoint(checkpoint, [signer]),
        "root": edge.root().hex(),
        "verifier": signer.verifier.verifier_key(),
    }


def render_example() -> str:
    """Write section 9."""
    made = build_example()
    entries, leaves = made["entries"], made["leaves"]
    assert isinstance(entries, list)
    assert isinstance(leaves, list)
    parts = [
        KEYS,
        "A service with the credential `ck_example234` and the default source `crm` sent:",
        _block("\n".join(SENT)),
        "The log then holds (one entry a line):",
        _block("\n".join(entries)),
        "Leaf hashes:",
        _block("\n".join(leaves)),
        "Disclosures of entry 2, in the order of `sealed`:",
        _block("\n".join(made["disclosures"])),  # type: ignore[arg-type]
        "Disclosure that the pseudonym commits to (4.7):",
        _block(str(made["staff"])),
        f"Root of the tree of three: `{made['root']}`. Verifier key and signed checkpoint:",
        _block(str(made["verifier"])),
        _block(str(made["note"]).rstrip("\n")),
    ]
    return "\n\n".join(parts) + "\n"


def _block(text: str) -> str:
    return f"```\n{text}\n```"


def render_document() -> str:
    """Give FORMAT.md with its generated sections as they must be."""
    text = FORMAT.read_text(encoding="utf-8")
    before_table = text[: text.index("## 8. Clear and sealed")]
    return (
        before_table
        + "## 8. Clear and sealed\n\n"
        + clear_sealed_table().strip()
        + "\n\n## 9. Worked example\n\n"
        + render_example()
    )


if __name__ == "__main__" and "--write" in sys.argv:
    FORMAT.write_text(render_document(), encoding="utf-8")
