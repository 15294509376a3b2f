"""The connect pages of the stack's gateway, spoken to as a browser without JavaScript does."""

from __future__ import annotations

import asyncio
import re

import pytest

from integration_service.contracts.connect_tickets import ConnectTicketWanted
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.wire import JsonObject
from integration_service.gateway.app import build_app
from integration_service.settings import Settings
from integration_service.storage.connect_tickets import MAX_POSTS
from integration_service.storage.leftovers import Leftovers
from tests.plain_browser import GOOD, WRONG, Browser, desk, filled, link, only_the_good_key, safe
from tests.planted import found_anywhere
from tests.served import served
from tests.upstream import Upstream, json_answer
from tests.world import World, definition_file, method


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
        # Any page can have its form come from nowhere: it need only ask for no referrer.
        host = world.stack.ready.gateway.partition("://")[2]
        for origin in ("https://evil.test", "null", "", f"https://{host}", f"http://x.{host}", f"http://{host}0"):
            assert (await browser.http.post(url, headers={"Origin": origin})).status_code == 403
        assert (await browser.http.post(url)).status_code == 403
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


@pytest.mark.parametrize("path", ["/connect/", "/oauth/callback/?code=planted&state=x", "/v1/seal-key/", "//evil.test"])
async def test_no_request_chooses_where_a_browser_is_sent(world: World, path: str) -> None:
    async with Browser(world.stack.ready.gateway) as browser:
        headers = {"Host": "evil.test", "X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "https"}
        answer = await browser.http.get(f"{world.stack.ready.gateway}{path}", headers=headers)
        assert answer.status_code == 404
        assert "location" not in answer.headers
        assert "evil" not in answer.text
        assert "server" not in answer.headers


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


async def test_a_link_sends_no_stored_credential_elsewhere(world: World, instance: JsonObject) -> None:
    """Who has a link need not be who gave the key: a config that leads to another host does not take it along."""
    right = {"config__url": world.upstream.url, "config__region": "eu", "apiKey__key": GOOD}
    async with Browser(world.stack.ready.gateway) as browser:
        page = await browser.sends(await browser.opens(await link(world, instance)), **right)
        assert "<h1>Connected</h1>" in page.text
    async with Upstream() as elsewhere, Browser(world.stack.ready.gateway) as browser:
        elsewhere.handler = only_the_good_key
        page = await browser.opens(await link(world, instance))
        page = await browser.sends(page, config__url=f"{elsewhere.url}/v2", apiKey__key=WRONG)
        assert page.status_code == 422
        assert [one.headers["x-api-key"] for one in elsewhere.seen] == [WRONG]
        # Nor is it there any more for a config that is set otherwise.
        await world.connection(instance).configure({"url": elsewhere.url, "region": "eu"})
        assert GOOD not in [one.headers["x-api-key"] for one in elsewhere.seen]
        # What stays with its host keeps its credential until there is another; and one may go, with a new one.
        page = await browser.sends(page, config__url=f"{elsewhere.url}/v2", apiKey__key=GOOD)
        assert page.status_code == 200, page.text
    assert (await world.connection(instance).status())["status"] == "CONNECTED"
