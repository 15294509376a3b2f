"""Options that commands of several groups take."""

from __future__ import annotations

import json
from typing import Any

import click

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.names import DEFAULT_SCOPE

scope_option = click.option("--scope", default=DEFAULT_SCOPE, show_default=True)


def json_option(text: str, option: str) -> Any:
    """A JSON option's value. Raises IntegrationError VALIDATION_ERROR naming the option."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, f"not JSON: {error}", path=option) from None
