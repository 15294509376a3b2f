"""The gateway process: `integrations gateway`."""

from __future__ import annotations

import asyncio
import logging
import sys

import uvicorn

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.gateway.app import build_app
from integration_service.settings import Settings
from integration_service.storage.database import Database
from integration_service.storage.schema_version import check_schema_version


def main() -> None:
    """Serve until SIGINT or SIGTERM. Raises IntegrationError when it cannot start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = Settings.from_environment()
    host, port = _address(settings.gateway_listen)
    asyncio.run(_check(settings))
    # No access log: a callback's query string holds a code and a state.
    uvicorn.run(build_app(settings), host=host, port=port, log_config=None, access_log=False)


async def _check(settings: Settings) -> None:
    async with Database(settings.require("database_url"), max_connections=1) as database:
        await check_schema_version(database)


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "must be host:port", path="INTEGRATIONS_GATEWAY_LISTEN")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    try:
        main()
    except IntegrationError as failure:
        sys.exit(str(failure))
