"""The console script, as a person or a script runs it."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from integration_service.cli.main import integrations
from integration_service.contracts.wire import JsonObject
from tests.world import World, definition_file, method


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(world: World) -> Any:
    data_dir = Path(world.stack.environment["INTEGRATIONS_KEYRING"]).parent

    async def command(*arguments: str, given: str | None = None) -> Ran:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from integration_service.cli.main import main; main()"),
            *arguments,
            *("--data-dir", str(data_dir)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate((given or "").encode()), 60)
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())

    # The session's stack was not started by `dev`, so it has no running lock holder but this process: it has.
    return command


def _write(folder: Path, file: JsonObject, suffix: str = "yaml") -> str:
    path = folder / f"{file['name']}-{uuid.uuid4().hex[:6]}.{suffix}"
    path.write_text(json.dumps(file) if suffix == "json" else yaml.safe_dump(file))
    return str(path)


async def test_a_definition_is_applied_connected_called_and_logged(
    world: World, run: Any, name: str, tmp_path: Path
) -> None:
    file = definition_file(name, authType="api_key")
    applied = await run("definition", "apply", _write(tmp_path, file), "--publish", "--json")
    assert (applied.code, applied.json[0]["status"]) == (0, "PUBLISHED")
    config = json.dumps({"url": world.upstream.url})
    connected = await run("instance", "connect", name, "--name", f"{name} one", "--config", config, "--json")
    assert connected.json["status"] == "PENDING_AUTHENTICATION"
    key = json.dumps({"key": "k-123456", "headerOrParam": "X-Key", "inHeader": True})
    proved = await run("instance", "credentials", f"{name} one", "--file", "-", "--json", given=key)
    assert proved.json["status"] == "CONNECTED"
    called = await run("call", f"{name} one", "get", "--params", '{"id": 5}')
    assert (called.code, called.json["data"]) == (0, {"ok": True})
    assert world.upstream.seen[-1].headers["x-key"] == "k-123456"
    logged = await run("audit", "tail", "--instance", f"{name} one", "--json")
    assert [row["status"] for row in logged.json] == ["SUCCEEDED"]
    shown = await run("instance", "show", f"{name} one", "--json")
    assert shown.json["lastUsedAt"] is not None
    assert "k-123456" not in applied.out + connected.out + proved.out + called.out + logged.out + shown.out


@pytest.fixture
def at_once(world: World) -> Any:
    """Runs a command in this process, where a test is not about a process: its output, or its error's line."""
    data_dir = str(Path(world.stack.environment["INTEGRATIONS_KEYRING"]).parent)

    async def command(*arguments: str) -> str:
        ran = await asyncio.to_thread(CliRunner().invoke, integrations, [*arguments, "--data-dir", data_dir])
        return str(ran.exception) if ran.exception else ran.output

    return command


async def test_every_update_has_its_command(world: World, at_once: Any, name: str) -> None:
    await world.publish(definition_file(name))
    await world.publish(definition_file(name, version="1.1.0"))
    config = json.dumps({"url": world.upstream.url})
    for command, told in (
        (("connect", name, "--name", name, "--version", "1.0.0"), "status: PENDING_CONFIGURATION"),
        (("configure", name, "--config", config), "status: CONNECTED"),
        (("configure", name, "--config", "[]"), "VALIDATION_ERROR"),
        (("test", name), "status: CONNECTED"),
        (("upgrade", name, "1.1.0"), "definitionVersion: 1.1.0"),
        (("disconnect", name, "--no-revoke"), "status: DISCONNECTED"),
        (("reconnect", name), "status: CONNECTED"),
        (("delete", name), f"name: {name}"),
        (("show", name), "INSTANCE_NOT_FOUND"),
    ):
        assert told in await at_once("instance", *command)


async def test_a_call_takes_what_a_call_can_say(world: World, at_once: Any, name: str) -> None:
    instance = await world.instance(definition_file(name))
    asked = ("--correlation-id", "A-17", "--cache", "bypass", "--on-auth-error", "wait", "--wait-timeout-ms", "1000")
    call = ("call", instance["name"], "get")
    assert '"ok": true' in await at_once(*call, "--params", '{"id": 1}', *asked, "--large-result", "reference")
    assert (await world.audit(instance))[0]["correlation_id"] == "A-17"
    assert "VALIDATION_ERROR" in await at_once(*call, "--page", "no token", "--deadline-ms", "60000")


async def test_the_same_content_again_is_fine_and_other_content_conflicts(run: Any, name: str, tmp_path: Path) -> None:
    file = definition_file(name)
    first = await run("definition", "apply", _write(tmp_path, file, "json"), "--publish", "--json")
    again = await run("definition", "apply", _write(tmp_path, file), "--publish", "--json")
    assert (again.code, again.json[0]["id"]) == (0, first.json[0]["id"])
    other = await run("definition", "apply", _write(tmp_path, {**file, "description": "Others."}))
    assert other.code == 1
    assert other.err.startswith("VERSION_CONFLICT: ")
    assert other.out == ""


async def test_the_lifecycle_goes_one_way(run: Any, name: str, tmp_path: Path) -> None:
    await run("definition", "apply", _write(tmp_path, definition_file(name)))
    assert (await run("definition", "deprecate", name)).code == 1
    for step, status in (("publish", "PUBLISHED"), ("deprecate", "DEPRECATED"), ("archive", "ARCHIVED")):
        moved = await run("definition", step, name, "1.0.0", "--json")
        assert moved.json["status"] == status
    assert (await run("definition", "publish", name)).code == 1
    assert (await run("definition", "show", name)).json["status"] == "ARCHIVED"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"retries": 3}, "retries"),
        ({"methods": [{**method("get", "GET", "/x"), "timeout": 3}]}, "methods[0].timeout"),
        ({"methods": [method("get", "GET", "/x"), method("get", "GET", "/y")]}, "methods[1].name"),
        ({"methods": [method("get", "GET", "/x", paramSchema={"type": "objekt"})]}, "methods[0].paramSchema.type"),
        ({"version": "1"}, "version"),
        ({"methods": [method("get", "GET", "/{a b}")]}, "methods[0].request.path"),
    ],
)
async def test_a_bad_file_is_refused_with_the_path(
    run: Any, name: str, tmp_path: Path, change: JsonObject, path: str
) -> None:
    refused = await run("definition", "apply", _write(tmp_path, definition_file(name, **change)), "--json")
    error = json.loads(refused.err)
    assert (refused.code, refused.out) == (1, "")
    assert (error["code"], error["path"]) == ("VALIDATION_ERROR", path)


async def test_an_oauth_clients_secret_goes_into_the_vault_only(
    world: World, run: Any, name: str, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("planted-client-secret\n")
    oauth2 = {
        "clientId": "planted-client-id",
        "clientSecret": {"$file": "secret.txt"},
        "authorizationUrl": "https://example.com/authorize",
        "tokenUrl": "https://example.com/token",
    }
    file = definition_file(name, authType="oauth2", oauth2Config=oauth2)
    applied = await run("definition", "apply", _write(tmp_path, file))
    assert applied.code == 0
    shown = (await run("definition", "show", name)).out
    assert "authorizationUrl" in shown
    assert "planted" not in shown
    (row,) = await world.database.all(
        "SELECT c::text AS row FROM vault.oauth_clients c WHERE definition_name = %(name)s", {"name": name}
    )
    assert b"planted".hex() not in row["row"]


@pytest.mark.parametrize("arguments", [("nope",), ("call",), ("audit", "tail", "-n", "0"), ("keys", "generate", "--x")])
async def test_bad_usage_exits_2(run: Any, arguments: tuple[str, ...]) -> None:
    ran = await run(*arguments)
    assert (ran.code, ran.out) == (2, "")


async def test_errors_are_one_line_and_json_on_demand(run: Any) -> None:
    plain = await run("call", "no such instance", "get")
    assert plain.err == "INSTANCE_NOT_FOUND: no instance no such instance (instanceId)\n"
    as_json = await run("call", "no such instance", "get", "--json")
    assert json.loads(as_json.err) == {
        "code": "INSTANCE_NOT_FOUND",
        "message": "no instance no such instance",
        "path": "instanceId",
    }
    bad = await run("call", "x", "get", "--params", "{")
    assert bad.err.startswith("VALIDATION_ERROR: not JSON")
    assert bad.err.endswith("(--params)\n")


async def test_schemas_are_told_by_name(run: Any) -> None:
    every = (await run("schema")).json
    assert {"MethodCall", "MethodResult", "IntegrationDefinition", "Sealed"} <= set(every)
    one = (await run("schema", "MethodCall")).json
    assert one["properties"]["instanceId"]["type"] == "string"
    assert (await run("schema", "Nope")).code == 1


async def test_schemas_of_a_definitions_methods(run: Any, world: World, name: str) -> None:
    await world.publish(definition_file(name))
    one = (await run("schema", "--definition", f"{name}@1.0.0", "--method", "get")).json
    assert (one["activityType"], one["params"]["type"]) == (f"{name}.get", "object")
    assert (await run("schema", "--definition", name)).json["methods"]["get"] == one
    assert "METHOD_NOT_FOUND" in (await run("schema", "--definition", name, "--method", "nobody")).err
