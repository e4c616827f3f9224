"""Read logs with `aics_tlog` alone, which is another maker's; nothing of ours is imported.

Standard input is JSON: `vkey`, and for each name `url` with an optional `held`, a checkpoint
held from before. For each, the checkpoint is verified, every tile is authenticated against it,
and every entry too or, where one is held, that it extends that. A line of JSON says what came of
it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from aics_tlog import (
    HttpTileReader,
    VerifiedTileReader,
    audit_tiles,
    consistency_proof_from_tiles,
    parse_note,
    parse_vkey,
    verify_checkpoint,
    verify_consistency,
)


def refusal_of(url: str, vkey: Any, held: str | None) -> str | None:
    reader = HttpTileReader(url, proxies={}, timeout=10)
    note = parse_note(reader.read_checkpoint())
    checked = verify_checkpoint(note, vkey, expected_origin=vkey.name)
    if not checked.ok:
        return f"checkpoint: {checked.error}"
    audit_tiles(reader, checked.size, checked.root, entries=held is None)
    if held is not None:
        old = verify_checkpoint(parse_note(held), vkey)
        if not old.ok:
            return f"held checkpoint: {old.error}"
        tree = VerifiedTileReader(reader, checked.size, checked.root)
        proof = consistency_proof_from_tiles(tree, old.size, checked.size)
        if not verify_consistency(old.size, checked.size, old.root, checked.root, proof):
            return "the held checkpoint is not of this log"
    return None


def main() -> None:
    asked = json.load(sys.stdin)
    vkey = parse_vkey(asked["vkey"])
    for name, log in asked["logs"].items():
        try:
            refusal = refusal_of(log["url"], vkey, log.get("held"))
        except Exception as error:  # noqa: BLE001 - whatever it raises is how it refuses
            refusal = f"{type(error).__name__}: {error}"
        sys.stdout.write(json.dumps({"name": name, "refusal": refusal}) + "\n")


main()
