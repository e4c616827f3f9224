from __future__ import annotations

import itertools
from datetime import datetime
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest

from api.schemas import KeptCheckpoints
from ledger.core.merkle import EMPTY_ROOT, check_consistency, check_inclusion
from ledger.core.note import decode_base64
from ledger.core.proof import check_proof, parse_proof
from ledger.errors import TamperDetected
from ledger.row_cache import NodeCache, RowCache
from tests.http.support import Running, bearer, event, head, problem
from tests.http.tree_client import opened, verifier_of

if TYPE_CHECKING:
    from ledger.core.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def published(service: Running) -> list[Checkpoint]:
    """Record in many requests; give every checkpoint that was answered, with its root."""
    found = {0: None}
    for count in (1, 1, 1, 3, 8, 100, 139, 1, 1, 1, 200, 55, 1, 1):
        document = service.post([event(subject=f"crm:{n}") for n in range(count)]).json()
        checkpoint = opened(service, document["checkpoint"])
        found[checkpoint.size] = checkpoint
    return [checkpoint for checkpoint in found.values() if checkpoint is not None]


def keep(service: Running, checkpoint: Checkpoint) -> None:
    """Keep the newest checkpoint as anchoring does."""
    size, note = service.open.ledger.checkpoint()
    assert size == checkpoint.size
    with psycopg.connect(service.service._dsn) as connection:
        connection.execute(
            f"INSERT INTO {service.open.ledger.schema}.checkpoints (size, note, kept)"
            " VALUES (%s, %s, true) ON CONFLICT (size) DO UPDATE SET kept = true",
            (size, note),
        )


def consistency(service: Running, old: int, new: int) -> list[bytes]:
    response = service.get(f"consistency?from={old}&to={new}", key=service.emitter)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text == "" or response.text.endswith("\n")
    return [decode_base64("line", line) for line in response.text.splitlines()]


# -- inclusion -----------------------------------------------------------------


def test_every_entry_is_proved_under_the_newest_checkpoint(
    service: Running, published: list[Checkpoint]
):
    size = published[-1].size
    for seq in {1, 2, 3, 255, 256, 257, size - 1, size, *range(5, size, 17)}:
        response = service.get(f"entries/{seq}/proof")
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        (row,) = service.open.ledger.entries(seq, seq, 1)
        check_proof(response.text, row.leaf, verifier_of(service), service.open.ledger.origin)
        assert parse_proof(response.text).index == seq - 1


def test_a_proof_proves_no_other_entry(service: Running, published: list[Checkpoint]):
    assert published
    text = service.get("entries/77/proof").text
    for row in service.open.ledger.entries(75, 79, 5):
        if row.seq != 77:
            with pytest.raises(TamperDetected):
                check_proof(text, row.leaf, verifier_of(service), service.open.ledger.origin)


def test_a_proof_under_an_older_kept_checkpoint(service: Running, published: list[Checkpoint]):
    checkpoint = opened(service, service.record(event())["checkpoint"])
    keep(service, checkpoint)
    service.post([event() for _ in range(40)])
    proof = parse_proof(service.get(f"entries/9/proof?size={checkpoint.size}").text)
    assert opened(service, proof.checkpoint_note) == checkpoint
    (row,) = service.open.ledger.entries(9, 9, 1)
    check_inclusion(row.leaf, 8, checkpoint.size, proof.hashes, checkpoint.root)
    later = checkpoint.size + 1
    problem(service.get(f"entries/{later}/proof?size={checkpoint.size}"), 404)
    problem(service.get(f"entries/9/proof?size={published[0].size}"), 404)


def test_proving_leaves_no_entry(service: Running):
    before = head(service)
    service.get("entries/1/proof")
    service.get("consistency?from=1&to=2")
    service.get("checkpoints")
    assert head(service) == before


def test_nothing_beyond_the_newest_checkpoint_is_proved(service: Running):
    size = head(service)
    problem(service.get(f"entries/{size + 1}/proof"), 404)
    problem(service.get(f"entries/1/proof?size={size + 1}"), 404)
    problem(service.get(f"consistency?from=1&to={size + 1}"), 404)
    problem(service.get(f"checkpoints/{size + 1}"), 404)
    problem(service.get(f"entries/1/proof?size={2**63}"), 422)


@pytest.mark.parametrize("rest", ["entries/0/proof", "entries/-1/proof", "entries/x/proof"])
def test_what_is_no_position_is_refused(service: Running, rest: str):
    problem(service.get(rest), 422)


def test_a_proof_is_for_readers(service: Running):
    problem(service.get("entries/1/proof", key=service.emitter), 403)
    problem(service.get("entries/1/proof", key=service.other_reader), 404)
    problem(service.client.get(service.path("entries/1/proof")), 401)


def test_a_proof_that_does_not_hold_is_not_handed_out(
    service: Running, monkeypatch: pytest.MonkeyPatch
):
    tree = service.open.ledger.tree
    select = tree._select_row
    # Somebody has altered a stored hash: what would be handed out proves nothing.
    altered = lambda level, *bounds: bytes(32) + select(level, *bounds)[32:]  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(tree, "_rows", RowCache())
        patch.setattr(tree, "_nodes", NodeCache())
        patch.setattr(tree, "_select_row", altered)
        url = service.url + service.path("entries/9/proof")
        assert httpx.get(url, headers=bearer(service.reader)).status_code == 500
    assert service.get("entries/9/proof").status_code == 200


# -- consistency ---------------------------------------------------------------


def test_every_pair_of_published_checkpoints_is_proved_to_be_of_one_log(
    service: Running, published: list[Checkpoint]
):
    for old, new in itertools.combinations_with_replacement(published, 2):
        proof = consistency(service, old.size, new.size)
        check_consistency(old.size, new.size, old.root, new.root, proof)


def test_from_the_empty_tree_or_to_the_same_size_there_is_nothing_to_prove(
    service: Running, published: list[Checkpoint]
):
    newest = published[-1]
    assert consistency(service, 0, newest.size) == []
    assert consistency(service, newest.size, newest.size) == []
    assert consistency(service, 0, 0) == []
    check_consistency(0, newest.size, EMPTY_ROOT, newest.root, [])


def test_a_consistency_proof_backwards_is_refused(service: Running):
    problem(service.get("consistency?from=3&to=2"), 422)
    problem(service.get("consistency?from=3"), 422)
    problem(service.get("consistency?to=3"), 422)
    problem(service.get("consistency?from=-1&to=3"), 422)
    problem(service.get("consistency?from=1&to=2", key=service.other_reader), 404)
    problem(service.client.get(service.path("consistency?from=1&to=2")), 401)


# -- checkpoints ---------------------------------------------------------------


def test_kept_checkpoints_are_listed_by_size_in_pages(service: Running):
    kept = []
    for _ in range(5):
        checkpoint = opened(service, service.record(event())["checkpoint"])
        keep(service, checkpoint)
        kept.append(checkpoint)
    service.post([event() for _ in range(3)])
    found, after, pages = [], kept[0].size - 1, 0
    while after is not None:
        response = service.get(f"checkpoints?after={after}&limit=2", key=service.emitter)
        page = KeptCheckpoints.model_validate_json(response.content)
        found += page.checkpoints
        after, pages = page.next, pages + 1
    assert pages == 3
    assert [opened(service, each.note) for each in found] == kept
    assert all(isinstance(each.signed, datetime) and each.signed.tzinfo for each in found)
    for checkpoint in kept:
        response = service.get(f"checkpoints/{checkpoint.size}", key=service.emitter)
        assert opened(service, response.text) == checkpoint
        assert response.headers["content-type"] == "text/plain; charset=utf-8"


def test_the_newest_checkpoint_is_found_by_its_size_too(service: Running):
    note = service.get("checkpoint").text
    size = opened(service, note).size
    assert service.get(f"checkpoints/{size}").text == note


def test_checkpoints_are_told_to_the_ledgers_own_credentials_only(service: Running):
    for rest in ("checkpoints", "checkpoints/1"):
        problem(service.get(rest, key=service.other_reader), 404)
        problem(service.client.get(service.path(rest)), 401)
    problem(service.get("checkpoints/0"), 422)
    problem(service.get("checkpoints?limit=0"), 422)
    problem(service.get("checkpoints?after=-1"), 422)
