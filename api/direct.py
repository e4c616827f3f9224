"""A route that goes straight to its function.

The framework's own routes read parameters, cookies and dependencies for every request;
the hot path needs none of that. It stays a route of the framework's, so that it stands in
OpenAPI; refusals are answered by the handlers around all routes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class DirectRoute(APIRoute):
    """Calls `endpoint(request)` and sends the response that it gives."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        methods = self.methods or ()
        if scope["method"] not in methods:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
