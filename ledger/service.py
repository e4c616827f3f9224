"""One open ledger: takes events in, answers with receipts, reads entries back."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

from eventsourcing.postgres import PostgresDatastore
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from ledger.admission import admit
from ledger.anchors.anchoring import Anchoring
from ledger.anchors.settings import make_sinks, read_quorum
from ledger.anchors.sink import Target
from ledger.anchors.store import AnchorStore
from ledger.bodies import Form
from ledger.core.entry import FORMAT_VERSION, ledger_stream
from ledger.core.merkle import prove_inclusion
from ledger.core.note import sign_note
from ledger.drafts import Emitter
from ledger.errors import LedgerError, Misconfigured, Unavailable
from ledger.events.custom import UNREGISTERED, CustomTypes
from ledger.events.taxonomy import Writer
from ledger.identities import IdentityRow, KeyRow, Wrapping, record_name, staff_name
from ledger.ingest import Intake, Results
from ledger.keys.keyring import load_keyring
from ledger.notary import Notary
from ledger.proofs import PublishedTree
from ledger.recorder import LedgerRecorder
from ledger.signing import CheckpointSigner, SignerMemory
from ledger.submission import Recorded, Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ledger.config import Settings
    from ledger.control import LedgerRow
    from ledger.drafts import Draft
    from ledger.identities import Name
    from ledger.recorder import Settle
    from ledger.sequencing import Placed
    from ledger.signing import Signed

MAX_PAGE = 1_000
"""Most rows of one page."""

_NO_NEWS = ("ledger.ledger.anchored.v1", "ledger.ledger.verified.v1")
_OPERATED = "ledger.ledger.operated.v1"
_OF_ANCHORS = b'"operation":"anchor_'


class EntryRow(NamedTuple):
    """An entry as it is kept, with its hash."""

    seq: int
    leaf: bytes
    entry: bytes


class Ledger:
    """The write side of one ledger, and direct reading of its entries."""

    def __init__(
        self,
        row: LedgerRow,
        settings: Settings,
        dsn: str,
        *,
        on_group: Callable[[int, float], None] = lambda _size, _seconds: None,
        custom: CustomTypes = UNREGISTERED,
    ) -> None:
        # `start` makes it record
        self.name = row.name
        self.origin = row.origin
        self.schema = row.schema
        self.keyring = load_keyring(settings.keys_dir / f"{row.name}.json")
        if self.keyring.origin != row.origin:
            raise Misconfigured(
                f"key file of {row.name}: expected origin {row.origin}, found {self.keyring.origin}"
            )
        self._memory = SignerMemory(settings.memory_dir / f"{row.name}.memory")
        self._datastore = open_datastore(dsn, row.schema)
        self.signer = self.keyring.signer()
        self.recorder = LedgerRecorder(
            self._datastore, keyring=self.keyring, notary=self._notarise, on_group=on_group
        )
        signer = CheckpointSigner(self.keyring, self._memory)
        self.notary = Notary(self.recorder, signer, self.signer.verifier)
        self.tree = PublishedTree(self.recorder.sql, self._read, self.checkpoint)
        self.anchors = AnchorStore(row.schema, self._read)
        target = Target(row.name, row.origin, self.signer.verifier, self.anchors.read_tree)
        self.anchoring = Anchoring(
            self,
            make_sinks(settings, target),
            interval_s=settings.anchor_interval_s,
            evidence_dir=settings.evidence_dir,
            quorum=read_quorum(settings),
        )
        self._wrapping = Wrapping(self.keyring)
        self._intake = Intake(self.recorder, name=row.name, origin=row.origin, custom=custom)
        self._own = Emitter(
            credential="",
            by=Writer.LEDGER,
            sources=("custody",),
            namespaces=("*",),
            types=frozenset(),
        )

    def _notarise(self, size: int, root: bytes, settle: Settle) -> None:
        self.notary.notarise(size, root, settle)

    def start(self) -> None:
        """Begin to record; a new ledger's first entry says that it was opened."""
        self.anchoring.heed_split_views()
        self.notary.start()
        head = self.recorder.head
        if self.recorder.stopped is None and head is not None and head.seq == 0:
            data = {
                "origin": self.origin,
                "keys": [self.keyring.verifier_key()],
                "format": FORMAT_VERSION,
            }
            # The same id from every process that starts at once: the second only repeats it.
            self.append_own("ledger.opened", data, event_id="opened")
        self.anchoring.start()

    def close(self) -> None:
        """Record what was handed in, store the newest checkpoint, let go."""
        self.anchoring.close()
        self.recorder.close()
        self.notary.close()
        self.recorder.disconnect()  # the notary may have used it once more
        self._memory.close()
        self._datastore.close()

    # -- taking events in ------------------------------------------------------

    async def ingest(
        self, body: bytes, emitter: Emitter, form: Form = Form.JSON
    ) -> tuple[int, bytes]:
        """Record a request's events, all or none; as `Intake.record_all`."""
        return await self._intake.record_all(body, emitter, form)

    async def ingest_each(self, body: bytes, emitter: Emitter, form: Form = Form.JSON) -> Results:
        """Record a request's events, each on its own; as `Intake.record_each`."""
        return await self._intake.record_each(body, emitter, form)

    def admit_body(self, body: bytes, emitter: Emitter) -> tuple[bool, list[list[Draft]]]:
        """Check a request's body; as `Intake.admit_body`."""
        return self._intake.admit_body(body, emitter)

    def append_own(
        self,
        type_name: str,
        data: dict[str, Any],
        *,
        subject: str | None = None,
        event_id: str | None = None,
    ) -> Placed:
        """Record an event of the ledger itself and wait for it.

        Raises:
            Unavailable: it could not be recorded.
        """
        event: dict[str, Any] = {"id": event_id or str(uuid4()), "type": type_name}
        if subject is not None:
            event["subject"] = subject
        event["data"] = data
        raw = json.dumps(event, ensure_ascii=False).encode()
        drafts = admit(raw, self._own, origin=self.origin.encode())
        future: Future[Recorded] = Future()
        self.recorder.submit(Submission(events=[drafts], future=future))
        return future.result(timeout=60).events[0][0]

    # -- reading ---------------------------------------------------------------

    def find_record(self, subject: str) -> UUID | None:
        """Give the UUID of a subject's record; None for a subject never met."""
        return self._find(record_name(subject))

    def find_staff(self, name: str) -> UUID | None:
        """Give the pseudonym of a member of staff; None for one never met."""
        return self._find(staff_name(name))

    def _find(self, name: Name) -> UUID | None:
        lookup = self._wrapping.lookup(name)
        query = self.recorder.sql(
            "SELECT lookup, epoch, wrapped FROM {identities} WHERE lookup = %s"
        )
        rows = self._read(query, (lookup,))
        return self._wrapping.open_identity(IdentityRow(*rows[0])) if rows else None

    def staff_names(self, pseudonyms: Sequence[UUID]) -> dict[UUID, str]:
        """Open the names behind pseudonyms that still have one."""
        query = self.recorder.sql(
            "SELECT id, epoch, wrapped, name_box FROM {keys} WHERE id = ANY(%s)"
        )
        rows = [KeyRow(*row) for row in self._read(query, (list(pseudonyms),))]
        names = {row.id: self._wrapping.open_name(row) for row in rows}
        return {pseudonym: name for pseudonym, name in names.items() if name is not None}

    def entries(self, first: int, last: int, limit: int) -> list[EntryRow]:
        """Give entries `first` to `last` by position, at most `limit`."""
        query = self.recorder.sql(
            "SELECT seq, leaf, entry FROM {entries} WHERE seq >= %s AND seq <= %s"
            " ORDER BY seq LIMIT %s"
        )
        return [EntryRow(*row) for row in self._read(query, (first, last, limit))]

    def stream_entries(self, stream: UUID, after_version: int, limit: int) -> list[EntryRow]:
        """Give a stream's entries after a version, at most `limit`."""
        query = self.recorder.sql(
            "SELECT seq, leaf, entry FROM {entries} WHERE stream = %s AND version > %s"
            " ORDER BY version LIMIT %s"
        )
        return [EntryRow(*row) for row in self._read(query, (stream, after_version, limit))]

    def checkpoint(self) -> tuple[int, str]:
        """Give size and note of the newest signed checkpoint.

        Raises:
            Unavailable: none was signed yet.
        """
        newest = self.notary.newest
        if newest is None:
            raise Unavailable("no checkpoint was signed yet")
        return newest

    def recall_signed(self) -> Signed | None:
        """Give what was signed last, by the memory outside the database."""
        self._memory.reload()
        return self._memory.last

    def has_news(self, since: int) -> bool:
        """Tell whether something after entry `since` makes a checkpoint worth anchoring.

        What tells of anchoring or verifying never does: it would go on for ever.
        """
        query = self.recorder.sql(
            "SELECT 1 FROM {entries} WHERE seq > %s AND topic <> ALL(%s)"
            " AND NOT (topic = %s AND position(%s::bytea IN entry) > 0) LIMIT 1"
        )
        return bool(self._read(query, (since, list(_NO_NEWS), _OPERATED, _OF_ANCHORS)))

    def newest_operated(self, mark: bytes) -> bytes | None:
        """Give the newest `ledger.operated` entry that holds some bytes; None if there is none."""
        query = self.recorder.sql(
            "SELECT entry FROM {entries} WHERE stream = %s AND position(%s::bytea IN entry) > 0"
            " ORDER BY version DESC LIMIT 1"
        )
        rows = self._read(query, (ledger_stream(self.origin, _OPERATED), mark))
        return rows[0][0] if rows else None

    def inclusion_proof(self, seq: int, size: int) -> list[bytes]:
        """Give the hashes from an entry to the root of a tree of `size` (RFC 9162 2.1.3)."""
        return prove_inclusion(seq - 1, size, self.recorder.read_tree)

    def attest(self, manifest: bytes) -> str:
        """Sign that a bundle's manifest is this ledger's; give the note (FORMAT.md 7).

        The text says in its first line what it is, so the note is never a checkpoint:
        the first line of those is the origin, which has no spaces.
        """
        digest = hashlib.sha256(manifest).hexdigest()
        text = f"custody-ledger manifest v0\n{self.origin}\n{digest}\n"
        return sign_note(text, [self.signer])

    def _read(self, query: Any, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            with self._datastore.get_connection() as connection:
                cursor = connection.cursor(row_factory=tuple_row, binary=True)
                return cursor.execute(query, params, prepare=True).fetchall()
        except Exception as error:
            if isinstance(error, LedgerError):
                raise
            raise Unavailable("the database can't be reached") from error


def open_datastore(dsn: str, schema: str, *, pool_size: int = 4) -> PostgresDatastore:
    """Give the library's datastore for a schema, however the DSN is written."""
    params = conninfo_to_dict(dsn)
    datastore = PostgresDatastore(
        dbname=str(params.pop("dbname", "postgres")),
        host=str(params.pop("host", "")),
        port=str(params.pop("port", "5432")),
        user=str(params.pop("user", "")),
        password=str(params.pop("password", "")),
        schema=schema,
        pool_size=1,
        max_overflow=pool_size - 1,
        pre_ping=True,
    )
    if isinstance(datastore.pool.kwargs, dict):
        datastore.pool.kwargs.update(params)
    return datastore
