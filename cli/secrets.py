"""Secrets come from a prompt, a file or stdin, never from argv."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from integration_service.contracts.credentials import OBJECT_KEYS, parse_credential
from integration_service.contracts.definitions import EnvSecret, FileSecret, IntegrationAuthType, SecretSource
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject


def read_source(source: SecretSource, *, beside: Path) -> str:
    """The text that a definition file's secret names. Raises IntegrationError VALIDATION_ERROR."""
    if isinstance(source, EnvSecret):
        value = os.environ.get(source.env)
        if value is None:
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, "the variable is not set", path=f"$env {source.env}")
        return value
    if isinstance(source, FileSecret):
        try:
            return (beside.parent / source.file).read_text().strip()
        except OSError as error:
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR, str(error.strerror), path=f"$file {source.file}"
            ) from None
    return source


def read_credential(auth_type: IntegrationAuthType, file: str | None) -> bytes:
    """The plaintext to seal: from `file` (``-`` for stdin), or asked for at a terminal.

    The file holds the object of `IntegrationCredential`, or the whole ``{"type": …, "apiKey": {…}}``.
    Raises IntegrationError VALIDATION_ERROR with the path of what is wrong.
    """
    key = OBJECT_KEYS.get(auth_type)
    if key is None:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, f"authType {auth_type} takes no credentials", path="instance"
        )
    data = _from_file(file) if file else _from_prompt(auth_type)
    # Grant `password` of OAuth takes user and password in the place of tokens.
    keys = {key, OBJECT_KEYS[IntegrationAuthType.BASIC]} if auth_type is IntegrationAuthType.OAUTH2 else {key}
    whole: JsonObject = data if "type" in data and data.keys() & keys else {"type": auth_type.value, key: data}
    plaintext = json.dumps(whole).encode()
    parse_credential(plaintext)
    return plaintext


def _from_file(file: str) -> JsonObject:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        data: Any = json.loads(text)
    except OSError as error:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, str(error.strerror), path=file) from None
    except ValueError:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "not JSON", path=file) from None
    if not isinstance(data, dict):
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "expected a JSON object", path=file)
    return data


def _from_prompt(auth_type: IntegrationAuthType) -> JsonObject:
    if not sys.stdin.isatty():
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, "no terminal to ask at: use --file PATH, or --file - for stdin", path="--file"
        )
    match auth_type:
        case IntegrationAuthType.BASIC:
            return {
                "username": click.prompt("User name", err=True),
                "password": click.prompt("Password", hide_input=True, err=True),
            }
        case IntegrationAuthType.API_KEY:
            return {
                "key": click.prompt("API key", hide_input=True, err=True),
                "headerOrParam": click.prompt("Header or query parameter", default="X-API-Key", err=True),
                "inHeader": click.confirm("Is it a header?", default=True, err=True),
            }
        case IntegrationAuthType.JWT:
            return _jwt_from_prompt()
    raise IntegrationError(ErrorCode.VALIDATION_ERROR, "give it as a file", path="--file")


def _jwt_from_prompt() -> JsonObject:
    kind = click.prompt(
        "Which one do you have?", type=click.Choice(["token", "private-key", "secret"]), default="token", err=True
    )
    if kind == "token":
        asked = {
            "token": click.prompt("Token", hide_input=True, err=True),
            "expiresAt": click.prompt("It expires at (RFC 3339; empty: not known)", default="", err=True),
        }
        return {name: text for name, text in asked.items() if text}
    if kind == "private-key":
        # A PEM has lines, and a terminal's prompt takes one.
        file = Path(click.prompt("File of the private key", err=True))
        key = {"privateKey": read_source(FileSecret(file=file.name), beside=file)}
    else:
        key = {"secret": click.prompt("Secret", hide_input=True, err=True)}
    key_id = click.prompt("Key id (empty: none)", default="", err=True)
    return {**key, "keyId": key_id} if key_id else {**key}
