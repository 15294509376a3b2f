"""HTTP: params into a request, a response into data.

Where a param goes: into the path or a header that names it; else where `query` or `body` list it; else into the
query for GET, HEAD and DELETE and into the body for the others, or, once `body` is written out, into the query.
"""

from __future__ import annotations

import re
from typing import Any

from integration_service.activities.adapters.base_url import BaseUrl
from integration_service.activities.adapters.binary import Binary, is_binary
from integration_service.activities.adapters.protocol import Parsed
from integration_service.activities.adapters.request_body import encode_body, form
from integration_service.activities.adapters.response_body import parse_body
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.activities.templates import Template
from integration_service.activities.url_template import path_segment
from integration_service.contracts.definitions import HttpRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject

_QUERY_METHODS = frozenset({"GET", "HEAD", "DELETE"})
_UNSAFE_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class HttpAdapter:
    """One HTTP method, its templates compiled."""

    def __init__(self, base_url: str, request: HttpRequest, *, at: str) -> None:
        """Raises IntegrationError VALIDATION_ERROR with the path of what is wrong in the definition."""
        self._request = request
        self._base = BaseUrl(base_url)
        self._path = Template(request.path, at=f"{at}.path")
        self._headers = [
            (name, Template(text, at=f"{at}.headers.{name}")) for name, text in (request.headers or {}).items()
        ]
        self._encoding = request.encoding or "json"
        if self._encoding in ("text", "xml") and not isinstance(request.body, str):
            raise _wrong(f"{at}.body", f"encoding {self._encoding} takes one param: name it")
        written = {name.lower(): name for name, _ in self._headers}
        if self._encoding == "multipart" and "content-type" in written:
            raise _wrong(f"{at}.headers.{written['content-type']}", "multipart writes this header: it holds a boundary")
        self._written = frozenset(written)
        self._placed = self._path.params.union(*(template.params for _, template in self._headers))

    @property
    def idempotent(self) -> bool:
        """GET, HEAD, OPTIONS, PUT and DELETE are (RFC 9110 §9.2.2)."""
        return self._request.method not in ("POST", "PATCH")

    def build(self, *, params: JsonObject, config: JsonObject, connection: JsonObject) -> OutboundRequest:
        """The request for these params, without its credential.

        Raises IntegrationError VALIDATION_ERROR or CONFIG_ERROR for a value that cannot stand in its place.
        """
        values = {"params": params, "config": config, "connection": connection}
        base = self._base.render(config=config, connection=connection).rstrip("/")
        url = base + self._path.render(values, path_segment)
        headers = [(name, _header(name, template.render(values))) for name, template in self._headers]
        query, body = self._place(params)
        if query and (text := form(query)):
            url += f"?{text}"
        content = None
        if body is not None:
            content, content_type = self._encode(body)
            if "content-type" not in self._written:
                headers.append(("Content-Type", content_type))
        if "accept" not in self._written:
            headers.append(("Accept", "application/json, */*;q=0.5"))
        return OutboundRequest(method=self._request.method, url=url, headers=tuple(headers), body=content)

    def parse(self, response: InboundResponse) -> Parsed:
        """JSON as data, other text as a string, the rest as ``{"$binary", "contentType"}``; an empty body is None."""
        return Parsed(parse_body(response))

    def refusal(self, response: InboundResponse) -> None:
        """The status says all."""

    def _place(self, params: JsonObject) -> tuple[JsonObject, Any]:
        listed_query, listed_body = set(self._request.query or ()), self._request.body
        rest_in_query = self._request.method in _QUERY_METHODS or listed_body is not None
        query: JsonObject = {}
        fields: JsonObject = {}
        for name, value in params.items():
            if name == listed_body or (isinstance(listed_body, list) and name in listed_body):
                fields[name] = value
            elif name in listed_query:
                query[name] = value
            elif name in self._placed:
                continue
            elif rest_in_query:
                query[name] = value
            else:
                fields[name] = value
        if isinstance(listed_body, str):
            return query, fields.get(listed_body)
        return query, fields or None

    def _encode(self, body: Any) -> tuple[bytes, str]:
        named = self._request.body
        if not isinstance(named, str):
            return encode_body(body, encoding=self._encoding, at="params")
        if is_binary(body):  # bytes are what they are, whatever the encoding
            binary = Binary.read(body, at=f"params.{named}")
            return binary.content, binary.content_type
        return encode_body(body, encoding=self._encoding, at=f"params.{named}")


def _wrong(path: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=path)


def _header(name: str, text: str) -> str:
    if _UNSAFE_HEADER.search(text):
        raise _wrong("params", f"a value for header {name} holds a line break or control character")
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        raise _wrong("params", f"a value for header {name} holds characters that a header cannot") from None
    return text.strip()
