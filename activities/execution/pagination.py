"""How a paginated method goes from page to page: which page is next, and what a caller is given to go on with."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urljoin

from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.activities.outbound.transport import is_same_origin
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.pagination import (
    CursorPagination,
    LinkPagination,
    OffsetPagination,
    PagePagination,
    Pagination,
)
from integration_service.contracts.wire import JsonObject
from integration_service.storage.vault.envelope import Context, Envelope, decrypt, encrypt
from integration_service.storage.vault.keyring import KeyProvider

Evaluate = Callable[[str, str, Any], Awaitable[Any]]
"""Expression, where it stands, what it reads: gives its value."""

# One link of a `Link` header (RFC 8288): its target, and its parameters.
_LINK = re.compile(r'<([^<>]*)>((?:\s*;\s*[\w*-]+(?:\s*=\s*(?:"[^"]*"|[^\s",;]+))?)*)')
_REL = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s",;]+))', re.IGNORECASE)
_MAX_TOKEN = 16_384
_MAX_POSITION = 8_000
"""Of JSON: its token then stays below `_MAX_TOKEN`."""


@dataclass(frozen=True)
class Page:
    """A page to ask for: `variables` go with the params, `url` stands in place of the request's own."""

    position: Any = None
    variables: JsonObject = field(default_factory=dict)
    url: str | None = field(default=None, repr=False)

    def of(self, request: OutboundRequest) -> OutboundRequest:
        """The request for this page, before its credential is on it.

        Raises IntegrationError MALFORMED_RESPONSE for a link that leads away: the credential would go with it.
        """
        if self.url is None:
            return request
        try:
            url = urljoin(request.url, self.url)
        except ValueError:
            url = ""
        if not is_same_origin(url, request.url):
            raise _malformed("the link to the next page leads to another origin")
        return replace(request, url=url.partition("#")[0])


class Pages:
    """One method's pagination."""

    def __init__(self, rules: Pagination, *, at: str) -> None:
        """`at` is the path of the rules in their definition."""
        self._rules = rules
        self._at = at

    @property
    def max_pages(self) -> int:
        return self._rules.max_pages

    @property
    def expressions(self) -> list[tuple[str, str]]:
        """Where each of its JSONata expressions stands, and its text."""
        found = [(f"{self._at}.items", self._rules.items)]
        if isinstance(self._rules, LinkPagination | CursorPagination) and self._rules.next is not None:
            found.append((f"{self._at}.next", self._rules.next))
        return found

    def first(self) -> Page:
        """Where a call begins that names no page."""
        match self._rules:
            case OffsetPagination():
                return self._counted(0)
            case PagePagination(first=first):
                return self._counted(first)
        return Page()

    def at(self, position: Any) -> Page:
        """The page at a position that `nextPage` named. Raises IntegrationError VALIDATION_ERROR."""
        match self._rules:
            case OffsetPagination() | PagePagination():
                if isinstance(position, int) and not isinstance(position, bool) and position >= 0:
                    return self._counted(position)
            case CursorPagination(param=param):
                if isinstance(position, str | int | float) and not isinstance(position, bool):
                    return Page(position, {param: position})
            case LinkPagination():
                if isinstance(position, str):
                    return Page(position, url=position)
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "is no page that `nextPage` named", path="page")

    async def items(self, data: Any, evaluate: Evaluate) -> list[Any]:
        """The items of a page. Raises IntegrationError TRANSFORM_ERROR."""
        found = await evaluate(self._rules.items, f"{self._at}.items", data)
        # JSONata makes no difference between one value and an array of one, nor between nothing and an empty one.
        if found is None:
            return []
        return found if isinstance(found, list) else [found]

    async def after(
        self, page: Page, *, items: int, body: Any, response: InboundResponse, evaluate: Evaluate
    ) -> Page | None:
        """The page that follows one that had so many `items`; None after the last. `body` is as it was parsed.

        Raises IntegrationError MALFORMED_RESPONSE when the upstream names the same page again, or no page.
        """
        match self._rules:
            case OffsetPagination(limit=limit):
                is_last = items < (limit or 1)
                following = None if is_last else self._counted(page.position + items)
            case PagePagination(limit=limit):
                is_last = items < (limit or 1)
                following = None if is_last else self._counted(page.position + 1)
            case CursorPagination(next=expression):
                cursor = await evaluate(expression, f"{self._at}.next", body)
                following = None if cursor in (None, "", False) else self._named(cursor)
            case LinkPagination(next=expression):
                if expression is None:
                    link = next_link(response.headers.get("link", ""))
                else:
                    link = await evaluate(expression, f"{self._at}.next", body)
                following = None if link in (None, "", False) else self._named(link)
        if following is not None and following.position == page.position:
            raise _malformed("the upstream names the same page as the next one")
        return following

    def _named(self, position: Any) -> Page:
        if isinstance(position, str) and len(json.dumps(position)) > _MAX_POSITION:
            raise _malformed(f"what names the next page is over {_MAX_POSITION} bytes")
        try:
            return self.at(position)
        except IntegrationError:
            raise _malformed("what should name the next page is neither text nor number") from None

    def _counted(self, position: int) -> Page:
        rules = self._rules
        if not isinstance(rules, OffsetPagination | PagePagination):
            raise TypeError("not a counted pagination")
        variables: JsonObject = {rules.param: position}
        if rules.limit_param is not None and rules.limit is not None:
            variables[rules.limit_param] = rules.limit
        return Page(position, variables)


class PageTokens:
    """What callers get as `nextPage`: positions, sealed. A link may hold a credential, and decides where one goes."""

    def __init__(self, provider: KeyProvider) -> None:
        self._provider = provider

    async def seal(self, page: Page, *, owner: str, method: str) -> str:
        """`owner` names whose token it is: an instance, or all that share a cached answer."""
        envelope = await encrypt(self._provider, json.dumps(page.position).encode(), _context(owner, method))
        wire = [
            base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for value in envelope.to_row().values()
        ]
        return base64.urlsafe_b64encode(json.dumps(wire, separators=(",", ":")).encode()).decode().rstrip("=")

    async def open(self, token: Any, *, owner: str, method: str) -> Any:
        """The position. Raises IntegrationError VALIDATION_ERROR for a token that is not this method's."""
        try:
            if not isinstance(token, str) or len(token) > _MAX_TOKEN:
                raise ValueError
            wire = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            names, texts = Envelope.__dataclass_fields__, ("key_id",)
            numbers = ("envelope_version", "suite", "key_version")
            row = {
                name: value if name in (*texts, *numbers) else base64.b64decode(value, validate=True)
                for name, value in zip(names, wire, strict=True)
            }
            opened = await decrypt(self._provider, Envelope.from_row(row), _context(owner, method))
            return json.loads(opened)
        except (ValueError, TypeError):
            pass
        except IntegrationError as error:
            if error.code not in (ErrorCode.INTEGRITY_ERROR, ErrorCode.KEY_UNAVAILABLE):
                raise
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "is no `nextPage` of this instance and method", path="page")


def next_link(header: str) -> str | None:
    """The target of the link whose relation is ``next``."""
    for target, parameters in _LINK.findall(header):
        rel = _REL.search(parameters)
        if rel is not None and "next" in (rel[1] or rel[2] or "").lower().split():
            return str(target)
    return None


def _context(owner: str, method: str) -> Context:
    return Context("page", (owner, method))


def _malformed(message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.MALFORMED_RESPONSE, message)
