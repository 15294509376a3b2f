"""`integrations keys …` on a database, a keyring and a worker of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from pathlib import Path

from temporalio.client import Client
from temporalio.worker import Worker

from integration_service.devstack.stack import Stack
from integration_service.plugin import IntegrationPlugin
from integration_service.settings import Settings
from integration_service.storage.database import Database
from integration_service.storage.vault.key_file import KeyringFile
from integration_service.storage.vault.keyring import KeyRef, generate_keyring_file
from tests.credential_rows import add_credentials
from tests.fresh_database import fresh_database


async def run(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from integration_service.cli.main import main; main()", "keys"),
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_keys_are_shown_rotated_and_retired(stack: Stack, temporal: Client, tmp_path: Path) -> None:
    path, queue = tmp_path / "keyring.json", f"keys-{uuid.uuid4().hex[:8]}"
    generate_keyring_file(path)
    old = KeyringFile.open(path).active
    new = KeyRef(old.key_id, 2)
    async with fresh_database(stack) as fresh, Database(fresh.url) as database:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("INTEGRATIONS_")},
            "INTEGRATIONS_DATABASE_URL": fresh.url,
            "INTEGRATIONS_KEYRING": str(path),
            "INTEGRATIONS_TASK_QUEUE": queue,
            "TEMPORAL_ADDRESS": stack.ready.temporal,
        }
        settings = Settings(database_url=fresh.url, keyring=str(path), task_queue=queue)
        async with Worker(temporal, task_queue=queue, plugins=[IntegrationPlugin(settings)]):
            await add_credentials(database, KeyringFile.open(path), 20)
            assert await run(environment, "add") == (0, f"key: {new}\nactive: false\n", "")
            code, _, err = await run(environment, "retire", str(old))
            assert (code, "in use by 20 of vault.credentials, 1 of vault.seal_keys" in err) == (1, True)
            code, out, err = await run(environment, "rotate", "--to", str(new), "--json")
            assert (code, json.loads(out)) == (0, {"active": str(new), "rewrapped": 21}), err
            code, out, _ = await run(environment, "status", "--json")
            assert [(row["key"], row["active"], row["held"], row["rows"]) for row in json.loads(out)] == [
                (str(old), False, True, 0),
                (str(new), True, True, 21),
            ]
            # One row under it is enough.
            await database.one(
                "UPDATE vault.credentials SET key_version = 1 WHERE id = (SELECT min(id::text)::uuid "
                "FROM vault.credentials)",
                {},
            )
            code, _, err = await run(environment, "retire", str(old))
            assert (code, "in use by 1 of vault.credentials" in err) == (1, True)
            await database.one("UPDATE vault.credentials SET key_version = 2", {})
            code, out, _ = await run(environment, "retire", str(old))
            assert (code, out) == (0, f"retired: {old}\n")
            assert KeyringFile.open(path).refs == (new,)
            code, _, err = await run(environment, "retire", str(old))
            assert (code, err.split(":")[0]) == (1, "KEY_UNAVAILABLE")
            inline = {**environment, "INTEGRATIONS_KEYRING": path.read_text()}
            code, out, err = await run(inline, "rotate")
            assert (code, out) == (1, "")
            assert "rotate --to" in err
            secret = json.loads(path.read_text())["keys"][0]["key"]
            for arguments in (("status",), ("status", "--json"), ("add",), ("retire", str(new))):
                assert secret not in "".join(map(str, await run(inline, *arguments)))
