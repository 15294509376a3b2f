"""From nothing to a refreshed token by the command line alone, against a real provider and a person."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from integration_service.devstack.stack import Stack
from tests.acceptance.test_cli_oauth import Terminal, ended
from tests.identity import identity_provider
from tests.world import World


@pytest.mark.parametrize("where", ["gateway", "loopback"])
async def test_a_person_authorises_at_a_terminal(world: World, stack: Stack, name: str, where: str) -> None:
    terminal = Terminal(Path(stack.environment["INTEGRATIONS_KEYRING"]).parent)

    async def run(*arguments: str, given: str = "") -> str:
        ran = await terminal.run(*arguments, given=given)
        assert ran.code == 0, ran
        return str(ran.out)

    with tempfile.TemporaryDirectory(prefix="integrations-walk-") as folder:
        async with identity_provider(Path(folder) / "idp") as identity:
            file = Path(folder) / "definition.json"
            file.write_text(json.dumps(identity.definition(name)))
            await run("definition", "apply", str(file), "--publish")
            client = ("--client-id", identity.client_id, "--secret-file", "-")
            await run("definition", "client", "set", name, *client, given=identity.client_secret)
            await run("instance", "connect", name, "--name", name, "--config", json.dumps({"url": identity.url}))
            flags = ("--loopback",) if where == "loopback" else ()
            async with terminal.running("instance", "authorize", name, "--no-browser", *flags) as process:
                assert process.stdout is not None
                address = (await process.stdout.readline()).decode().strip()
                page = await identity.connect(address)
                assert page.status_code == 200
                done = await ended(process)
            assert done.code == 0, done
            assert "status: CONNECTED" in done.out
            assert json.loads(await run("call", name, "whoami"))["data"] == {"user": "ada"}
            assert "generation: 2" in await run("instance", "refresh", name)
            assert json.loads(await run("call", name, "whoami"))["data"] == {"user": "ada"}
            assert "status: DISCONNECTED" in await run("instance", "disconnect", name)
