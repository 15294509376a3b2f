"""`GET /v1/schemas…`: JSON Schemas of wire types, and of the methods of published definitions."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from integration_service.contracts.definitions import IntegrationDefinition, IntegrationDefinitionStatus
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.names import DEFAULT_SCOPE
from integration_service.contracts.schemas import (
    SCHEMAS_PATH,
    WIRE_TYPES,
    definition_schemas,
    index,
    method_schemas,
    type_schema,
)
from integration_service.gateway.tokens import SAFE_HEADERS, Tokens, refused
from integration_service.storage.database import Database, within_scope
from integration_service.storage.definitions import Definitions, not_found

_SHOWN = (IntegrationDefinitionStatus.PUBLISHED, IntegrationDefinitionStatus.DEPRECATED)
_OPEN = {"Cache-Control": "public, max-age=300", "X-Content-Type-Options": "nosniff"}
_ABSENT = (ErrorCode.DEFINITION_NOT_FOUND, ErrorCode.METHOD_NOT_FOUND)
_OF_METHODS = f"{SCHEMAS_PATH}/methods/{{definition}}/{{version}}"


class Schemas:
    """The endpoints. Definitions of the global scope are for everybody; those of another one (``?scope=``) may name a
    customer, and are for who has a token."""

    def __init__(self, database: Database, *, tokens: Tokens) -> None:
        self._definitions = Definitions(database)
        self._tokens = tokens

    @property
    def routes(self) -> list[Route]:
        return [
            Route(SCHEMAS_PATH, self._index, methods=["GET"]),
            Route(_OF_METHODS, self._definition, methods=["GET"]),
            Route(f"{_OF_METHODS}/{{method}}", self._method, methods=["GET"]),
            Route(f"{SCHEMAS_PATH}/{{type}}", self._type, methods=["GET"]),
        ]

    async def _index(self, _: Request) -> Response:
        return _answer(index())

    async def _type(self, request: Request) -> Response:
        name = request.path_params["type"]
        if name not in WIRE_TYPES:
            return refused(404, ErrorCode.VALIDATION_ERROR, "no such type", path="type")
        return _answer(type_schema(name))

    async def _definition(self, request: Request) -> Response:
        return await self._told(request, method=None)

    async def _method(self, request: Request) -> Response:
        return await self._told(request, method=request.path_params["method"])

    async def _told(self, request: Request, *, method: str | None) -> Response:
        scope = request.query_params.get("scope") or DEFAULT_SCOPE
        if scope != DEFAULT_SCOPE and (refusal := self._tokens.refusal(request, what="schemas of that scope")):
            return refusal
        try:
            found = await self._find(scope, request.path_params["definition"], request.path_params["version"])
            told = definition_schemas(found) if method is None else method_schemas(found, method)
        except IntegrationError as error:
            if error.code not in _ABSENT:
                raise
            return refused(404, error.code, error.message, path=error.path)
        return _answer(told, headers=_OPEN if scope == DEFAULT_SCOPE else dict(SAFE_HEADERS))

    async def _find(self, scope: str, name: str, version: str) -> IntegrationDefinition:
        # The database, too, lets no row of another scope through.
        with within_scope(scope):
            found = await self._definitions.find(scope, name, version)
        if found is None or found.status not in _SHOWN:
            raise not_found(name, version)
        return found


def _answer(told: Any, *, headers: dict[str, str] = _OPEN) -> JSONResponse:
    return JSONResponse(told, headers=headers)
