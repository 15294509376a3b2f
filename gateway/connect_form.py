"""What a person gave in the form, read: the config that it makes, the credential, and what is wrong with them. Pure."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from integration_service.contracts.credentials import parse_credential
from integration_service.contracts.definitions import PLACEHOLDER, DefinitionFile
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.wire import JsonObject
from integration_service.gateway.credential_fields import credential_fields, plaintext
from integration_service.gateway.fields import Field, Refused, config_fields, put, read_field

_ORIGIN = re.compile(r"(?:https?://)?[^/]*", re.IGNORECASE)
_RULES = {
    "required": "Enter a value.",
    "format": "This is not in the expected form.",
    "pattern": "This is not in the expected form.",
    "additionalProperties": "This is not known here.",
}


@dataclass(frozen=True)
class ConnectForm:
    """A definition's form over an instance's config; after `filled`, with what a person gave.

    `config` is the whole config to be set, `secret` the plaintext to seal, None where the form asks for none.
    """

    definition: DefinitionFile
    fields: tuple[Field, ...]
    config: JsonObject
    secret: bytes | None = field(default=None, repr=False)
    errors: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, definition: DefinitionFile, config: JsonObject) -> Self:
        """The form as it is shown first: the config as it is, upon the definition's defaults."""
        shown = _merged(definition.default_config or {}, config)
        groups = [
            *_named("Settings", config_fields(definition.config_schema, shown)),
            *_named("Credentials", credential_fields(definition)),
        ]
        return cls(definition, tuple(groups), config)

    def filled(self, given: Mapping[str, str]) -> Self:
        """The form with what was given; secrets are in `secret` only."""
        config = copy.deepcopy(self.config)
        credential: JsonObject = {}
        errors: dict[str, str] = {}
        typed = False
        for one in self.fields:
            try:
                value = read_field(one, given)
            except Refused as refused:
                errors[one.name] = str(refused)
                continue
            if one.path[0] == "config":
                # An empty secret keeps the one that is there.
                if value is not None or not one.secret:
                    put(config, one.path[1:], value)
            else:
                typed = True
                put(credential, one.path, value)
        secret = None
        if typed and not errors:
            secret = json.dumps(plaintext(self.definition, credential)).encode("utf-8", "surrogatepass")
            errors = self._shape(secret)
        fields = tuple(one.with_text(given.get(one.name, "")) for one in self.fields)
        return replace(self, fields=fields, config=config, secret=None if errors else secret, errors=errors)

    def leads_elsewhere(self, before: JsonObject) -> bool:
        """Whether requests would go to another host than under the config `before`, where that named one."""
        old, new = (_merged(self.definition.default_config or {}, one) for one in (before, self.config))
        origins = " ".join(found[0] for url in _urls(self.definition) if (found := _ORIGIN.match(url)))
        return any(
            (was := _at(old, name)) not in (None, "") and was != _at(new, name)
            for name in PLACEHOLDER.findall(origins)
            if name.startswith("config.")
        )

    def with_config_error(self, details: Any) -> Self:
        """What `configSchema` found wrong, at the fields that it is about."""
        found = details.get("errors") if isinstance(details, dict) else None
        errors: dict[str, str] = {}
        for one in found if isinstance(found, list) else ():
            name = self._field_at(str(one.get("path")))
            if name is not None:
                rule = str(one.get("rule"))
                errors.setdefault(name, _RULES.get(rule, f"This breaks the rule “{rule}”."))
        return replace(self, errors=errors)

    def with_refused_secret(self) -> Self:
        """The provider refuses the credential: all of its secret fields are to be given again."""
        secrets = [one.name for one in self.fields if one.secret and one.path[0] != "config"]
        return replace(
            self, errors=dict.fromkeys(secrets, "The provider does not accept this. Check it, and enter it again.")
        )

    def _shape(self, secret: bytes) -> dict[str, str]:
        try:
            parse_credential(secret)
        except IntegrationError as error:
            listed = error.details.get("errors") or [{"path": error.path}]
            names = [self._field_at(str(one.get("path")).removeprefix("sealed.")) for one in listed]
            # An error of the whole object is told at its first field.
            first = next(one.name for one in self.fields if one.path[0] != "config")
            return {name or first: "This cannot be right. Check it, and enter it again." for name in names}
        return {}

    def _field_at(self, path: str) -> str | None:
        path = path.replace("[", ".")
        fitting = [one.name for one in self.fields if (path + ".").startswith(one.name.removesuffix(".*") + ".")]
        within = [one.name for one in self.fields if one.name.startswith(path + ".")]
        return max(fitting, key=len, default=within[0] if within else None)


def _named(title: str, fields: list[Field]) -> list[Field]:
    return [one if one.group else replace(one, group=title) for one in fields]


def _urls(definition: DefinitionFile) -> list[str]:
    """Where credentials, codes and client secrets go."""
    oauth = definition.oauth2_config
    told = [definition.base_url]
    if oauth is not None:
        told += [oauth.authorization_url, oauth.token_url, oauth.refresh_url, oauth.revocation_url]
        told += [oauth.device_authorization_url, oauth.issuer]
    return [url for url in told if url]


def _at(config: JsonObject, name: str) -> Any:
    """What stands at ``config.a.b``."""
    found: Any = config
    for part in name.split(".")[1:]:
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _merged(below: JsonObject, above: JsonObject) -> JsonObject:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged
