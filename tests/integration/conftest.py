"""What several of these tests stand on."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from integration_service.activities.outbound.egress import EgressPolicy
from integration_service.activities.outbound.transport import Transport
from integration_service.activities.parts import Parts
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.wire import parse
from integration_service.devstack.stack import Stack
from integration_service.settings import Settings
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from tests.audit_databases import AuditDatabases
from tests.audit_rows import Trail
from tests.world import definition_file

Add = Callable[[], Awaitable[str]]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """The real sender, which may reach loopback."""
    sender = Transport(EgressPolicy(["127.0.0.0/8", "::1/128"]))
    await sender.open()
    yield sender
    await sender.close()


@pytest.fixture
async def add(database: Database, name: str) -> Add:
    """Makes an instance; returns its id."""
    definition = await Definitions(database).apply(parse(DefinitionFile, definition_file(name)), publish=True)

    async def make() -> str:
        id_ = str(uuid.uuid4())
        wanted = ConnectInstanceInput(instance_id=id_, definition=name, name=f"i {id_[:8]}")
        await Instances(database).add(wanted, definition)
        return id_

    return make


@pytest.fixture
async def parts(stack: Stack) -> AsyncIterator[Parts]:
    """What a worker is made of, in this process: the attempts of it that are cut off."""
    settings = Settings(
        database_url=stack.ready.database,
        keyring=stack.environment["INTEGRATIONS_KEYRING"],
        egress_allow=("127.0.0.0/8",),
    )
    built = Parts.build(settings, task_queue="unused")
    async with built.opened():
        yield built


@pytest.fixture(scope="module")
def databases(stack: Stack) -> AuditDatabases:
    return AuditDatabases(stack)


@pytest.fixture
async def trail(databases: AuditDatabases) -> AsyncIterator[Trail]:
    async with databases.fresh() as url, Database(url) as database:
        yield Trail(url, database)
