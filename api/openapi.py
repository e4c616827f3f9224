"""Build the OpenAPI document: complete, and true of what the routes do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api import schemas, schemas_evidence

if TYPE_CHECKING:
    from fastapi import FastAPI

_INTRODUCTION = """\
Services POST events; readers look entries and views up; anybody who holds a credential
gets the newest signed checkpoint. Every refusal is a problem document (RFC 9457)."""

_OPEN = frozenset({"/healthz", "/readyz", "/verifier.html"})


def build_openapi(app: FastAPI) -> dict[str, Any]:
    """Give the document; it is built once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=_INTRODUCTION, routes=app.routes
        )
        components = document.setdefault("components", {})
        components["schemas"] = _schemas()
        components["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer", "bearerFormat": "ck_…"}
        }
        _complete(document["paths"])
        app.openapi_schema = document
    return app.openapi_schema


def _schemas() -> dict[str, Any]:
    models = [
        model
        for model in {**vars(schemas), **vars(schemas_evidence)}.values()
        if isinstance(model, type)
        and issubclass(model, BaseModel)
        and model not in {BaseModel, schemas.Question, schemas.Answer}
    ]
    _, document = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    definitions: dict[str, Any] = document["$defs"]
    return definitions


def _complete(paths: dict[str, Any]) -> None:
    """Say which routes need a key, and name the ledger where a route doesn't."""
    for path, operations in paths.items():
        for operation in operations.values():
            operation["security"] = [] if path in _OPEN else [{"key": []}]
            if "{ledger}" in path:
                parameters = operation.setdefault("parameters", [])
                if all(parameter["name"] != "ledger" for parameter in parameters):
                    parameters.insert(0, LEDGER_PARAMETER)


LEDGER_PARAMETER = {
    "name": "ledger",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,39}$"},
}
"""Routes don't declare it to the framework, which would read it once more for each request."""
