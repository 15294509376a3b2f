"""What the stack's own worker and gateway tell of themselves, as a probe and a scraper ask for it."""

from __future__ import annotations

import json
import re
import uuid
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from temporalio.client import ActivityFailureError
from temporalio.common import RetryPolicy

from integration_service.contracts.errors import IntegrationError
from integration_service.devstack.ports import HOST, claim_ports
from integration_service.gateway.app import build_app
from integration_service.settings import Settings
from integration_service.storage.schema_version import HEAD, check_schema_version
from integration_service.storage.vault.keyring import Keyring
from tests.provider import Provider
from tests.served import served
from tests.upstream import json_answer
from tests.waiting import eventually
from tests.world import World, definition_file, method

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


async def scrape(url: str) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Every sample by name and labels; the whole text must parse."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{url}/metrics")
    assert answer.status_code == 200
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def sample(found: dict[str, dict[frozenset[tuple[str, str]], float]], name: str, **labels: str) -> float:
    """The sum of what has at least these labels."""
    return sum(value for known, value in found.get(name, {}).items() if labels.items() <= dict(known).items())


@pytest.fixture
def worker(world: World) -> str:
    return f"http://{world.stack.environment['INTEGRATIONS_WORKER_LISTEN']}"


async def standalone(world: World, activity: str, **call: Any) -> Any:
    return await world.temporal.execute_activity(
        activity,
        call,
        id=str(uuid.uuid4()),
        task_queue="integrations",
        start_to_close_timeout=timedelta(seconds=30),
        retry_policy=RetryPolicy(maximum_attempts=1),
    )


async def test_calls_are_counted_by_definition_method_and_code(world: World, worker: str, name: str) -> None:
    cached = method("cached", "GET", "/cached", cache={"ttlMs": 60_000})
    file = definition_file(name)
    instance = await world.instance({**file, "methods": [*file["methods"], cached]})
    await world.call(instance, "get", {"id": 1})
    await world.call(instance, "cached")
    await world.call(instance, "cached")
    world.upstream.answers = [json_answer({}, 503), json_answer({})]
    await world.call(instance, "get", {"id": 2})
    world.upstream.answers = [json_answer({}, 404)]
    with pytest.raises(Exception, match="HTTP_404"):
        await world.call(instance, "get", {"id": 3})

    found = await scrape(worker)
    get = {"definition": name, "method": "get"}
    attempts = "integrations_method_attempts_total"
    assert sample(found, attempts, **get, code="OK") == 2
    assert sample(found, attempts, **get, code="HTTP_5XX") == 1
    assert sample(found, attempts, **get, code="HTTP_4XX") == 1
    assert sample(found, "integrations_method_retries_total", **get) == 1
    assert sample(found, "integrations_method_duration_seconds_count", **get) == 4
    assert sample(found, "integrations_upstream_sends_total", definition=name, outcome="2XX") == 3
    assert sample(found, "integrations_upstream_sends_total", definition=name, outcome="5XX") == 1
    answers = "integrations_cache_answers_total"
    assert sample(found, answers, definition=name, source="upstream") == 1
    # A caller makes up no label of ours: the activity of methods takes every name.
    with pytest.raises(ActivityFailureError):
        await standalone(world, f"madeup{name}")
    world.upstream.answers = [json_answer({})]
    await standalone(world, f"{name}.get", instanceId=instance["id"], params={"id": 4})
    again = await scrape(worker)
    ours = {labels for known, values in again.items() if known.startswith("integrations_") for labels in values}
    assert f"madeup{name}" not in str(ours)
    assert sample(again, "integrations_activities_total", activity="resolve") > 0
    assert sample(again, "integrations_activities_total", activity=f"{name}.get") == 0
    # Temporal's own stand on the same page.
    assert sample(found, "temporal_worker_task_slots_available") > 0
    assert "process_resident_memory_bytes" in found
    # No label names an instance, and none a secret.
    ours = [labels for metric, samples in found.items() if metric.startswith("integrations_") for labels in samples]
    assert not [labels for labels in ours if UUID.search(str(labels))]


async def test_how_the_service_stands_is_told(world: World, worker: str, name: str) -> None:
    await world.instance(definition_file(name))

    async def told() -> bool:
        return "integrations_connections" in await scrape(worker)

    await eventually(told)
    found = await scrape(worker)
    assert {dict(labels)["status"] for labels in found["integrations_connections"]} >= {"CONNECTED", "AUTH_ERROR"}
    assert sample(found, "integrations_outbox_lag_seconds") < 60
    assert "integrations_audit_unsealed_age_seconds" in found
    assert sample(found, "integrations_database_pool", state="open") >= 1


async def test_token_refreshes_are_counted_by_result(world: World, worker: str, keyring: Keyring, name: str) -> None:
    before = sample(await scrape(worker), "integrations_token_refreshes_total", result="OK")
    provider = Provider(world, keyring, name)
    await provider.instance(grantType="client_credentials", authorizationUrl=None)

    async def counted() -> bool:
        return sample(await scrape(worker), "integrations_token_refreshes_total", result="OK") > before

    await eventually(counted)


async def test_both_processes_are_live_and_ready(world: World, worker: str) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        for url in (worker, world.stack.ready.gateway):
            assert (await http.get(f"{url}/healthz")).json() == {"status": "ok"}
            assert (await http.get(f"{url}/readyz")).json() == {"status": "ready"}


async def test_the_gateway_counts_by_route_and_not_by_path(world: World) -> None:
    gateway = world.stack.ready.gateway
    async with httpx2.AsyncClient(trust_env=False) as http:
        await http.get(f"{gateway}/oauth/callback?state=planted-state&code=planted-code")
        await http.get(f"{gateway}/planted-path")
    found = await scrape(gateway)
    assert sample(found, "integrations_gateway_requests_total", route="/oauth/callback", status="400") >= 1
    assert sample(found, "integrations_gateway_requests_total", route="none", status="404") >= 1
    assert sample(found, "integrations_gateway_callbacks_total", outcome="refused") >= 1
    assert "planted" not in json.dumps([list(map(list, labels)) for labels in found.values()])


async def test_without_a_database_it_is_alive_and_not_ready() -> None:
    [port] = claim_ports({"nobody": 0}).values()
    settings = Settings(database_url=f"postgresql://planted-user:planted-pass@{HOST}:{port}/planted")
    async with served(build_app(settings), lifespan=True) as url, httpx2.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{url}/healthz")).status_code == 200
        answer = await http.get(f"{url}/readyz")
    assert answer.status_code == 503
    assert list(answer.json()["failed"]) == ["database"]
    assert "planted" not in answer.text


async def test_a_running_process_stays_ready_over_a_newer_database(world: World) -> None:
    """Migrations come first: between one and the roll-out the processes of before go on."""
    database = world.database
    await check_schema_version(database, running=True)
    newer = {"new": "9999"}
    try:
        await database.one("UPDATE integrations.alembic_version SET version_num = %(new)s", newer)
        await check_schema_version(database, running=True)
        with pytest.raises(IntegrationError, match="newer"):
            await check_schema_version(database)
        await database.one("UPDATE integrations.alembic_version SET version_num = '0001'", {})
        with pytest.raises(IntegrationError, match="older"):
            await check_schema_version(database, running=True)
    finally:
        await database.one("UPDATE integrations.alembic_version SET version_num = %(head)s", {"head": HEAD})
