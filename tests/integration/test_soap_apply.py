"""A SOAP definition from file to call: `definition apply` reads the WSDL, the worker never does."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject
from tests.soap_server import PASSWORD, USER, soap_server
from tests.world import World

CLI = (sys.executable, "-c", "from integration_service.cli.main import main; main()")


async def apply(world: World, file: Path, *options: str) -> tuple[int, Any]:
    """Exit code, and what was printed as JSON: rows, or the error."""
    data_dir = Path(world.stack.environment["INTEGRATIONS_KEYRING"]).parent
    process = await asyncio.create_subprocess_exec(
        *(*CLI, "definition", "apply", str(file), "--publish", *options, "--json", "--data-dir", str(data_dir)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, json.loads(out or err)


def definition(name: str, wsdl: str, **more: Any) -> JsonObject:
    return {
        "name": name,
        "description": "Orders.",
        "version": "1.0.0",
        "type": "soap",
        "authType": "none",
        "wsdl": wsdl,
        "configSchema": {"type": "object"},
        "methods": [
            {
                "name": operation,
                "description": operation,
                "paramSchema": {"type": "object"},
                "resultSchema": {"type": "object"},
                "request": {"operation": operation},
            }
            for operation in ("add", "fail")
        ],
        **more,
    }


def write(folder: Path, content: JsonObject) -> Path:
    file = folder / "orders.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


async def test_applied_from_a_url_connected_and_called(world: World, name: str, tmp_path: Path) -> None:
    async with soap_server(secured=True) as server:
        token = {"authType": "basic", "soap": {"security": "usernameToken", "digest": True}}
        file = write(tmp_path, definition(name, server.wsdl_url, **token))
        code, rows = await apply(world, file)
        assert code == 0, rows
        assert await apply(world, file) == (0, rows)  # the same content again

        instance = await world.connect(name, config={})
        basic = {"type": "basic", "basicAuth": {"username": USER, "password": PASSWORD}}
        assert (await world.submit(instance, basic))["status"] == "CONNECTED"
        result = await world.call(instance, "add", {"a": 40, "b": 2})
        assert (result.data, result.status_code, server.calls) == ({"return": 42}, 200, [{"a": 40, "b": 2}])

        with pytest.raises(IntegrationError) as failed:
            await world.call(instance, "fail", {"reason": f"no {PASSWORD}"})
        fault = failed.value
        assert (fault.code, fault.details["faultstring"]) == (ErrorCode.SOAP_FAULT, "no [REDACTED]")
        assert len(server.calls) == 2  # a fault is no reason to send again


async def test_applied_from_files_and_kept_when_they_change(world: World, name: str, tmp_path: Path) -> None:
    async with soap_server() as server:
        async with httpx2.AsyncClient() as http:
            text = (await http.get(server.wsdl_url)).text
        (tmp_path / "orders.wsdl").write_text(text)
        file = write(tmp_path, definition(name, "orders.wsdl"))
        assert (await apply(world, file))[0] == 0
        (tmp_path / "orders.wsdl").unlink()
        instance = await world.connect(name, config={})
        assert (await world.call(instance, "add", {"a": 1, "b": 2})).data == {"return": 3}

        (tmp_path / "orders.wsdl").write_text(text.replace("</definitions>", "<message name='new'/></definitions>"))
        code, error = await apply(world, file)
        assert (code, error["code"], error["path"]) == (1, "VERSION_CONFLICT", "version")


async def test_what_is_wrong_is_one_line_with_its_path(world: World, name: str, tmp_path: Path) -> None:
    code, error = await apply(world, write(tmp_path, definition(name, "missing.wsdl")))
    assert (code, error["code"], error["path"]) == (1, "VALIDATION_ERROR", "wsdl")
