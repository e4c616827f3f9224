"""Serve the tree: tiles, bundles, proofs and kept checkpoints, up to the newest signed size.

Everything comes from stored rows of 256 hashes, a few for each answer; the leaves are never
all in memory. What is below a signed size never changes, so rows are kept once they were
read, the longest prefix of each: it answers for every partial tile that it was before.
Nothing beyond the newest signed checkpoint is given: until it is signed, a crash of the
database's machine could still take it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ledger.core.checkpoint import parse_checkpoint
from ledger.core.merkle import check_inclusion, prove_consistency, prove_inclusion
from ledger.core.note import split_note
from ledger.core.proof import LogProof
from ledger.core.tiles import HASH_BYTES, TILE_WIDTH, decode_tile, tile_width
from ledger.errors import CannotVerify, Malformed, NotFound
from ledger.row_cache import NodeCache, RowCache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from psycopg.sql import Composed

    from ledger.core.tiles import Tile

    Read = Callable[[Any, Sequence[Any]], list[tuple[Any, ...]]]
    """Runs one autocommitted query; raises Unavailable where the database can't be reached."""


class KeptCheckpoint(NamedTuple):
    """A checkpoint that is kept for good."""

    size: int
    """Entries that it covers."""
    note: str
    """The signed note."""
    signed: datetime
    """When it was stored, by the database's clock."""


class PublishedTree:
    """The tree as its newest signed checkpoint has it, whichever process signed that."""

    def __init__(
        self,
        sql: Callable[[str], Composed],
        read: Read,
        newest: Callable[[], tuple[int, str]],
    ) -> None:
        """Take what gives queries, rows, and size and note of the newest checkpoint."""
        self._sql = sql
        self._read = read
        self._newest = newest
        self._rows = RowCache()
        self._nodes = NodeCache()

    # -- tiles -----------------------------------------------------------------

    def kept_tile(self, tile: Tile) -> bytes | None:
        """Give a tile of hashes without asking the database; None where that must be asked.

        Raises:
            NotFound: the tree has no such tile.
            Unavailable: no checkpoint was signed yet.
        """
        self._check_published(tile)
        return self._rows.get(tile.level or 0, tile.index, tile.width)

    def tile(self, tile: Tile) -> bytes:
        """Give a tile of hashes, 32 bytes each (C2SP tlog-tiles, "Merkle Tree").

        Raises:
            NotFound, Unavailable: as in `kept_tile`.
            CannotVerify: the log has lost some of it.
        """
        self._check_published(tile)
        return self._row(tile.level or 0, tile.index, tile.width)

    def bundle(self, tile: Tile) -> list[bytes]:
        """Give the entries of a bundle, in order (C2SP tlog-tiles, "Log entries").

        Raises:
            NotFound, Unavailable, CannotVerify: as in `tile`.
        """
        self._check_published(tile)
        query = self._sql("SELECT entry FROM {entries} WHERE seq > %s AND seq <= %s ORDER BY seq")
        first = tile.index * TILE_WIDTH
        entries = [entry for (entry,) in self._read(query, (first, first + tile.width))]
        if len(entries) != tile.width:
            raise CannotVerify(f"{tile.path()}: entries expected, found {len(entries)} of them")
        return entries

    def _check_published(self, tile: Tile) -> None:
        if tile.width > tile_width(tile.level, tile.index, self._newest()[0]):
            raise NotFound("expected a tile within the newest signed checkpoint's size")

    def _row(self, level: int, index: int, width: int) -> bytes:
        row = self._rows.get(level, index, width)
        if row is None:
            row = self._select_row(level, index * TILE_WIDTH, width)
            if len(row) != width * HASH_BYTES:
                raise CannotVerify(f"tile {level}/{index}: {width} stored hashes expected")
            self._rows.keep(level, index, row)
        return row

    # One value for the whole row: it is what is served, and 256 rows take longer to fetch.
    SELECT_LEAVES = (
        "SELECT string_agg(leaf, ''::bytea ORDER BY seq) FROM {entries}"
        " WHERE seq > %s AND seq <= %s"
    )
    SELECT_NODES = (
        "SELECT string_agg(hash, ''::bytea ORDER BY idx) FROM {tree_nodes}"
        " WHERE idx >= %s AND idx < %s AND level = %s"
    )

    def _select_row(self, level: int, first: int, width: int) -> bytes:
        bounds = (first, first + width)
        if level:
            found = self._read(self._sql(self.SELECT_NODES), (*bounds, level))
        else:
            found = self._read(self._sql(self.SELECT_LEAVES), bounds)
        return found[0][0] or b""

    def _hashes(self, level: int, first: int, count: int) -> list[bytes]:
        return decode_tile(self._row(level, first // TILE_WIDTH, count), count)

    # -- proofs ----------------------------------------------------------------

    def proof(self, seq: int, size: int | None = None) -> LogProof:
        """Prove that an entry is under a checkpoint: the newest, or that of `size`.

        A proof that does not hold is not given: the log contradicts what was signed then.

        Raises:
            NotFound: there is no such entry under it, or no checkpoint of this size is kept.
            TamperDetected, CannotVerify: stored hashes were altered or lost.
            Unavailable: no checkpoint was signed yet, or the database can't be reached.
        """
        note = self._newest()[1] if size is None else self.checkpoint(size)
        checkpoint = parse_checkpoint(split_note(note)[0])
        if not 1 <= seq <= checkpoint.size:
            raise NotFound("expected a position up to the checkpoint's size")
        index = seq - 1
        hashes = prove_inclusion(index, checkpoint.size, self._hashes, self._nodes)
        tile, offset = divmod(index, TILE_WIDTH)
        leaf = self._row(0, tile, offset + 1)[-HASH_BYTES:]
        check_inclusion(leaf, index, checkpoint.size, hashes, checkpoint.root)
        return LogProof(index=index, hashes=tuple(hashes), checkpoint_note=note)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Prove that the tree of `new` leaves begins with that of `old` (RFC 9162 2.1.4).

        Raises:
            Malformed: `old` is more than `new`.
            NotFound: `new` is more than the newest checkpoint's size.
            TamperDetected, CannotVerify, Unavailable: as in `proof`.
        """
        if old > new:
            raise Malformed("expected `from` to be at most `to`")
        if new > self._newest()[0]:
            raise NotFound("expected `to` within the newest signed checkpoint's size")
        return prove_consistency(old, new, self._hashes, self._nodes)

    # -- checkpoints -----------------------------------------------------------

    def checkpoints(self, after: int, limit: int) -> list[KeptCheckpoint]:
        """Give checkpoints kept for good, by size, after one of size `after`."""
        query = self._sql(
            "SELECT size, note, signed FROM {checkpoints}"
            " WHERE kept AND size > %s AND size <= %s ORDER BY size LIMIT %s"
        )
        rows = self._read(query, (after, self._newest()[0], limit))
        return [KeptCheckpoint(*row) for row in rows]

    def checkpoint(self, size: int) -> str:
        """Give the note of a checkpoint of some size: a kept one, or the newest.

        A kept one may have signatures of witnesses too, which the newest hasn't yet.

        Raises:
            NotFound: none of this size is kept.
        """
        newest, note = self._newest()
        query = self._sql("SELECT note FROM {checkpoints} WHERE size = %s AND size <= %s")
        rows = self._read(query, (size, newest))
        if not rows and size != newest:
            raise NotFound("expected the size of a kept checkpoint")
        return str(rows[0][0]) if rows else note
