"""Put the client's parts together: one core, which both clients, middleware and decorator use."""

from __future__ import annotations

import atexit
import random
import re
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ledger.client.backoff import Backoff
from ledger.client.composing import compose
from ledger.client.engine import Engine
from ledger.client.exchange import Exchange
from ledger.client.health import Health, Place, Reports, SetAside
from ledger.client.heartbeat import Heartbeat
from ledger.client.limits import RECEIPTS_WITHOUT_FILE, Limits
from ledger.client.receipts import Pinned
from ledger.client.sender import Sender
from ledger.client.ticket import Ticket
from ledger.errors import LedgerError, Misconfigured, Unavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_INSTANCE = re.compile(r"(?!.*[0-9]{8})[A-Za-z][A-Za-z0-9_.-]{0,63}")
_SOURCE = re.compile(r"(?!.*[0-9]{8})[A-Za-z0-9._:/#-]{1,128}")
_LEDGER = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_MEMORY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a client is set up.

    Raises:
        Misconfigured: a name can't be one.
    """

    url: str
    """The service's address, such as https://ledger.example."""
    ledger: str
    """Name of the ledger."""
    key: str | Path
    """An emitter's key, or the file that holds it, which is read for every request."""
    source: str
    """Which service this is. Sequences are counted for each source, so it must be said."""
    instance: str | None = None
    """Name under which this outbox numbers; None: one drawn when the outbox is made."""
    outbox: Path | None = None
    """File of the outbox, on a local disk; None: memory only, and a crash loses events."""
    verifier_keys: Sequence[str] = ()
    """Keys one of which must have signed each receipt's checkpoint; none: not checked."""
    limits: Limits
    """Bounds of memory, disk and time."""
    reports: Reports
    """Whom to tell of refused events and of troubles."""
    tls: ssl.SSLContext | None = None
    """Which authorities to trust for https; None: the usual ones."""

    def __post_init__(self) -> None:
        if not _LEDGER.fullmatch(self.ledger):
            raise Misconfigured("ledger: expected a name of a-z 0-9 _ -")
        if not _SOURCE.fullmatch(self.source):
            raise Misconfigured(
                "source: expected 1 to 128 of A-Z a-z 0-9 . _ : / # - without 8 digits in a row"
            )
        if self.instance is not None and not _INSTANCE.fullmatch(self.instance):
            raise Misconfigured(
                "instance: expected a letter, then up to 63 of A-Z a-z 0-9 _ . - "
                "without 8 digits in a row"
            )


class Core:
    """An open client without its manners: what is sync and what is async comes on top."""

    def __init__(self, setting: Setting) -> None:
        """Open the outbox and begin to send what waits in it.

        Raises:
            Misconfigured: the setting makes no sense, or the outbox is somebody else's.
            Malformed, CannotVerify: a verifier key can't be used.
            Unavailable: the outbox can't be opened.
        """
        self.source = setting.source
        limits = self.limits = _fit(setting)
        pinned = Pinned(setting.verifier_keys)
        self._exchange = Exchange(
            setting.url,
            setting.ledger,
            setting.key,
            timeout_s=limits.request_timeout_s,
            tls=setting.tls,
        )
        self.setting, self.pinned = setting, pinned
        try:
            self.engine = Engine(
                Place(ledger=setting.ledger, instance=setting.instance, path=setting.outbox), limits
            )
        except BaseException:
            self._exchange.close()
            raise
        self._heartbeat = Heartbeat(self.engine, setting.source, limits.report_every_s)
        self._told = setting.reports.refused
        self.sender = Sender(
            self.engine.outbox,
            self.engine.refusals,
            self.engine.archive,
            self._exchange,
            pinned=pinned,
            limits=limits,
            backoff=Backoff(limits.retry_first_s, limits.retry_most_s, random.random),
            reports=replace(setting.reports, refused=self._refused),
            settled=self.engine.settled,
            beat=self._heartbeat,
        )
        self.engine.start(self.sender.wake)
        self.sender.start()
        _open.add(self)

    def emit(self, event: Mapping[str, Any], wait_s: float) -> Ticket:
        """Hand an event over; waits so long for room in memory.

        Raises:
            Malformed, TooLarge: it can't be an event.
            Unavailable: there was no room. The event isn't taken.
        """
        composed = compose(event, self.source)
        return Ticket(self, self.engine.offer(composed, wait_s), composed.id)

    def flush(self, timeout_s: float | None, *, patient: bool = True) -> None:
        """Wait until all that was emitted so far is recorded or refused.

        Without patience it gives up when a request fails.

        Raises:
            Unavailable: not in time; the events stay where they are.
            TamperDetected: sending has stopped.
        """
        engine, last = self.engine, self.engine.number
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.sender.hurry(last)
        while True:
            seen = engine.generation
            # In this order: an event that is stored meanwhile is counted twice, not never.
            rest = max(0, last - engine.stored) + engine.outbox.waiting_up_to(last)
            if not rest:
                return
            if self.sender.tampered is not None:
                raise self.sender.tampered
            given_up = engine.closed or (self.sender.failures > 0 and not patient)
            if given_up or not engine.wait_change(seen, deadline):
                trouble = engine.trouble or self.sender.trouble
                reason = "" if trouble is None else f": {trouble.detail}"
                raise Unavailable(f"{rest} events are not acknowledged yet{reason}")

    def close(self, timeout_s: float) -> None:
        """Store what was emitted, send what can be sent in time, and end.

        Raises:
            Unavailable: events could not be stored, or without a file not be sent: they are lost.
        """
        if self.engine.forked or self.engine.closed:
            return
        _open.discard(self)
        deadline = time.monotonic() + timeout_s
        with suppress(LedgerError):
            self.flush(timeout_s, patient=not self.engine.durable)
        lost = self.engine.finish(max(0.1, deadline - time.monotonic()))
        self.sender.stop(max(0.1, deadline - time.monotonic()))
        if not self.engine.durable:
            lost += self.engine.outbox.waiting
        self._exchange.close()
        self.engine.database.close()
        if lost:
            raise Unavailable(f"{lost} events could not be kept and are lost")

    def health(self) -> Health:
        """Tell how it stands.

        Raises:
            Unavailable: the outbox can't be read, or the client is closed.
        """
        engine, sender = self.engine, self.sender
        oldest = engine.outbox.oldest_time()
        return Health(
            ok=engine.trouble is None and sender.trouble is None,
            buffered=engine.buffered,
            waiting=engine.outbox.waiting,
            waiting_bytes=engine.outbox.waiting_bytes + engine.outbox.refused_bytes,
            oldest_waiting_s=None if oldest is None else max(0.0, time.time() - oldest),
            refused=engine.outbox.refused,
            recorded=sender.recorded,
            failures=sender.failures,
            sending=sender.trouble,
            storing=engine.trouble,
        )

    def put_back(self, number: int, event: Mapping[str, Any] | None) -> None:
        """Let a refused event be sent again, corrected or as it was."""
        composed = None if event is None else compose(event, self.source)
        self.engine.refusals.put_back(number, composed)
        self.sender.wake()

    def _refused(self, refused: SetAside) -> None:
        self._heartbeat.refused(refused.id)
        if self._told is not None:
            self._told(refused)


def _fit(setting: Setting) -> Limits:
    """Without a file everything is in memory, so that the bounds are memory's."""
    limits = setting.limits
    if setting.outbox is not None:
        return limits
    kept = min(limits.receipts_kept or RECEIPTS_WITHOUT_FILE, RECEIPTS_WITHOUT_FILE)
    outbox_bytes = min(limits.outbox_bytes, _MEMORY_BYTES)
    return replace(limits, receipts_kept=kept, outbox_bytes=outbox_bytes)


def _close_all() -> None:
    """Store what is in memory when the interpreter ends in order."""
    for core in list(_open):
        with suppress(LedgerError):
            core.close(5.0)


_open: weakref.WeakSet[Core] = weakref.WeakSet()
atexit.register(_close_all)
