"""Read an entry's bytes into what views fold (FORMAT.md section 1)."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import UUID

import msgspec

from ledger.errors import TamperDetected

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eventsourcing.persistence import Notification

StreamKind = Literal["record", "ledger", "aggregate"]


class _Emitter(msgspec.Struct, gc=False):
    by: str
    credential: str | None = None
    source: str | None = None


class _Event(msgspec.Struct, gc=False):
    # An aggregate's event has none of these.
    id: str = ""
    type: str = ""
    source: str | None = None
    time: str | None = None
    part: int = 0
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _Entry(msgspec.Struct, gc=False):
    seq: int
    recorded: str
    stream: UUID
    stream_kind: StreamKind
    version: int
    emitter: _Emitter
    sealed: dict[str, str]
    event: _Event


class RecordedEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One entry, read: what an emitter said, and where and when it was recorded."""

    seq: int
    """Position in the log."""
    leaf: bytes
    """Leaf hash of the entry, 32 bytes (FORMAT.md 3.1)."""
    recorded: datetime
    """When it was sequenced, UTC."""
    stream: UUID
    """The stream; a record's UUID where `stream_kind` is `record`."""
    stream_kind: StreamKind
    """Whether it is about a record, about no record, or an aggregate's own."""
    version: int
    """Place in the stream."""
    by: str
    """Who handed it in: `service`, `person` or `ledger`."""
    credential: str | None
    """Public identifier of the credential; None for the ledger itself."""
    type: str
    """Short name of a v1 type, such as `record.accessed`; any other name as it stands."""
    event_id: str
    """The emitter's id of the event; empty for aggregates."""
    source: str
    """Effective source (FORMAT.md 1.4); empty for aggregates."""
    part: int
    """Index of this entry's subject among those the event named."""
    time: datetime
    """When it happened by the emitter's clock, UTC; else `recorded`."""
    time_given: bool
    """Whether the emitter said when it happened."""
    source_given: bool
    """Whether the emitter named its source."""
    sealed: frozenset[str]
    """Names of what is sealed (FORMAT.md 4.1)."""
    data: dict[str, Any]
    """The event's clear members, decoded; empty for aggregates."""

    @property
    def took_place(self) -> bool:
        """Whether what the event names was done, not only tried (`outcome`)."""
        return bool(self.data.get("outcome", "success") == "success")

    @property
    def backfill(self) -> bool:
        """Whether this is history imported later."""
        return self.data.get("backfill") is True


_entry = msgspec.json.Decoder(_Entry).decode
# A number like 1e999 is strict JSON; the hook keeps it from failing the whole entry.
_data = msgspec.json.Decoder(dict[str, Any], float_hook=float).decode
_NOTHING_SEALED: frozenset[str] = frozenset()


def read_entry(entry: bytes) -> RecordedEvent:
    """Read one entry; types and members that nobody knows are kept as they are.

    Raises:
        TamperDetected: the bytes are not an entry as the ledger writes them.
    """
    try:
        parsed = _entry(entry)
        event = parsed.event
        recorded = _utc(parsed.recorded)
        aggregate = parsed.stream_kind == "aggregate"
        return RecordedEvent(
            seq=parsed.seq,
            leaf=sha256(b"\0" + entry).digest(),
            recorded=recorded,
            stream=parsed.stream,
            stream_kind=parsed.stream_kind,
            version=parsed.version,
            by=parsed.emitter.by,
            credential=parsed.emitter.credential,
            type="" if aggregate else short_type(event.type),
            event_id=event.id,
            source=event.source or parsed.emitter.source or "",
            part=event.part,
            time=recorded if event.time is None else _utc(event.time),
            time_given=event.time is not None,
            source_given=event.source is not None,
            sealed=frozenset(parsed.sealed) if parsed.sealed else _NOTHING_SEALED,
            data={} if aggregate else _data(event.data),
        )
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        # The error's own words could quote a value.
        raise TamperDetected(f"expected an entry, found {type(error).__name__}") from error


@lru_cache(maxsize=1024)
def short_type(full: str) -> str:
    """Give a v1 type's short name; every other name is kept whole."""
    if full.startswith("ledger.") and full.endswith(".v1"):
        return full[7:-3]
    return full


def _utc(time: str) -> datetime:
    moment = datetime.fromisoformat(time)
    if moment.tzinfo is None:
        raise ValueError("expected a time with its offset")
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


class ReadBatch(NamedTuple):
    """Entries read in order, up to the first that can't be."""

    events: list[RecordedEvent]
    """What could be read, without gap."""
    broken_seq: int | None
    """Position of the entry that could not be read, if there is one."""
    reason: str
    """Why not, without any value."""


def read_notifications(notifications: Iterable[Notification]) -> ReadBatch:
    """Read what the log gave, checking the columns beside the bytes (FORMAT.md 6)."""
    events: list[RecordedEvent] = []
    for notification in notifications:
        try:
            event = read_entry(notification.state)
            _check_columns(event, notification, events)
        except TamperDetected as error:
            return ReadBatch(events, notification.id, f"TamperDetected: {error}")
        events.append(event)
    return ReadBatch(events, None, "")


def _check_columns(
    event: RecordedEvent, notification: Notification, before: Sequence[RecordedEvent]
) -> None:
    if before and notification.id != before[-1].seq + 1:
        raise TamperDetected(f"expected entry {before[-1].seq + 1} next, it is missing")
    seq, stream = notification.id, notification.originator_id
    version = notification.originator_version
    if event.seq != seq or event.version != version or event.stream != stream:
        raise TamperDetected(
            f"expected seq, stream and version as in the entry, {event.seq} {event.stream} "
            f"{event.version}; found columns {seq} {stream} {version}"
        )


def text_of(data: dict[str, Any], name: str) -> str | None:
    """Give a member that is a string, None where it is absent.

    Raises:
        TamperDetected: it is something else, which the ledger never records.
    """
    value = data.get(name)
    if value is None or type(value) is str:
        return value
    raise TamperDetected(f"member {name}: expected a string")


def texts_of(data: dict[str, Any], name: str) -> list[str]:
    """Give a member that is an array of strings, empty where it is absent.

    Raises:
        TamperDetected: it is something else, which the ledger never records.
    """
    value = data.get(name, [])
    if type(value) is list and all(type(item) is str for item in value):
        return value
    raise TamperDetected(f"member {name}: expected an array of strings")


def object_of(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Give a member that is an object, empty where it is absent.

    Raises:
        TamperDetected: it is something else, which the ledger never records.
    """
    value = data.get(name, {})
    if type(value) is dict:
        return value
    raise TamperDetected(f"member {name}: expected an object")


def uuid_of(data: dict[str, Any], name: str) -> UUID | None:
    """Give a pseudonym or another record's UUID, None where the member is absent.

    Raises:
        TamperDetected: it is something else, which the ledger never records.
    """
    text = text_of(data, name)
    if text is None:
        return None
    try:
        return _uuid(text)
    except ValueError:
        raise TamperDetected(f"member {name}: expected a UUID") from None


_uuid = lru_cache(maxsize=16_384)(UUID)
