"""Declare in OpenAPI what each route answers; a test compares it with what they do."""

from __future__ import annotations

from typing import Any, Final

from api.problems import PROBLEM_JSON

_MEANINGS: Final = {
    400: "The body is not strict JSON, or the request can't be read.",
    401: "No valid credential came with the request.",
    403: "The credential has no right to this.",
    404: "There is no such ledger for this credential, or no such thing in it.",
    408: "The body took too long to arrive.",
    409: "It contradicts what is recorded.",
    413: "A stated limit was passed.",
    415: "The body has a media type or coding that this route doesn't read.",
    422: "A member or parameter is not what is required.",
    503: "It can't be recorded or answered now; repeating it later is safe.",
}

Responses = dict[int | str, dict[str, Any]]


def reference(schema: str) -> dict[str, str]:
    """Refer to a schema of `api.schemas`."""
    return {"$ref": f"#/components/schemas/{schema}"}


def json_of(schema: str, meaning: str) -> dict[str, Any]:
    """Declare an answer in JSON."""
    return {"description": meaning, "content": {"application/json": {"schema": reference(schema)}}}


def text_of(media_type: str, meaning: str) -> dict[str, Any]:
    """Declare an answer in plain text of some type."""
    return {"description": meaning, "content": {media_type: {"schema": {"type": "string"}}}}


def problems(*statuses: int) -> Responses:
    """Declare problem documents."""
    content = {PROBLEM_JSON: {"schema": reference("Problem")}}
    return {
        status: {
            "description": _MEANINGS[status],
            "content": content,
            **({"headers": _RETRY_AFTER} if status == 503 else {}),
        }
        for status in statuses
    }


def body_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Declare a request's body, for `openapi_extra`."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer"},
    }
}
