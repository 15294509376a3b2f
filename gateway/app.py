"""The gateway's routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from temporalio.envconfig import ClientConnectConfig

from integration_service.contracts.calls import RESULTS_PATH
from integration_service.contracts.errors import Decision, ErrorCode, IntegrationError
from integration_service.gateway.callback import Callback
from integration_service.gateway.codec import Codec
from integration_service.gateway.connect import Connect
from integration_service.gateway.connect_tickets import TicketOffice
from integration_service.gateway.connections import Connections
from integration_service.gateway.front_page import FrontPage
from integration_service.gateway.measuring import Measuring
from integration_service.gateway.results import Results
from integration_service.gateway.schemas import Schemas
from integration_service.gateway.tokens import Tokens
from integration_service.settings import Settings, temporal_config
from integration_service.storage.database import Database
from integration_service.storage.large_results import LargeResults
from integration_service.storage.schema_version import check_schema_version
from integration_service.storage.seal_keys import current_seal_key
from integration_service.storage.temporal_converter import temporal_converter
from integration_service.storage.vault.key_file import open_keyring
from integration_service.telemetry.endpoints import Readiness, endpoints
from integration_service.telemetry.figures import PoolCollector
from integration_service.telemetry.metrics import Metrics

_EVERY_METHOD = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE")


def build_app(settings: Settings, *, temporal: ClientConnectConfig | None = None) -> Starlette:
    """The gateway over one database. It can tell the seal key and opens no credential; the key sets that it may hold
    are those of large results and of payloads.

    `temporal` says how to reach Temporal, by default what the environment says. Raises IntegrationError when a setting
    is missing or the key set cannot be read.
    """
    database = Database(settings.require("database_url"), max_connections=5)
    metrics = Metrics()
    metrics.collect_from(PoolCollector(database.pool_stats))
    ready = Readiness({"database": partial(check_schema_version, database, running=True)})
    converter = temporal_converter(settings)
    connections = Connections(temporal or temporal_config(), converter=converter)
    codec = Codec.build(settings, converter.payload_codec)
    oauth = Callback(database, connections, return_urls=settings.return_urls, metrics=metrics)
    tokens = Tokens(settings.gateway_tokens)
    results = Results(
        LargeResults(database, open_keyring(settings.results_key_source())) if settings.gateway_tokens else None,
        tokens=tokens,
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await connections.open()
        async with database:
            yield

    async def exposition() -> bytes:
        return metrics.exposition()

    async def seal_key(_: Request) -> JSONResponse:
        """`GET /v1/seal-key`: what secrets are sealed to."""
        key = await current_seal_key(database)
        if key is None:
            raise IntegrationError(ErrorCode.UNAVAILABLE, "no worker has made a seal key yet")
        return JSONResponse(key.to_wire(), headers={"Cache-Control": "no-store"})

    async def callback(request: Request) -> Response:
        return await oauth(request)

    async def result(request: Request) -> Response:
        return await results(request)

    app = Starlette(
        routes=[
            *endpoints(ready, exposition),
            Route("/v1/seal-key", seal_key),
            Route(f"{RESULTS_PATH}{{id:path}}", result, methods=["GET"]),
            *Schemas(database, tokens=tokens).routes,
            codec.routes(),
            *Connect(database, connections, public_url=settings.public_url, return_urls=settings.return_urls).routes,
            TicketOffice(database, settings, tokens=tokens).route,
            FrontPage(database, connections, web_ui_url=settings.web_ui_url).route,
            # The endpoint itself refuses what is not GET, with a page of its own.
            Route("/oauth/callback", callback, methods=_EVERY_METHOD),
        ],
        middleware=[Middleware(Measuring, metrics=metrics)],
        lifespan=lifespan,
        exception_handlers={IntegrationError: _failed},
    )
    # It would redirect to whatever host the request names, with a callback's code in the address.
    app.router.redirect_slashes = False
    return app


async def _failed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, IntegrationError)  # noqa: S101 - it is registered for nothing else
    status = 503 if error.decision is Decision.WAIT else 400
    wire = {"code": error.code, "message": error.message, "path": error.path}
    return JSONResponse({key: value for key, value in wire.items() if value is not None}, status_code=status)
