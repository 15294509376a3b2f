"""The pages of Temporal's Web UI, as a person sees them in a browser; `STORE_IMAGES=folder` keeps the photographs."""

from __future__ import annotations

import os
import shlex
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from temporalio.client import Client, WorkflowFailureError

from integration_service.contracts.calls import MethodCall
from integration_service.contracts.names import INTEGRATION_DEFINITION, connection_workflow_id, refresh_workflow_id
from integration_service.contracts.wire import JsonObject
from integration_service.storage.vault.keyring import Keyring
from tests.chromium import PROGRAM, Browser, browser
from tests.identity import Identity, identity_provider
from tests.oauth_setting import Setting
from tests.waiting import eventually
from tests.world import World, definition_file

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
async def page() -> AsyncIterator[Browser]:
    async with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
async def identity() -> AsyncIterator[Identity]:
    with tempfile.TemporaryDirectory(prefix="integrations-idp-") as folder:
        async with identity_provider(Path(folder) / "idp") as running:
            yield running


@pytest.fixture
async def instance(world: World, identity: Identity, keyring: Keyring, name: str) -> tuple[Setting, JsonObject]:
    setting = Setting(world, identity, keyring, f"billing-{name[-4:]}")
    await setting.publish()
    wanted = await world.connect(setting.name, config={"url": identity.url}, name=f"acme account {name[-4:]}")
    return setting, await setting.authorized(wanted)


async def test_a_healthy_connection(world: World, page: Browser, instance: tuple[Setting, JsonObject]) -> None:
    connected = instance[1]
    await page.open(await _url(world.temporal, world, connection_workflow_id(connected["id"]), "user-metadata"))
    await page.shows(
        f"Connected: {connected['name']}",
        "What is wrong: nothing. The credential works, and calls run.",
        "What to do: nothing.",
        "Access token expires: ",
    )
    await _keep(page, "web-ui-connection")


async def test_a_lost_connection_tells_a_stranger_what_to_do(
    world: World, page: Browser, instance: tuple[Setting, JsonObject]
) -> None:
    setting, connected = instance
    await setting.revoke_elsewhere(connected)
    call = MethodCall(instance_id=connected["id"], method="whoami", on_auth_error="wait", correlation_id="order-4711")
    handle = await world.integrations.start_call(call)

    async def is_lost() -> bool:
        return (await world.connection(connected).status())["status"] == "AUTH_ERROR"

    await eventually(is_lost)
    await page.open(await _url(world.temporal, world, connection_workflow_id(connected["id"]), "user-metadata"))
    await page.shows(
        f"Connection lost: {connected['name']}",
        "What is wrong: The provider refuses the refresh token: access was withdrawn, or it has expired. "
        "Calls are refused until this is mended.",
        f"What to do: run integrations instance connect-link {shlex.quote(connected['name'])} and send the link that "
        "it prints to the person whose account it is",
        f"If the account is your own, run integrations instance authorize {shlex.quote(connected['name'])} instead.",
        "Last error: REAUTH_REQUIRED",
    )
    await _keep(page, "web-ui-lost")

    await page.open(await _url(world.temporal, world, handle.id, "user-metadata"))
    await page.shows(
        "Waits for the instance to be authorised",
        f"What to do: run integrations instance connect-link {connected['id']}",
        "Correlation id: order-4711",
    )
    await _keep(page, "web-ui-parked")

    await page.open(await _url(world.temporal, world, refresh_workflow_id(connected["id"]), "user-metadata"))
    await page.shows(
        "The token is lost",
        f"What to do: run integrations instance connect-link {connected['id']} and send the link that it prints",
        "Last trouble: REAUTH_REQUIRED",
    )
    described = await world.temporal.get_workflow_handle(refresh_workflow_id(connected["id"])).describe()
    assert described.typed_search_attributes[INTEGRATION_DEFINITION] == setting.name

    assert (await setting.authorized(connected))["status"] == "CONNECTED"
    await handle.result()
    await page.open(await _url(world.temporal, world, handle.id, "user-metadata"))
    await page.shows("Done", "The upstream answered: HTTP 200, tries: 1.")


async def test_an_instance_that_waits_for_its_credential_says_how_a_person_gives_it(
    world: World, page: Browser, name: str
) -> None:
    secret = {"authType": "api_key", "connectionTest": "get"}
    instance = await world.instance(definition_file(name, **secret))
    await page.open(await _url(world.temporal, world, connection_workflow_id(instance["id"]), "user-metadata"))
    await page.shows(
        f"Waits for its credential: {instance['name']}",
        f"What to do: run integrations instance connect-link '{instance['name']}' and send the link that it prints",
        f"Or run integrations instance credentials '{instance['name']}', which asks you for a credential",
    )


async def test_a_call_that_was_refused_says_what_is_wrong(world: World, page: Browser, name: str) -> None:
    """Also where its input was none of a call's: the page is there before any activity was."""
    instance = await world.instance(definition_file(name))
    wrong = {"instanceId": instance["name"], "method": "get", "parameters": {"id": 1}}
    for given, *sentences in (
        (wrong, "The input does not fit: unknown key. (parameters)", "integrations schema MethodCall"),
        ({"instanceId": "acme", "method": "get"}, "no instance acme", "integrations instance list --scope global"),
    ):
        handle = await world.temporal.start_workflow(
            "ExecuteMethod", given, id=str(uuid.uuid4()), task_queue="integrations"
        )
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        await page.open(await _url(world.temporal, world, handle.id, "user-metadata"))
        await page.shows("Failed: ", "What is wrong: ", "What to do: ", *sentences)
    await _keep(page, "web-ui-refused")


async def test_a_call_stands_under_its_methods_name(
    world: World, page: Browser, instance: tuple[Setting, JsonObject]
) -> None:
    setting, connected = instance
    handle = await world.integrations.start_call(MethodCall(instance_id=connected["id"], method="whoami"))
    await handle.result()
    await page.open(await _url(world.temporal, world, handle.id))
    await page.shows("ExecuteMethod", f"{setting.name}.whoami", "COMPLETED")
    await _keep(page, "web-ui-method")


async def test_a_refresh_stands_under_its_own_name(
    world: World, page: Browser, instance: tuple[Setting, JsonObject]
) -> None:
    connected = instance[1]
    await world.integrations.refresh(connected["id"])
    await page.open(await _url(world.temporal, world, refresh_workflow_id(connected["id"])))
    await page.shows("RefreshOAuth", "RefreshToken", "a token after number 1", "RUNNING")
    await _keep(page, "web-ui-refresh")


async def test_the_updates_of_a_connection_are_listed(
    world: World, page: Browser, instance: tuple[Setting, JsonObject]
) -> None:
    connected = instance[1]
    await world.connection(connected).update("test")
    await page.open(await _url(world.temporal, world, connection_workflow_id(connected["id"])), height=1250)
    await page.shows("authorize", "complete_authorization", "test", "TestConnection")
    await _keep(page, "web-ui-updates")


def _where(world: World, workflow_id: str, run_id: str, view: str) -> str:
    return f"{world.stack.ready.ui}/namespaces/default/workflows/{quote(workflow_id, safe='')}/{run_id}/{view}"


async def _url(client: Client, world: World, workflow_id: str, view: str = "timeline") -> str:
    described = await client.get_workflow_handle(workflow_id).describe()
    assert described.run_id is not None
    return _where(world, workflow_id, described.run_id, view)


async def _keep(page: Browser, name: str) -> None:
    shot = await page.photograph()
    assert shot.startswith(b"\x89PNG")
    if folder := os.environ.get("STORE_IMAGES"):
        Path(folder, f"{name}.png").write_bytes(shot)
