"""One real stack for the whole run, and what tests do with it."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
from temporalio.client import Client

from integration_service.devstack.options import StackOptions
from integration_service.devstack.stack import Stack
from integration_service.plugin import IntegrationClientPlugin
from integration_service.storage.database import Database
from integration_service.storage.vault.keyring import Keyring
from tests.upstream import Upstream
from tests.world import World


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was logged goes with the report, and half a character cannot be sent from one process to another."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[Stack]:
    """Postgres, Temporal, a worker and a gateway, as `integrations dev` runs them."""
    # Not pytest's tmp_path: as root, Postgres's user must be able to enter the folders above.
    data_dir = Path(tempfile.mkdtemp(prefix="integrations-test-"))
    data_dir.rmdir()
    running = Stack(StackOptions(data_dir, temporal_port=0, ui_port=0, gateway_port=0, postgres_port=0))
    async with running:
        yield running
    running.destroy()
    shutil.rmtree(data_dir, ignore_errors=True)


@pytest.fixture(scope="session")
async def database(stack: Stack) -> AsyncIterator[Database]:
    """The stack's database, by the role that everything uses."""
    async with Database(stack.ready.database) as opened:
        yield opened


@pytest.fixture(scope="session")
def keyring(stack: Stack) -> Keyring:
    return Keyring.load(stack.environment["INTEGRATIONS_KEYRING"])


@pytest.fixture(scope="session")
async def temporal(stack: Stack) -> Client:
    return await Client.connect(stack.ready.temporal, plugins=[IntegrationClientPlugin()])


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A real HTTP server on loopback that answers as the test tells it, and remembers what came."""
    async with Upstream() as server:
        yield server


@pytest.fixture
def world(stack: Stack, database: Database, temporal: Client, upstream: Upstream) -> World:
    """Short words for what most tests do: publish a definition, connect an instance, call a method."""
    return World(stack=stack, database=database, temporal=temporal, upstream=upstream)


@pytest.fixture
def name() -> str:
    """A definition's name that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}"
