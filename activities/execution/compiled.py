"""Definitions made ready to run: schemas, templates and adapters compiled once per published version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from integration_service.activities.adapters import Adapter, adapter_for
from integration_service.activities.auth import check_auth
from integration_service.activities.schemas import Schema
from integration_service.contracts.definitions import DefinitionFile, IntegrationDefinition, IntegrationMethod
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject
from integration_service.storage.definitions import Definitions

_NOT_YET = ("request_transform", "response_transform", "cache", "pagination")


@dataclass(frozen=True)
class CompiledMethod:
    """One method, ready to run."""

    method: IntegrationMethod
    params: Schema
    result: Schema
    adapter: Adapter


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
    what this version cannot run yet; a published definition may not.
    """
    Schema(definition.config_schema, at="configSchema")
    if publish:
        check_auth(definition)
    if publish and definition.error_message is not None:
        raise _not_yet("errorMessage")
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


def merge(under: JsonObject, over: JsonObject) -> JsonObject:
    """`over` laid upon `under`; objects are merged key by key, everything else is replaced."""
    merged: dict[str, Any] = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _compile(definition: DefinitionFile, method: IntegrationMethod, index: int) -> CompiledMethod:
    at = f"methods[{index}]"
    for name in _NOT_YET:
        if getattr(method, name) is not None:
            key = IntegrationMethod.model_fields[name].alias
            raise _not_yet(f"{at}.{key}")
    return CompiledMethod(
        method=method,
        params=Schema(method.param_schema, at=f"{at}.paramSchema"),
        result=Schema(method.result_schema, at=f"{at}.resultSchema"),
        adapter=adapter_for(definition, method, at=at),
    )


def _not_yet(path: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, "cannot be run by this version", path=path)
