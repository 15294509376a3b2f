"""`/`: whether what the gateway needs answers, and where things are. Nothing of any tenant."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, version

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.schemas import SCHEMAS_PATH
from integration_service.contracts.wire import JsonObject
from integration_service.gateway.connections import Connections
from integration_service.gateway.style import SAFE_HEADERS, document, page_headers
from integration_service.storage.database import Database
from integration_service.storage.seal_keys import current_seal_key

_FRESH_S = 5.0
_PATIENCE_S = 3.0
_ROWS = {
    "database": ("Database", "answers", "does not answer"),
    "temporal": ("Temporal", "answers", "does not answer"),
    "sealKey": ("Seal key", "is there", "is missing: no worker has made one yet"),
}
_LINKS = {
    "health": ("/healthz", "Health of this process"),
    "sealKey": ("/v1/seal-key", "Seal key"),
    "schemas": (SCHEMAS_PATH, "JSON Schemas"),
}


@dataclass(frozen=True)
class _Looked:
    at: float
    found: dict[str, bool]


class FrontPage:
    """The endpoint: HTML, or JSON for whoever accepts that only."""

    def __init__(self, database: Database, connections: Connections, *, web_ui_url: str) -> None:
        self._database = database
        self._connections = connections
        self._links = dict(_LINKS) | ({"webUi": (web_ui_url, "Temporal Web UI")} if web_ui_url else {})
        self._last = _Looked(float("-inf"), {})
        self._looking = asyncio.Lock()

    @property
    def route(self) -> Route:
        return Route("/", self.show, methods=["GET"])

    async def show(self, request: Request) -> Response:
        """200 whatever it finds: it tells a person, and no orchestrator."""
        found = await self._look()
        accept = request.headers.get("accept", "")
        if "application/json" in accept and "text/html" not in accept:
            return JSONResponse(self._wire(found), headers={**SAFE_HEADERS, "Vary": "Accept"})
        return HTMLResponse(self._html(found), headers={**page_headers(), "Vary": "Accept"})

    async def _look(self) -> dict[str, bool]:
        # Anybody may ask: however often, the database and Temporal are asked every five seconds.
        async with self._looking:
            if time.monotonic() - self._last.at > _FRESH_S:
                temporal, (database, key) = await asyncio.gather(self._connections.answers(), self._stored())
                found = {"database": database, "temporal": temporal, "sealKey": key}
                self._last = _Looked(time.monotonic(), found)
            return self._last.found

    async def _stored(self) -> tuple[bool, bool]:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return True, await current_seal_key(self._database) is not None
        except (IntegrationError, TimeoutError):
            return False, False

    def _wire(self, found: dict[str, bool]) -> JsonObject:
        links = {name: address for name, (address, _) in self._links.items()}
        return {"status": "ok" if all(found.values()) else "degraded", "version": _version(), **found, "links": links}

    def _html(self, found: dict[str, bool]) -> str:
        title = "Integration Service" if all(found.values()) else "Integration Service: not all is well"
        rows = "".join(
            f'<tr><th scope="row">{label}</th><td>{"✓ " + good if found[name] else "✗ " + bad}</td></tr>\n'
            for name, (label, good, bad) in _ROWS.items()
        )
        links = "".join(
            f'<li><a href="{escape(address)}">{label}</a></li>\n' for address, label in self._links.values()
        )
        return document(
            title,
            f'<h1>{title}</h1>\n<table>\n<caption class="hint">Version {escape(_version())}</caption>\n{rows}</table>\n'
            f'<nav aria-labelledby="where"><h2 id="where">Where things are</h2>\n<ul>\n{links}</ul></nav>\n',
        )


def _version() -> str:
    try:
        return version("integration-service")
    except PackageNotFoundError:
        return "unknown"
