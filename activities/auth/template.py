"""Texts over `{credential.x}` and `{config.x}`, compiled once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from integration_service.activities.templates import Template
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject

CREDENTIAL_ROOTS = ("credential", "config")


@lru_cache(maxsize=4096)
def credential_template(text: str, *, at: str, roots: tuple[str, ...] = CREDENTIAL_ROOTS) -> Template:
    """Raises IntegrationError VALIDATION_ERROR for a hole that looks elsewhere than at `roots`."""
    template = Template(text, at=at, roots=roots)
    if template.params:
        allowed = " and ".join(f"{{{root}.…}}" for root in roots)
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, f"may name only {allowed}", path=at)
    return template


def fill(
    template: Template,
    *,
    config: JsonObject,
    credential: JsonObject | None = None,
    escape: Callable[[str, str], str] = lambda _, text: text,
) -> str:
    """The text. Raises IntegrationError AUTH_ERROR or CONFIG_ERROR that names what is missing or no scalar."""
    return template.render({"params": {}, "config": config, "credential": credential or {}}, escape)


def texts_within(value: Any, *, at: str) -> Iterator[tuple[str, str]]:
    """Every text in JSON, at any depth, each behind its path."""
    match value:
        case str():
            yield at, value
        case dict():
            for key, inner in value.items():
                yield from texts_within(inner, at=f"{at}.{key}")
        case list():
            for index, inner in enumerate(value):
                yield from texts_within(inner, at=f"{at}[{index}]")
