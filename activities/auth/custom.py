"""A credential that goes where the definition's `customAuth` says: headers, query, body."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote_plus

from integration_service.activities.auth.context import AuthContext
from integration_service.activities.auth.header import header_problem, with_credential
from integration_service.activities.auth.template import credential_template, fill
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.activities.templates import scalar_text
from integration_service.contracts.authentication import CustomAuth
from integration_service.contracts.credentials import CredentialPayload
from integration_service.contracts.definitions import DefinitionFile, HttpRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject

_FORM = "application/x-www-form-urlencoded"
_NEVER_A_BODY = frozenset({"GET", "HEAD"})
"""Their redirects are followed, to other origins too: a body would take the credential along."""
_ALWAYS_A_BODY = frozenset({"POST", "PUT", "PATCH"})


def apply(request: OutboundRequest, credential: CredentialPayload, context: AuthContext) -> OutboundRequest:
    """Fills the definition's texts in. What the request already has under such a name gives way.

    Raises IntegrationError AUTH_ERROR or CONFIG_ERROR that names a value which is missing or cannot stand there,
    VALIDATION_ERROR for a body that is no object.
    """
    auth = _auth(context.definition)
    values = _custom(credential)

    def filled(part: str, texts: dict[str, str] | None) -> Iterator[tuple[str, str]]:
        escape = _one_line if part != "body" else _as_it_is
        for name, text in (texts or {}).items():
            template = credential_template(text, at=f"customAuth.{part}.{name}")
            yield name, fill(template, config=context.config, credential=values, escape=escape)

    for name, value in filled("headers", auth.headers):
        request = with_credential(request, name, value, what=f"the value for header {name}")
    if auth.query:
        base, _, query = request.url.partition("?")
        request = replace(request, url=f"{base}?{_laid_over(query, dict(filled('query', auth.query)))}")
    if auth.body and _takes_a_body(request):
        request = _with_body(request, dict(filled("body", auth.body)), context.definition)
    return request


def secrets(credential: CredentialPayload) -> tuple[str, ...]:
    """Every text in it, and every number as text."""
    return tuple(dict.fromkeys(_texts(_custom(credential))))


def check(definition: DefinitionFile) -> None:
    """Whether `customAuth` can be followed. Raises IntegrationError VALIDATION_ERROR with the path."""
    auth = definition.custom_auth
    if auth is None:
        raise _wrong("customAuth", "authType custom needs it")
    if not (auth.headers or auth.query or auth.body):
        raise _wrong("customAuth", "says nowhere where the credential goes")
    for part, texts in (("headers", auth.headers), ("query", auth.query), ("body", auth.body)):
        for name, text in (texts or {}).items():
            at = f"customAuth.{part}.{name}"
            credential_template(text, at=at)
            if part != "body" and "\n" in text.replace("\r", "\n"):
                raise _wrong(at, "holds a line break")
            if part == "headers" and (problem := header_problem(text)) is not None:
                raise _wrong(at, problem)
    if auth.body:
        _check_bodies(definition)


def _check_bodies(definition: DefinitionFile) -> None:
    if definition.type == "soap":
        raise _wrong("customAuth.body", "a SOAP envelope has no place for it")
    requests = [method.request for method in definition.methods]
    encodings = {request.encoding or "json" for request in requests if isinstance(request, HttpRequest)}
    for index, request in enumerate(requests):
        if not isinstance(request, HttpRequest):
            continue
        at = f"methods[{index}].request"
        if request.encoding in ("text", "xml", "multipart"):
            raise _wrong(f"{at}.encoding", f"customAuth.body has no place in a body of encoding {request.encoding}")
        named = any(name.lower() == "content-type" for name in request.headers or ())
        if request.encoding == "form" and len(encodings) > 1 and request.method in _ALWAYS_A_BODY and not named:
            # Without params there is no body to tell by, and what is added would have to guess.
            raise _wrong(f"{at}.headers", f"beside methods of another encoding, name Content-Type: {_FORM}")


def _takes_a_body(request: OutboundRequest) -> bool:
    if request.method in _NEVER_A_BODY:
        return False
    return request.method in _ALWAYS_A_BODY or request.body is not None


def _with_body(request: OutboundRequest, values: dict[str, str], definition: DefinitionFile | None) -> OutboundRequest:
    kind = (request.header("content-type") or "").split(";")[0].strip().lower()
    if kind == _FORM or (not kind and _all_forms(definition)):
        body = _laid_over((request.body or b"").decode(), values).encode()
        return _typed(replace(request, body=body), _FORM)
    try:
        data: Any = json.loads(request.body) if request.body is not None else {}
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise _wrong("customAuth.body", "the request's body is no JSON object, so the credential has no place in it")
    text = json.dumps({**data, **values}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _typed(replace(request, body=text.encode()), "application/json")


def _typed(request: OutboundRequest, content_type: str) -> OutboundRequest:
    return request if request.header("content-type") else request.with_header("Content-Type", content_type)


def _all_forms(definition: DefinitionFile | None) -> bool:
    requests = [method.request for method in definition.methods] if definition else []
    return bool(requests) and all(
        request.encoding == "form" for request in requests if isinstance(request, HttpRequest)
    )


def _laid_over(query: str, values: dict[str, str]) -> str:
    kept = [pair for pair in query.split("&") if pair and unquote_plus(pair.partition("=")[0]) not in values]
    return "&".join((*kept, *(f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in values.items())))


def _one_line(name: str, text: str) -> str:
    if "\n" in text or "\r" in text:
        ours = ErrorCode.AUTH_ERROR if name.startswith("credential.") else ErrorCode.CONFIG_ERROR
        raise IntegrationError(ours, "holds a line break, which cannot stand there", path=name)
    return text


def _as_it_is(_: str, text: str) -> str:
    return text


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case int() | float() if not isinstance(value, bool):
            yield scalar_text(value)
        case dict():
            for inner in value.values():
                yield from _texts(inner)
        case list():
            for inner in value:
                yield from _texts(inner)


def _auth(definition: DefinitionFile | None) -> CustomAuth:
    if definition is None or definition.custom_auth is None:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, "the definition does not say where its credential goes", path="customAuth"
        )
    return definition.custom_auth


def _custom(credential: CredentialPayload) -> JsonObject:
    if credential.custom is None:
        raise TypeError("not a custom credential")
    return credential.custom


def _wrong(path: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=path)
