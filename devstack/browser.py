"""Somebody with a browser, small: logs in at an identity provider by its own forms, and says yes or no."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

import httpx2

from integration_service.contracts.errors import ErrorCode, IntegrationError

_MOST_STEPS = 20


class Person:
    """Use it as a context; cookies are kept, so that one who logged in stays logged in."""

    def __init__(self, username: str, password: str) -> None:
        self._login = {"username": username, "password": password}
        self._http = httpx2.AsyncClient(trust_env=False)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def authorize(self, url: str, *, consent: bool = True) -> str:
        """Opens an authorization URL, logs in, consents or cancels; returns where the provider then leads.

        Raises UNAVAILABLE when the provider shows an error instead, also after a wrong password.
        """
        page = await self._http.get(url)
        answers = {**self._login, **({"allow": "Authorize"} if consent else {})}
        for _ in range(_MOST_STEPS):
            if page.is_redirect:
                target = urljoin(str(page.url), page.headers["location"])
                if _origin(target) != _origin(url):
                    return target
                page = await self._http.get(target)
            else:
                page = await self._submit(page, answers)
        raise _stuck(page)

    async def visit(self, url: str) -> httpx2.Response:
        """Opens a page, such as the callback that `authorize` led to, with all its redirects."""
        return await self._http.get(url, follow_redirects=True)

    async def connect(self, url: str, *, consent: bool = True) -> httpx2.Response:
        """`authorize`, and then the page where that led to."""
        return await self.visit(await self.authorize(url, consent=consent))

    async def approve_device(self, url: str, user_code: str, *, consent: bool = True) -> None:
        """Enters a device's code (RFC 8628 §3.3) and accepts or denies. Raises UNAVAILABLE like `authorize`."""
        page = await self._http.get(url, follow_redirects=True)
        answers = {**self._login, "user_code": user_code, "action": "accept" if consent else "deny"}
        while not page.is_success or _form(page) is not None:
            page = await self._submit(page, answers)
            if page.is_redirect:
                page = await self._http.get(urljoin(str(page.url), page.headers["location"]), follow_redirects=True)

    async def _submit(self, page: httpx2.Response, answers: dict[str, str]) -> httpx2.Response:
        form = _form(page) if page.is_success else None
        if form is None:
            raise _stuck(page)
        given = {name: answers[name] for name in form.asked if name in answers}
        answer = await self._http.post(urljoin(str(page.url), form.action), data={**form.hidden, **given})
        if not answer.is_redirect:
            raise _stuck(answer)  # the same form again: the answers were refused
        return answer


@dataclass
class _Form:
    action: str
    hidden: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Names of its visible fields and buttons."""


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[_Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(_Form(given.get("action", "")))
        elif tag in ("input", "button") and self.forms and given.get("name"):
            if given.get("type") == "hidden":
                self.forms[-1].hidden[given["name"]] = given.get("value", "")
            else:
                self.forms[-1].asked.append(given["name"])


def _form(page: httpx2.Response) -> _Form | None:
    parser = _Forms()
    parser.feed(page.text)
    return parser.forms[0] if parser.forms else None


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _stuck(page: httpx2.Response) -> IntegrationError:
    # Not the whole URL: its query holds a state.
    return IntegrationError(ErrorCode.UNAVAILABLE, f"the provider answered {page.status_code} at {page.url.path}")
