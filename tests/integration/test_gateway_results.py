"""`GET /v1/results/{id}` of a real gateway: who gets what, and by which headers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import secrets
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from integration_service.contracts.calls import ResultRef
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.devstack.stack import Stack
from integration_service.gateway.app import build_app
from integration_service.settings import Settings
from integration_service.storage.instances import Instances
from integration_service.storage.large_results import LargeResults
from integration_service.storage.vault.keyring import Keyring, generate_keyring
from tests.world import World, definition_file

JSON = {"text": "x" * 2_000_000, "ü": 1}


@pytest.fixture
async def instance(world: World, name: str) -> str:
    definition = await world.publish(definition_file(name))
    wanted = ConnectInstanceInput(instance_id=str(uuid.uuid4()), definition=name, name=f"{name} one")
    return (await Instances(world.database).add(wanted, definition)).id


@pytest.fixture
def results(stack: Stack, world: World) -> LargeResults:
    """As a worker of the stack has it."""
    keyring = Keyring.load(stack.environment["INTEGRATIONS_RESULTS_KEYRING"])
    return LargeResults(world.database, keyring, public_url=stack.ready.gateway)


@pytest.fixture
async def ref(results: LargeResults, instance: str) -> ResultRef:
    return await results.store(instance_id=instance, data=JSON)


@asynccontextmanager
async def gateway(stack: Stack, **settings: Any) -> AsyncIterator[str]:
    """A gateway of the test's own."""
    app = build_app(Settings(database_url=stack.ready.database, **settings))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def ask(url: str, token: str | None = None, method: str = "GET", **headers: str) -> httpx2.Response:
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        return await http.request(method, url, headers=headers)


def token(stack: Stack) -> str:
    return stack.environment["INTEGRATIONS_GATEWAY_TOKENS"]


async def test_whoever_has_the_token_gets_it(stack: Stack, ref: ResultRef) -> None:
    answer = await ask(ref.url, token(stack))
    assert answer.status_code == 200
    assert answer.json() == JSON
    assert (len(answer.content), hashlib.sha256(answer.content).hexdigest()) == (ref.bytes, ref.sha256)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["etag"] == f'"{ref.sha256}"'
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-disposition" not in answer.headers


async def test_head_gives_the_headers_alone(stack: Stack, ref: ResultRef) -> None:
    got, head = await ask(ref.url, token(stack)), await ask(ref.url, token(stack), "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(ref.bytes)
    assert {**head.headers, "date": ""} == {**got.headers, "date": ""}
    assert (await ask(ref.url, method="HEAD")).status_code == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nothing_else_is_allowed(stack: Stack, ref: ResultRef, method: str) -> None:
    assert (await ask(ref.url, token(stack), method)).status_code == 405


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        (None, "Bearer"),
        ("Basic {token}", "Bearer"),
        ("{token}", "Bearer"),
        ("Bearer", "Bearer"),
        ("Bearer {token}x", 'Bearer error="invalid_token"'),
        ("Bearer wrong", 'Bearer error="invalid_token"'),
        ("Bearer {token} {token}", 'Bearer error="invalid_token"'),
    ],
)
async def test_nobody_else(stack: Stack, ref: ResultRef, authorization: str | None, challenge: str) -> None:
    headers = {"Authorization": authorization.format(token=token(stack))} if authorization is not None else {}
    answer = await ask(ref.url, **headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, challenge)
    assert answer.json()["code"] == "AUTH_ERROR"
    assert token(stack) not in answer.text


async def test_the_scheme_is_written_in_any_case(stack: Stack, ref: ResultRef) -> None:
    assert (await ask(ref.url, Authorization=f"bearer {token(stack)}")).status_code == 200


@pytest.mark.parametrize(
    "id_", ["x", "d3b07384-d9a0-4c9b-8f1e-5a2f6c7b8e90", "a%2Fb", "a/b", "%00", "%ff", "..%2f..", "x" * 5000]
)
async def test_another_id_is_not_found(stack: Stack, id_: str) -> None:
    answer = await ask(f"{stack.ready.gateway}/v1/results/{id_}", token(stack))
    assert answer.status_code == 404
    assert (await ask(f"{stack.ready.gateway}/v1/results/{id_}")).status_code == 401


async def test_an_expired_or_changed_one_is_not_found(
    stack: Stack, world: World, results: LargeResults, ref: ResultRef, instance: str
) -> None:
    changed = await results.store(instance_id=instance, data=1)
    await world.database.one(
        "UPDATE integrations.large_results SET ciphertext = '\\x00' WHERE id = %(id)s", {"id": changed.id}
    )
    await world.database.one(
        "UPDATE integrations.large_results SET expires_at = now() WHERE id = %(id)s", {"id": ref.id}
    )
    assert (await ask(ref.url, token(stack))).status_code == 404
    answer = await ask(changed.url, token(stack))
    assert (answer.status_code, answer.json()["code"]) == (404, "INTEGRITY_ERROR")


@pytest.mark.parametrize(
    ("file_name", "disposition"),
    [
        ("plan.pdf", "attachment; filename*=UTF-8''plan.pdf"),
        ('a"b\r\nX: y;.txt', "attachment; filename*=UTF-8''a%22bX%3A%20y%3B.txt"),
        ("../../etc/passwd", "attachment; filename*=UTF-8''passwd"),
        ("C:\\größe.txt", "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe.txt"),
        ("\x00/", "attachment"),
        ("\ud800.txt", "attachment; filename*=UTF-8''.txt"),
        (None, None),
    ],
)
async def test_a_binary_one_is_its_bytes(
    stack: Stack, results: LargeResults, instance: str, file_name: str | None, disposition: str | None
) -> None:
    raw = secrets.token_bytes(2_000_000)
    data = {"$binary": base64.b64encode(raw).decode(), "contentType": "text/html"}
    ref = await results.store(instance_id=instance, data={**data, **({"fileName": file_name} if file_name else {})})
    answer = await ask(ref.url, token(stack))
    assert (answer.status_code, answer.content) == (200, raw)
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers.get("content-disposition") == disposition
    assert "sandbox" in answer.headers["content-security-policy"]


async def test_any_of_the_tokens_will_do(stack: Stack, ref: ResultRef) -> None:
    keyring, tokens = stack.environment["INTEGRATIONS_RESULTS_KEYRING"], ("a" * 32, "b" * 40, "c" * 32)
    async with gateway(stack, gateway_tokens=tokens, results_keyring=keyring) as url:
        for known in tokens:
            assert (await ask(f"{url}/v1/results/{ref.id}", known)).status_code == 200
        assert (await ask(f"{url}/v1/results/{ref.id}", "a" * 40)).status_code == 401


async def test_without_tokens_it_says_what_to_set(stack: Stack, ref: ResultRef) -> None:
    async with gateway(stack) as url:
        answer = await ask(f"{url}/v1/results/{ref.id}", "a" * 32)
        assert (answer.status_code, answer.json()["path"]) == (503, "INTEGRATIONS_GATEWAY_TOKENS")
        assert "INTEGRATIONS_GATEWAY_TOKENS" in answer.json()["message"]
        assert (await ask(f"{url}/healthz")).status_code == 200


async def test_a_key_set_that_lacks_the_key_is_an_outage(stack: Stack, ref: ResultRef) -> None:
    async with gateway(stack, gateway_tokens=("a" * 32,), results_keyring=generate_keyring()) as url:
        answer = await ask(f"{url}/v1/results/{ref.id}", "a" * 32)
    assert (answer.status_code, answer.json()["code"]) == (503, "KEY_UNAVAILABLE")


def test_tokens_without_a_key_set_do_not_start(stack: Stack) -> None:
    with pytest.raises(IntegrationError) as refused:
        build_app(Settings(database_url=stack.ready.database, gateway_tokens=("a" * 32,)))
    assert refused.value.path == "INTEGRATIONS_KEYRING"


@pytest.mark.parametrize("value", ["short", "a" * 31, "a" * 32 + ",b", "é" * 32, "a" * 20 + " " + "a" * 20])
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused(value: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        Settings.from_environment({"INTEGRATIONS_GATEWAY_TOKENS": value})
    assert refused.value.path == "INTEGRATIONS_GATEWAY_TOKENS"
    assert value not in str(refused.value)


def test_tokens_show_nowhere() -> None:
    settings = Settings.from_environment({"INTEGRATIONS_GATEWAY_TOKENS": f" {'p' * 32} , {'q' * 40}, "})
    assert settings.gateway_tokens == ("p" * 32, "q" * 40)
    assert "pppp" not in repr(settings) + str(settings)


# The command


def integrations(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("INTEGRATIONS_", "TEMPORAL_"))}
    command = [sys.executable, "-c", "from integration_service.cli.main import main; main()", *arguments]
    return subprocess.run(command, env={**clean, **environment}, capture_output=True, timeout=60, check=False)


@pytest.mark.slow
async def test_the_command_fetches_it_from_the_running_stack(stack: Stack, ref: ResultRef, tmp_path: Path) -> None:
    data_dir = str(Path(stack.environment["INTEGRATIONS_KEYRING"]).parent)
    shown = await asyncio.to_thread(integrations, "result", "get", ref.id, "--data-dir", data_dir)
    assert (shown.returncode, json.loads(shown.stdout)) == (0, JSON), shown.stderr
    out = tmp_path / "result.json"
    told = await asyncio.to_thread(
        integrations, "result", "get", ref.id, "--out", str(out), "--json", "--data-dir", data_dir
    )
    assert json.loads(told.stdout) == {
        "file": str(out), "bytes": ref.bytes, "sha256": ref.sha256, "contentType": "application/json",
    }  # fmt: skip
    assert json.loads(out.read_bytes()) == JSON


@pytest.mark.slow
async def test_the_command_with_a_token_from_the_environment(stack: Stack, ref: ResultRef) -> None:
    there = {"INTEGRATIONS_PUBLIC_URL": stack.ready.gateway, "INTEGRATIONS_GATEWAY_TOKENS": token(stack)}
    shown = await asyncio.to_thread(integrations, "result", "get", ref.id, **there)
    assert json.loads(shown.stdout) == JSON
    for id_, more, code in (
        ("nothing", {}, ErrorCode.VALIDATION_ERROR),
        (ref.id, {"INTEGRATIONS_GATEWAY_TOKENS": "w" * 32}, ErrorCode.AUTH_ERROR),
        (ref.id, {"INTEGRATIONS_PUBLIC_URL": "http://127.0.0.1:1"}, ErrorCode.UNAVAILABLE),
    ):
        refused = await asyncio.to_thread(integrations, "result", "get", id_, **{**there, **more})
        assert (refused.returncode, refused.stdout) == (1, b"")
        assert refused.stderr.decode().startswith(f"{code}: ")
        assert there["INTEGRATIONS_GATEWAY_TOKENS"] not in refused.stderr.decode()
