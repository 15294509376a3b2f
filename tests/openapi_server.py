"""A mock server of an OpenAPI document, by Connexion: it checks each request and answers the document's examples."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from connexion import AsyncApp
from connexion.mock import MockResolver

from tests.served import served

PETSTORE = Path(__file__).parent / "petstore.yaml"


@asynccontextmanager
async def openapi_server(document: Path = PETSTORE) -> AsyncIterator[str]:
    """The server's URL. A request that breaks the document is answered 400, 404 or 415 as ``problem+json``."""
    app = AsyncApp(__name__, specification_dir=str(document.parent))
    app.add_api(document.name, resolver=MockResolver(mock_all=True), strict_validation=True, validate_responses=True)
    async with served(app, lifespan=True) as url:
        yield url
