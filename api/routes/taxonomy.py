"""Tell developers which events there are."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response

from api.access import AnyCredential, service_of
from api.answers import json_of, problems
from ledger.events.taxonomy import Writer, describe, describe_vocabularies, types_for

if TYPE_CHECKING:
    from ledger.events.custom import CustomTypes

router = APIRouter(prefix="/v1", tags=["taxonomy"])


@router.get(
    "/event-types",
    summary="The event types and their vocabularies",
    response_class=Response,
    responses={200: json_of("EventTypes", "Types and vocabularies."), **problems(401, 422, 503)},
)
async def get_event_types(
    request: Request,
    _: AnyCredential,
    writer: Annotated[
        Literal["service", "person", "ledger"] | None,
        Query(alias="for", description="who writes them"),
    ] = None,
) -> Response:
    """Describe the types that a service, a person or the ledger may write; all by default.

    For services the six that a developer needs come first; emitters' own types that are
    registered come last.
    """
    described = _described(None if writer is None else Writer(writer), service_of(request).custom)
    return Response(described, media_type="application/json")


@router.get(
    "/openapi.json",
    summary="This interface",
    response_class=Response,
    responses={
        200: {
            "description": "The OpenAPI document.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        **problems(401, 503),
    },
)
async def get_openapi(request: Request, _: AnyCredential) -> Response:
    """Describe every route."""
    return Response(msgspec.json.encode(request.app.openapi()), media_type="application/json")


@lru_cache(maxsize=8)
def _described(writer: Writer | None, custom: CustomTypes) -> bytes:
    registered = custom.registered.values()
    own = [known for known in registered if writer is None or writer in known.writers]
    document = {
        "types": describe([*types_for(writer), *own]),
        "vocabularies": describe_vocabularies(),
    }
    return msgspec.json.encode(document)
