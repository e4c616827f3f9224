"""Serve the tree and the entries beneath it as C2SP tlog-tiles; the log's prefix is the ledger's.

Tiles of hashes tell how many entries there are and nothing of what they say. Where the
service opens them (LEDGER_OPEN_TILES) they are public and caches may keep them; entry bundles
never are, and each look at one leaves an entry.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response

from api.access import enter_as_reader, enter_tree
from api.answers import problems
from api.direct import DirectRoute
from api.reading import NO_STORE, record_reading
from ledger.core.tiles import TILE_WIDTH, encode_entries, parse_tile_path

if TYPE_CHECKING:
    from api.access import Tree
    from ledger.core.tiles import Tile

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["tiles"], route_class=DirectRoute)

OCTETS: Final = "application/octet-stream"
# What is served under one path never changes: a partial tile's width is part of its path.
_FOR_EVER: Final = "max-age=31536000, immutable"
_PUBLIC: Final = {"Cache-Control": f"public, {_FOR_EVER}"}
_PRIVATE: Final = {"Cache-Control": f"private, {_FOR_EVER}"}


def _octets_of(meaning: str) -> dict[str, Any]:
    content = {OCTETS: {"schema": {"type": "string", "format": "binary"}}}
    return {"description": meaning, "content": content}


def _parameter(name: str, meaning: str, example: str) -> dict[str, Any]:
    """Declare a part of the path that has slashes in it."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": meaning,
        "schema": {"type": "string"},
        "example": example,
    }


@router.get(
    "/tile/entries/{bundle:path}",  # noqa: FAST003 - read from the whole path
    summary="Up to 256 entries: a bundle",
    response_class=Response,
    responses={
        200: _octets_of("Each entry after its length, as two bytes, big-endian."),
        **problems(401, 403, 404, 422, 503),
    },
    openapi_extra={
        "parameters": [_parameter("bundle", "`<index>[.p/<width>]`", "x001/x234/067.p/8")]
    },
)
async def get_bundle(request: Request) -> Response:
    """Give entries for a log's reader. Always a reader's credential, and always recorded."""
    access = await enter_as_reader(request)
    bundle = _named(request)
    entries = await asyncio.to_thread(access.open.ledger.tree.bundle, bundle)
    first = bundle.index * TILE_WIDTH + 1
    query = {"from": first, "to": first + bundle.width - 1}
    await record_reading(access, "entries", query, rows=bundle.width)
    return Response(encode_entries(entries), 200, NO_STORE, OCTETS)


@router.get(
    "/tile/{tile:path}",  # noqa: FAST003 - read from the whole path
    summary="Up to 256 hashes of the tree: a tile",
    response_class=Response,
    responses={
        200: _octets_of("Hashes of 32 bytes, joined."),
        **problems(401, 404, 422, 503),
    },
    openapi_extra={
        "parameters": [_parameter("tile", "`<level>/<index>[.p/<width>]`", "0/x001/x234/067.p/8")]
    },
)
async def get_tile(request: Request) -> Response:
    """Give a tile of any width that the newest signed checkpoint's tree has, or had.

    Any credential of the ledger may have it, or anybody where the service opens tiles.
    """
    tree = await enter_tree(request)
    tile = _named(request)
    hashes = await _hashes(tree, tile)
    return Response(hashes, 200, _PUBLIC if tree.public else _PRIVATE, OCTETS)


def _named(request: Request) -> Tile:
    """Read a tile's name from the whole path: what the router gives has lost a last LF."""
    path: str = request.scope["path"]
    return parse_tile_path(path[path.index("/tile/") + 1 :])


async def _hashes(tree: Tree, tile: Tile) -> bytes:
    published = tree.open.ledger.tree
    kept = published.kept_tile(tile)
    return kept if kept is not None else await asyncio.to_thread(published.tile, tile)
