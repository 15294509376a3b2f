"""`{name}` templates in paths, headers and base URLs, compiled once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from integration_service.contracts.definitions import PLACEHOLDER
from integration_service.contracts.errors import ErrorCode, IntegrationError

_NAME = re.compile(r"[A-Za-z_$][\w$.-]*", re.ASCII)


ROOTS = ("config", "connection")
_MISSING = {None: ErrorCode.VALIDATION_ERROR, "credential": ErrorCode.AUTH_ERROR}


class Template:
    """Text with `{name}` holes. Names that begin with one of the roots and a dot look there, others at params."""

    def __init__(self, text: str, *, at: str, roots: Sequence[str] = ROOTS) -> None:
        """Raises IntegrationError VALIDATION_ERROR for a hole that is no name."""
        self._roots = frozenset(roots)
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
        return frozenset(name for name in self.names if self._root(name) is None)

    def render(self, values: Mapping[str, Any], escape: Callable[[str, str], str] = lambda _, text: text) -> str:
        """The text with every hole filled; `escape` gets name and text.

        Raises IntegrationError when one is missing or no scalar: VALIDATION_ERROR, CONFIG_ERROR for a config
        value, AUTH_ERROR for one of the credential.
        """
        return "".join(
            literal + (escape(name, self._text(values, name)) if name is not None else "")
            for literal, name in self._pieces
        )

    def _root(self, name: str) -> str | None:
        root, dot, _ = name.partition(".")
        return root if dot and root in self._roots else None

    def _text(self, values: Mapping[str, Any], name: str) -> str:
        root = self._root(name)
        value = values["params"].get(name) if root is None else _look_up(values[root], name.partition(".")[2])
        if isinstance(value, str | int | float):
            return scalar_text(value)
        why = "is missing" if value is None else "must be a string, number or boolean"
        raise IntegrationError(
            _MISSING.get(root, ErrorCode.CONFIG_ERROR),
            f"the request needs {name}, which {why}",
            path=name if root else f"params.{name}",
        )


def scalar_text(value: Any) -> str:
    """A value as it stands in a URL or header: JSON's spelling, strings without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def _look_up(found: Any, path: str) -> Any:
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
