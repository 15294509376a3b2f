"""Where a definition's requests go: its `baseUrl`, filled and checked."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from integration_service.activities.url_template import UrlTemplate
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject


class BaseUrl:
    """An absolute http or https URL without user, query or fragment; a template over config and connection."""

    def __init__(self, text: str) -> None:
        """Raises IntegrationError VALIDATION_ERROR with path ``baseUrl``."""
        self._template = UrlTemplate(text, at="baseUrl")
        if not self._template.names:
            _check(text)

    def render(self, *, config: JsonObject, connection: JsonObject) -> str:
        """The URL. Raises IntegrationError CONFIG_ERROR or VALIDATION_ERROR for a value that makes it none."""
        url = self._template.render(config=config, connection=connection)
        _check(url)
        return url


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.username is not None or re.search(r"[\s\\?#]", url):
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, "must be an http or https URL without user, query or fragment", path="baseUrl"
        )
