"""URLs of a definition with `{config.x}` in them."""

from __future__ import annotations

import re
from urllib.parse import quote

from integration_service.activities.templates import Template
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject

_WRITTEN_ORIGIN = re.compile(r"(https?://[^/]+)(/.*)?", re.IGNORECASE)
_HOST_PART = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?")


class UrlTemplate:
    """An http or https URL over the merged config and over what a connection told."""

    def __init__(self, text: str, *, at: str) -> None:
        """Raises IntegrationError VALIDATION_ERROR for a hole that names anything else."""
        # Where the definition writes the host out, a config value fills its hole and can do no more: it must not
        # choose who gets the credential. `{config.url}` as a whole is the definition's own choice to let it.
        written = _WRITTEN_ORIGIN.fullmatch(text)
        origin, below = (written[1], written[2] or "") if written else (text, "")
        self._origin, self._below = Template(origin, at=at), Template(below, at=at)
        self._fill_origin = _host if written else _as_it_is
        if self._origin.params or self._below.params:
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, "may name only {config.…} and {connection.…}", path=at)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its holes."""
        return self._origin.names + self._below.names

    def render(self, *, config: JsonObject, connection: JsonObject) -> str:
        """The URL. Raises IntegrationError CONFIG_ERROR for a value that cannot stand in its place."""
        values: JsonObject = {"params": {}, "config": config, "connection": connection}
        return self._origin.render(values, self._fill_origin) + self._below.render(values, path_segment)


def path_segment(name: str, text: str) -> str:
    """A value as it stands in a path: a param is one segment, a config value keeps its slashes."""
    if name.startswith(("config.", "connection.")):
        if {".", ".."} & set(text.split("/")):
            raise IntegrationError(ErrorCode.CONFIG_ERROR, "cannot stand in a path: it has dot segments", path=name)
        return quote(text, safe="/")
    # An empty or dotted segment would name another resource than the definition's author meant.
    if text in ("", ".", ".."):
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, "cannot stand in a path: it is empty or made of dots", path=f"params.{name}"
        )
    return quote(text, safe="")


def _as_it_is(_: str, text: str) -> str:
    return text


def _host(name: str, text: str) -> str:
    if not _HOST_PART.fullmatch(text):
        raise IntegrationError(ErrorCode.CONFIG_ERROR, "cannot stand in a host name", path=name)
    return text
