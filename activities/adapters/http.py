"""HTTP: params into a request, a response into data.

Where a param goes: into the path or a header that names it; else where `query` or `body` list it; else into the
query for GET, HEAD and DELETE and into the body for the others, or, once `body` is written out, into the query.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable
from email.message import Message
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from integration_service.activities.adapters.protocol import Parsed
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.activities.templates import Template, scalar_text
from integration_service.activities.url_template import UrlTemplate, path_segment
from integration_service.contracts.definitions import HttpRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject

_QUERY_METHODS = frozenset({"GET", "HEAD", "DELETE"})
_CONTENT_TYPES = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "text": "text/plain; charset=utf-8",
    "xml": "application/xml; charset=utf-8",
}
MAX_DEPTH = 100
"""How deep an answer may nest: what reads it later, in any language, has limits of its own."""
_HUGE_EXPONENT = re.compile(rb"[eE]\+?[0-9]{3}")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNSAFE_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class HttpAdapter:
    """One HTTP method, its templates compiled."""

    def __init__(self, base_url: str, request: HttpRequest, *, at: str) -> None:
        """Raises IntegrationError VALIDATION_ERROR with the path of what is wrong in the definition."""
        self._request = request
        self._base = UrlTemplate(base_url, at="baseUrl")
        self._path = Template(request.path, at=f"{at}.path")
        self._headers = [
            (name, Template(text, at=f"{at}.headers.{name}")) for name, text in (request.headers or {}).items()
        ]
        if not self._base.names:
            _check_base(base_url)
        self._encoding = request.encoding or "json"
        if self._encoding not in _CONTENT_TYPES:
            raise _wrong(f"{at}.encoding", f"{self._encoding} cannot be run by this version")
        if self._encoding in ("text", "xml") and not isinstance(request.body, str):
            raise _wrong(f"{at}.body", f"encoding {self._encoding} takes one param: name it")
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
        _check_base(base)
        url = base + self._path.render(values, path_segment)
        headers = [(name, _header(name, template.render(values))) for name, template in self._headers]
        query, body = self._place(params)
        if query:
            url += "?" + urlencode(list(_pairs(query)), quote_via=quote)
        content = self._encode(body)
        if content is not None and not any(name.lower() == "content-type" for name, _ in headers):
            headers.append(("Content-Type", _CONTENT_TYPES[self._encoding]))
        if not any(name.lower() == "accept" for name, _ in headers):
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

    def _encode(self, body: Any) -> bytes | None:
        if body is None:
            return None
        match self._encoding:
            case "json":
                return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
            case "form":
                if not isinstance(body, dict):
                    raise _wrong("params", "a form is made of an object")
                return urlencode(list(_pairs(body)), quote_via=quote).encode()
        if not isinstance(body, str):
            raise _wrong(f"params.{self._request.body}", "must be a string")
        return body.encode()


def parse_body(response: InboundResponse) -> Any:
    """A body by its content type. Raises IntegrationError MALFORMED_RESPONSE."""
    body, kind = response.body, response.content_type
    if not body:
        return None
    if "/" not in kind:
        kind = ""  # absent, or no media type: Temporal's own HTTP API answers `*`
    if kind in ("application/json", "text/json") or kind.endswith("+json"):
        return _json(body)
    if not kind:
        return _guessed(body, response)
    if kind.startswith("text/") or kind.endswith(("/xml", "+xml", "/javascript")):
        return _text(body, response.headers.get("content-type", ""))
    return _binary(body, response)


def _wrong(path: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=path)


def _check_base(url: str) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.username is not None or re.search(r"[\s\\?#]", url):
        raise _wrong("baseUrl", "must be an http or https URL without user, query or fragment")


def _header(name: str, text: str) -> str:
    if _UNSAFE_HEADER.search(text):
        raise _wrong("params", f"a value for header {name} holds a line break or control character")
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        raise _wrong("params", f"a value for header {name} holds characters that a header cannot") from None
    return text.strip()


def _pairs(values: JsonObject) -> Iterable[tuple[str, str]]:
    """Arrays repeat their name, absent values are left out, objects stand as JSON."""
    for name, value in values.items():
        for item in value if isinstance(value, list) else (value,):
            if item is not None:
                yield name, scalar_text(item)


def _guessed(body: bytes, response: InboundResponse) -> Any:
    """A body whose type nobody tells: JSON if it is, else text if it is, else bytes."""
    try:
        return _load(body)
    except (ValueError, RecursionError):
        pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return _binary(body, response)


def _load(body: bytes) -> Any:
    if _HUGE_EXPONENT.search(body):
        data = json.loads(body, parse_constant=_no_constant, parse_float=_finite)
    else:
        data = json.loads(body, parse_constant=_no_constant)
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _check_depth(data)
    return _without_surrogates(data) if _SURROGATE_ESCAPE.search(body) else data


def _without_surrogates(data: Any) -> Any:
    """Half of a surrogate pair is JSON but no text: nothing that we could pass on. U+FFFD stands for it."""
    match data:
        case str():
            return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", data)
        case dict():
            return {_without_surrogates(key): _without_surrogates(value) for key, value in data.items()}
        case list():
            return [_without_surrogates(value) for value in data]
    return data


def _json(body: bytes) -> Any:
    try:
        return _load(body)
    except (ValueError, RecursionError):
        raise IntegrationError(
            ErrorCode.MALFORMED_RESPONSE, "the upstream says that it answers JSON, and it does not"
        ) from None


def _check_depth(data: Any) -> None:
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_DEPTH}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number beyond what JSON readers hold")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _text(body: bytes, content_type: str) -> str:
    message = Message()
    message["Content-Type"] = content_type or "text/plain"
    charset = message.get_content_charset("utf-8")
    try:
        return body.decode(charset, errors="replace")
    except (LookupError, UnicodeError):
        return body.decode("utf-8", errors="replace")  # a charset that is none, or none for bytes


def _binary(body: bytes, response: InboundResponse) -> JsonObject:
    message = Message()
    message["Content-Disposition"] = response.headers.get("content-disposition", "")
    name = message.get_filename()
    return {
        "$binary": base64.b64encode(body).decode(),
        "contentType": response.content_type if "/" in response.content_type else "application/octet-stream",
        **({"fileName": name} if name else {}),
    }
