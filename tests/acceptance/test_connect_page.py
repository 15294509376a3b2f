"""The connect page in a real browser, by keyboard and without JavaScript; `STORE_IMAGES=folder` keeps photographs."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.connect_tickets import ConnectTicketWanted
from integration_service.contracts.wire import JsonObject
from integration_service.storage.connect_tickets import ConnectTickets
from integration_service.storage.vault.keyring import Keyring
from tests.chromium import PROGRAM, Browser, browser
from tests.identity import identity_provider
from tests.oauth_setting import Setting
from tests.planted import found_anywhere
from tests.waiting import eventually
from tests.world import World, definition_file, method

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")

GOOD, WRONG = "Planted-Browser-Key-44e1", "Planted-Browser-Wrong-b70"
_LABEL = """(() => { const one = document.activeElement;
  return one.labels && one.labels.length ? one.labels[0].innerText.trim() : one.innerText.trim(); })()"""


async def _link(world: World, instance: JsonObject) -> str:
    wanted = ConnectTicketWanted(instance_id=instance["id"])
    tickets = ConnectTickets(world.database)
    return (await tickets.make(wanted, public_url=world.stack.ready.gateway, return_urls=())).url


async def _tab_to(page: Browser, label: str) -> None:
    for _ in range(20):
        await page.press("Tab")
        if str(await page.evaluate(_LABEL)).startswith(label):
            return
    raise AssertionError(f"the keyboard never comes to {label!r}")


async def _keep(page: Browser, name: str) -> None:
    if folder := os.environ.get("STORE_IMAGES"):
        Path(folder, f"{name}.png").write_bytes(await page.photograph())


async def test_a_form_is_filled_by_keyboard_without_javascript(world: World, name: str) -> None:
    async def upstream(request: Request) -> Response:
        return JSONResponse({}, 200 if request.headers.get("x-api-key") == GOOD else 401)

    world.upstream.handler = upstream
    title = {"type": "string", "title": "Address of your help desk", "format": "uri"}
    schema = {
        "type": "object",
        "properties": {
            "url": {**title, "description": "What you see in the browser when you are logged in there."},
            "pageSize": {"type": "integer", "title": "Tickets per page", "minimum": 1, "maximum": 100, "default": 50},
            "region": {"enum": ["Europe", "United States"], "title": "Region"},
            "archive": {"type": "boolean", "title": "Read the archive too"},
        },
        "required": ["url", "region"],
    }
    file = definition_file(
        name,
        title="Acme Help Desk",
        description="Reads tickets of your help desk, and opens new ones.",
        authType="api_key",
        configSchema=schema,
        connectionTest="me",
        methods=[method("me", "GET", "/me")],
    )
    await world.publish(file)
    instance = await world.connect(name, config={}, name=f"Support team {name[-4:]}")
    url = await _link(world, instance)
    async with browser() as page:
        await page.without_script()
        await page.open(url, width=1000, height=640)
        await page.shows("You are about to connect")
        await _keep(page, "connect-begin")
        await _tab_to(page, "Continue")
        await page.press("Enter")
        await page.shows("Fields are required unless marked optional.")
        await _size(page, 1000, 1140)
        await _keep(page, "connect-form")
        await _tab_to(page, "Address of your help desk")
        await page.write("not an address")
        await _tab_to(page, "Tickets per page")
        await page.write("many")
        await _tab_to(page, "API key")
        await page.write(WRONG)
        await page.press("Enter")
        await page.shows("There is a problem", "Tickets per page: Enter a whole number.", "Region: Choose one.")
        await eventually(partial(page.evaluate, "document.activeElement.className == 'summary'"))
        assert await page.evaluate("document.title") == "Error: Connect Acme Help Desk"
        assert WRONG not in str(await page.evaluate("document.documentElement.outerHTML"))
        await _size(page, 1000, 1380)
        await _keep(page, "connect-errors")
        await _size(page, 390, 844)
        await _keep(page, "connect-mobile")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await page.in_dark(True)
        await _size(page, 1000, 1380)
        await _keep(page, "connect-dark")
        await page.in_dark(False)

        # The summary's link leads to its field.
        await _tab_to(page, "Tickets per page:")
        await page.press("Enter")
        assert await page.evaluate(_LABEL) == "Tickets per page (optional)"
        await page.evaluate("document.activeElement.select()")
        await page.write("20")
        await page.evaluate("document.getElementsByName('config.url')[0].select()")
        await page.evaluate("document.getElementsByName('config.url')[0].focus()")
        await page.write(world.upstream.url)
        await page.evaluate("document.getElementsByName('config.region')[0].value = 'Europe'")
        await _tab_to(page, "Read the archive too")
        await page.press("Space")
        for key, answer in ((WRONG, "The provider does not accept this."), (GOOD, "The connection works.")):
            await page.evaluate("document.getElementsByName('apiKey.key')[0].focus()")
            await page.write(key)
            await page.press("Enter")
            await page.shows(answer)
        await _size(page, 1000, 420)
        await _keep(page, "connect-done")
        status = await world.connection(instance).status()
        assert (status["status"], status["config"]["archive"]) == ("CONNECTED", True)
        await page.open(url)
        await page.shows("This link no longer works")
    assert await found_anywhere(world, [GOOD, WRONG, url.rpartition("/")[2]], [status]) == []


async def test_oauth_goes_through_the_provider_and_comes_back(world: World, keyring: Keyring, name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="integrations-idp-") as folder:
        async with identity_provider(Path(folder) / "idp") as identity, browser() as page:
            whole, templated, device = (Setting(world, identity, keyring, f"{name}{one}") for one in "abc")
            await device.publish(
                identity.device,
                grantType="device_code",
                tokenEndpointAuthMethod="none",
                authorizationUrl=None,
                issuer=None,
                scope="openid read",
                deviceAuthorizationUrl="{config.url}/o/device-authorization/",
            )
            await whole.publish(authorizationUrl=f"{identity.issuer}/authorize/")
            await templated.publish()
            await page.without_script()

            instance = await whole.instance()
            await page.open(await _link(world, instance))
            await page.shows("You are about to connect")
            await page.click("button")
            await page.shows("Continue to the provider")
            await page.click("button")
            await page.shows("Username")
            await page.evaluate("document.getElementsByName('username')[0].focus()")
            await page.write(identity.user.username)
            await _tab_to(page, "Password")
            await page.write(identity.user.password)
            await page.press("Enter")
            await page.click("[name=allow]")
            await page.shows("Access was granted.")
            assert (await world.connection(instance).status())["status"] == "CONNECTED"

            # The address depends on the config: one more click, since the form's policy could not name the provider.
            instance = await templated.instance()
            await page.open(await _link(world, instance))
            await page.shows("You are about to connect")
            await page.click("button")
            await page.shows("Continue to the provider")
            await page.click("button")
            await page.shows("Grant access on the provider's own page.")
            await page.click("a.button")
            await page.click("[name=allow]")
            await page.shows("Access was granted.")
            assert (await world.connection(instance).status())["status"] == "CONNECTED"

            instance = await device.instance()
            await page.open(await _link(world, instance))
            await page.shows("You are about to connect")
            await page.click("button")
            await page.shows("Identity provider", "Connection:")
            await page.click("button")
            await page.shows("enter the code")
            code = str(await page.evaluate("document.querySelector('.code').innerText"))
            # Not entered yet: the page shows the code again. It is another document, without the mark.
            await page.evaluate("document.title = 'seen'")
            await page.click("a.button")

            async def shown_again() -> Any:
                return await page.evaluate("document.title != 'seen' && document.querySelector('main a')?.href")

            shown = str(await eventually(shown_again))
            await page.shows(code)
            await identity.approve_device(shown, code)

            async def is_connected() -> bool:
                return (await world.connection(instance).status())["status"] == "CONNECTED"

            await eventually(is_connected)
            await page.click("a.button")
            await page.shows("The connection works.")


async def test_the_front_page(world: World) -> None:
    async with browser() as page:
        await page.open(world.stack.ready.gateway, width=1000, height=560)
        await page.shows("Integration Service", "Database", "Seal key", "Temporal Web UI")
        await _keep(page, "gateway-front")


async def _size(page: Browser, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    await page._send("Emulation.setDeviceMetricsOverride", **size)
