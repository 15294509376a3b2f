"""The connect pages of the stack's gateway, spoken to as a browser without JavaScript does."""

from __future__ import annotations

import asyncio
import re
from html import unescape
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.connect_tickets import ConnectTicketWanted
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject
from integration_service.gateway.app import build_app
from integration_service.settings import Settings
from integration_service.storage.connect_tickets import MAX_POSTS, ConnectTickets
from integration_service.storage.leftovers import Leftovers
from tests.planted import found_anywhere
from tests.served import served
from tests.upstream import json_answer
from tests.world import World, definition_file, method

GOOD = "Planted-Page-Key-3d7a/1+q"
WRONG = "Planted-Page-Wrong-9c2"
SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "title": "Address", "format": "uri", "description": "Where your help desk is."},
        "pages": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
        "region": {"enum": ["eu", "us"]},
        "archive": {"type": "boolean"},
        "owner": {"type": "object", "properties": {"mail": {"type": "string", "format": "email"}}},
        "labels": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["url", "region"],
    "additionalProperties": False,
}


def desk(name: str, **changes: Any) -> JsonObject:
    return definition_file(
        name,
        title="Help desk <1>",
        authType="api_key",
        configSchema=SCHEMA,
        connectionTest="me",
        methods=[method("me", "GET", "/me")],
        **changes,
    )


async def only_the_good_key(request: Request) -> Response:
    return JSONResponse({}, 200 if request.headers.get("x-api-key") == GOOD else 401)


class Browser:
    """Cookies, forms, and no script. Redirects are looked at."""

    def __init__(self, gateway: str) -> None:
        self.http = httpx2.AsyncClient(base_url=gateway, trust_env=False, timeout=60)

    async def __aenter__(self) -> Browser:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def get(self, url: str) -> httpx2.Response:
        return safe(await self.http.get(url))

    async def post(self, url: str, data: dict[str, str] | None = None, **headers: str) -> httpx2.Response:
        sent = {"Sec-Fetch-Site": "same-origin", "Origin": "null", **headers}
        return safe(await self.http.post(url, data=data or {}, headers=sent))

    async def opens(self, url: str) -> httpx2.Response:
        """The ticket's page, its button, and the form that it leads to."""
        assert "Continue" in (await self.get(url)).text
        answer = await self.post(url)
        assert (answer.status_code, answer.headers["location"]) == (303, "/connect")
        return await self.get("/connect")

    async def sends(self, page: httpx2.Response, **given: str) -> httpx2.Response:
        """The form that a page shows, as it is filled in already but for what is `given` (``a__b`` is ``a.b``)."""
        data = filled(page.text)
        return await self.post("/connect", {**data, **{name.replace("__", "."): text for name, text in given.items()}})


def filled(html: str) -> dict[str, str]:
    data = {}
    for tag in re.findall(r"<input [^>]*>", html):
        name, value = (re.search(rf' {one}="([^"]*)"', tag) for one in ("name", "value"))
        if name and ("checkbox" not in tag or " checked" in tag):
            data[unescape(name[1])] = unescape(value[1]) if value else ""
    for name, inner in re.findall(r'<select[^>]* name="([^"]*)"[^>]*>(.*?)</select>', html):
        chosen = re.search(r'value="([^"]*)" selected', inner) or re.search(r'value="([^"]*)"', inner)
        assert chosen is not None
        data[unescape(name)] = unescape(chosen[1])
    for name, inner in re.findall(r'<textarea[^>]* name="([^"]*)"[^>]*>\n(.*?)</textarea>', html, re.DOTALL):
        data[unescape(name)] = unescape(inner)
    return data


def safe(response: httpx2.Response) -> httpx2.Response:
    headers = response.headers
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    if response.status_code != 303:
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-frame-options"] == "DENY"
        assert "<script" not in response.text
        assert '<html lang="en">' in response.text
    return response


async def link(world: World, instance: JsonObject, **more: Any) -> str:
    wanted = ConnectTicketWanted(instance_id=instance["id"], **more)
    allowed = ["https://app.test"]
    gateway = world.stack.ready.gateway
    return (await ConnectTickets(world.database).make(wanted, public_url=gateway, return_urls=allowed)).url


@pytest.fixture
async def instance(world: World, name: str) -> JsonObject:
    world.upstream.handler = only_the_good_key
    await world.publish(desk(name))
    return await world.connect(name, config={})


async def test_a_person_corrects_what_is_wrong_and_is_connected(world: World, instance: JsonObject) -> None:
    url = await link(world, instance)
    async with Browser(world.stack.ready.gateway) as browser:
        page = await browser.opens(url)
        assert "Help desk &lt;1&gt;" in page.text
        assert 'value="20"' in page.text  # the schema's default
        seen = [page.text]
        # What the page itself can tell, all at once; the secret is not shown again.
        page = await browser.sends(page, config__pages="many", apiKey__key=WRONG, config__labels="[1")
        assert page.status_code == 422
        for told in ("Enter a whole number.", "Enter valid JSON.", "Choose one.", "Enter a value."):
            assert told in page.text, told
        assert page.text.count('aria-invalid="true"') == 4
        for target in re.findall(r'<li><a href="#([^"]+)"', page.text):
            assert f'id="{target}"' in page.text
            assert f'aria-describedby="{target}-' in page.text
        seen.append(page.text)
        # What only `configSchema` tells.
        right = {"config__region": "eu", "config__pages": "7", "config__labels": '["a"]'}
        page = await browser.sends(page, **right, config__url="no address", apiKey__key=WRONG)
        assert page.status_code == 422
        assert "This is not in the expected form." in page.text
        seen.append(page.text)
        # What only the provider tells.
        page = await browser.sends(page, config__url=world.upstream.url, config__archive="on", apiKey__key=WRONG)
        assert page.status_code == 422
        assert "The provider does not accept this." in page.text
        seen.append(page.text)
        assert (await world.connection(instance).status())["status"] == "AUTH_ERROR"
        page = await browser.sends(page, apiKey__key=GOOD)
        assert page.status_code == 200, page.text
        assert "<h1>Connected</h1>" in page.text
        seen.append(page.text)
        assert (await browser.get("/connect")).status_code == 410
    status = await world.connection(instance).status()
    assert status["status"] == "CONNECTED"
    assert status["config"] == {
        "url": world.upstream.url,
        "pages": 7,
        "region": "eu",
        "archive": True,
        "labels": ["a"],
    }
    async with Browser(world.stack.ready.gateway) as another:
        assert (await another.get(url)).status_code == (await another.post(url)).status_code == 410
    ticket = url.rpartition("/")[2]
    assert await found_anywhere(world, [GOOD, WRONG, ticket], seen) == []


async def test_a_preview_uses_nothing_up_and_a_ticket_works_once(world: World, instance: JsonObject) -> None:
    url = await link(world, instance)
    async with Browser(world.stack.ready.gateway) as one, Browser(world.stack.ready.gateway) as other:
        for _ in range(3):
            assert (await one.get(url)).status_code == 200
        assert (await one.http.head(url)).status_code == 200
        answers = await asyncio.gather(one.post(url), other.post(url))
        assert sorted(answer.status_code for answer in answers) == [303, 410]
        cookies = [answer.headers["set-cookie"] for answer in answers if "set-cookie" in answer.headers]
        assert len(cookies) == 1
        assert {"httponly", "samesite=strict", "path=/", "max-age=900"} <= set(cookies[0].lower().split("; "))


async def test_over_https_the_cookie_belongs_to_the_host(world: World, instance: JsonObject) -> None:
    settings = Settings(database_url=world.stack.ready.database, public_url="https://gateway.test")
    async with served(build_app(settings, temporal={"target_host": "127.0.0.1:1"}), lifespan=True) as gateway:
        async with Browser(gateway) as browser:
            url = await link(world, instance)
            answer = await browser.post(url.replace(world.stack.ready.gateway, gateway))
            assert answer.headers["set-cookie"].startswith("__Host-connect=")
            assert "; secure" in answer.headers["set-cookie"].lower()
            # Temporal is away: the person may reload.
            session = answer.headers["set-cookie"].partition(";")[0]
            page = safe(await browser.http.get("/connect", headers={"Cookie": session}))
            assert page.status_code == 503
        assert ConnectTicketWanted(instance_id="x").expires_ms == 900_000


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
async def test_another_sites_form_opens_nothing(world: World, instance: JsonObject, headers: dict[str, str]) -> None:
    url = await link(world, instance)
    async with Browser(world.stack.ready.gateway) as browser:
        assert (await browser.post(url, **headers)).status_code == 403
        page = await browser.opens(url)
        assert (await browser.post("/connect", filled(page.text), **headers)).status_code == 403


async def test_an_old_browser_is_known_by_its_origin(world: World, instance: JsonObject) -> None:
    url = await link(world, instance)
    async with Browser(world.stack.ready.gateway) as browser:
        refused = await browser.http.post(url, headers={"Origin": "https://evil.test"})
        assert refused.status_code == 403
        opened = await browser.http.post(url, headers={"Origin": world.stack.ready.gateway})
        assert opened.status_code == 303


async def test_a_form_without_its_token_or_that_is_none_is_not_read(world: World, instance: JsonObject) -> None:
    url = await link(world, instance)
    async with Browser(world.stack.ready.gateway) as browser:
        page = await browser.opens(url)
        data = filled(page.text)
        for wrong in ({**data, "token": "x"}, {**data, "token": "ü"}, {}, {**data, "config.url": "x" * 300_000}):
            assert (await browser.post("/connect", wrong)).status_code == 400
        same = {"Sec-Fetch-Site": "same-origin"}
        assert safe(await browser.http.post("/connect", json=data, headers=same)).status_code == 400
        form = {**same, "Content-Type": "application/x-www-form-urlencoded"}
        for body in (b"token=%ff", b"token=a&token=b", b"a=%00&token=" + data["token"].encode()):
            assert safe(await browser.http.post("/connect", content=body, headers=form)).status_code == 400
    assert (await world.connection(instance).status())["status"] == "PENDING_CONFIGURATION"


async def test_without_a_session_or_with_an_unknown_one_there_is_no_form(world: World) -> None:
    async with Browser(world.stack.ready.gateway) as browser:
        for cookie in ("", "connect=x", "connect=ü"):
            headers = {"Cookie": cookie.encode("latin-1").decode("latin-1")} if cookie.isascii() else {}
            assert safe(await browser.http.get("/connect", headers=headers)).status_code == 410
        for ticket in ("x", "x" * 43, "%00", "a%2Fb"):
            assert (await browser.http.get(f"/connect/{ticket}")).status_code in (404, 410)


async def test_what_has_expired_is_refused_and_swept(world: World, instance: JsonObject) -> None:
    url = await link(world, instance)
    aged = "UPDATE integrations.connect_tickets SET {} WHERE instance_id = %(id)s"
    async with Browser(world.stack.ready.gateway) as browser:
        await world.database.one(aged.format("expires_at = clock_timestamp()"), {"id": instance["id"]})
        assert (await browser.get(url)).status_code == (await browser.post(url)).status_code == 410
        await browser.opens(await link(world, instance))
        await world.database.one(
            aged.format("session_expires_at = clock_timestamp()") + " AND session_hash IS NOT NULL",
            {"id": instance["id"]},
        )
        assert (await browser.get("/connect")).status_code == 410
    old = (
        "expires_at = clock_timestamp() - interval '2 hours', session_expires_at = session_expires_at - interval '2 h'"
    )
    await world.database.one(aged.format(old), {"id": instance["id"]})
    await Leftovers(world.database).sweep()
    rows = await world.database.all(
        "SELECT 1 FROM integrations.connect_tickets WHERE instance_id = %(id)s", {"id": instance["id"]}
    )
    assert rows == []


async def test_one_link_is_good_for_so_many_tries(world: World, instance: JsonObject) -> None:
    async with Browser(world.stack.ready.gateway) as browser:
        page = await browser.opens(await link(world, instance))
        for _ in range(MAX_POSTS):
            assert (await browser.sends(page)).status_code == 422
        assert (await browser.sends(page)).status_code == 429
        assert (await browser.get("/connect")).status_code == 410


async def test_nothing_hostile_becomes_markup(world: World, name: str) -> None:
    bad = "<script>alert(1)</script>\"'"
    schema = {
        "type": "object",
        "properties": {bad: {"type": "string", "title": bad, "description": bad, "default": bad}, "e": {"enum": [bad]}},
    }
    file = definition_file(name, title=bad, description=bad, authType="basic", configSchema=schema, baseUrl="http://x")
    await world.publish(file)
    instance = await world.connect(name, name=f"{bad}{name}", config={})
    async with Browser(world.stack.ready.gateway) as browser:
        page = await browser.opens(await link(world, instance))
        assert page.text.count("&lt;script&gt;") > 5
        page = await browser.sends(page, basicAuth__username="a:b", basicAuth__password=bad)
        assert page.status_code == 422
        assert "This cannot be right." in page.text
        assert filled(page.text)["basicAuth.password"] == ""


async def test_success_returns_to_an_allowed_page_only(world: World, name: str) -> None:
    world.upstream.handler = only_the_good_key
    await world.publish(desk(name))
    settings = Settings(
        database_url=world.stack.ready.database, return_urls=("https://app.test",), public_url="http://127.0.0.1:1"
    )
    ready = world.stack.ready
    reach = {"target_host": ready.temporal, "namespace": ready.namespace}
    back = "https://app.test/done?tenant=1"
    for allowed in (True, False):
        instance = await world.connect(name, config={"url": world.upstream.url, "region": "eu"})
        # The list may have become shorter since the ticket was made.
        app = build_app(settings if allowed else settings.model_copy(update={"return_urls": ()}), temporal=reach)
        async with served(app, lifespan=True) as gateway, Browser(gateway) as browser:
            url = (await link(world, instance, return_url=back)).replace(ready.gateway, gateway)
            page = await browser.opens(url)
            assert ("form-action 'self' https://app.test" in page.headers["content-security-policy"]) is allowed
            answer = await browser.sends(page, apiKey__key=GOOD)
            if allowed:
                assert answer.status_code == 303
                assert answer.headers["location"] == f"{back}&status=connected&instanceId={instance['id']}"
            else:
                assert answer.status_code == 200
    with pytest.raises(IntegrationError) as refused:
        await link(world, instance, return_url="https://evil.test/")
    assert refused.value.path == "returnUrl"


@pytest.mark.parametrize("auth", ["none", "custom", "jwt"])
async def test_other_kinds_of_credential(world: World, name: str, auth: str) -> None:
    world.upstream.answers = [json_answer({})] * 3
    more: JsonObject = {"customAuth": {"headers": {"X-A": "{credential.account}:{credential.token}"}}}
    file = definition_file(
        name,
        authType=auth,
        connectionTest="me",
        methods=[method("me", "GET", "/me")],
        **(more if auth == "custom" else {}),
    )
    await world.publish(file)
    instance = await world.connect(name, config={})
    given = {"custom": {"custom__account": "acme", "custom__token": "tok-1234"}, "jwt": {"jwt__token": "a.b.c"}}
    async with Browser(world.stack.ready.gateway) as browser:
        page = await browser.opens(await link(world, instance))
        page = await browser.sends(page, config__url=world.upstream.url, **given.get(auth, {}))
        assert page.status_code == 200, page.text
    seen = world.upstream.seen[-1].headers
    assert {"custom": seen.get("x-a") == "acme:tok-1234", "jwt": seen.get("authorization") == "Bearer a.b.c"}.get(
        auth, True
    )


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
