"""A stack with payload encryption on: what Temporal holds, who reads it, and who does not."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from google.protobuf.json_format import MessageToDict
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from temporalio.api.common.v1 import Payloads
from temporalio.client import Client, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from integration_service.contracts.calls import MethodCall
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.names import connection_workflow_id
from integration_service.contracts.wire import JsonObject
from integration_service.devstack.options import StackOptions
from integration_service.devstack.stack import Stack
from integration_service.gateway.access_tokens import AccessTokens, KeySource, Refused
from integration_service.plugin import IntegrationClientPlugin, IntegrationPlugin
from integration_service.settings import Settings
from integration_service.storage.database import Database
from tests.chromium import PROGRAM, browser
from tests.served import served
from tests.upstream import Upstream, json_answer
from tests.world import World, definition_file, method

PLANTED = [b"planted-param", b"planted-result", b"planted-config", b"planted-message"]


@pytest.fixture(scope="module")
async def encrypted() -> AsyncIterator[Stack]:
    data_dir = Path(tempfile.mkdtemp(prefix="integrations-test-"))
    data_dir.rmdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTEGRATIONS_PAYLOAD_ENCRYPTION", "on")
        stack = Stack(StackOptions(data_dir, temporal_port=0, ui_port=0, gateway_port=0, postgres_port=0))
        async with stack:
            yield stack
        stack.destroy()
        shutil.rmtree(data_dir, ignore_errors=True)


def _settings(stack: Stack) -> Settings:
    return Settings.from_environment(stack.environment)


@pytest.fixture
async def called(encrypted: Stack, upstream: Upstream, name: str) -> AsyncIterator[tuple[World, JsonObject]]:
    """Connected, called with success and with failure, all of it by a client that encrypts."""
    client = await Client.connect(encrypted.ready.temporal, plugins=[IntegrationClientPlugin(_settings(encrypted))])
    async with Database(encrypted.ready.database) as database:
        world = World(stack=encrypted, database=database, temporal=client, upstream=upstream)
        told = method("post", "POST", "/things", retryConfig={**_NO_RETRY})
        file = definition_file(name, methods=[method("get", "GET", "/things/{id}"), told], errorMessage="told")
        await world.publish(file)
        instance = await world.connect(name, name=f"{name} one", config={"url": upstream.url, "note": "planted-config"})
        assert instance["status"] == "CONNECTED", instance
        upstream.answers = [json_answer({"it": "planted-result"}), json_answer({"told": "planted-message"}, 404)]
        good = MethodCall(instance_id=instance["id"], method="get", params={"id": "planted-param"})
        result = await world.integrations.call(good, workflow_id=f"{name}-good")
        assert result.data == {"it": "planted-result"}
        bad = MethodCall(instance_id=instance["id"], method="post", params={"id": "planted-param"})
        with pytest.raises(IntegrationError, match="planted-message"):
            await world.integrations.call(bad, workflow_id=f"{name}-bad")
        yield world, instance


_NO_RETRY = {"maxRetries": 0, "backoffMultiplier": 1, "initialDelayMs": 1, "maxDelayMs": 1}


async def test_a_history_tells_nothing_without_the_keys(
    called: tuple[World, JsonObject], encrypted: Stack, name: str
) -> None:
    instance = called[1]
    plain = await Client.connect(encrypted.ready.temporal)
    for workflow_id in (f"{name}-good", f"{name}-bad", connection_workflow_id(instance["id"])):
        history = await plain.get_workflow_handle(workflow_id).fetch_history()
        raw = b"".join(event.SerializeToString() for event in history.events)
        assert [secret for secret in PLANTED if secret in raw] == []
        assert b"Traceback" not in raw
        assert b"activities/" not in raw
        assert b"binary/encrypted" in raw
    described = await plain.get_workflow_handle(f"{name}-bad").fetch_history()
    failure = described.events[-1].workflow_execution_failed_event_attributes.failure
    assert (failure.application_failure_info.type, failure.message) == ("HTTP_404", "Encoded failure")


async def test_a_worker_replays_it(called: tuple[World, JsonObject], encrypted: Stack, name: str) -> None:
    world, instance = called
    for workflow_id in (f"{name}-good", f"{name}-bad", connection_workflow_id(instance["id"])):
        history: WorkflowHistory = await world.temporal.get_workflow_handle(workflow_id).fetch_history()
        replayer = Replayer(workflows=[], plugins=[IntegrationPlugin(_settings(encrypted))])
        await replayer.replay_workflow(history)


async def test_a_caller_without_the_codec_may_start_a_call_and_cannot_read_its_answer(
    called: tuple[World, JsonObject], encrypted: Stack, name: str
) -> None:
    world, instance = called
    world.upstream.answers = [json_answer({"it": "planted-result"})]
    plain = await Client.connect(encrypted.ready.temporal, data_converter=pydantic_data_converter)
    handle = await plain.start_workflow(
        "ExecuteMethod",
        {"instanceId": instance["id"], "method": "get", "params": {"id": 1}},
        id=f"{name}-plain",
        task_queue="integrations",
    )
    with pytest.raises(Exception, match="binary/encrypted"):
        await handle.result()
    read = await world.temporal.get_workflow_handle(f"{name}-plain").result()
    assert read["data"] == {"it": "planted-result"}


async def test_our_command_and_temporals_read_it(called: tuple[World, JsonObject], encrypted: Stack, name: str) -> None:
    world, instance = called
    world.upstream.answers = [json_answer({"it": "planted-result"})]
    data_dir = Path(encrypted.environment["INTEGRATIONS_KEYRING"]).parent
    main = "from integration_service.cli.main import main; main()"
    asked = ("call", instance["name"], "get", "--params", '{"id": 1}', "--data-dir", str(data_dir))
    code, out = await _run(sys.executable, "-c", main, *asked)
    assert (code, json.loads(out)["data"]) == (0, {"it": "planted-result"})

    show = ("workflow", "show", "--workflow-id", f"{name}-good", "--detailed")
    where = ("--address", encrypted.ready.temporal, "--codec-endpoint", f"{encrypted.ready.gateway}/codec")
    token = (data_dir / "codec-token").read_text()
    temporal = str(Path(sys.executable).with_name("temporal"))
    code, out = await _run(temporal, *show, *where, "--codec-auth", f"Bearer {token}")
    assert code == 0, out
    assert "planted-result" in out
    code, out = await _run(temporal, *show, *where)
    assert "planted-result" not in out
    assert code != 0


@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")
async def test_the_web_ui_shows_it(called: tuple[World, JsonObject], encrypted: Stack, name: str) -> None:
    described = await called[0].temporal.get_workflow_handle(f"{name}-good").describe()
    async with browser() as page:
        await page.open(f"{encrypted.ready.ui}/namespaces/default/workflows/{name}-good/{described.run_id}/timeline")
        await page.shows("planted-param", "planted-result", f"{name}.get")
        await page.open(
            f"{encrypted.ready.ui}/namespaces/default/workflows/{name}-good/{described.run_id}/user-metadata"
        )
        await page.shows("Done", "The upstream answered: HTTP 200")


async def test_the_gateway_decodes_for_whom_it_was_told_to(
    called: tuple[World, JsonObject], encrypted: Stack, name: str
) -> None:
    converter = called[0].temporal.data_converter
    assert converter.payload_codec is not None
    [payload] = await converter.encode(["planted-param"])

    body = MessageToDict(Payloads(payloads=[payload]))
    ui, gateway = encrypted.ready.ui, encrypted.ready.gateway
    host = gateway.removeprefix("http://")
    token = (Path(encrypted.environment["INTEGRATIONS_KEYRING"]).parent / "codec-token").read_text()
    async with httpx2.AsyncClient(base_url=gateway, trust_env=False) as http:

        async def decode(expected: int, **headers: str) -> httpx2.Response:
            answer = await http.post(
                "/codec/decode?preserveStorageRefs=true",
                json=body,
                headers={"x-namespace": "default", **headers},
            )
            assert answer.status_code == expected, answer.text
            assert ("planted-param" in json.dumps(_opened(answer))) == (expected == 200)
            return answer

        await decode(401)
        await decode(401, authorization="Bearer planted.no.token")
        await decode(401, authorization=f"Basic {token}")
        await decode(200, authorization=f"Bearer {token}")
        page = await decode(200, origin=ui)
        assert page.headers["access-control-allow-origin"] == ui
        for origin in ("null", "http://127.0.0.1", f"{ui}.evil.test", "http://localhost:8233"):
            refused = await decode(401, origin=origin)
            assert "access-control-allow-origin" not in refused.headers
        # A name that was made to lead here.
        await decode(401, origin=ui, host=f"evil.test:{host.rpartition(':')[2]}")
        preflight = {"access-control-request-method": "POST", "access-control-request-headers": "x-namespace"}
        allowed = await http.options("/codec/decode", headers={"origin": ui, **preflight})
        assert allowed.status_code == 200
        assert {"content-type", "x-namespace", "authorization"} <= {
            part.strip() for part in allowed.headers["access-control-allow-headers"].lower().split(",")
        }
        foreign = await http.options("/codec/decode", headers={"origin": "https://evil.test", **preflight})
        assert "access-control-allow-origin" not in foreign.headers

        bearer = {"authorization": f"Bearer {token}"}
        again = await http.post("/codec/encode", json=_plain("planted-param"), headers=bearer)
        assert "planted" not in again.text
        [metadata] = [payload["metadata"] for payload in again.json()["payloads"]]
        assert "encryption-key-id" in metadata
        for content in (b"", b"[1]", b'{"payloads": [{"data": 7}]}', b"\xff", b"[" * 100_000):
            assert (await http.post("/codec/decode", content=content, headers=bearer)).status_code == 400
        broken = {"payloads": [{**body["payloads"][0], "data": "AQAB"}]}
        refused = await http.post("/codec/decode", json=broken, headers=bearer)
        assert (refused.status_code, refused.json()["code"]) == (422, "INTEGRITY_ERROR")


def _plain(value: str) -> JsonObject:

    data = b64encode(json.dumps(value).encode()).decode()
    return {"payloads": [{"metadata": {"encoding": b64encode(b"json/plain").decode()}, "data": data}]}


def _opened(answer: httpx2.Response) -> Any:

    return [b64decode(payload["data"]).decode("latin-1") for payload in answer.json().get("payloads", [])]


async def test_only_the_issuers_tokens_are_accepted() -> None:
    key, other, rsa = ECKey.generate_key("P-256"), ECKey.generate_key("P-256"), RSAKey.generate_key(2048)
    good = {"iss": "https://idp.test", "aud": "codec", "exp": time.time() + 60}
    jwks: dict[str, Any] = {"keys": [key.as_dict(private=False), {"kty": "oct", "k": "c2hhcmVk"}]}

    async def keys(_: Any) -> Any:

        return JSONResponse(jwks)

    async with served(Starlette(routes=[Route("/jwks", keys)])) as url:
        for source in (json.dumps(jwks), f"{url}/jwks"):
            tokens = AccessTokens(KeySource(source), issuer="https://idp.test", audience="codec")
            await tokens.check(jwt.encode({"alg": "ES256"}, good, key))
            await tokens.check(jwt.encode({"alg": "ES256"}, {**good, "aud": ["other", "codec"]}, key))
            shared = OctKey.import_key("shared-shared-shared-shared-shared")
            for header, claims, signer in (
                ({"alg": "ES256"}, good, other),
                ({"alg": "ES256"}, {**good, "exp": time.time() - 60}, key),
                ({"alg": "ES256"}, {**good, "aud": "results"}, key),
                ({"alg": "ES256"}, {**good, "iss": "https://evil.test"}, key),
                ({"alg": "ES256"}, {k: v for k, v in good.items() if k != "exp"}, key),
                ({"alg": "ES256"}, {k: v for k, v in good.items() if k != "aud"}, key),
                ({"alg": "ES256"}, {**good, "nbf": time.time() + 3600}, key),
                ({"alg": "RS256"}, good, rsa),
                ({"alg": "HS256"}, good, shared),
                ({"alg": "ES256", "kid": "unknown"}, good, other),
            ):
                with pytest.raises(Refused):
                    await tokens.check(jwt.encode(header, claims, signer, algorithms=["ES256", "RS256", "HS256"]))
            head = "eyJhbGciOiJub25lIn0"
            body = jwt.encode({"alg": "ES256"}, good, key).split(".")[1]
            for malformed in (f"{head}.{body}.", "", "a.b", "a.b.c", "\u00e4.b.c"):
                with pytest.raises(Refused):
                    await tokens.check(malformed)


async def test_keys_that_cannot_be_had_let_nobody_in() -> None:
    tokens = AccessTokens(KeySource("http://127.0.0.1:9/jwks"), issuer="i", audience="a")
    key = ECKey.generate_key("P-256")
    with pytest.raises(IntegrationError) as refused:
        await tokens.check(jwt.encode({"alg": "ES256"}, {"iss": "i", "aud": "a", "exp": time.time() + 9}, key))
    assert refused.value.code == "UNAVAILABLE"


async def _run(*command: str) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode()
