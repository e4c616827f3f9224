"""Keep rows of hashes that were read, and nodes folded from them, in bounded memory.

Only what is below a signed size may be kept: rows there only grow, and complete nodes never
change.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from ledger.core.tiles import HASH_BYTES

MAX_CACHED_BYTES = 16 * 1024 * 1024
"""Most bytes of rows kept for one ledger: the hashes over about half a million entries."""
MAX_CACHED_NODES = 16_384
"""Most nodes kept for one ledger, some 200 bytes each."""
_ROW_OVERHEAD_BYTES = 256
"""What keeping a row costs beside its bytes, roughly."""


class RowCache:
    """Keeps the longest known prefix of rows, as many as fit; the least used go first."""

    def __init__(self, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._rows: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self.size_bytes = 0

    def get(self, level: int, index: int, width: int) -> bytes | None:
        """Give a row's first `width` hashes; None where not so many are kept."""
        with self._lock:
            row = self._rows.get((level, index))
            if row is None or len(row) < width * HASH_BYTES:
                return None
            self._rows.move_to_end((level, index))
        return row if len(row) == width * HASH_BYTES else row[: width * HASH_BYTES]

    def keep(self, level: int, index: int, row: bytes) -> None:
        """Keep a row, unless a longer prefix of it is kept already."""
        with self._lock:
            before = self._rows.get((level, index))
            if before is not None and len(before) >= len(row):
                return
            self.size_bytes += len(row) + _ROW_OVERHEAD_BYTES
            self._rows[level, index] = row
            self._rows.move_to_end((level, index))
            if before is not None:
                self.size_bytes -= len(before) + _ROW_OVERHEAD_BYTES
            while self.size_bytes > self._max_bytes:
                _, dropped = self._rows.popitem(last=False)
                self.size_bytes -= len(dropped) + _ROW_OVERHEAD_BYTES


class NodeCache:
    """Keeps complete nodes that proofs were made of; the least used go first."""

    def __init__(self, max_nodes: int = MAX_CACHED_NODES) -> None:
        self._max_nodes = max_nodes
        self._lock = threading.Lock()
        self._nodes: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def get(self, height: int, index: int) -> bytes | None:
        """Give a node's hash; None where it isn't kept."""
        with self._lock:
            node = self._nodes.get((height, index))
            if node is not None:
                self._nodes.move_to_end((height, index))
            return node

    def keep(self, height: int, index: int, node: bytes) -> None:
        """Keep a node's hash."""
        with self._lock:
            self._nodes[height, index] = node
            if len(self._nodes) > self._max_nodes:
                self._nodes.popitem(last=False)
