"""How values look on the wire: camelCase JSON, RFC 3339 times, unknown keys refused."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic.alias_generators import to_camel

from integration_service.contracts.errors import ErrorCode, IntegrationError


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds and ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _aware(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("time without an offset")
    return value


Timestamp = Annotated[datetime, AfterValidator(_aware), PlainSerializer(format_time, return_type=str)]
"""An aware time; on the wire RFC 3339 UTC with milliseconds and ``Z``."""

_MAX_ERRORS, _MAX_KEY, _MAX_PARTS = 10, 100, 20
_SURROGATE = re.compile("[\ud800-\udfff]")


def _sound(value: Any) -> Any:
    """Refuses what Python's JSON lets through and nothing else reads: NaN, Infinity, half surrogate pairs."""
    match value:
        case str():
            if _SURROGATE.search(value):
                raise ValueError("text with half a surrogate pair")
        case float():
            if not math.isfinite(value):
                raise ValueError("a number that JSON does not have")
        case dict():
            for key, item in value.items():
                _sound(key)
                _sound(item)
        case list():
            for item in value:
                _sound(item)
    return value


def check_json(value: Any) -> None:
    """Raises ValueError for what no JSON reader takes: NaN, Infinity, half surrogate pairs."""
    _sound(value)


JsonObject = Annotated[dict[str, Any], AfterValidator(_sound)]
JsonSchema = dict[str, Any] | bool
"""A JSON Schema (draft 2020-12 unless ``$schema`` says otherwise)."""


class WireModel(BaseModel):
    """A frozen value with camelCase keys. Optional fields that are absent are left out, not null."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    always_present: ClassVar[frozenset[str]] = frozenset()
    """Wire keys that stand even when null."""

    @model_serializer(mode="wrap")
    def _leave_out_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None or key in self.always_present}

    def to_wire(self) -> dict[str, Any]:
        """The value as JSON-compatible Python data."""
        return self.model_dump(mode="json")


class AnswerModel(WireModel):
    """What we say and others read, our own workers of another version among them: keys that are new are passed over."""

    model_config = ConfigDict(extra="ignore")


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], data: object, *, at: str = "", code: ErrorCode = ErrorCode.VALIDATION_ERROR) -> Model:
    """Read wire data strictly by its camelCase names.

    Raises IntegrationError with the path of the first thing that is wrong; the values themselves never
    appear in it. All of them stand in ``details.errors``.
    """
    if not isinstance(data, Mapping):
        raise IntegrationError(code, f"expected a JSON object, got {_kind(data)}", path=at or None)
    try:
        return model.model_validate(data, by_alias=True, by_name=False)
    except ValidationError as error:
        raise from_pydantic(error, at=at, code=code) from None


def from_pydantic(
    error: ValidationError, *, at: str = "", code: ErrorCode = ErrorCode.VALIDATION_ERROR
) -> IntegrationError:
    """Turn pydantic's report into ours: paths and rules, no input values."""
    # A failure that named every key of a large input would itself be too large for Temporal to carry.
    items = itertools.islice(error.errors(include_url=False, include_input=False), _MAX_ERRORS)
    found = [
        {"path": join_path(at, _short(item["loc"])), "rule": _rule(item["type"]), "message": _sentence(dict(item))}
        for item in items
    ]
    first = found[0]
    return IntegrationError(code, first["message"], path=first["path"], details={"errors": found})


def _short(parts: Sequence[str | int]) -> list[str | int]:
    return [part[:_MAX_KEY] if isinstance(part, str) else part for part in parts[:_MAX_PARTS]]


def join_path(prefix: str, parts: Sequence[str | int]) -> str:
    """``methods[0].request.path`` from its parts; pydantic's union tags (``<…>``) are left out."""
    path = prefix
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("<"):
            path += f".{part}" if path else part
    return path


def _rule(pydantic_type: str) -> str:
    return {"extra_forbidden": "unknown_key", "missing": "required"}.get(pydantic_type, pydantic_type)


def _sentence(item: dict[str, Any]) -> str:
    match item["type"]:
        case "extra_forbidden":
            return "unknown key"
        case "missing":
            return "required key is missing"
        case "value_error":
            return str(item["ctx"]["error"])
    message = str(item["msg"])
    return message[:1].lower() + message[1:]


def _kind(value: object) -> str:
    return {type(None): "nothing", list: "an array", str: "a string", bool: "a boolean"}.get(
        type(value), "a number" if isinstance(value, int | float) else type(value).__name__
    )
