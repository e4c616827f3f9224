"""A service with witnesses, seen from outside; and somebody who signs with its stolen key."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from ledger.core.checkpoint import open_checkpoint
from ledger.core.note import open_note, parse_verifier
from ledger.keys.keyring import load_keyring
from tests.fixtures.witnesses import ServeWitness, SmallLog
from tests.http.support import LEDGER, Running, event, problem, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ledger.keys.keyring import Keyring
    from tests.fixtures.witnesses import Served


@pytest.fixture
def witnesses(serve_witness: ServeWitness, tmp_path: Path) -> list[Served]:
    return [serve_witness(tmp_path / f"w{n}", f"witness.example/w{n}") for n in range(2)]


@pytest.fixture
def witnessed(
    witnesses: list[Served], new_database: Callable[[], str], tmp_path: Path
) -> Iterator[Running]:
    """A service that names two witnesses, both of which must cosign, and that they watch."""
    tables = "".join(
        f'[[sink]]\nkind = "witness"\nname = "w{n}"\nurl = "{one.url}"\nkeys = ["{one.vkey}"]\n'
        f'ledgers = ["{LEDGER}"]\n'
        for n, one in enumerate(witnesses)
    )
    file = tmp_path / "anchors.toml"
    file.write_text(tables + "[witnesses]\nquorum = 2\n")
    with running(new_database(), LEDGER_ANCHORS=str(file)) as service:
        for one in witnesses:
            one.here.witness.watch(keyring_of(service).verifier_key())
        yield service


def keyring_of(service: Running) -> Keyring:
    return load_keyring(service.service.settings.keys_dir / f"{LEDGER}.json")


def stolen(service: Running) -> SmallLog:
    """Another log in the ledger's name, signed with the ledger's key."""
    keyring = keyring_of(service)
    return SmallLog(origin=keyring.origin, seed=keyring.signing, salt=b"forged")


def quorum_gauge(service: Running) -> str:
    lines = service.client.get("/metrics").text.splitlines()
    (line,) = [one for one in lines if one.startswith("custody_witness_quorum_failing{")]
    return line


def test_what_a_quorum_cosigned_is_served_as_one_note(witnessed: Running, witnesses: list[Served]):
    witnessed.record(event())
    assert witnessed.open.ledger.anchoring.turn()
    found: dict[str, Any] = witnessed.get("anchors").json()
    together = found["witnessed"]
    assert (together["quorum"], together["named"], together["working"]) == (2, 2, 2)
    assert not together["failing"]
    assert together["reached"]
    note = witnessed.get(f"checkpoints/{together['size']}").text
    keys = [parse_verifier(one.vkey) for one in witnesses]
    assert len(open_note(note, keys).signatures) == 2
    by_name = {sink["name"]: sink for sink in found["sinks"]}
    given = by_name["directory"]["evidence"]["note"]
    assert note.startswith(given), "other places had it before it was cosigned"
    assert given.count("\u2014") == 1
    evidence = by_name["w0"]["evidence"]
    assert base64.b64decode(evidence["base64"]).decode().startswith(evidence["note"] + "\u2014")
    assert by_name["w0"]["place"] == witnesses[0].url
    assert quorum_gauge(witnessed).endswith(" 0.0")
    assert witnessed.client.get("/readyz").status_code == 200


def test_a_tree_signed_elsewhere_with_our_key_stops_the_service_and_is_shown(
    witnessed: Running, witnesses: list[Served]
):
    forged = stolen(witnessed)
    assert witnesses[1].here.witness.add_checkpoint(forged.request(0, 100)).status == 200
    witnessed.record(event())
    witnessed.open.ledger.anchoring.turn()
    ready = witnessed.client.get("/readyz")
    assert ready.status_code == 503
    assert {"read-only", "split-view"} <= set(ready.json()["codes"])
    problem(witnessed.post(event()), 503)
    (name,) = witnessed.get("anchors").json()["split_views"]
    path = witnessed.service.settings.evidence_dir / LEDGER / name
    evidence = json.loads(path.read_text())
    assert evidence["proved"]
    verifier = forged.signer.verifier
    assert open_checkpoint(evidence["theirs"], verifier, forged.origin).size == 100
    assert open_checkpoint(evidence["ours"], verifier, forged.origin).size < 100
    assert witnessed.get("checkpoint").status_code == 200, "what proves it can still be had"
    witnessed.service.ledgers["other"].ledger.append_own("ledger.operated", {"operation": "backup"})


def test_a_witness_that_is_down_is_seen_and_stops_nothing(
    witnessed: Running, witnesses: list[Served]
):
    witnesses[0].here.close()  # its state can't be read any more: it answers 503
    witnessed.record(event())
    witnessed.open.ledger.anchoring.turn()
    found = witnessed.get("anchors").json()
    assert found["witnessed"]["failing"]
    assert (found["witnessed"]["working"], found["witnessed"]["size"]) == (1, 0)
    by_name = {sink["name"]: sink for sink in found["sinks"]}
    assert by_name["w0"]["failing"]["reason"] == "unavailable"
    assert by_name["w1"]["failing"] is None
    assert quorum_gauge(witnessed).endswith(" 1.0")
    witnessed.record(event())
    assert witnessed.client.get("/readyz").status_code == 200
