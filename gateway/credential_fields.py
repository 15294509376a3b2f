"""The fields that a definition's way of authentication asks a person for, and the plaintext that is sealed."""

from __future__ import annotations

from integration_service.contracts.credentials import OBJECT_KEYS
from integration_service.contracts.definitions import PLACEHOLDER, DefinitionFile, IntegrationAuthType
from integration_service.contracts.wire import JsonObject
from integration_service.gateway.fields import Field

_Auth = IntegrationAuthType


def grant_of(definition: DefinitionFile) -> str | None:
    """An OAuth definition's grant; None for the other kinds."""
    return definition.oauth2_config.grant if definition.oauth2_config is not None else None


def credential_fields(definition: DefinitionFile) -> list[Field]:
    """Nothing where no secret is typed: `none`, and OAuth but for grant `password`."""
    match definition.auth_type:
        case _Auth.BASIC:
            return _user("basicAuth")
        case _Auth.OAUTH2:
            return _user("basicAuth") if grant_of(definition) == "password" else []
        case _Auth.API_KEY:
            return [
                _secret(("apiKey", "key"), "API key", "The key as the provider shows it."),
                Field(
                    ("apiKey", "headerOrParam"),
                    "text",
                    "Name of the header or parameter",
                    "The provider's documentation names it.",
                    required=True,
                    value="X-API-Key",
                ),
                Field(
                    ("apiKey", "inHeader"),
                    "select",
                    "Where the key is sent",
                    required=True,
                    value="In a header",
                    choices=(("In a header", True), ("In the address", False)),
                ),
            ]
        case _Auth.JWT:
            return _jwt(definition)
        case _Auth.CUSTOM:
            return _custom(definition)
    return []


def plaintext(definition: DefinitionFile, given: JsonObject) -> JsonObject:
    """``{"type", …}`` as it is sealed."""
    if definition.auth_type is _Auth.CUSTOM and "*" in given.get("custom", {}):
        given = {"custom": given["custom"]["*"]}
    return {"type": definition.auth_type.value, **given}


def _user(key: str) -> list[Field]:
    return [
        Field((key, "username"), "text", "User name", required=True, autocomplete="username"),
        Field((key, "password"), "password", "Password", required=True, secret=True, autocomplete="current-password"),
    ]


def _jwt(definition: DefinitionFile) -> list[Field]:
    algorithm = definition.jwt_config.algorithm if definition.jwt_config else None
    if algorithm is None:
        return [_secret(("jwt", "token"), "Token", "A JSON Web Token.")]
    key_id = Field(("jwt", "keyId"), "text", "Key id", "Leave it empty if the provider gave none.")
    if algorithm.startswith("HS"):
        return [_secret(("jwt", "secret"), "Signing secret"), key_id]
    hint = "The whole text, from BEGIN to END."
    return [Field(("jwt", "privateKey"), "lines", "Private key", hint, required=True, secret=True), key_id]


def _custom(definition: DefinitionFile) -> list[Field]:
    told = definition.custom_auth
    texts = [text for part in (told.headers, told.query, told.body) for text in (part or {}).values()] if told else []
    names = dict.fromkeys(
        name.removeprefix("credential.")
        for text in texts
        for name in PLACEHOLDER.findall(text)
        if name.startswith("credential.")
    )
    if not names:
        hint = "A JSON object with what the provider gave you."
        return [Field((OBJECT_KEYS[_Auth.CUSTOM], "*"), "json", "Credential", hint, required=True, secret=True)]
    return [_secret((OBJECT_KEYS[_Auth.CUSTOM], *name.split(".")), _title(name)) for name in names]


def _title(name: str) -> str:
    words = name.replace("_", " ").replace(".", " ")
    return words[:1].upper() + words[1:]


def _secret(path: tuple[str, ...], label: str, hint: str = "") -> Field:
    return Field(path, "password", label, hint, required=True, secret=True)
