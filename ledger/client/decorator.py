"""Turn calls of a function into events: `@recorded("record.accessed", client=…, subject=…)`.

The event is emitted when the function has ended, and its result given back only once the event
is stored. If the function raises, the event says `outcome: failed`, and the error goes on.
What can't be stored is decided by `fail`: `"closed"` (default) raises `Unavailable` in place of
giving the result; `"open"` logs one line without any value.
"""

from __future__ import annotations

import functools
import inspect
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, cast

from ledger.client.asynchronous import offer
from ledger.client.composing import build
from ledger.errors import LedgerError, Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ledger.client.asgi import Fail
    from ledger.client.client import Opened

log = logging.getLogger("ledger.client")

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of the function, for those who say what of it stands in the event."""

    arguments: Mapping[str, Any]
    """The call's arguments by name, defaults included."""
    result: Any
    """What the function gave back; None if it raised."""
    error: BaseException | None
    """What it raised; None if it gave something back."""


Text: TypeAlias = "str | Callable[[Call], str]"
Names: TypeAlias = "Sequence[str] | Callable[[Call], Sequence[str]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recording:
    """What is recorded of a function's calls."""

    event_type: str
    client: Opened | Callable[[], Opened]
    subject: Text | None
    actor: Text | None
    fields: Names | None
    members: Mapping[str, Any] | Callable[[Call], Mapping[str, Any]]
    fail: Fail
    wait_s: float
    signature: inspect.Signature

    def event(self, call: Call) -> dict[str, Any]:
        members = self.members(call) if callable(self.members) else self.members
        failed = {} if call.error is None else {"outcome": "failed"}
        return build(
            self.event_type,
            _text(self.subject, call),
            actor=_text(self.actor, call),
            fields=self.fields(call) if callable(self.fields) else self.fields,
            **{**members, **failed},
        )

    def call(self, args: Any, kwargs: Any, result: Any, error: BaseException | None) -> Call:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return Call(arguments=bound.arguments, result=result, error=error)

    def opened(self) -> Opened:
        return self.client() if callable(self.client) else self.client

    def store(self, call: Call) -> None:
        try:
            client = self.opened()
            ticket = client.core.emit(self.event(call), client.core.limits.emit_timeout_s)
            ticket.wait_stored(self.wait_s)
        except Exception as error:  # noqa: BLE001 - the mapping is the application's own
            self.failed(error, call)

    async def store_async(self, call: Call) -> None:
        try:
            ticket = await offer(self.opened(), self.event(call))
            await ticket.until_stored(self.wait_s)
        except Exception as error:  # noqa: BLE001 - the mapping is the application's own
            self.failed(error, call)

    def failed(self, error: Exception, call: Call) -> None:
        words = str(error) if isinstance(error, LedgerError) else type(error).__name__
        log.error("%s is not stored, fail %s: %s", self.event_type, self.fail, words)
        # The function's own error says more than ours; it must not be hidden by it.
        if self.fail == "closed" and call.error is None:
            raise Unavailable(f"{self.event_type} can't be recorded: {words}") from error


def recorded(
    event_type: str,
    *,
    client: Opened | Callable[[], Opened],
    subject: Text | None = None,
    actor: Text | None = None,
    fields: Names | None = None,
    members: Mapping[str, Any] | Callable[[Call], Mapping[str, Any]] | None = None,
    fail: Fail = "closed",
    wait_s: float = 5.0,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Record each call of a function, which may be a coroutine function.

    Args:
        event_type: such as `record.accessed`.
        client: an open client, or a function that gives it at each call.
        subject: whom it is about: a template of arguments' names such as `crm:{customer}`, or
            a function of the call.
        actor: who acted, likewise.
        fields: names of the fields concerned, or a function of the call.
        members: what else stands in `data`, or a function of the call.
        fail: `closed` withholds the result if the event can't be stored; `open` doesn't.
        wait_s: how long the result waits for the event.

    Raises:
        Misconfigured: what is decorated is a generator, whose end says nothing of its use.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise Misconfigured("recorded: expected a function or coroutine function")
        what = _Recording(
            event_type=event_type,
            client=client,
            subject=subject,
            actor=actor,
            fields=fields,
            members=members or {},
            fail=fail,
            wait_s=wait_s,
            signature=inspect.signature(function),
        )
        return _wrap(function, what)

    return decorate


def _wrap(function: Callable[P, R], what: _Recording) -> Callable[P, R]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                result = await function(*args, **kwargs)
            except Exception as error:
                await what.store_async(what.call(args, kwargs, None, error))
                raise
            await what.store_async(what.call(args, kwargs, result, None))
            return result

        return cast("Callable[P, R]", run_async)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            what.store(what.call(args, kwargs, None, error))
            raise
        what.store(what.call(args, kwargs, result, None))
        return result

    return run


def _text(text: Text | None, call: Call) -> str | None:
    if text is None:
        return None
    return text(call) if callable(text) else text.format_map(call.arguments)
