"""ASGI middleware: turn requests into events, and let no answer out before they are stored.

The mapping from a request to its events is a function of the application's: nothing is
guessed. It runs when the answer's head is known, and before any of it is sent, so that what
a person got to see is recorded first. If that fails, `fail` decides:

- `"closed"` (default): the answer is withheld, and 503 with `Retry-After` sent in its place.
  The handler has run; what it changed stays changed, and its event may still be stored later.
- `"open"`: the answer goes out, and a line in the log says that an event was not stored.

Neither logs any value of request or event. Requests that the mapping gives no event for, and
what isn't HTTP, pass untouched.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ledger.client.asynchronous import offer
from ledger.errors import LedgerError

if TYPE_CHECKING:
    from ledger.client.client import Opened

log = logging.getLogger("ledger.client")

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Scope: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Fail: TypeAlias = Literal["closed", "open"]

_PROBLEM = (
    b'{"type":"urn:custody-ledger:problem:unavailable","title":"The act can\'t be recorded now",'
    b'"status":503,"detail":"the answer is withheld, since nothing may be seen unrecorded"}'
)
_HEADERS = [
    (b"content-type", b"application/problem+json"),
    (b"content-length", str(len(_PROBLEM)).encode()),
    (b"cache-control", b"no-store"),
    (b"retry-after", b"5"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """A request and how it was answered, for the mapping to look at."""

    scope: Scope
    """The request's ASGI scope, with what routing added to it."""
    status: int
    """Status of the answer; 500 where the application raised an error."""

    @property
    def method(self) -> str:
        """HTTP method."""
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """The request's path."""
        return str(self.scope["path"])

    @property
    def path_params(self) -> Mapping[str, Any]:
        """What the framework's route took from the path (Starlette and FastAPI)."""
        found: Mapping[str, Any] = self.scope.get("path_params", {})
        return found

    @property
    def state(self) -> Mapping[str, Any]:
        """What handlers left in `request.state` (Starlette and FastAPI)."""
        found: Mapping[str, Any] = self.scope.get("state", {})
        return found


EventsOf: TypeAlias = Callable[
    [Exchanged], "Mapping[str, Any] | Iterable[Mapping[str, Any]] | None"
]


class RecordingMiddleware:
    """Records what requests did; `app.add_middleware(RecordingMiddleware, client=…, events=…)`."""

    def __init__(
        self,
        app: App,
        *,
        client: Opened | Callable[[], Opened],
        events: EventsOf,
        fail: Fail = "closed",
        wait_s: float = 5.0,
    ) -> None:
        """Wrap an application.

        Args:
            app: what is wrapped.
            client: an open client, or a function that gives it when a request comes.
            events: gives a request's events: one, several, or None.
            fail: what becomes of the answer if its events can't be stored.
            wait_s: how long an answer waits for them.
        """
        self._app, self._client, self._events = app, client, events
        self._fail, self._wait_s = fail, wait_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        withheld = started = False

        async def send_recorded(message: Message) -> None:
            nonlocal withheld, started
            if message["type"] == "http.response.start":
                started = True
                withheld = not await self._record(Exchanged(scope=scope, status=message["status"]))
                if withheld:
                    await send({"type": "http.response.start", "status": 503, "headers": _HEADERS})
                    await send({"type": "http.response.body", "body": _PROBLEM})
            if not withheld:
                await send(message)

        try:
            await self._app(scope, receive, send_recorded)
        except Exception:
            if not started:
                await self._record(Exchanged(scope=scope, status=500))
            raise

    async def _record(self, exchanged: Exchanged) -> bool:
        """Store a request's events; give whether its answer may go out."""
        try:
            found = self._events(exchanged)
            events = [found] if isinstance(found, Mapping) else list(found or ())
            if events:
                client = self._client() if callable(self._client) else self._client
                tickets = [await offer(client, event) for event in events]
                await tickets[-1].until_stored(self._wait_s)
        except LedgerError as error:
            return self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - the mapping is the application's own
            # A KeyError's words are a value of the request, so only the class is told.
            return self._failed(f"the mapping of a request to events: {type(error).__name__}")
        return True

    def _failed(self, reason: str) -> bool:
        log.error("a request's event is not stored, fail %s: %s", self._fail, reason)
        return self._fail == "open"
