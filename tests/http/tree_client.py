"""Read a ledger's tree over HTTP the way any client of C2SP tlog-tiles does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.core.checkpoint import Checkpoint, open_checkpoint
from ledger.core.note import parse_verifier
from ledger.core.tiles import TILE_WIDTH, decode_tile, tile_path

if TYPE_CHECKING:
    import httpx

    from ledger.core.note import Verifier
    from tests.http.support import Running


def verifier_of(service: Running) -> Verifier:
    return parse_verifier(service.open.ledger.keyring.verifier_key())


def opened(service: Running, note: str) -> Checkpoint:
    """Check a checkpoint's signature and origin."""
    return open_checkpoint(note, verifier_of(service), service.open.ledger.origin)


class TreeClient:
    """Gives rows of hashes out of tiles, asking for each as wide as it is needed."""

    def __init__(self, client: httpx.Client, prefix: str, headers: dict[str, str]) -> None:
        self.client = client
        self.prefix = prefix
        self.headers = headers

    def get(self, rest: str) -> httpx.Response:
        return self.client.get(f"{self.prefix}{rest}", headers=self.headers)

    def read(self, level: int, first: int, count: int) -> list[bytes]:
        """Give hashes as `ReadHashes` wants them."""
        response = self.get(tile_path(level, first // TILE_WIDTH, count))
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/octet-stream"
        return decode_tile(response.content, count)
