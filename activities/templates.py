"""`{name}` templates in paths, headers and base URLs, compiled once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from integration_service.contracts.definitions import PLACEHOLDER
from integration_service.contracts.errors import ErrorCode, IntegrationError

_NAME = re.compile(r"[A-Za-z_$][\w$.-]*", re.ASCII)


class Template:
    """Text with `{name}` holes. Names that begin with ``config.`` or ``connection.`` look there, others at params."""

    def __init__(self, text: str, *, at: str) -> None:
        """Raises IntegrationError VALIDATION_ERROR for a hole that is no name."""
        self._pieces: list[tuple[str, str | None]] = []
        end = 0
        for match in PLACEHOLDER.finditer(text):
            if not _NAME.fullmatch(match[1]):
                raise IntegrationError(ErrorCode.VALIDATION_ERROR, f"{match[0]} names no parameter", path=at)
            self._pieces.append((text[end : match.start()], match[1]))
            end = match.end()
        self._pieces.append((text[end:], None))
        if any("{" in literal or "}" in literal for literal, _ in self._pieces):
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, "a brace without its partner", path=at)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its holes."""
        return tuple(name for _, name in self._pieces if name is not None)

    @property
    def params(self) -> frozenset[str]:
        """The names that look at params."""
        return frozenset(name for name in self.names if not name.startswith(("config.", "connection.")))

    def render(self, values: Mapping[str, Any], escape: Callable[[str, str], str] = lambda _, text: text) -> str:
        """The text with every hole filled; `escape` gets name and text.

        Raises IntegrationError VALIDATION_ERROR, or CONFIG_ERROR for a config value, when one is missing or no
        scalar.
        """
        return "".join(
            literal + (escape(name, _text(name, _look_up(values, name))) if name is not None else "")
            for literal, name in self._pieces
        )


def scalar_text(value: Any) -> str:
    """A value as it stands in a URL or header: JSON's spelling, strings without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def _look_up(values: Mapping[str, Any], name: str) -> Any:
    root, dot, rest = name.partition(".")
    if not dot or root not in ("config", "connection"):
        return values["params"].get(name)
    found: Any = values[root]
    for key in rest.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _text(name: str, value: Any) -> str:
    if isinstance(value, str | int | float):
        return scalar_text(value)
    is_config = name.startswith(("config.", "connection."))
    why = "is missing" if value is None else "must be a string, number or boolean"
    raise IntegrationError(
        ErrorCode.CONFIG_ERROR if is_config else ErrorCode.VALIDATION_ERROR,
        f"the request needs {name}, which {why}",
        path=name if is_config else f"params.{name}",
    )
