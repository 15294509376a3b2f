"""The gateway process: `integrations gateway`."""

from __future__ import annotations

import logging
import sys

import uvicorn

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.gateway.app import build_app
from integration_service.settings import Settings


def main() -> None:
    """Serve until SIGINT or SIGTERM; one line on stderr and exit 1 when it cannot run."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = Settings.from_environment()
        host, port = _address(settings.gateway_listen)
        # No access log: a callback's query string holds a code and a state.
        uvicorn.run(build_app(settings), host=host, port=port, log_config=None, access_log=False)
    except IntegrationError as error:
        sys.exit(str(error))


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "must be host:port", path="INTEGRATIONS_GATEWAY_LISTEN")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    main()
