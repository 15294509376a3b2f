"""What a person sees at an end: plain pages that load nothing and run nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from html import escape
from typing import Self

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import IntegrationInstanceStatus
from integration_service.contracts.wire import JsonObject
from integration_service.gateway.style import document, page_headers

PAGE_HEADERS = page_headers()
_SHOWN_ERROR = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True)
class Page:
    """One page. `code` is a word for whoever is asked for help; `back` is a URL that was checked before."""

    status: int
    title: str
    sentence: str
    code: str | None = None
    back: str | None = None

    def with_back(self, url: str | None) -> Self:
        """The same page with a link to where the person came from."""
        return replace(self, back=url)

    def html(self) -> str:
        code = f"<p><code>{escape(self.code)}</code></p>\n" if self.code else ""
        back = f'<p><a href="{escape(self.back)}">Back</a></p>\n' if self.back else ""
        inner = f"<h1>{escape(self.title)}</h1>\n<p>{escape(self.sentence)}</p>\n{code}{back}"
        return document(self.title, inner)


CONNECTED = Page(200, "Connected", "Access was granted. You can close this window.")
UNKNOWN_STATE = Page(
    400, "Not connected", "This authorization is unknown, has been used, or has expired. Begin a new one."
)
ONLY_GET = Page(405, "Not connected", "This address takes GET only.")
TRY_AGAIN = Page(503, "Not connected yet", "The service cannot be reached just now. Reload this page in a minute.")
STILL_AT_WORK = Page(
    504,
    "Not connected yet",
    "It takes longer than expected. If the connection is not there in a few minutes, begin a new authorization.",
)

CONNECTED_HERE = Page(200, "Connected", "The connection works. You can close this window.")
UNKNOWN_TICKET = Page(
    410, "This link no longer works", "It has been used, has expired, or was cut short. Ask for a new one."
)
NO_SESSION = Page(
    410, "This page is no longer open", "Fifteen minutes are over, or the connection was made. Ask for a new link."
)
TOO_OFTEN = Page(429, "Too many tries", "This link is used up. Check what you enter, and ask for a new link.")
FOREIGN_FORM = Page(403, "Not sent", "This form was not sent from our own page. Open your link again.")
UNREADABLE_FORM = Page(400, "Not sent", "The form could not be read. Go back, reload the page, and send it again.")
NO_SAFE_ADDRESS = Page(502, "Not connected", "The provider's address cannot be opened. Tell whoever sent you the link.")
CONNECT_TAKES_LONG = Page(
    504, "Not connected yet", "It takes longer than expected. Wait a minute, then open this page again."
)


def invalid(error: IntegrationError) -> Page:
    """The callback's address cannot be right."""
    return Page(400, "Not connected", sentence(error.message))


def refused(error: str) -> Page:
    """The provider said no."""
    return Page(400, "Not connected", "The provider refused the authorization.", shown_error(error))


def shown_error(error: str) -> str | None:
    """A provider's error code where it looks like one: it comes from whoever made the address."""
    return error if _SHOWN_ERROR.fullmatch(error) else None


def failed(error: IntegrationError) -> Page:
    """The connection could not be completed: the state or issuer is wrong, or something behind us failed."""
    if error.code == ErrorCode.VALIDATION_ERROR:
        return invalid(error)
    return Page(502, "Not connected", sentence(error.message), error.code)


def completed(status: JsonObject) -> Page:
    """What the instance's status object says once the code was spent."""
    if status.get("status") == IntegrationInstanceStatus.CONNECTED:
        return CONNECTED
    why = (status.get("error") or {}).get("message") or "The connection is not in use yet."
    return Page(502, "Not connected", sentence(str(why)), str(status.get("status")))


def sentence(message: str) -> str:
    """Our messages are parts of a line elsewhere; here each is a sentence."""
    return message[:1].upper() + message[1:] + ("" if message.endswith(".") else ".")
