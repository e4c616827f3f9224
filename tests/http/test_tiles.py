from __future__ import annotations

import json
import random
import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from api.app import create_app
from ledger.core.merkle import RightEdge, leaf_hash, root_at
from ledger.core.tiles import decode_entries, tile_path, tile_width
from ledger.row_cache import RowCache
from tests.http.support import (
    LEDGER,
    OTHER,
    Running,
    bearer,
    event,
    head,
    problem,
    running,
    serving,
)
from tests.http.tree_client import TreeClient, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HASHES = "application/octet-stream"
IMMUTABLE = "private, max-age=31536000, immutable"


@pytest.fixture(scope="module")
def filled(service: Running) -> Running:
    """Serve a ledger with two full tiles and a part of a third."""
    for _ in range(3):
        assert service.post([event(subject=f"crm:{n}") for n in range(200)]).status_code == 201
    return service


@pytest.fixture
def opened_tiles(new_database: Callable[[], str]) -> Iterator[Running]:
    with running(new_database(), LEDGER_OPEN_TILES="1") as service:
        service.post([event() for _ in range(300)])
        yield service


def tree_of(service: Running, key: str | None = None) -> TreeClient:
    return TreeClient(service.client, service.path(""), bearer(key or service.reader))


def newest_size(service: Running) -> int:
    return opened(service, service.get("checkpoint").text).size


# -- what is served ------------------------------------------------------------


def test_tiles_hold_the_hashes_of_the_entries_and_lead_to_the_checkpoints_root(filled: Running):
    checkpoint = opened(filled, filled.get("checkpoint").text)
    assert checkpoint.size > 600
    tree = tree_of(filled)
    assert root_at(checkpoint.size, tree.read) == checkpoint.root
    rows = filled.open.ledger.entries(1, 601, 601)
    assert tree.read(0, 256, 256) == [row.leaf for row in rows[256:512]]
    edge = RightEdge()
    nodes = edge.extend([row.leaf for row in rows])
    assert tree.read(1, 0, 2) == [node.hash for node in nodes]


def test_every_width_of_a_partial_tile_is_the_beginning_of_the_wider_ones(filled: Running):
    full = b"".join(tree_of(filled).read(0, 0, 256))
    for width in random.Random(1).sample(range(1, 256), 40):
        response = filled.get(tile_path(0, 0, width))
        assert response.content == full[: 32 * width]


def test_a_full_tile_has_no_width_in_its_name_and_may_be_cached_for_ever(filled: Running):
    response = filled.get("tile/0/000")
    assert response.headers["content-type"] == HASHES
    assert response.headers["cache-control"] == IMMUTABLE
    assert len(response.content) == 8192
    problem(filled.get("tile/0/000.p/256"), 422)


def test_the_checkpoint_is_never_cached(filled: Running):
    response = filled.get("checkpoint")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


def test_a_bundle_holds_the_entries_beneath_a_tile(filled: Running):
    size = newest_size(filled)
    for index in range(3):
        width = tile_width(None, index, size)
        response = filled.get(tile_path(None, index, width))
        assert response.headers["content-type"] == HASHES
        entries = decode_entries(response.content, width)
        assert [leaf_hash(each) for each in entries] == tree_of(filled).read(0, index * 256, width)


def test_each_look_at_a_bundle_leaves_an_entry_and_none_of_the_tree_does(filled: Running):
    tree_of(filled).read(0, 0, 256)
    filled.get("checkpoint")
    before = head(filled)
    response = filled.get("tile/entries/001.p/9")
    assert response.headers["cache-control"] == "no-store"
    assert head(filled) == before + 1
    entry = json.loads(filled.open.ledger.entries(before + 1, before + 1, 1)[0].entry)
    assert entry["event"]["type"] == "ledger.ledger.read.v1"
    assert (entry["event"]["data"]["report"], entry["event"]["data"]["rows"]) == ("entries", 9)


# -- what is refused -----------------------------------------------------------


@pytest.mark.parametrize("kind", [0, None])
def test_nothing_beyond_the_newest_checkpoint_is_served(filled: Running, kind: int | None):
    size = newest_size(filled)
    index, width = divmod(size, 256)
    assert filled.get(tile_path(kind, index, width)).status_code == 200
    size = newest_size(filled)  # looking at a bundle has made an entry
    index, width = divmod(size, 256)
    for name in (
        tile_path(kind, index, width + 1),
        tile_path(kind, index),
        tile_path(kind, index + 1, 1),
        tile_path(kind, 2**54, 1),
    ):
        assert problem(filled.get(name), 404).type.endswith(":not-found")


def test_levels_that_the_tree_does_not_have_are_not_found(filled: Running):
    problem(filled.get("tile/1/000.p/200"), 404)
    problem(filled.get("tile/1/000"), 404)
    problem(filled.get("tile/2/000.p/1"), 404)
    problem(filled.get("tile/63/000.p/1"), 404)


@pytest.mark.parametrize(
    "name",
    [
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/0/001.p/0",
        "tile/0/001.p/01",
        "tile/0/001.p/256",
        "tile/0/001.p/",
        "tile/0/000/",
        "tile/0/000.p/1/",
        "tile/0//000",
        "tile/0/\u0660\u0660\u0660",
        "tile/0/000%20",
        "tile/0/000%0A",
        "tile/data/000",
        "tile/0",
        "tile/entries",
        "tile/entries/0",
        "tile/entries/x000/000",
        "tile/entries/000.p/01",
        "tile/entries/..%2F0/000",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
    ],
)
def test_names_that_are_spelt_in_another_way_are_refused(filled: Running, name: str):
    problem(filled.get(name), 422)


def test_a_tile_whose_hashes_the_log_has_lost_is_not_served_short(
    filled: Running, monkeypatch: pytest.MonkeyPatch
):
    url, headers = filled.url + filled.path("tile/0/001.p/77"), bearer(filled.reader)
    tree = filled.open.ledger.tree
    monkeypatch.setattr(tree, "_rows", RowCache())
    with monkeypatch.context() as patch:
        patch.setattr(tree, "_select_row", lambda *_: bytes(32 * 76))
        assert httpx.get(url, headers=headers).status_code == 500
    assert httpx.get(url, headers=headers).status_code == 200


# -- who may have it -----------------------------------------------------------


def test_without_a_key_nothing_is_served_and_nothing_is_told(filled: Running):
    for rest in ("checkpoint", "tile/0/000", "tile/9/000", "tile/zero", "tile/entries/000"):
        for ledger in (LEDGER, OTHER, "no_such"):
            response = filled.client.get(f"/v1/ledgers/{ledger}/{rest}")
            problem(response, 401)


def test_an_emitters_key_opens_the_tree_but_no_entries(filled: Running):
    assert filled.get("tile/0/000", key=filled.emitter).status_code == 200
    assert filled.get("checkpoint", key=filled.emitter).status_code == 200
    problem(filled.get("tile/entries/000", key=filled.emitter), 403)
    problem(filled.get("tile/entries/none", key=filled.emitter), 403)


def test_another_ledgers_key_learns_not_even_how_many_tiles_there_are(filled: Running):
    answers = {
        filled.get(rest, key=filled.other_reader).content
        for rest in ("tile/0/000", "tile/0/999", "tile/5/zero", "tile/entries/000", "checkpoint")
    }
    absent = filled.client.get(
        "/v1/ledgers/no_such/tile/0/000", headers=bearer(filled.other_reader)
    )
    assert {problem(absent, 404).detail} == {json.loads(each)["detail"] for each in answers}
    assert len(answers) == 1


def test_opened_tiles_need_no_key_but_entries_always_do(opened_tiles: Running):
    service = opened_tiles
    tree = TreeClient(service.client, service.path(""), {})
    checkpoint = opened(service, tree.get("checkpoint").text)
    assert root_at(checkpoint.size, tree.read) == checkpoint.root
    assert tree.get("tile/0/000").headers["cache-control"] == IMMUTABLE.replace("private", "public")
    assert tree.get("checkpoint").headers["cache-control"] == "no-store"
    assert tree.get("consistency?from=1&to=300").status_code == 200
    for rest in ("tile/entries/000", "checkpoints", "checkpoints/1", "entries/1/proof"):
        problem(tree.get(rest), 401)
    problem(service.get("tile/entries/000", key=service.emitter), 403)
    problem(service.get("tile/entries/000", key=service.other_reader), 404)
    problem(service.client.get("/v1/ledgers/no_such/checkpoint"), 404)
    problem(service.client.get("/v1/ledgers/no_such/tile/0/000"), 404)


# -- while the log grows -------------------------------------------------------


def test_partial_tiles_of_every_published_checkpoint_stay_readable(service: Running):
    chance = random.Random(2)
    published = []
    enough = head(service) + 1_100
    while head(service) < enough:
        count = chance.choice([1, 1, 2, 7, 50, 100])
        document = service.post([event() for _ in range(count)]).json()
        published.append(opened(service, document["checkpoint"]))
    assert len({checkpoint.size for checkpoint in published}) > 20
    tree = tree_of(service)
    for checkpoint in published:
        assert root_at(checkpoint.size, tree.read) == checkpoint.root
    service.open.ledger.tree._rows = RowCache()
    for checkpoint in published[::-1]:
        assert root_at(checkpoint.size, tree.read) == checkpoint.root


def test_a_client_that_reads_during_heavy_appends_never_sees_a_pair_that_contradicts_itself(
    service: Running,
):
    done = threading.Event()
    failures: list[Exception] = []

    def append() -> None:
        with httpx.Client(base_url=service.url, headers=bearer(service.emitter)) as client:
            while not done.is_set():
                body = [event(subject=f"crm:{n}") for n in range(37)]
                if client.post(service.path("events"), json=body).status_code != 201:
                    failures.append(AssertionError("not recorded"))

    writers = [threading.Thread(target=append) for _ in range(3)]
    for writer in writers:
        writer.start()
    sizes = set()
    try:
        tree = tree_of(service)
        for _ in range(60):
            checkpoint = opened(service, tree.get("checkpoint").text)
            assert root_at(checkpoint.size, tree.read) == checkpoint.root
            sizes.add(checkpoint.size)
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert not failures
    assert len(sizes) > 10


def test_a_process_that_does_not_sign_serves_the_tree_too(service: Running):
    service.post([event() for _ in range(20)])
    settings = service.service.settings
    app = create_app(settings, service.service._dsn)
    with serving(app) as url, httpx.Client(base_url=url) as client:
        assert not app.state.service.ledgers[LEDGER].ledger.notary.signs
        tree = TreeClient(client, service.path(""), bearer(service.reader))
        checkpoint = opened(service, tree.get("checkpoint").text)
        assert checkpoint.size > 20
        assert root_at(checkpoint.size, tree.read) == checkpoint.root
        assert tree.get(f"entries/{checkpoint.size}/proof").status_code == 200
