"""The composition root: the only place that puts the parts together.

Nothing connects, starts or reads the environment at import or in `create_app`;
that is what the lifespan does, and undoes in the opposite order.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware import Middleware

from api.openapi import build_openapi
from api.problems import install
from api.routes import (
    accesses,
    anchors,
    checkpoints,
    entries,
    events,
    exports,
    health,
    proofs,
    records,
    sources,
    taxonomy,
    tiles,
    verifier,
)
from api.service import Service
from api.shell import Shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ledger.config import Settings

ROUTERS = (
    events.router,
    entries.router,
    records.router,
    accesses.router,
    checkpoints.router,
    anchors.router,
    proofs.router,
    tiles.router,
    exports.router,
    sources.router,
    taxonomy.router,
    health.router,
    verifier.router,
)
"""Every route."""


def create_app(settings: Settings, dsn: str) -> FastAPI:
    """Give the service over a database, not opened yet."""
    service = Service(settings, dsn)
    app = FastAPI(
        title="Custody Ledger",
        version=_version(),
        lifespan=_lifespan,
        # Not included as routers, which would be matched twice for each request.
        routes=[route for router in ROUTERS for route in router.routes],
        openapi_url=None,  # a route of its own, since it needs a credential
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[Middleware(Shell, on_answer=service.metrics.answered)],
        telemetry={  # spans would carry errors' messages, and those carry values
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.state.service = service
    app.openapi = lambda: build_openapi(app)  # type: ignore[method-assign]
    install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open everything before the first request, close it after the last."""
    service: Service = app.state.service
    asyncio.get_running_loop().set_default_executor(service.threads)
    await asyncio.to_thread(service.open)
    try:
        yield
    finally:
        await asyncio.to_thread(service.close_ledgers)


def _version() -> str:
    try:
        return version("custody-ledger")
    except PackageNotFoundError:
        return "0"
