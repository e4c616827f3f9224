"""The service as a process of its own: `python -m scripts.benchmarks.serving HOME DSN`."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import uvicorn
import uvloop
from fastapi import Request, Response

from api.app import create_app
from api.direct import DirectRoute
from api.serve import GC_THRESHOLDS, server_config
from ledger.config import read_settings
from scripts.benchmarks.load import NOOP_PATH


async def _noop(request: Request) -> Response:
    await request.body()
    return Response(b'{"ok":true}', media_type="application/json")


def serve(home: Path, dsn: str) -> None:
    """Serve every ledger and, beside them, a POST that does nothing; print the port."""
    app = create_app(read_settings({"LEDGER_HOME": str(home)}), dsn)
    app.router.routes.append(DirectRoute(NOOP_PATH, _noop, methods=["POST"]))
    app.state.service.open()
    gc.collect()
    gc.freeze()  # as `custody serve` does
    gc.set_threshold(*GC_THRESHOLDS)
    server = uvicorn.Server(server_config(app, host="127.0.0.1", port=0))

    async def run() -> None:
        task = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await task

    uvloop.run(run())


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2])
