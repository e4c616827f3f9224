"""Answer every refusal and failure with a problem document (RFC 9457).

One table maps errors to problems. A document names the field, the expectation and
the place, and never repeats a value of the request: details are our own words,
and names in pointers that could hold a value are left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import psycopg
from eventsourcing import persistence
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.expectations import expectation_of
from ledger.errors import (
    Conflict,
    Forbidden,
    LedgerError,
    Malformed,
    NotFound,
    NotJson,
    ReadOnly,
    Refused,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

PROBLEM_JSON = "application/problem+json"
TYPE_PREFIX = "urn:custody-ledger:problem:"


class Problem(NamedTuple):
    """A kind of refusal or failure."""

    slug: str
    """Last part of the type's URI; it never changes its meaning."""
    status: int
    """HTTP status."""
    title: str
    """What the kind means, the same in every document."""


INTERNAL: Final = Problem("internal", 500, "The service failed")
BAD_REQUEST: Final = Problem("bad-request", 400, "The request can't be read")
TIMEOUT: Final = Problem("timeout", 408, "The body took too long to arrive")
UNAVAILABLE: Final = Problem("unavailable", 503, "The ledger can't record or answer now")

PROBLEMS: Final[Mapping[type[BaseException], Problem]] = {
    NotJson: Problem("not-json", 400, "The body is not strict JSON"),
    Malformed: Problem("malformed", 422, "A member is not what is required"),
    TooLarge: Problem("too-large", 413, "A stated limit was passed"),
    Unauthenticated: Problem("unauthenticated", 401, "A valid credential is needed"),
    Forbidden: Problem("forbidden", 403, "The credential has no right to this"),
    NotFound: Problem("not-found", 404, "There is no such thing here"),
    Conflict: Problem("conflict", 409, "It contradicts what is recorded"),
    ReadOnly: Problem("read-only", 503, "Recording is stopped until people have decided"),
    Unavailable: UNAVAILABLE,
    psycopg.OperationalError: UNAVAILABLE,
    psycopg.InterfaceError: UNAVAILABLE,
    persistence.OperationalError: UNAVAILABLE,
    persistence.InterfaceError: UNAVAILABLE,
    BaseException: INTERNAL,
}
"""Each error's problem; a class that isn't listed has its nearest base's."""

_BY_STATUS: Final[Mapping[int, Problem]] = {
    400: BAD_REQUEST,
    404: Problem("not-found", 404, "There is no such thing here"),
    405: Problem("method-not-allowed", 405, "This path has other methods"),
    406: Problem("not-acceptable", 406, "There is no such form of this"),
    408: TIMEOUT,
    415: Problem("unsupported-media-type", 415, "The body has another type than expected"),
}

_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="custody-ledger"'}
_PLAIN_SEGMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}|[0-9]{1,7}")
_PLAIN_POINTER = re.compile(rf"(?:/(?:{_PLAIN_SEGMENT.pattern}))*")
_MANY_DIGITS = re.compile(r"[0-9]{8}")


def problem_of(error: BaseException) -> Problem:
    """Give an error's problem, by its class or the nearest base that has one."""
    if isinstance(error, HTTPException):
        return _BY_STATUS.get(error.status_code, BAD_REQUEST)
    return next(PROBLEMS[base] for base in type(error).__mro__ if base in PROBLEMS)


def render(
    problem: Problem,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """Give the response of a problem; members that are None are left out."""
    return Response(
        msgspec.json.encode(_document(problem, detail, members)),
        problem.status,
        {"Cache-Control": "no-store", **(headers or {})},
        PROBLEM_JSON,
    )


def _document(problem: Problem, detail: str, members: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "type": TYPE_PREFIX + problem.slug,
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
    }
    document.update({name: value for name, value in members.items() if value is not None})
    return document


def document_of(error: LedgerError) -> dict[str, Any]:
    """Give the problem document of a refusal or failure that concerns a part of a request."""
    problem = problem_of(error)
    if isinstance(error, Refused):
        return _document(problem, error.detail, _members(error))
    detail = error.detail if isinstance(error, Unavailable) else _NO_DETAIL
    return _document(problem, detail, {})


def _members(error: Refused) -> dict[str, str | None]:
    return {"pointer": safe_pointer(error.pointer) or None, "hint": error.hint}


_NO_DETAIL: Final = "nothing more can be said here; the service's log has the place"


def answer(error: Exception) -> Response:
    """Give the response of an error that a route raised."""
    problem = problem_of(error)
    if isinstance(error, Refused):
        return render(
            problem,
            error.detail,
            headers=_CHALLENGE if problem.status == 401 else None,
            **_members(error),
        )
    if isinstance(error, Unavailable):
        return render(problem, error.detail, headers={"Retry-After": str(error.retry_after_s)})
    if problem is UNAVAILABLE:
        return render(problem, "the database can't be reached", headers={"Retry-After": "1"})
    return render(INTERNAL, _NO_DETAIL)


def safe_pointer(pointer: str) -> str:
    """Leave names out of a pointer that could hold a person's number or words.

    Those are the names that stand in no entry either (FORMAT.md 4.1).
    """
    if _PLAIN_POINTER.fullmatch(pointer) and not _MANY_DIGITS.search(pointer):
        return pointer
    return "/".join(map(_safe_segment, pointer.split("/")))


def _safe_segment(segment: str) -> str:
    plain = not segment or (
        _PLAIN_SEGMENT.fullmatch(segment) is not None and not _MANY_DIGITS.search(segment)
    )
    return segment if plain else "…"


def install(app: FastAPI) -> None:
    """Make the app answer every expected error with its problem.

    What is not expected is caught outside of all routes (`api.shell`).
    """
    for expected in (LedgerError, psycopg.Error, persistence.PersistenceError):
        app.add_exception_handler(expected, _answer_expected)
    app.add_exception_handler(HTTPException, _answer_framework)
    app.add_exception_handler(RequestValidationError, _answer_parameters)


async def _answer_expected(request: Request, error: Exception) -> Response:
    if problem_of(error) is INTERNAL:
        raise error
    return _close_if_unread(request, answer(error))


async def _answer_framework(request: Request, error: Exception) -> Response:
    """Answer what the framework or a route refuses in terms of HTTP."""
    if not isinstance(error, HTTPException):
        raise error
    problem = _BY_STATUS.get(error.status_code)
    if problem is None:
        raise error
    return _close_if_unread(request, render(problem, error.detail, headers=error.headers))


def _close_if_unread(request: Request, response: Response) -> Response:
    """End the connection where much of a refused body could still be under way."""
    length = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers or len(length) > 5:
        response.headers["Connection"] = "close"
    return response


async def _answer_parameters(_: Request, error: Exception) -> Response:
    """Answer parameters of path or query that are not what their route needs."""
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    parameter = str(first["loc"][-1])
    return render(PROBLEMS[Malformed], expectation_of(first), parameter=parameter)
