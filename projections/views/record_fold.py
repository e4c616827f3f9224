"""Fold a record's own entries into its state; nothing here reads, writes or asks the time.

Order is the sequence. Only history imported later (`backfill`) is weighed by its own
time: it never takes the place of something that happened after it. An attempt that was
denied or failed changes nothing but the position. Facts that contradict each other, such
as an update after an erasure, are folded as they stand: raising a finding is a rule's work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ledger.errors import TamperDetected
from projections.recorded import object_of, text_of, texts_of, uuid_of
from projections.views.record_state import (
    Consent,
    Correction,
    Link,
    Moment,
    RecordState,
    Restriction,
    Share,
    Treatment,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from projections.recorded import RecordedEvent
    from projections.views.record_state import Status

Changes = dict[str, Any]


def fold(state: RecordState | None, event: RecordedEvent) -> RecordState:
    """Give a record's state after one more of its entries; None is before the first.

    Raises:
        TamperDetected: the entry isn't the next of this record, or a member that the
            taxonomy knows isn't of its kind.
    """
    if state is None:
        state = _unmet(event)
    if event.stream != state.record or event.version != state.version + 1:
        raise TamperDetected(f"expected version {state.version + 1}, found {event.version}")
    effect = _EFFECTS.get(event.type)
    changes = effect(state, event) if effect is not None and event.took_place else {}
    restated = not _RESTATING.isdisjoint(changes)
    changes["version"] = event.version
    changes["last_seq"] = event.seq
    after: RecordState = msgspec.structs.replace(state, **changes)
    return msgspec.structs.replace(after, status=_status(after)) if restated else after


def _unmet(event: RecordedEvent) -> RecordState:
    """Give the state of a record before its first entry."""
    return RecordState(
        record=event.stream, status="never_collected", version=0, first_seq=event.seq, last_seq=0
    )


def state_at(
    events: Iterable[RecordedEvent], *, seq: int | None = None, time: datetime | None = None
) -> RecordState | None:
    """Give a record's state as the log had it at a position or a time.

    Args:
        events: the record's entries from its first on, in order.
        seq: the last position to fold.
        time: the last `recorded` to fold; never the emitters' clocks, so that both
            bounds cut the log at one place.

    Raises:
        TamperDetected: as `fold` says.
    """
    state = None
    for event in events:
        if (seq is not None and event.seq > seq) or (time is not None and event.recorded > time):
            break
        state = fold(state, event)
    return state


_RESTATING: Final = frozenset({"collected", "erased", "deidentified", "restrictions"})


def _status(state: RecordState) -> Status:
    if state.erased is not None:
        return "erased"
    if state.deidentified is not None:
        return "deidentified"
    if any(restriction.state == "on" for restriction in state.restrictions.values()):
        return "restricted"
    return "never_collected" if state.collected is None else "active"


def _moment(event: RecordedEvent) -> Moment:
    actor = uuid_of(object_of(event.data, "actor"), "id")
    return Moment(seq=event.seq, time=event.time, actor=actor)


def _outdated(event: RecordedEvent, standing: Moment | None) -> bool:
    """Tell whether imported history is older than what stands."""
    return event.backfill and standing is not None and event.time < standing.time


def _collect(state: RecordState, event: RecordedEvent) -> Changes:
    """Begin anew: what was erased or made anonymous is identified data again."""
    if _outdated(event, state.erased):
        return {}
    changes = _hold(state, event)
    if not _outdated(event, state.collected):
        changes |= {"collected": _moment(event), "erased": None}
    if state.deidentified is not None and not _outdated(event, state.deidentified.since):
        changes["deidentified"] = None
    return changes


def _hold(state: RecordState, event: RecordedEvent) -> Changes:
    """Add the fields and categories that an entry says were written."""
    if _outdated(event, state.erased):
        return {}
    changes = _changed(state, event)
    fields = texts_of(event.data, "fields")
    categories = texts_of(event.data, "data_categories")
    if not set(fields).issubset(state.fields):
        changes["fields"] = sorted({*state.fields, *fields})
    if not set(categories).issubset(state.categories):
        changes["categories"] = sorted({*state.categories, *categories})
    return changes


def _changed(state: RecordState, event: RecordedEvent) -> Changes:
    return {} if _outdated(event, state.last_change) else {"last_change": _moment(event)}


def _access(state: RecordState, event: RecordedEvent) -> Changes:
    return {} if _outdated(event, state.last_access) else {"last_access": _moment(event)}


def _share(state: RecordState, event: RecordedEvent) -> Changes:
    data = event.data
    recipient = object_of(data, "recipient")
    share = Share(
        since=_moment(event),
        event_id=event.event_id,
        recipient=text_of(recipient, "id"),
        recipient_kind=text_of(recipient, "kind"),
        fields=texts_of(data, "fields"),
        share_ref=text_of(data, "share_ref"),
        agreement_ref=text_of(data, "agreement_ref"),
        return_due=text_of(data, "return_due"),
    )
    return {**_access(state, event), "shares": [*state.shares, share]}


def _close_share(state: RecordState, event: RecordedEvent) -> Changes:
    closed = text_of(event.data, "share_ref")
    kept = [share for share in state.shares if closed not in {share.event_id, share.share_ref}]
    return {"shares": kept}


def _scope(event: RecordedEvent) -> str:
    """Give the scope; unsaid, it is the fields named, and the whole where none are."""
    given = text_of(event.data, "scope")
    return given or ("fields" if event.data.get("fields") else "whole")


def _erase(state: RecordState, event: RecordedEvent) -> Changes:
    """Let go of what was erased; copies and backups leave the live record as it is."""
    scope = _scope(event)
    if scope not in {"whole", "fields"} or _outdated(event, state.last_change):
        return {}
    changes: Changes = {"last_change": _moment(event)}
    if scope == "whole":
        return changes | {"erased": _moment(event), "fields": [], "categories": []}
    gone = texts_of(event.data, "fields")
    return changes | {"fields": [name for name in state.fields if name not in gone]}


def _deidentify(state: RecordState, event: RecordedEvent) -> Changes:
    scope = _scope(event)
    if scope not in {"whole", "fields"} or _outdated(event, state.last_change):
        return {}
    changes: Changes = {"last_change": _moment(event)}
    if scope == "whole":
        changes["deidentified"] = Treatment(
            since=_moment(event),
            method=text_of(event.data, "method"),
            reversible=event.data.get("reversible"),
        )
    return changes


def _certify(state: RecordState, event: RecordedEvent) -> Changes:
    if state.destroyed is not None and _outdated(event, state.destroyed.since):
        return {}
    method, covers = text_of(event.data, "method"), texts_of(event.data, "covers")
    return {"destroyed": Treatment(since=_moment(event), method=method, covers=covers)}


def _restrict(state: RecordState, event: RecordedEvent) -> Changes:
    """Set or lift one restriction; only an entry that names it as it was set lifts it."""
    data = event.data
    ground = text_of(data, "ground")
    name = text_of(data, "hold_ref") or text_of(data, "request_ref") or ground or ""
    standing = state.restrictions.get(name)
    if standing is not None and _outdated(event, standing.since):
        return {}
    restriction = Restriction(
        state=text_of(data, "state") or "on",
        since=_moment(event),
        ground=ground,
        until=text_of(data, "until"),
    )
    return {"restrictions": state.restrictions | {name: restriction}}


def _give_consent(state: RecordState, event: RecordedEvent) -> Changes:
    data = event.data
    consent = Consent(
        state="given",
        since=_moment(event),
        kind=text_of(data, "kind"),
        expires=text_of(data, "expires"),
        notice_ref=text_of(data, "notice_ref"),
        consent_ref=text_of(data, "consent_ref"),
    )
    return _set_consent(state, event, consent)


def _withdraw_consent(state: RecordState, event: RecordedEvent) -> Changes:
    consent = Consent(
        state=text_of(event.data, "status") or "withdrawn",
        since=_moment(event),
        consent_ref=text_of(event.data, "consent_ref"),
    )
    return _set_consent(state, event, consent)


def _set_consent(state: RecordState, event: RecordedEvent, consent: Consent) -> Changes:
    standing = state.consents
    purposes = {
        purpose: consent
        for purpose in texts_of(event.data, "purposes")
        if purpose not in standing or not _outdated(event, standing[purpose].since)
    }
    return {"consents": standing | purposes}


def _link(state: RecordState, event: RecordedEvent) -> Changes:
    uuid = uuid_of(event.data, "other")
    if uuid is None:
        raise TamperDetected("member other: expected another record")
    other = str(uuid)
    standing = state.links.get(other)
    if standing is not None and _outdated(event, standing.since):
        return {}
    linked = event.type == "record.linked"
    link = Link(linked=linked, since=_moment(event), ground=text_of(event.data, "ground"))
    return {"links": state.links | {other: link}}


def _correct(state: RecordState, event: RecordedEvent) -> Changes:
    target = event.data.get("target_seq")
    if type(target) is not int:
        raise TamperDetected("member target_seq: expected a position")
    kind = text_of(event.data, "correction")
    correction = Correction(target_seq=target, correction=kind, since=_moment(event))
    return {"corrections": [*state.corrections, correction]}


_EFFECTS: Final[dict[str, Callable[[RecordState, RecordedEvent], Changes]]] = {
    "record.collected": _collect,
    "record.accessed": _access,
    "record.exported": _access,
    "record.used": _access,
    "record.updated": _hold,
    "record.shared": _share,
    "share.closed": _close_share,
    "record.deidentified": _deidentify,
    "record.restricted": _restrict,
    "record.erased": _erase,
    "record.linked": _link,
    "record.unlinked": _link,
    "destruction.certified": _certify,
    "consent.given": _give_consent,
    "consent.withdrawn": _withdraw_consent,
    "event.corrected": _correct,
}
