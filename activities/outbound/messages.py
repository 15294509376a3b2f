"""What is sent and what comes back, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import httpx2


@dataclass(frozen=True)
class OutboundRequest:
    """One HTTP request. `secret_headers` names the headers that must not follow a redirect to another origin."""

    method: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes | None = field(default=None, repr=False)
    secret_headers: frozenset[str] = frozenset()
    follow_redirects: bool = True
    """Whether a GET or HEAD goes where it is sent; what holds a secret in its URL or body does not."""

    @cached_property
    def parsed_url(self) -> httpx2.URL:
        """The URL as it is read when it is dialled. Raises httpx2.InvalidURL."""
        return httpx2.URL(self.url)

    def header(self, name: str) -> str | None:
        """The header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def with_header(self, name: str, value: str) -> Self:
        """The request with that header, in place of any of the same name."""
        return replace(self, headers=self._headers_with(name, value))

    def with_secret_header(self, name: str, value: str) -> Self:
        """The same, and the header is one that carries a credential."""
        secret = self.secret_headers | {name.lower()}
        return replace(self, headers=self._headers_with(name, value), secret_headers=secret)

    def _headers_with(self, name: str, value: str) -> tuple[tuple[str, str], ...]:
        kept = tuple((key, old) for key, old in self.headers if key.lower() != name.lower())
        return (*kept, (name, value))


@dataclass(frozen=True)
class InboundResponse:
    """One HTTP response, its body decoded. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        """The media type alone, lower case, without parameters."""
        return self.headers.get("content-type", "").split(";")[0].strip().lower()
