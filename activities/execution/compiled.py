"""Definitions made ready to run: schemas, templates and adapters compiled once per published version."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from integration_service.activities.adapters import Adapter, adapter_for
from integration_service.activities.auth import check_auth
from integration_service.activities.execution.pagination import Pages
from integration_service.activities.schemas import Schema
from integration_service.activities.transforms import check_expressions
from integration_service.contracts.definitions import (
    MAX_TIMEOUT_MS,
    DefinitionFile,
    IntegrationDefinition,
    IntegrationMethod,
)
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject
from integration_service.storage.definitions import Definitions

_LONGEST_FETCH = timedelta(milliseconds=MAX_TIMEOUT_MS)


@dataclass(frozen=True)
class CompiledMethod:
    """One method, ready to run. `at` is its path in the definition."""

    at: str
    method: IntegrationMethod
    params: Schema
    result: Schema
    adapter: Adapter
    pages: Pages | None

    @cached_property
    def safe_to_repeat(self) -> bool:
        """Whether a request may be sent again when its outcome is unknown."""
        return self.method.safe_to_repeat(by_nature=self.adapter.idempotent)

    @property
    def max_sends(self) -> int:
        """How many requests one attempt may make, each with a time of its own."""
        return self.pages.max_pages if self.pages is not None else 1

    @property
    def longest_fetch(self) -> timedelta:
        """How long all of them may take, together at most an hour."""
        return min(timedelta(milliseconds=self.method.effective_timeout_ms * self.max_sends), _LONGEST_FETCH)

    @property
    def expressions(self) -> list[tuple[str, str]]:
        """Where each of its JSONata expressions stands, and its text."""
        transforms = (
            (f"{self.at}.requestTransform", self.method.request_transform),
            (f"{self.at}.responseTransform", self.method.response_transform),
        )
        found = [(at, text) for at, text in transforms if text is not None]
        return found + (self.pages.expressions if self.pages is not None else [])


class CompiledDefinition:
    """A definition's config schema and methods; each method is compiled when it is first asked for."""

    def __init__(self, definition: IntegrationDefinition) -> None:
        self.definition = definition
        self._config: Schema | None = None
        self._methods: dict[str, CompiledMethod] = {}

    def config(self, given: JsonObject) -> JsonObject:
        """`given` over `defaultConfig`, checked. Raises IntegrationError CONFIG_ERROR with the path."""
        merged = merge(self.definition.default_config or {}, given)
        if self._config is None:
            self._config = Schema(self.definition.config_schema, at="configSchema")
        self._config.check(merged, at="config", code=ErrorCode.CONFIG_ERROR, what="the config")
        return merged

    def merged_config(self, given: JsonObject) -> JsonObject:
        """`given` over `defaultConfig`, unchecked: a connected instance's config was checked when it was set."""
        return merge(self.definition.default_config or {}, given)

    def method(self, name: str) -> CompiledMethod:
        """Raises IntegrationError METHOD_NOT_FOUND."""
        known = self._methods.get(name)
        if known is not None:
            return known
        for index, method in enumerate(self.definition.methods):
            if method.name == name:
                return self._methods.setdefault(name, _compile(self.definition, method, index))
        raise IntegrationError(
            ErrorCode.METHOD_NOT_FOUND,
            f"{self.definition.name} {self.definition.version} has no method {name}",
            path="method",
        )

    async def ready(self, name: str) -> CompiledMethod:
        """The same, with the event loop free: a WSDL may take a second or two to compile."""
        known = self._methods.get(name)
        return known if known is not None else await asyncio.to_thread(self.method, name)


class CompiledDefinitions:
    """Every published definition that this process has run, by id."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._compiled: dict[str, CompiledDefinition] = {}

    async def get(self, definition_id: str) -> CompiledDefinition:
        """Raises IntegrationError DEFINITION_NOT_FOUND or UNAVAILABLE."""
        known = self._compiled.get(definition_id)
        if known is None:
            known = CompiledDefinition(await self._definitions.get(definition_id))
            self._compiled[definition_id] = known
        return known


def check_definition(definition: DefinitionFile, *, publish: bool) -> None:
    """Compile all of a definition before it is stored.

    Raises IntegrationError VALIDATION_ERROR with the path of the first thing that could not run. A draft may use
    what cannot be run yet; a published definition may not.
    """
    Schema(definition.config_schema, at="configSchema")
    if publish:
        check_auth(definition)
    expressions = [("errorMessage", definition.error_message)] if definition.error_message is not None else []
    for index, method in enumerate(definition.methods):
        at = f"methods[{index}]"
        Schema(method.param_schema, at=f"{at}.paramSchema")
        Schema(method.result_schema, at=f"{at}.resultSchema")
        if publish:
            compiled = _compile(definition, method, index)
            if method.name == definition.connection_test:
                compiled.params.check(
                    {}, at="connectionTest", code=ErrorCode.VALIDATION_ERROR, what="a call without params"
                )
            expressions += compiled.expressions
    check_expressions(expressions)


def merge(under: JsonObject, over: JsonObject) -> JsonObject:
    """`over` laid upon `under`; objects are merged key by key, everything else is replaced."""
    merged: dict[str, Any] = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _compile(definition: DefinitionFile, method: IntegrationMethod, index: int) -> CompiledMethod:
    at = f"methods[{index}]"
    compiled = CompiledMethod(
        at=at,
        method=method,
        params=Schema(method.param_schema, at=f"{at}.paramSchema"),
        result=Schema(method.result_schema, at=f"{at}.resultSchema"),
        adapter=adapter_for(definition, method, at=at),
        pages=Pages(method.pagination, at=f"{at}.pagination") if method.pagination is not None else None,
    )
    for key, wanted in (("cache", method.cache), ("pagination", method.pagination)):
        if wanted is not None and not (compiled.adapter.idempotent or method.idempotent):
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR,
                "only for a method that may be called twice without effect: a GET, a query, or `idempotent: true`",
                path=f"{at}.{key}",
            )
    return compiled
