"""Say in our own words what a schema expected: its messages can repeat a value."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pydantic import BaseModel, ValidationError

from ledger.core.strict_json import check_strict
from ledger.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

Model = TypeVar("Model", bound=BaseModel)

_WORDS = {
    "missing": "expected it, found nothing",
    "extra_forbidden": "expected no such member",
    "string_type": "expected a string",
    "string_too_short": "expected at least {min_length} characters",
    "string_too_long": "expected at most {max_length} characters",
    "string_pattern_mismatch": "expected it to match {pattern}",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a smaller number",
    "bool_type": "expected true or false",
    "greater_than_equal": "expected at least {ge}",
    "less_than_equal": "expected at most {le}",
    "uuid_type": "expected a UUID",
    "uuid_parsing": "expected a UUID",
    "datetime_type": "expected a date and time with a zone",
    "datetime_parsing": "expected a date and time with a zone",
    "datetime_from_date_parsing": "expected a date and time with a zone",
    "timezone_aware": "expected a date and time with a zone",
    "literal_error": "expected one of {expected}",
    "enum": "expected one of {expected}",
    "model_type": "expected a JSON object",
    "model_attributes_type": "expected a JSON object",
}


def expectation_of(error: Mapping[str, Any]) -> str:
    """Give words for one of a schema's errors, with nothing of the request in them."""
    words = _WORDS.get(error["type"], "expected another value")
    return words.format_map(error.get("ctx", {}))


def parse_body(model: type[Model], body: bytes) -> Model:
    """Read a small JSON body into its schema.

    Raises:
        NotJson: it is not strict JSON.
        Malformed: it is not what the schema says.
    """
    check_strict(body)
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        if first["type"] == "value_error":
            raise Malformed(str(first["ctx"]["error"]), pointer=pointer) from None
        raise Malformed(expectation_of(first), pointer=pointer) from None


_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII
)  # RFC 3339; a bare number never means a time


@overload
def parse_time(text: str, pointer: str = "") -> datetime: ...


@overload
def parse_time(text: str | None, pointer: str = "") -> datetime | None: ...


def parse_time(text: str | None, pointer: str = "") -> datetime | None:
    """Read a time with a zone.

    Raises:
        Malformed: it is not one.
    """
    if text is None:
        return None
    if _TIME.fullmatch(text):
        with suppress(ValueError):
            return datetime.fromisoformat(text)
    raise Malformed("expected a time such as 2026-01-31T08:00:00Z", pointer=pointer)
