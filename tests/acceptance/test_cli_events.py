"""`integrations events …`, as a person or a script runs it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from starlette.responses import Response

from integration_service.activities.webhooks import new_secret
from integration_service.contracts.wire import JsonObject
from tests.upstream import Upstream
from tests.waiting import eventually
from tests.world import World, definition_file

Run = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def run(world: World) -> Run:
    data_dir = Path(world.stack.environment["INTEGRATIONS_KEYRING"]).parent

    async def command(*arguments: str, given: str = "") -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from integration_service.cli.main import main; main()", "events"),
            *(*arguments, "--data-dir", str(data_dir)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(given.encode()), 60)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    return command


async def _json(run: Run, *arguments: str, given: str = "") -> JsonObject:
    code, out, err = await run(*arguments, "--json", given=given)
    assert code == 0, err
    found: JsonObject = json.loads(out)
    return found


async def test_subscribe_hear_replay_and_unsubscribe(world: World, run: Run, name: str) -> None:
    async with Upstream(answers=[Response(status_code=410), Response()]) as receiver:
        made = await _json(
            run, "subscribe", "--url", receiver.url, "--definition", name, "--type", "integration.connected"
        )
        assert made["secret"].startswith("whsec_")
        instance = await world.instance(definition_file(name))
        row = await eventually(lambda: _dead(run, made["id"]))
        assert (row["type"], row["subject"], row["reason"]) == ("integration.connected", instance["id"], "HTTP_410")
        [listed] = [one for one in await _json(run, "list") if one["id"] == made["id"]]
        assert (listed["enabled"], listed["disabledReason"]) == (False, "HTTP_410")
        assert "secret" not in listed
        assert (await _json(run, "enable", made["id"]))["enabled"] is True
        rotated = await _json(run, "rotate", made["id"])
        assert rotated["secret"] != made["secret"]
        again = ("replay", "--subscription", made["id"], "--dead")
        assert await _json(run, *again, "--dry-run") == {"deliveries": 1, "dryRun": True}
        assert await _json(run, *again) == {"deliveries": 1, "dryRun": False}
        await eventually(lambda: _came(receiver, 2))
        # Both secrets sign for a day.
        assert len(receiver.seen[1].headers["webhook-signature"].split(" ")) == 2
        told = await _json(run, "tail", "--instance", instance["id"], "--type", "integration.*")
        assert [event["type"] for event in told] == ["integration.instance.status", "integration.connected"]
        assert (await _json(run, "unsubscribe", made["id"]))["unsubscribed"] is True
        assert made["id"] not in [one["id"] for one in await _json(run, "list")]


async def _dead(run: Run, subscription: str) -> JsonObject | None:
    rows = await _json(run, "dead", "--subscription", subscription)
    return rows[0] if rows else None


async def _came(receiver: Upstream, wanted: int) -> bool:
    return len(receiver.seen) >= wanted


async def test_a_given_secret_is_never_shown(run: Run) -> None:
    secret = new_secret()
    code, out, err = await run("subscribe", "--url", "https://a.example", "--secret-file", "-", given=secret + "\n")
    assert (code, secret in out + err) == (0, False), err
    made = await _json(run, "list")
    await _json(run, "unsubscribe", made[-1]["id"])
    code, out, err = await run("subscribe", "--url", "https://a.example", "--secret-file", "-", given="hunter2")
    assert (code, "hunter2" in out + err) == (1, False)
    assert err.startswith("VALIDATION_ERROR: ")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["subscribe"], 2),
        (["subscribe", "--url", "https://a", "--workflow", "w", "--signal", "s"], 2),
        (["subscribe", "--workflow", "w"], 2),
        (["subscribe", "--url", "ftp://a"], 1),
        (["subscribe", "--url", "https://a.example", "--type", "integration.%"], 1),
        (["replay"], 2),
        (["replay", "--id", "x"], 2),
        (["unsubscribe", "00000000-0000-0000-0000-000000000000"], 1),
    ],
)
async def test_bad_usage(run: Run, arguments: list[str], code: int) -> None:
    found, out, err = await run(*arguments)
    assert (found, out, len(err.splitlines())) == (code, "", 1), err
