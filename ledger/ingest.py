"""Take requests of events in: all or none of each, or each event on its own.

A request is checked as a whole before anything of it is handed to the writer; checking
a large one is done beside the event loop, which has others to serve.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from ledger.admission import admit
from ledger.bodies import Bounds, Form, split
from ledger.errors import LedgerError, Refused, Unavailable
from ledger.receipts import write_receipt
from ledger.submission import Recorded, Submission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.drafts import Draft, Emitter
    from ledger.events.custom import CustomTypes
    from ledger.recorder import LedgerRecorder
    from ledger.sequencing import Placed

SMALL_BODY_BYTES = 65_536
"""Bytes past which a body is looked at beside the event loop."""
TURN = 500
"""Events that are handed to the writer before others get their turn of the event loop."""

_CLOUD = frozenset({Form.EVENT, Form.BATCH})


class Taken(NamedTuple):
    """An event that stands in the log."""

    drafts: Sequence[Draft]
    """What was sent."""
    placed: Sequence[Placed]
    """Where its entries stand."""


class Results(NamedTuple):
    """What became of each event of a request."""

    items: list[Taken | LedgerError]
    """In the order sent: where it stands, or why it doesn't."""
    checkpoint: str | None
    """Signed checkpoint that covers all that stands; None where it is still to come."""


class Intake:
    """Takes the requests of one ledger."""

    def __init__(
        self, recorder: LedgerRecorder, *, name: str, origin: str, custom: CustomTypes
    ) -> None:
        self._recorder = recorder
        self._pending = f"/v1/ledgers/{name}/checkpoint"
        self._origin = origin.encode()
        self._custom = custom

    # -- all or none -----------------------------------------------------------

    async def record_all(self, body: bytes, emitter: Emitter, form: Form) -> tuple[int, bytes]:
        """Record a request's events; give the HTTP status and the receipt as JSON.

        201 where an entry was made, 200 where every event was recorded before. Nothing
        is answered before the entries are durable; nothing is recorded if one event
        is refused.

        Raises:
            Refused: as `admit` says; Conflict where an id was used for another event.
            Unavailable: it could not be recorded; repeating it is safe.
        """
        if len(body) > SMALL_BODY_BYTES:
            many, events = await asyncio.to_thread(self.admit_body, body, emitter, form)
        else:
            many, events = self.admit_body(body, emitter, form)
        if not events:
            return 200, b'{"receipts":[],"checkpoint":null}'
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Recorded] = loop.create_future()
        first = 0 if many else None
        self._recorder.submit(Submission(events=events, first=first, future=future, loop=loop))
        recorded = await future
        return write_receipt(events, recorded, many=many, pending=self._pending)

    def admit_body(
        self, body: bytes, emitter: Emitter, form: Form = Form.JSON
    ) -> tuple[bool, list[list[Draft]]]:
        """Check a request's body: whether it can hold many events, and the drafts of each.

        Raises:
            Refused: the first reason found, with its place.
        """
        many, raw_events = split(body, form)
        bounds, cloud = Bounds(), form in _CLOUD
        events = []
        for index, raw in enumerate(raw_events):
            drafts = self._admit(raw, emitter, f"/{index}" if many else "", cloud=cloud)
            bounds.add(index, drafts)
            events.append(drafts)
        return many, events

    def _admit(self, raw: bytes, emitter: Emitter, pointer: str, *, cloud: bool) -> list[Draft]:
        return admit(
            raw,
            emitter,
            origin=self._origin,
            pointer=pointer,
            custom=self._custom,
            cloud=cloud,
        )

    # -- each on its own -------------------------------------------------------

    async def record_each(self, body: bytes, emitter: Emitter, form: Form) -> Results:
        """Record what can be recorded of a request's events, each on its own.

        Each is handed to the writer in the order sent, and none waits for another to be
        mended.

        Raises:
            Refused: the body can't be told apart into events, or has too many.
            Unavailable: nothing of it could be recorded; repeating it is safe.
        """
        if len(body) > SMALL_BODY_BYTES:
            many, admitted = await asyncio.to_thread(self.admit_each, body, emitter, form)
        else:
            many, admitted = self.admit_each(body, emitter, form)
        items: list[Taken | LedgerError] = []
        notes: list[str | None] = []
        for waiting in await self._submit_each(admitted, many=many):
            outcome = await _outcome(waiting)
            if isinstance(outcome, LedgerError):
                items.append(outcome)
            else:
                taken, note = outcome
                items.append(taken)
                notes.append(note)
        _check_any(items)
        return Results(items, _newest(items, notes))

    def admit_each(
        self, body: bytes, emitter: Emitter, form: Form
    ) -> tuple[bool, list[list[Draft] | LedgerError]]:
        """Check a request's events; give each one's drafts, or why it is refused.

        What comes first is whether the body can hold many.

        Raises:
            Refused: the body can't be told apart into events, or has too many.
        """
        many, raw_events = split(body, form)
        bounds, cloud = Bounds(), form in _CLOUD
        admitted: list[list[Draft] | LedgerError] = []
        for index, raw in enumerate(raw_events):
            try:
                drafts = self._admit(raw, emitter, f"/{index}" if many else "", cloud=cloud)
                bounds.add(index, drafts)
            except Refused as error:
                admitted.append(error.with_traceback(None))  # which would keep much alive
            else:
                admitted.append(drafts)
        return many, admitted

    async def _submit_each(
        self, admitted: Sequence[list[Draft] | LedgerError], *, many: bool
    ) -> list[_Waiting]:
        """Hand events to the writer; give what each is to wait for."""
        waiting: list[_Waiting] = []
        for index, drafts in enumerate(admitted):
            if index % TURN == TURN - 1:
                await asyncio.sleep(0)
            if isinstance(drafts, LedgerError):
                waiting.append(drafts)
            else:
                waiting.append(self._submit_one(drafts, index if many else None))
        return waiting

    def _submit_one(self, drafts: list[Draft], index: int | None) -> _Waiting:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Recorded] = loop.create_future()
        try:
            events = [drafts]
            self._recorder.submit(Submission(events=events, first=index, future=future, loop=loop))
        except Unavailable as error:
            return error
        return drafts, future


if TYPE_CHECKING:
    _Waiting = tuple[list[Draft], asyncio.Future[Recorded]] | LedgerError


async def _outcome(waiting: _Waiting) -> tuple[Taken, str | None] | LedgerError:
    if isinstance(waiting, LedgerError):
        return waiting
    drafts, future = waiting
    try:
        recorded = await future
    except LedgerError as error:
        return error
    return Taken(drafts, recorded.events[0]), recorded.checkpoint


def _check_any(items: Sequence[Taken | LedgerError]) -> None:
    """Refuse a request as a whole where the ledger can't record now, and nothing of it stands."""
    if any(isinstance(item, Taken) for item in items):
        return
    for item in items:
        if isinstance(item, Unavailable):
            raise item


def _newest(items: Sequence[Taken | LedgerError], notes: Sequence[str | None]) -> str | None:
    """Give the checkpoint that covers all that stands, if one does (FORMAT.md 5.1)."""
    seqs = [placed.seq for item in items if isinstance(item, Taken) for placed in item.placed]
    sizes = {int(note.split("\n", 2)[1]): note for note in notes if note is not None}
    newest = max(sizes, default=0)
    return sizes[newest] if seqs and newest >= max(seqs) else None
