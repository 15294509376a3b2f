"""Definition files: every key of the data model, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from integration_service.activities.adapters.http import HttpAdapter
from integration_service.contracts.definitions import (
    DefinitionFile,
    HttpRequest,
    IntegrationAuthType,
    IntegrationDefinition,
    IntegrationMethod,
)
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import parse
from tests.world import definition_file, method

SECRET = "planted-client-secret-7Q"

RETRY = {
    "maxRetries": 2,
    "backoffMultiplier": 1.5,
    "initialDelayMs": 10,
    "maxDelayMs": 20,
    "retryableErrors": ["TIMEOUT", "HTTP_503", "HTTP_5XX"],
}
METHOD = {
    "name": "create_issue",
    "description": "Creates an issue.",
    "paramSchema": {"type": "object"},
    "resultSchema": {"type": "object", "properties": {"id": {"type": "integer"}}},
    "requestTransform": "$",
    "responseTransform": "$.items",
    "rateLimits": {"requestsPerMinute": 60, "burstLimit": 5},
    "timeoutMs": 1500,
    "retryConfig": RETRY,
    "request": {
        "method": "POST",
        "path": "/repos/{owner}/issues",
        "query": ["q"],
        "headers": {"X-Note": "{note}"},
        "body": ["title"],
        "encoding": "json",
    },
    "idempotent": False,
    "idempotencyHeader": "Idempotency-Key",
    "cache": {"ttlMs": 1000, "varyByInstance": False},
    "pagination": {"kind": "link", "items": "$", "maxPages": 3},
}
OAUTH2 = {
    "clientId": {"$env": "CLIENT_ID"},
    "clientSecret": {"$file": "secret.txt"},
    "authorizationUrl": "https://provider.test/authorize",
    "tokenUrl": "https://provider.test/token",
    "scope": "a b",
    "additionalParameters": {"audience": "api"},
    "refreshTokenConfig": {"strategy": "manual", "timeBeforeExpiryMs": 60000},
    "grantType": "authorization_code",
    "pkce": True,
    "tokenEndpointAuthMethod": "client_secret_post",
    "scopeSeparator": ",",
    "refreshUrl": "https://provider.test/refresh",
    "revocationUrl": "https://provider.test/revoke",
    "issuer": "https://provider.test",
    "tokenRequest": {"rename": {"client_id": "client_key"}},
    "tokenResponse": {"accessToken": "data.token"},
}
DEFINITION = {
    "id": "2f1f6f0a-0f7c-4b7e-9a43-0d6e6f6f0a11",
    "name": "git-hub_1",
    "title": "Git Hub",
    "scope": "acme",
    "description": "Code.",
    "version": "1.2.3-rc.1+build.5",
    "type": "http",
    "authType": "oauth2",
    "baseUrl": "https://{config.host}/v1",
    "methods": [METHOD],
    "configSchema": {"type": "object"},
    "oauth2Config": OAUTH2,
    "defaultConfig": {"host": "api.test"},
    "connectionTest": "create_issue",
    "errorMessage": "$.message",
    "createdAt": "2026-01-02T03:04:05.678Z",
    "updatedAt": "2026-01-02T03:04:06.000Z",
    "publishedAt": "2026-01-02T03:04:07.000Z",
    "status": "PUBLISHED",
}


def at(document: Any, path: list[str | int]) -> Any:
    for part in path:
        document = document[part]
    return document


def test_every_key_of_the_data_model_comes_back_under_its_own_name() -> None:
    assert parse(IntegrationDefinition, DEFINITION).to_wire() == DEFINITION


@pytest.mark.parametrize("status", ["DRAFT", "PUBLISHED", "DEPRECATED", "ARCHIVED"])
def test_every_status_is_kept(status: str) -> None:
    assert parse(IntegrationDefinition, {**DEFINITION, "status": status}).to_wire()["status"] == status


@pytest.mark.parametrize("kind", ["none", "basic", "api_key", "oauth2", "jwt", "custom"])
def test_every_auth_type_is_kept(kind: str) -> None:
    assert parse(IntegrationDefinition, {**DEFINITION, "authType": kind}).to_wire()["authType"] == kind


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        ("http", {"method": "GET", "path": "/"}),
        ("graphql", {"document": "{ viewer { id } }"}),
        ("soap", {"operation": "Add", "service": "Calculator", "port": "Soap12"}),
    ],
)
def test_every_integration_type_takes_its_own_request(kind: str, request_: dict[str, Any]) -> None:
    file = definition_file("things", type=kind, methods=[method("m", "GET", "/") | {"request": request_}])
    wire = parse(DefinitionFile, file).to_wire()
    assert (wire["type"], wire["methods"][0]["request"]) == (kind, request_)


@pytest.mark.parametrize("kind", ["graphql", "soap"])
def test_a_request_of_another_type_is_refused(kind: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        parse(DefinitionFile, definition_file("things", type=kind))
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, "methods[0].request")


@pytest.mark.parametrize("strategy", ["auto", "manual"])
def test_every_refresh_strategy_is_kept(strategy: str) -> None:
    changed = copy.deepcopy(DEFINITION)
    changed["oauth2Config"]["refreshTokenConfig"] = {"strategy": strategy}  # type: ignore[index]
    wire = parse(IntegrationDefinition, changed).to_wire()
    assert wire["oauth2Config"]["refreshTokenConfig"] == {"strategy": strategy}


LEVELS: list[tuple[list[str | int], str]] = [
    ([], "surplus"),
    (["methods", 0], "methods[0].surplus"),
    (["methods", 0, "rateLimits"], "methods[0].rateLimits.surplus"),
    (["methods", 0, "retryConfig"], "methods[0].retryConfig.surplus"),
    (["methods", 0, "request"], "methods[0].request.surplus"),
    (["methods", 0, "cache"], "methods[0].cache.surplus"),
    (["oauth2Config"], "oauth2Config.surplus"),
    (["oauth2Config", "refreshTokenConfig"], "oauth2Config.refreshTokenConfig.surplus"),
    (["oauth2Config", "clientId"], "oauth2Config.clientId.surplus"),
    (["oauth2Config", "clientSecret"], "oauth2Config.clientSecret.surplus"),
]


@pytest.mark.parametrize(("level", "path"), LEVELS, ids=[path for _, path in LEVELS])
def test_an_unknown_key_is_refused_with_its_path(level: list[str | int], path: str) -> None:
    changed = copy.deepcopy(DEFINITION)
    at(changed, level)["surplus"] = 1
    with pytest.raises(IntegrationError) as refused:
        parse(IntegrationDefinition, changed)
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, path)
    assert refused.value.message == "unknown key"


@pytest.mark.parametrize(
    ("level", "camel", "snake"),
    [
        ([], "authType", "auth_type"),
        ([], "oauth2Config", "oauth2_config"),
        ([], "configSchema", "config_schema"),
        (["methods", 0], "paramSchema", "param_schema"),
        (["methods", 0, "retryConfig"], "maxRetries", "max_retries"),
        (["oauth2Config"], "tokenUrl", "token_url"),
        (["oauth2Config", "clientId"], "$env", "env"),
    ],
)
def test_a_snake_case_key_is_refused(level: list[str | int], camel: str, snake: str) -> None:
    changed = copy.deepcopy(DEFINITION)
    place = at(changed, level)
    place[snake] = place.pop(camel)
    with pytest.raises(IntegrationError) as refused:
        parse(IntegrationDefinition, changed)
    assert any(error["path"].endswith(snake) for error in refused.value.details["errors"])


REQUIRED = ["name", "description", "version", "type", "authType", "methods", "configSchema"]


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_named(key: str) -> None:
    changed = definition_file("things")
    del changed[key]
    with pytest.raises(IntegrationError) as refused:
        parse(DefinitionFile, changed)
    assert refused.value.path == key


@pytest.mark.parametrize("key", ["id", "status", "createdAt", "updatedAt", "publishedAt"])
def test_a_file_does_not_hold_what_the_store_gives(key: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        parse(DefinitionFile, definition_file("things") | {key: DEFINITION[key]})
    assert refused.value.path == key


def test_client_id_and_secret_show_neither_in_repr_nor_in_content() -> None:
    written = {**OAUTH2, "clientId": f"id-{SECRET}", "clientSecret": SECRET}
    file = parse(DefinitionFile, definition_file("t", authType="oauth2", oauth2Config=written))
    assert SECRET not in repr(file)
    assert SECRET not in str(file)
    assert SECRET not in str(file.content())
    assert file.content()["oauth2Config"]["tokenUrl"] == OAUTH2["tokenUrl"]


def test_another_secret_or_other_store_fields_make_no_other_content() -> None:
    stored = parse(IntegrationDefinition, DEFINITION)
    file = {key: DEFINITION[key] for key in DEFINITION if key not in ("id", "status") and not key.endswith("At")}
    changed = {**file, "oauth2Config": {**OAUTH2, "clientSecret": "another"}}
    assert parse(DefinitionFile, changed).content() == stored.content()
    assert parse(DefinitionFile, {**file, "description": "Other."}).content() != stored.content()


@pytest.mark.parametrize("path", ["x", "", "/a b", "/a?b=1", "/a#b", "/a\\b", "/a\n"])
def test_a_request_path_is_rooted_and_only_a_path(path: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        parse(DefinitionFile, definition_file("t", methods=[method("m", "GET", path)]))
    assert refused.value.path == "methods[0].request.path"


@pytest.mark.parametrize(
    ("verb", "safe"),
    [
        ("GET", True),
        ("HEAD", True),
        ("OPTIONS", True),
        ("PUT", True),
        ("DELETE", True),
        ("POST", False),
        ("PATCH", False),
    ],
)
def test_what_may_be_sent_twice_follows_the_verb_unless_said_or_keyed(verb: str, *, safe: bool) -> None:
    def repeatable(**changes: Any) -> bool:
        parsed = parse(IntegrationMethod, method("m", verb, "/", **changes))
        assert isinstance(parsed.request, HttpRequest)
        by_nature = HttpAdapter("https://api.test", parsed.request, at="request").idempotent
        return parsed.safe_to_repeat(by_nature=by_nature)

    assert repeatable() is safe
    assert repeatable(idempotent=True)
    assert not repeatable(idempotent=False)
    assert repeatable(idempotencyHeader="Idempotency-Key")
    assert repeatable(idempotent=False, idempotencyHeader="Idempotency-Key")


def test_the_data_models_auth_types_are_all_there_are() -> None:
    assert {kind.value for kind in IntegrationAuthType} == {"none", "basic", "api_key", "oauth2", "jwt", "custom"}
    with pytest.raises(IntegrationError) as refused:
        parse(DefinitionFile, definition_file("t", authType="digest"))
    assert refused.value.path == "authType"


def test_path_params_are_the_names_in_braces() -> None:
    request = parse(HttpRequest, {"method": "GET", "path": "/a/{b}/{c}-{d}"})
    assert request.path_params == ["b", "c", "d"]
