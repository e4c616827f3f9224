"""The client for programs that block, and what it shares with the other one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ledger.client.composing import build
from ledger.client.core import Core, Setting
from ledger.client.health import Reports
from ledger.client.limits import Limits
from ledger.client.reconciling import Reconciliation, reconcile
from ledger.errors import Misconfigured

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from ledger.client.health import Health, SetAside, Trouble
    from ledger.client.ticket import Ticket


class Opened:
    """An open client; `Client` and `AsyncClient` add how to emit and to wait.

    One client belongs to one process and one outbox; threads and tasks may share it.
    """

    def __init__(
        self,
        url: str,
        ledger: str,
        key: str | None = None,
        *,
        source: str,
        key_file: str | Path | None = None,
        instance: str | None = None,
        outbox: str | Path | None = None,
        verifier_key: str | Sequence[str] = (),
        limits: Limits | None = None,
        on_refused: Callable[[SetAside], object] | None = None,
        on_trouble: Callable[[Trouble], object] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Open the outbox and begin to send what waits in it.

        Args:
            url: the service's address, such as https://ledger.example.
            ledger: name of the ledger.
            key: an emitter's key; or `key_file`, which is read anew for every request.
            source: which service this is; sequences are counted for each source.
            key_file: file with the key, alone or as a header.
            instance: name under which this outbox numbers; without it one is drawn and kept.
            outbox: file that holds events until the ledger has acknowledged them, on a local
                disk. Without it they are in memory only, and a crash loses them.
            verifier_key: the ledger's, from elsewhere than the ledger; several during a change
                of keys. Without it receipts are kept, and not checked.
            limits: bounds of memory, disk and time.
            on_refused: told of each event that the ledger refused for itself.
            on_trouble: told when storing or sending is held up.
            tls: which authorities to trust for https.

        Raises:
            Misconfigured: the settings make no sense, or another process has the outbox.
            Malformed, CannotVerify: a verifier key can't be used.
            Unavailable: the outbox can't be opened.
        """
        if (key is None) == (key_file is None):
            raise Misconfigured("expected key or key_file, and one of them only")
        self.core = Core(
            Setting(
                url=url,
                ledger=ledger,
                key=key if key is not None else Path(key_file or ""),
                source=source,
                instance=instance,
                outbox=None if outbox is None else Path(outbox),
                verifier_keys=(verifier_key,) if isinstance(verifier_key, str) else verifier_key,
                limits=limits or Limits(),
                reports=Reports(refused=on_refused, trouble=on_trouble),
                tls=tls,
            )
        )

    @property
    def instance(self) -> str:
        """The name under which this outbox numbers its events."""
        return self.core.engine.database.instance

    def health(self) -> Health:
        """Tell how storing and sending stand."""
        return self.core.health()

    def refused(self) -> list[SetAside]:
        """Give the events that the ledger refused for themselves; they wait for people."""
        return self.core.engine.refusals.all()

    def resubmit(self, number: int, event: Mapping[str, Any] | None = None) -> None:
        """Send a refused event again, corrected or as it was; it keeps its sequence.

        Raises:
            NotFound: no refused event has this number.
            Malformed: the corrected event can't be written as JSON.
        """
        self.core.put_back(number, event)

    def discard(self, number: int) -> None:
        """Delete a refused event for good. Its sequence stays a gap that the ledger shows.

        Raises:
            NotFound: no refused event has this number.
        """
        self.core.engine.refusals.discard(number)

    def export_receipts(self, path: str | Path) -> int:
        """Write the kept answers to a file, one a line, for `custody verify --receipts`.

        Returns:
            How many lines there are.
        """
        return self.core.engine.archive.export(Path(path))

    def evidence(self) -> list[tuple[str, bytes]]:
        """Give the answers that the pinned key didn't vouch for, each with the reason."""
        return self.core.engine.archive.evidence()


class Client(Opened):
    """Emits events from programs that block, without making them wait for the ledger."""

    def emit(
        self,
        event_type: str,
        subject: str | None = None,
        *,
        actor: str | None = None,
        fields: Sequence[str] | None = None,
        subjects: Sequence[str] | None = None,
        event_id: str | None = None,
        time: str | datetime | None = None,
        durable: bool = False,
        **members: Any,
    ) -> Ticket:
        """Emit an event; `members` stand in its `data`.

        With `durable` it returns once the event is stored; without, before: the ticket tells.

        Raises:
            Malformed, TooLarge: it can't be an event.
            Unavailable: there was no room in time, or with `durable` it isn't stored yet.
        """
        event = build(
            event_type,
            subject,
            actor=actor,
            fields=fields,
            subjects=subjects,
            event_id=event_id,
            time=time,
            **members,
        )
        return self.emit_event(event, durable=durable)

    def emit_event(self, event: Mapping[str, Any], *, durable: bool = False) -> Ticket:
        """Emit an event as a document; `id`, `source`, `time` and its number are added.

        Raises:
            Malformed, TooLarge, Unavailable: as `emit`.
        """
        wait_s = self.core.limits.emit_timeout_s
        ticket = self.core.emit(event, wait_s)
        if durable:
            ticket.wait_stored(wait_s)
        return ticket

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until all that was emitted so far is recorded or refused.

        Raises:
            Unavailable: not in time; the events stay where they are.
            TamperDetected: an answer wasn't vouched for, so that sending has stopped.
        """
        self.core.flush(timeout_s)

    def reconcile(
        self, key: str | None = None, *, key_file: str | Path | None = None
    ) -> Reconciliation:
        """Ask the ledger, with a reader's key, for every entry that the kept receipts name.

        Raises:
            Misconfigured: not exactly one of `key` and `key_file` is given.
            CannotVerify: the ledger doesn't let this key read, or can't answer now.
        """
        return reconcile(self.core, _one_key(key, key_file))

    def close(self, timeout_s: float = 5.0) -> None:
        """Store what was emitted, send what can be sent in time, and end.

        Raises:
            Unavailable: events could not be kept and are lost.
        """
        self.core.close(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _one_key(key: str | None, key_file: str | Path | None) -> str | Path:
    if key is not None and key_file is None:
        return key
    if key_file is not None and key is None:
        return Path(key_file)
    raise Misconfigured("expected key or key_file, and one of them only")
