"""Decide what an answer means for each event that was sent, whatever the server answers.

| answer | what becomes of the events |
|---|---|
| 200, 201 with `results` | each as its own status says |
| 200, 201 with `receipts` | all recorded |
| 400, 403, 409, 413, 422 naming an item (`/3/…`) | that one is refused, the others go again |
| 400, 409, 413, 422 naming none | a single event is refused; of several, fewer go again |
| 401, 403, 404, 405, 415, 3xx | all kept: the request as a whole is wrong, not an event |
| 408, 425, 429, 5xx | all kept, `Retry-After` honoured |
| anything else, or not to be understood | all kept |

So an event leaves the queue only by a receipt, or by a refusal of its own. 403 without an
item is never an event's fault, and an answer that isn't a ledger's never refuses anything.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ledger.client.health import Code, Trouble
from ledger.client.receipts import Receipt, read_receipt
from ledger.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ledger.client.outbox import Waiting

_ITEM = re.compile(r"/(0|[1-9][0-9]{0,5})(?:/.*)?", re.DOTALL)
_SLUG = re.compile(r"[a-z-]{1,64}")
_OWN_FAULT: Final = frozenset({400, 409, 413, 422})
_ITEM_FAULT: Final = _OWN_FAULT | {403}
_LATER: Final = frozenset({408, 425, 429})
_WHOLE: Final[Mapping[int, Code]] = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "not-understood",
    415: "not-understood",
}


class Answer(NamedTuple):
    """What came back for a request."""

    status: int
    """HTTP status."""
    headers: Mapping[str, str]
    """Its headers, by lower-case name."""
    body: bytes
    """Its body."""


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What becomes of each event of a request; those in neither list stay in the outbox."""

    recorded: list[tuple[Waiting, Receipt]] = field(default_factory=list)
    """Acknowledged, with their receipts."""
    refused: list[tuple[Waiting, int, dict[str, Any]]] = field(default_factory=list)
    """Refused for themselves, with status and problem."""
    note: str | None = None
    """The signed checkpoint that covers what is recorded, if there is one yet."""
    trouble: Trouble | None = None
    """Why the others stay; None: they can go again at once."""
    retry_after_s: float | None = None
    """When the server wants to be asked again."""
    fewer: bool = False
    """Whether the others should go in smaller requests."""


def read_answer(answer: Answer, sent: Sequence[Waiting]) -> Verdict:
    """Say what an answer means for the events that were sent, by the module's table."""
    if answer.status in {200, 201}:
        try:
            return _read_success(answer, sent)
        except (
            Malformed,
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            RecursionError,
        ) as error:
            # Ours have safe words; of the others only the class is told.
            words = str(error) if isinstance(error, Malformed) else type(error).__name__
            return _kept("garbage", f"an answer that isn't a ledger's: {words}", None)
    return _read_failure(answer, sent)


def _read_success(answer: Answer, sent: Sequence[Waiting]) -> Verdict:
    document = json.loads(answer.body)
    verdict = Verdict(note=document["checkpoint"])
    if verdict.note is not None and not isinstance(verdict.note, str):
        raise Malformed("expected a checkpoint, or null")
    if "results" not in document:
        receipts = document["receipts"]
        _require_one_each(receipts, sent)
        verdict.recorded = [
            (each, read_receipt(receipt, each.id, each.entries))
            for each, receipt in zip(sent, receipts, strict=True)
        ]
        return verdict
    _require_one_each(document["results"], sent)
    for each, result in zip(sent, document["results"], strict=True):
        _read_result(each, result, verdict, answer)
    return verdict


def _require_one_each(found: Any, sent: Sequence[Waiting]) -> None:
    if not isinstance(found, list) or len(found) != len(sent):
        raise Malformed(f"expected one result for each of {len(sent)} events")


def _read_result(each: Waiting, result: Any, verdict: Verdict, answer: Answer) -> None:
    status = result["status"]
    if status in {200, 201}:
        receipt = read_receipt(result["receipt"], each.id, each.entries)
        verdict.recorded.append((each, receipt))
    elif status in _ITEM_FAULT:
        verdict.refused.append((each, status, _problem(result.get("problem"))))
    else:
        detail = f"the ledger answered {int(status)} for some events"
        verdict.trouble = Trouble(code="unavailable", detail=detail)
        verdict.retry_after_s = retry_after_s(answer.headers.get("retry-after"))


def _read_failure(answer: Answer, sent: Sequence[Waiting]) -> Verdict:
    status = answer.status
    problem = _parse(answer)
    item = _ITEM.fullmatch(str(problem.get("pointer", "")))
    if status in _ITEM_FAULT and item is not None and int(item[1]) < len(sent):
        return Verdict(refused=[(sent[int(item[1])], status, problem)])
    # A proxy in front of the ledger answers 413 in its own words; others it has no say in.
    if status in _OWN_FAULT and (problem or status == 413):
        if len(sent) == 1:
            return Verdict(refused=[(sent[0], status, problem)])
        return Verdict(fewer=True)
    wait_s = retry_after_s(answer.headers.get("retry-after"))
    kind = str(problem.get("type", "")).rpartition(":")[2]
    words = f"HTTP {status}" + (f", {kind}" if _SLUG.fullmatch(kind) else "")
    if status >= 500 or status in _LATER:
        return _kept("unavailable", f"the ledger can't record now: {words}", wait_s)
    return _kept(_WHOLE.get(status, "garbage"), f"the request was refused: {words}", wait_s)


def _kept(code: Code, detail: str, wait_s: float | None) -> Verdict:
    return Verdict(trouble=Trouble(code=code, detail=detail), retry_after_s=wait_s)


def _parse(answer: Answer) -> dict[str, Any]:
    """Give a problem document; empty where the answer is none."""
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return {}
    try:
        return _problem(json.loads(answer.body))
    except (ValueError, RecursionError):
        return {}


def _problem(document: Any) -> dict[str, Any]:
    return document if isinstance(document, dict) else {}


def retry_after_s(value: str | None) -> float | None:
    """Read `Retry-After`: seconds or a date (RFC 9110 section 10.2.3); None if it is neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value.strip()[:9])
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())
