"""Secrets for the command line come from a file or stdin."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from integration_service.cli.secrets import read_credential, read_source
from integration_service.contracts.definitions import EnvSecret, FileSecret, IntegrationAuthType
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject

SECRET = "planted-cli-secret"
KEY = {"key": SECRET, "headerOrParam": "X-Key", "inHeader": True}
API_KEY = IntegrationAuthType.API_KEY


def file(folder: Path, content: Any) -> str:
    path = folder / "credential.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


@pytest.mark.parametrize("content", [KEY, {"type": "api_key", "apiKey": KEY}])
def test_a_file_holds_the_object_alone_or_whole(tmp_path: Path, content: Any) -> None:
    assert json.loads(read_credential(API_KEY, file(tmp_path, content))) == {"type": "api_key", "apiKey": KEY}


def test_stdin_is_read_for_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(KEY)))
    assert json.loads(read_credential(API_KEY, "-"))["apiKey"] == KEY


def test_a_custom_object_may_have_a_type_of_its_own(tmp_path: Path) -> None:
    account = {"type": "service_account", "private_key": SECRET}
    plaintext = read_credential(IntegrationAuthType.CUSTOM, file(tmp_path, account))
    assert json.loads(plaintext) == {"type": "custom", "custom": account}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        SECRET.encode(),
        b'"' + SECRET.encode() + b'"',
        b"\xff\xfe",
        [SECRET],
        {"surplus": SECRET},
        {**KEY, "inHeader": "maybe"},
        {"type": "api_key", "basicAuth": {"username": "u", "password": SECRET}},
    ],
)
def test_a_bad_file_is_refused_without_a_quote(tmp_path: Path, content: Any) -> None:
    with pytest.raises(IntegrationError) as refused:
        read_credential(API_KEY, file(tmp_path, content))
    assert refused.value.code == ErrorCode.VALIDATION_ERROR
    assert refused.value.path
    assert SECRET not in f"{refused.value} {refused.value.details}"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrationError) as refused:
        read_credential(API_KEY, str(tmp_path / "none.json"))
    assert refused.value.path == str(tmp_path / "none.json")


def test_none_takes_no_credentials(tmp_path: Path) -> None:
    with pytest.raises(IntegrationError):
        read_credential(IntegrationAuthType.NONE, file(tmp_path, KEY))


def test_without_a_terminal_a_file_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(IntegrationError) as refused:
        read_credential(API_KEY, None)
    assert refused.value.path == "--file"


def test_a_definitions_secret_is_text_a_variable_or_a_file_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = tmp_path / "definition.yaml"
    (tmp_path / "secret.txt").write_text("from the file\n")
    monkeypatch.setenv("PLANTED_NAME", "from the environment")
    assert read_source("as it is", beside=beside) == "as it is"
    assert read_source(EnvSecret.model_validate({"$env": "PLANTED_NAME"}), beside=beside) == "from the environment"
    assert read_source(FileSecret.model_validate({"$file": "secret.txt"}), beside=beside) == "from the file"


@pytest.mark.parametrize("source", [{"$env": "NO_SUCH_NAME_9"}, {"$file": "none.txt"}])
def test_a_source_that_gives_nothing_is_named(tmp_path: Path, source: dict[str, str]) -> None:
    ((key, name),) = source.items()
    kind = EnvSecret if key == "$env" else FileSecret
    with pytest.raises(IntegrationError) as refused:
        read_source(kind.model_validate(source), beside=tmp_path / "d.yaml")
    assert refused.value.path == f"{key} {name}"


@pytest.mark.parametrize(
    "content",
    [
        {"type": "oauth2", "basicAuth": {"username": "ada", "password": SECRET}},
        {"type": "oauth2", "oauth2": {"accessToken": SECRET}},
        {"accessToken": SECRET},
    ],
)
def test_an_oauth_file_holds_tokens_or_user_and_password(tmp_path: Path, content: JsonObject) -> None:
    whole = content if "type" in content else {"type": "oauth2", "oauth2": content}
    assert json.loads(read_credential(IntegrationAuthType.OAUTH2, file(tmp_path, content))) == whole
