"""The gateway process: `integrations gateway`."""

from __future__ import annotations

import asyncio
import sys

import uvicorn

from integration_service.contracts.errors import IntegrationError
from integration_service.gateway.app import build_app
from integration_service.settings import Settings
from integration_service.storage.database import Database
from integration_service.storage.schema_version import check_schema_version
from integration_service.telemetry.listener import read_address
from integration_service.telemetry.logs import configure_logs


def main() -> None:
    """Serve until SIGINT or SIGTERM. Raises IntegrationError when it cannot start."""
    settings = Settings.from_environment()
    configure_logs(settings.log_format)
    host, port = read_address(settings.gateway_listen, variable="INTEGRATIONS_GATEWAY_LISTEN")
    asyncio.run(_check(settings))
    # No access log: a callback's query string holds a code and a state.
    uvicorn.run(build_app(settings), host=host, port=port, log_config=None, access_log=False, loop="asyncio")


async def _check(settings: Settings) -> None:
    async with Database(settings.require("database_url"), max_connections=1) as database:
        await check_schema_version(database)


if __name__ == "__main__":
    try:
        main()
    except IntegrationError as failure:
        sys.exit(str(failure))
