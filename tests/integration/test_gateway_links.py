"""Who makes links of the connect page, and the gateway's front page."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from integration_service.contracts.errors import ErrorCode
from integration_service.contracts.wire import JsonObject
from integration_service.gateway.app import build_app
from integration_service.settings import Settings
from tests.plain_browser import Browser, desk
from tests.served import served
from tests.waiting import eventually
from tests.world import World


@pytest.fixture
async def instance(world: World, name: str) -> JsonObject:
    await world.publish(desk(name))
    return await world.connect(name, config={})


async def test_services_ask_for_links_with_a_token(world: World, instance: JsonObject) -> None:
    token = world.stack.environment["INTEGRATIONS_GATEWAY_TOKENS"]
    async with httpx2.AsyncClient(base_url=world.stack.ready.gateway, trust_env=False) as http:

        async def ask(body: Any, given: str | None = token) -> httpx2.Response:
            headers = {"Authorization": f"Bearer {given}"} if given else {}
            return await http.post("/v1/connect-tickets", json=body, headers=headers)

        wanted = {"instanceId": instance["id"]}
        for wrong in (None, "x" * 43):
            answer = await ask(wanted, wrong)
            assert (answer.status_code, answer.json()["code"]) == (401, ErrorCode.AUTH_ERROR)
        for body, path in (
            ({}, "instanceId"),
            ({**wanted, "returnUrl": "https://evil.test"}, "returnUrl"),
            ({**wanted, "expiresMs": 900_001}, "expiresMs"),
            ({**wanted, "else": 1}, "else"),
        ):
            answer = await ask(body)
            assert (answer.status_code, answer.json()["path"]) == (400, path), answer.text
        assert (await ask({**wanted, "scope": "other"})).status_code == 404
        assert (await http.get("/v1/connect-tickets")).status_code == 405
        made = await ask({"instanceId": instance["name"], "expiresMs": 60_000})
        assert made.status_code == 201
        assert made.headers["cache-control"] == "private, no-store"
        assert set(made.json()) == {"url", "expiresAt"}
        async with Browser(world.stack.ready.gateway) as browser:
            assert (await browser.opens(made.json()["url"])).status_code == 200
    nobody = build_app(Settings(database_url=world.stack.ready.database), temporal={"target_host": "127.0.0.1:1"})
    async with served(nobody, lifespan=True) as gateway, httpx2.AsyncClient(trust_env=False) as http:
        assert (await http.post(f"{gateway}/v1/connect-tickets", json=wanted)).status_code == 503


async def test_the_command_line_makes_links(world: World, instance: JsonObject) -> None:
    async def run(*options: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("integrations")
        command = [str(program), "instance", "connect-link", *options]
        environment = {**os.environ, **world.stack.environment, "INTEGRATIONS_RETURN_URLS": "https://app.test"}
        return await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60
        )

    plain, told, refused = await asyncio.gather(
        run(instance["name"]),
        run(instance["id"], "--return-url", "https://app.test/x", "--expires", "1", "--json"),
        run(instance["id"], "--return-url", "https://evil.test/"),
    )
    assert set(json.loads(told.stdout)) == {"url", "expiresAt"}
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "(returnUrl)" in refused.stderr
    for url in (plain.stdout.strip(), json.loads(told.stdout)["url"]):
        async with Browser(world.stack.ready.gateway) as browser:
            assert (await browser.opens(url)).status_code == 200


async def test_the_front_page_tells_health_and_nothing_of_a_tenant(world: World, instance: JsonObject) -> None:
    async with Browser(world.stack.ready.gateway) as browser:
        page = await browser.get("/")
        told = (await browser.http.get("/", headers={"Accept": "application/json"})).json()
    assert (told["status"], told["database"], told["temporal"], told["sealKey"]) == ("ok", True, True, True)
    assert told["links"]["webUi"] == world.stack.ready.ui
    assert world.stack.ready.ui in page.text
    assert instance["name"] not in page.text
    lost = Settings(database_url="postgresql://u@127.0.0.1:1/d")
    app = build_app(lost, temporal={"target_host": "127.0.0.1:1"})
    async with served(app, lifespan=True) as gateway, Browser(gateway) as browser:
        page, ticket = await asyncio.gather(browser.get("/"), browser.get("/connect/" + "x" * 43))
        assert "✗ does not answer" in page.text
        assert ticket.status_code == 503
        told = (await browser.http.get("/", headers={"Accept": "application/json"})).json()
        assert (told["status"], told["database"], told["temporal"]) == ("degraded", False, False)


async def test_who_hangs_up_amid_a_request_leaves_no_traceback(world: World) -> None:
    token = world.stack.environment["INTEGRATIONS_GATEWAY_TOKENS"]
    log = Path(world.stack.environment["INTEGRATIONS_KEYRING"]).parent / "logs" / "gateway.log"
    logged = log.stat().st_size
    host, port = world.stack.ready.gateway.removeprefix("http://").split(":")
    head = f"POST /v1/connect-tickets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    async with httpx2.AsyncClient(base_url=world.stack.ready.gateway, trust_env=False) as http:

        async def ended() -> float:
            counts = re.findall(
                r"\nintegrations_gateway_requests_total\{.*connect-tickets.*\} (.*)", (await http.get("/metrics")).text
            )
            return sum(float(count) for count in counts)

        before = await ended()
        for _ in range(3):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"{head}Content-Length: 99\r\n\r\n{{".encode())
            await writer.drain()
            writer.transport.abort()

        async def all_ended() -> bool:
            return await ended() == before + 3

        assert await eventually(all_ended)
    assert "Traceback" not in log.read_text()[logged:]
