"""Stand around all routes: count answers, and let nothing internal out.

Plain ASGI: a request costs one closure here.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from api.problems import answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOG = logging.getLogger("api")

MAX_FRAMES = 8
GONE = 499
"""Counted where the client went away before its answer; never sent."""


class Shell:
    """Answers what no route expected, and tells how each request ended."""

    def __init__(self, app: ASGIApp, on_answer: Callable[[str, str, int], None]) -> None:
        """Wrap an app.

        Args:
            app: what stands inside.
            on_answer: takes the route's template, the method and the status.
        """
        self.app = app
        self.on_answer = on_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, whatever happens inside."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except ClientDisconnect:
            pass
        except Exception as error:  # noqa: BLE001 - the border of the process
            log_unexpected(error, route_of(scope))
            if status:  # the server closes the connection: half an answer is none
                raise RuntimeError("an answer was broken off") from None
            await answer(error)(scope, receive, watch)
        finally:
            self.on_answer(route_of(scope), scope["method"], status or GONE)


def route_of(scope: Scope) -> str:
    """Give the template of the route that was taken: never a path with values in it."""
    return getattr(scope.get("route"), "path", "other")


def log_unexpected(error: BaseException, place: str) -> None:
    """Log where an error comes from, without its message, which may hold a value."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(
        f"{f.name} {'/'.join(Path(f.filename).parts[-2:])}:{f.lineno}"
        for f in reversed(frames[-MAX_FRAMES:])
    )
    _LOG.error("%s failed: %s at %s", place, type(error).__name__, places)
