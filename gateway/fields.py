"""One field of a form, and the fields that a `configSchema` asks for. Pure: values in, values out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from integration_service.contracts.wire import JsonObject, JsonSchema, check_json

Kind = Literal["text", "number", "integer", "checkbox", "select", "password", "url", "email", "date", "json", "lines"]
_INPUTS: dict[str, Kind] = {"uri": "url", "email": "email", "date": "date", "password": "password"}
_KINDS: dict[str, Kind] = {"string": "text", "number": "number", "integer": "integer", "boolean": "checkbox"}
_MAX_DEPTH = 2


@dataclass(frozen=True)
class Field:
    """One input. `path` is where its value goes; a secret's `value` is always empty, so it is never shown again."""

    path: tuple[str, ...]
    kind: Kind
    label: str
    hint: str = ""
    required: bool = False
    secret: bool = False
    value: str = field(default="", repr=False)
    choices: tuple[tuple[str, Any], ...] = ()
    """Of a select: what is shown, and the value that it stands for."""
    autocomplete: str = "off"
    group: str = ""
    schema: JsonObject = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def with_text(self, text: str) -> Field:
        """The field as a person filled it in; a secret stays empty."""
        return self if self.secret else replace(self, value=text)


class Refused(Exception):
    """What a person gave does not fit the field; the text says what to do."""


def config_fields(schema: JsonSchema, config: JsonObject) -> list[Field]:
    """The fields of a config: objects become groups two levels deep; arrays and what has no plain type, JSON.

    JSON that may hold a secret somewhere within is a secret as a whole.
    """
    if not isinstance(schema, dict):
        return []
    # Whatever a `$ref` leads to, a root without secrets has none there.
    return _fields(schema, config, ("config",), "", 1, through_refs=_holds_secret(schema, through_refs=False))


def _fields(
    schema: JsonObject, config: Any, at: tuple[str, ...], group: str, depth: int, *, through_refs: bool
) -> list[Field]:
    found: list[Field] = []
    required = schema.get("required", ())
    known = config if isinstance(config, dict) else {}
    for name, one in (schema.get("properties") or {}).items():
        part = one if isinstance(one, dict) else {}
        path, value = (*at, name), known.get(name, part.get("default"))
        is_group = part.get("type") == "object" and part.get("properties") and not part.get("writeOnly")
        if is_group and depth < _MAX_DEPTH:
            title = str(part.get("title") or _words(name))
            found += _fields(part, value, path, title, depth + 1, through_refs=through_refs)
        else:
            found.append(_field(part, value, path, name in required, group, through_refs=through_refs))
    return found


def _holds_secret(schema: Any, *, through_refs: bool) -> bool:
    match schema:
        case dict():
            marked = schema.get("writeOnly") is True or schema.get("format") == "password"
            return (
                marked
                or (through_refs and "$ref" in schema)
                or any(_holds_secret(part, through_refs=through_refs) for part in schema.values())
            )
        case list():
            return any(_holds_secret(part, through_refs=through_refs) for part in schema)
    return False


def _field(
    schema: JsonObject, value: Any, path: tuple[str, ...], required: bool, group: str, *, through_refs: bool
) -> Field:
    kind, choices = _kind(schema)
    secret = kind == "password" or (kind == "json" and _holds_secret(schema, through_refs=through_refs))
    return Field(
        path,
        kind,
        str(schema.get("title") or _words(path[-1])),
        str(schema.get("description") or ""),
        # An empty secret keeps what is stored.
        required and not (secret and value is not None),
        secret,
        "" if secret else _shown(kind, choices, value),
        choices,
        "url" if kind == "url" else "email" if kind == "email" else "off",
        group,
        schema,
    )


def _kind(schema: JsonObject) -> tuple[Kind, tuple[tuple[str, Any], ...]]:
    options = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
    if isinstance(options, list) and options:
        return "select", tuple((one if isinstance(one, str) else json.dumps(one), one) for one in options)
    composed = schema.get("type") in ("object", "array")
    if (schema.get("writeOnly") or schema.get("format") == "password") and not composed:
        return "password", ()
    plain = _KINDS.get(str(schema.get("type")), "json")
    return (_INPUTS.get(str(schema.get("format")), plain) if plain == "text" else plain), ()


def _shown(kind: Kind, choices: tuple[tuple[str, Any], ...], value: Any) -> str:
    if value is None:
        return ""
    if kind == "select":
        return next((text for text, one in choices if one == value), "")
    if kind == "checkbox":
        return "on" if value is True else ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _words(name: str) -> str:
    """`apiBaseUrl` and `api_base_url` as people read them."""
    spaced = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)
    words = " ".join(spaced.replace("_", " ").replace("-", " ").split())
    return words[:1].upper() + words[1:]


def read_field(one: Field, given: Mapping[str, str]) -> Any:
    """The value that was given, None where nothing was. Raises Refused in words for the person."""
    text = given.get(one.name, "")
    if one.kind == "checkbox":
        return text == "on"
    text = text if one.secret or one.kind == "lines" else text.strip()
    if not text:
        if one.required:
            raise Refused("Enter a value." if one.kind != "select" else "Choose one.")
        return None
    match one.kind:
        case "select":
            found = [value for shown, value in one.choices if shown == text]
            if not found:
                raise Refused("Choose one of the list.")
            return found[0]
        case "integer" | "number":
            return _number(one, text)
        case "json":
            try:
                value = json.loads(text)
                check_json(value)
                return value
            except (ValueError, RecursionError):
                raise Refused("Enter valid JSON.") from None
    return _text(one, text)


def _number(one: Field, text: str) -> int | float:
    try:
        value = int(text) if one.kind == "integer" or text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise Refused("Enter a whole number." if one.kind == "integer" else "Enter a number.") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise Refused("Enter a number.")
    low, high = one.schema.get("minimum"), one.schema.get("maximum")
    if isinstance(low, int | float) and value < low:
        raise Refused(f"Enter {low} or more.")
    if isinstance(high, int | float) and value > high:
        raise Refused(f"Enter {high} or less.")
    return value


def _text(one: Field, text: str) -> str:
    low, high = one.schema.get("minLength"), one.schema.get("maxLength")
    if isinstance(low, int) and len(text) < low:
        raise Refused(f"Enter at least {low} characters.")
    if isinstance(high, int) and len(text) > high:
        raise Refused(f"Enter at most {high} characters.")
    return text


def put(target: JsonObject, path: tuple[str, ...], value: Any) -> None:
    """Set `value` at `path`, or take away what is there where it is None."""
    *above, last = path
    for name in above:
        inner = target.get(name)
        if not isinstance(inner, dict):
            if value is None:
                return
            inner = target[name] = {}
        target = inner
    if value is None:
        target.pop(last, None)
    else:
        target[last] = value
