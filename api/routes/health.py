"""Say how the service is: to a supervisor, a load balancer, and Prometheus."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from fastapi import APIRouter, Request, Response

from api.access import service_of
from api.answers import json_of, problems, text_of
from api.metrics import CONTENT_TYPE
from api.problems import Problem, render
from ledger.errors import Forbidden

router = APIRouter(tags=["health"])

NOT_READY = Problem("not-ready", 503, "The service is not ready")
_FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})


@router.get(
    "/healthz",
    summary="Whether the process is up",
    response_class=Response,
    responses={200: json_of("Health", "It is up.")},
)
async def get_health() -> Response:
    """Say that the process is up, whatever stands behind it. Open to anybody."""
    return Response(b'{"status":"up"}', media_type="application/json")


@router.get(
    "/readyz",
    summary="Whether events are taken in and views follow",
    response_class=Response,
    responses={200: json_of("Health", "It is ready."), **problems(503)},
)
async def get_readiness(request: Request) -> Response:
    """Say whether the service is ready, and if not why, in codes. Open to anybody."""
    codes = await asyncio.to_thread(service_of(request).troubles)
    if codes:
        headers = {"Retry-After": "5"}
        return render(NOT_READY, "see codes", headers=headers, codes=codes)
    return Response(b'{"status":"ready"}', media_type="application/json")


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: text_of(CONTENT_TYPE, "Prometheus' text format."), **problems(401, 403, 503)},
)
async def get_metrics(request: Request) -> Response:
    """Give everything to this machine itself, and to a reader what is about its ledger.

    A request that came through a proxy is not this machine's, wherever the proxy is.
    """
    service = service_of(request)
    ledger: str | None = None
    if not _is_local(request):
        credential = await service.gate.credential(request.scope["headers"])
        if credential.role != "reader":
            raise Forbidden("this credential is for writing events; metrics need a reader's")
        ledger = credential.ledger
    text = await asyncio.to_thread(service.metrics.render, ledger)
    return Response(text, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})


def _is_local(request: Request) -> bool:
    client = request.client
    if client is None or not ip_address(client.host).is_loopback:
        return False
    return not any(name in _FORWARDED for name, _ in request.scope["headers"])
