"""Send what waits in the outbox, oldest first, one request at a time, for as long as it takes.

Crash points: before the request nothing has happened; after it, before `settle`, the ledger has
the events and they are sent again, which it answers with the same receipts, as an event
is known by source and id for ever; `settle` is one transaction.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING

from ledger.client.answers import read_answer
from ledger.client.health import Trouble
from ledger.client.limits import MAX_BATCH_ENTRIES
from ledger.client.outbox import Settled
from ledger.errors import Malformed, TamperDetected, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ledger.client.answers import Answer, Verdict
    from ledger.client.archive import Archive
    from ledger.client.backoff import Backoff
    from ledger.client.exchange import Exchange
    from ledger.client.health import Reports
    from ledger.client.limits import Limits
    from ledger.client.outbox import Outbox, Waiting
    from ledger.client.receipts import Pinned
    from ledger.client.refusals import Refusals
    from ledger.core.checkpoint import Checkpoint

log = logging.getLogger("ledger.client")


class Sender:
    """The one that sends. Its thread ends with `stop`, or when an answer isn't to be trusted."""

    def __init__(
        self,
        outbox: Outbox,
        refusals: Refusals,
        archive: Archive,
        exchange: Exchange,
        *,
        pinned: Pinned,
        limits: Limits,
        backoff: Backoff,
        reports: Reports,
        settled: Callable[[], None],
        beat: Callable[[], float | None],
    ) -> None:
        self._outbox, self._refusals = outbox, refusals
        self._archive, self._exchange = archive, exchange
        self._pinned, self._limits, self._backoff, self._reports = pinned, limits, backoff, reports
        self._settled, self._beat = settled, beat
        self._most = limits.batch_events
        self._urgent = self._reached = 0
        self._awake = threading.Event()
        self._stopping = threading.Event()
        self._hurried = threading.Event()
        self.trouble: Trouble | None = None
        self.tampered: TamperDetected | None = None
        self.recorded = 0
        self._thread = threading.Thread(target=self._run, name="ledger-sender", daemon=True)

    @property
    def failures(self) -> int:
        """Requests that failed, in a row."""
        return self._backoff.failures

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def wake(self) -> None:
        """Say that something was stored."""
        self._awake.set()

    def hurry(self, number: int) -> None:
        """Send events up to a number without waiting for more."""
        self._urgent = max(self._urgent, number)
        self._hurried.set()
        self._awake.set()

    def stop(self, timeout_s: float) -> None:
        """End after the request that is under way, if it ends in time."""
        self._stopping.set()
        self.hurry(sys.maxsize)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    # -- the thread ------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set() and self.tampered is None:
            try:
                pause_s = self._step()
            except Unavailable as error:
                # The outbox can't be read or written; what was sent is sent again, and less of it.
                self._outbox.database.reserve.lend()
                self._outbox.database.fold()
                self._most = max(1, self._most // 2)
                pause_s = self._fail(Trouble(code="outbox", detail=str(error)))
            except Exception as error:  # noqa: BLE001 - a sender that died would lose events
                trouble = Trouble(code="fault", detail=f"a fault: {type(error).__name__}")
                pause_s = self._fail(trouble)
            if pause_s:
                self._stopping.wait(pause_s)

    def _step(self) -> float:
        """Send one request, if there is anything to send; give how long to pause then."""
        self._await_events()
        limits = self._limits
        batch = self._outbox.oldest(self._most, limits.batch_bytes, MAX_BATCH_ENTRIES)
        if not batch:
            # A commit that said it failed had not; what waits is counted anew.
            self._outbox.count()
            self._outbox.database.reserve.give_back()
        if not batch or self._stopping.is_set():
            return 0.0
        self._reached = batch[-1].number
        try:
            answer = self._exchange.post_events([each.body for each in batch])
        except Unauthenticated as error:
            return self._fail(Trouble(code="unauthenticated", detail=str(error)))
        except Unavailable as error:
            return self._fail(Trouble(code="unreachable", detail=str(error)))
        return self._take(answer, read_answer(answer, batch), batch)

    def _await_events(self) -> None:
        """Wait until something waits, then a moment for more of it."""
        while not self._outbox.waiting and not self._stopping.is_set():
            self._awake.wait(self._beat())
            self._awake.clear()
        self._hurried.clear()
        lonely = self._outbox.waiting < self._most and self._urgent <= self._reached
        if lonely and not self._backoff.failures:
            self._hurried.wait(self._limits.batch_age_s)
        if not self._backoff.failures:
            self._beat()

    def _take(self, answer: Answer, verdict: Verdict, batch: Sequence[Waiting]) -> float:
        try:
            checkpoint = self._check(verdict)
            self._settle(answer, verdict, checkpoint)
        except TamperDetected as error:
            return self._stop_for(error, answer)
        except Malformed as error:
            return self._fail(Trouble(code="garbage", detail=f"the receipts' {error}"))
        if verdict.fewer:
            self._most = max(1, len(batch) // 2)
        elif verdict.trouble is not None:
            return self._fail(verdict.trouble, verdict.retry_after_s)
        else:
            self._most = min(self._limits.batch_events, self._most * 2)
            self._backoff.succeeded()
            self._tell(None)
        return 0.0

    def _check(self, verdict: Verdict) -> Checkpoint | None:
        """Give the checkpoint, if keys are pinned; what none of them signed isn't acknowledged.

        Raises:
            Malformed: the checkpoint isn't one.
            TamperDetected: no pinned key vouches for the answer.
        """
        if not verdict.recorded or not self._pinned.verifiers:
            return None
        if verdict.note is None:
            # Anybody can say that a signature is still to come. Asking again is always safe.
            verdict.recorded = []
            verdict.trouble = verdict.trouble or Trouble(
                code="unsigned", detail="the signed checkpoint of the receipts is still to come"
            )
            return None
        receipts = [receipt for _, receipt in verdict.recorded]
        return self._pinned.check(verdict.note, receipts, self._archive.newest)

    def _settle(self, answer: Answer, verdict: Verdict, checkpoint: Checkpoint | None) -> None:
        if not verdict.recorded and not verdict.refused:
            return
        settled = Settled(
            recorded=verdict.recorded,
            refused=verdict.refused,
            line=b"".join(answer.body.splitlines()) if verdict.recorded else None,
            checkpoint=None if checkpoint is None else verdict.note,
        )
        with self._outbox.database.transaction() as connection:
            self._outbox.take_out(connection, settled)
            self._archive.keep(connection, settled)
        self._outbox.database.reserve.give_back()
        newest = self._archive.newest
        if checkpoint is not None and (newest is None or checkpoint.size > newest.size):
            self._archive.newest = checkpoint
        self._outbox.count()
        self.recorded += len(verdict.recorded)
        for each, _, _ in verdict.refused:
            self._report_refused(each.number)
        self._settled()

    # -- telling ---------------------------------------------------------------

    def _report_refused(self, number: int) -> None:
        refused = self._refusals.find(number)
        if refused is None:
            return
        log.warning("event %d was refused with HTTP %d and set aside", number, refused.status)
        if self._reports.refused is not None:
            try:
                self._reports.refused(refused)
            except Exception as error:  # noqa: BLE001 - the callback's own business
                log.warning("the callback for refused events failed: %s", type(error).__name__)

    def _fail(self, trouble: Trouble, retry_after_s: float | None = None) -> float:
        self._tell(trouble)
        pause_s = self._backoff.failed(retry_after_s)
        self._settled()
        return pause_s

    def _stop_for(self, error: TamperDetected, answer: Answer) -> float:
        """Keep the answer as evidence and send nothing more: who answers isn't the ledger.

        Events hold personal values; they wait in the outbox until people have decided.
        """
        try:
            self._archive.keep_evidence(str(error), answer.body)
        finally:
            self.tampered = error
            self._tell(Trouble(code="tampered", detail=str(error)))
            self._settled()
        return 0.0

    def _tell(self, trouble: Trouble | None) -> None:
        changed = trouble is not None and (
            self.trouble is None or self.trouble.code != trouble.code
        )
        self.trouble = trouble
        if trouble is None or not changed:
            return
        log.warning("sending is held up: %s: %s", trouble.code, trouble.detail)
        if self._reports.trouble is not None:
            try:
                self._reports.trouble(trouble)
            except Exception as error:  # noqa: BLE001 - the callback's own business
                log.warning("the callback for troubles failed: %s", type(error).__name__)
