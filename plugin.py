"""The composition root: builds every part, opens it while a worker runs, and registers what that worker serves.

`IntegrationPlugin` makes any Temporal worker one of ours. `IntegrationClientPlugin` gives a client our converter and
nothing else: a client's plugins reach the workers made from it, and a caller's worker must not get our activities.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter
from temporalio.plugin import SimplePlugin
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker, WorkerConfig, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from integration_service.activities.authorizations import AuthorizationActivities
from integration_service.activities.connection_reader import ConnectionReader
from integration_service.activities.connections import ConnectionActivities
from integration_service.activities.events import EventActivities
from integration_service.activities.exchange import Exchange
from integration_service.activities.execution.answers import Answers
from integration_service.activities.execution.caching import ResponseCache
from integration_service.activities.execution.compiled import CompiledDefinitions
from integration_service.activities.execution.mapping import Mapping
from integration_service.activities.execution.pagination import PageTokens
from integration_service.activities.execution.pipeline import MethodPipeline
from integration_service.activities.execution.recording import Recorder
from integration_service.activities.execution.results import Results
from integration_service.activities.execution.sending import Sender
from integration_service.activities.keys import KeyActivities
from integration_service.activities.maintenance import MaintenanceActivities
from integration_service.activities.maintenance_schedule import ensure_maintenance_schedule
from integration_service.activities.methods import MethodActivities
from integration_service.activities.oauth.provider import Providers
from integration_service.activities.openings import OpeningsInterceptor
from integration_service.activities.outbound.breaker import Breakers
from integration_service.activities.outbound.egress import EgressPolicy
from integration_service.activities.outbound.limits import RateLimiter, Waiting
from integration_service.activities.outbound.transport import Transport
from integration_service.activities.renewal import TokenRenewal
from integration_service.activities.revocations import Revocations
from integration_service.activities.tokens import TokenActivities
from integration_service.activities.transforms import Transforms
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.events import DELIVER_EVENTS, deliver_events_workflow_id
from integration_service.contracts.names import SEARCH_ATTRIBUTES, connection_tests_queue, control_queue
from integration_service.settings import Settings
from integration_service.storage.audit import AuditLog
from integration_service.storage.audit_chain import AuditChain
from integration_service.storage.audit_partitions import AuditPartitions
from integration_service.storage.audit_stats import AuditStats
from integration_service.storage.authorizations import Authorizations
from integration_service.storage.cache import CachedResponses
from integration_service.storage.credentials import Credentials
from integration_service.storage.database import Database
from integration_service.storage.decrypt_log import DecryptLog
from integration_service.storage.definitions import Definitions
from integration_service.storage.deliveries import Deliveries
from integration_service.storage.instances import Instances
from integration_service.storage.key_rotation import MAIN, RESULTS, KeyRotation
from integration_service.storage.large_results import LargeResults
from integration_service.storage.leftovers import Leftovers
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.outbox import Outbox
from integration_service.storage.refresh_intents import RefreshIntents
from integration_service.storage.schema_version import check_schema_version
from integration_service.storage.seal_keys import SealKeys
from integration_service.storage.subscriptions import Subscriptions
from integration_service.storage.upstream_health import BreakerRows
from integration_service.storage.vault.key_file import open_keyring
from integration_service.storage.waiters import Waiters
from integration_service.workflows.connect_instance import ConnectInstance
from integration_service.workflows.deliver_events import DeliverEvents
from integration_service.workflows.execute_method import ExecuteMethod
from integration_service.workflows.maintain_storage import MaintainStorage
from integration_service.workflows.refresh_oauth import RefreshOAuth
from integration_service.workflows.rotate_keys import RotateKeysWorkflow

_NAME = "integration-service.IntegrationPlugin"
_CONTROL_WORKFLOWS = (RefreshOAuth, MaintainStorage, DeliverEvents, RotateKeysWorkflow)
_CONNECTION_TESTS = 50
"""At once, in one process: upstreams that hang take no more places than that, and none of a refresh."""
_WORKFLOWS = (ConnectInstance, ExecuteMethod, *_CONTROL_WORKFLOWS)
_SLOTS = 100
"""How many method calls a worker runs at once, unless its owner says otherwise: Temporal's own default."""
_PASSED_THROUGH = ("integration_service.contracts", "pydantic", "pydantic_core", "annotated_types")


@dataclass(frozen=True)
class _Parts:
    """What one worker's activities are made of."""

    database: Database
    transport: Transport
    transforms: Transforms
    provider_transport: Transport
    webhook_transport: Transport
    seal_keys: SealKeys
    methods: MethodActivities
    connections: ConnectionActivities
    authorizations: AuthorizationActivities
    tokens: TokenActivities
    maintenance: MaintenanceActivities
    keys: KeyActivities
    openings: OpeningsInterceptor
    events: EventActivities

    @classmethod
    def build(cls, settings: Settings, *, task_queue: str) -> _Parts:
        """Connects nothing. Raises IntegrationError when a setting is missing or the keyring cannot be read."""
        database = Database(settings.require("database_url"))
        keyring, results_keyring = (
            open_keyring(settings.require("keyring")),
            open_keyring(settings.results_key_source()),
        )
        policy = EgressPolicy(settings.egress_allow)
        # Pools of their own: a token request never waits for a connection that slow calls or receivers hold.
        transport, provider_transport, webhook_transport = Transport(policy), Transport(policy), Transport(policy)
        instances, definitions = Instances(database), Definitions(database)
        credentials, seal_keys = Credentials(database, keyring), SealKeys(database, keyring)
        compiled = CompiledDefinitions(definitions)
        responses = CachedResponses(database, keyring)
        waiters, authorizations = Waiters(database), Authorizations(database, keyring)
        providers = Providers(
            transport=provider_transport, clients=OAuthClients(database, keyring), definitions=compiled
        )
        revocations = Revocations(instances=instances, providers=providers)
        exchange = Exchange(providers=providers, credentials=credentials, revocations=revocations)
        reader = ConnectionReader(definitions=compiled, credentials=credentials)
        outbox = Outbox(database)
        audit, transforms = AuditLog(database), Transforms()
        large = LargeResults(database, results_keyring, public_url=settings.public_url)
        pipeline = MethodPipeline(
            instances=instances,
            definitions=compiled,
            sender=Sender(
                credentials=credentials,
                audit=audit,
                transport=transport,
                limiter=RateLimiter(database),
                breakers=Breakers(BreakerRows(database)),
                renewal=TokenRenewal(instances=instances, control_queue=control_queue(task_queue)),
                waiting=Waiting(_SLOTS // 4),
                paging=Waiting(_SLOTS // 4, longest=timedelta(hours=1)),
            ),
            answers=Answers(transforms),
            mapping=Mapping(transforms),
            cache=ResponseCache(responses),
            page_tokens=PageTokens(keyring),
            results=Results(large),
            recorder=Recorder(audit),
        )
        return cls(
            database=database,
            transport=transport,
            transforms=transforms,
            provider_transport=provider_transport,
            webhook_transport=webhook_transport,
            seal_keys=seal_keys,
            methods=MethodActivities(pipeline=pipeline, instances=instances, definitions=compiled, waiters=waiters),
            connections=ConnectionActivities(
                instances=instances,
                definitions=definitions,
                compiled=compiled,
                credentials=credentials,
                seal_keys=seal_keys,
                pipeline=pipeline,
                reader=reader,
                waiters=waiters,
                authorizations=authorizations,
                exchange=exchange,
                responses=responses,
            ),
            authorizations=AuthorizationActivities(
                authorizations=authorizations,
                seal_keys=seal_keys,
                providers=providers,
                exchange=exchange,
                reader=reader,
                public_url=settings.public_url,
                return_urls=settings.return_urls,
            ),
            keys=KeyActivities(KeyRotation(database, {MAIN: keyring, RESULTS: results_keyring})),
            openings=OpeningsInterceptor(DecryptLog(database)),
            maintenance=MaintenanceActivities(
                partitions=AuditPartitions(database),
                chain=AuditChain(database),
                stats=AuditStats(database),
                leftovers=Leftovers(database),
                breakers=BreakerRows(database),
                decrypts=DecryptLog(database),
                retention=settings.audit_retention,
                notify=outbox.audit_news,
            ),
            tokens=TokenActivities(
                instances=instances,
                credentials=credentials,
                intents=RefreshIntents(database),
                authorizations=authorizations,
                providers=providers,
                revocations=revocations,
                control_queue=control_queue(task_queue),
            ),
            events=EventActivities(
                outbox=outbox,
                deliveries=Deliveries(database),
                subscriptions=Subscriptions(database, keyring),
                transport=webhook_transport,
            ),
        )

    @property
    def method_activities(self) -> list[Callable[..., Any]]:
        return [self.methods.resolve, self.methods.park, self.methods.run_method]

    @property
    def control_activities(self) -> list[Callable[..., Any]]:
        found = self.connections
        return [
            found.open,
            found.load,
            found.write,
            found.pin,
            found.store_credential,
            found.erase_credential,
            found.delete,
            self.authorizations.begin,
            self.authorizations.complete,
            self.authorizations.poll,
            self.tokens.refresh,
            self.tokens.start,
            self.tokens.revoke,
            self.maintenance.prepare,
            self.maintenance.seal,
            self.maintenance.drop,
            self.maintenance.sweep,
            self.keys.list_wrapped,
            self.keys.rewrap,
            self.keys.count_left,
            self.events.deliver,
        ]

    @property
    def test_activities(self) -> list[Callable[..., Any]]:
        return [self.connections.test]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await self.database.open()
            stack.push_async_callback(self.database.close)
            await check_schema_version(self.database)
            await self.seal_keys.ensure()
            for transport in (self.transport, self.provider_transport, self.webhook_transport):
                await transport.open()
                stack.push_async_callback(transport.close)
            await self.transforms.open()
            stack.push_async_callback(self.transforms.close)
            yield


class IntegrationClientPlugin(SimplePlugin):
    """For `Client.connect(plugins=[…])`: our values on the wire, a user's codec kept."""

    def __init__(self) -> None:
        super().__init__(f"{_NAME}.Client", data_converter=_with_pydantic)


class IntegrationPlugin(SimplePlugin):
    """For `Worker(plugins=[…])`: our workflows and activities on that worker's queue, and beside it workers of
    its own for the control queue and for connection tests, so that neither a flood of calls nor slow upstreams delay a
    refresh.

    One plugin serves one worker. A Replayer gets the workflows and the converter, and needs no database.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings
        self._parts: _Parts | None = None
        super().__init__(
            _NAME,
            data_converter=_with_pydantic,
            workflows=_WORKFLOWS,
            workflow_runner=_passing_through,
        )

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Builds the parts. Raises IntegrationError when a setting is missing."""
        if self._parts is not None:
            raise ValueError("an IntegrationPlugin serves one worker: make another for another worker")
        self._parts = _Parts.build(self._settings or Settings.from_environment(), task_queue=config["task_queue"])
        self.activities = self._parts.method_activities
        self.interceptors = [self._parts.openings]
        config = super().configure_worker(config)
        config["client"] = _speaking_pydantic(config["client"])
        return config

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:  # noqa: A002
        """Opens the parts, serves the queues, closes the parts."""
        parts = self._parts
        if parts is None:
            raise RuntimeError("run_worker before configure_worker")
        async with parts.opened():
            await _ensure_search_attributes(worker.client)
            control = Worker(
                worker.client,
                task_queue=control_queue(worker.task_queue),
                activities=parts.control_activities,
                workflows=_CONTROL_WORKFLOWS,
                workflow_runner=_passing_through(None),
                interceptors=[parts.openings],
                # Many, and each waits on the network.
                max_concurrent_activities=500,
                # Longer than a token request may last: an answer that is on its way is stored.
                graceful_shutdown_timeout=timedelta(seconds=25),
            )
            tests = Worker(
                worker.client,
                task_queue=connection_tests_queue(worker.task_queue),
                activities=parts.test_activities,
                interceptors=[parts.openings],
                max_concurrent_activities=_CONNECTION_TESTS,
            )
            async with control, tests:
                await ensure_maintenance_schedule(worker.client, task_queue=control_queue(worker.task_queue))
                await _ensure_events_are_delivered(worker.client, worker.task_queue)
                await super().run_worker(worker, next)


def _with_pydantic(converter: DataConverter | None) -> DataConverter:
    converter = converter or DataConverter.default
    if issubclass(converter.payload_converter_class, PydanticPayloadConverter):
        return converter
    return dataclasses.replace(converter, payload_converter_class=PydanticPayloadConverter)


def _speaking_pydantic(client: Client) -> Client:
    """The same connection with our converter, where the worker's owner did not use `IntegrationClientPlugin`."""
    wanted = _with_pydantic(client.data_converter)
    if wanted is client.data_converter:
        return client
    config = client.config(active_config=True)
    config["data_converter"], config["plugins"] = wanted, []
    return Client(**config)


def _passing_through(runner: WorkflowRunner | None) -> WorkflowRunner:
    if not isinstance(runner, SandboxedWorkflowRunner):
        return runner or SandboxedWorkflowRunner()
    return dataclasses.replace(runner, restrictions=runner.restrictions.with_passthrough_modules(*_PASSED_THROUGH))


async def _ensure_events_are_delivered(client: Client, task_queue: str) -> None:
    """Start `DeliverEvents` unless it runs: whichever worker is first does it."""
    await client.start_workflow(
        DELIVER_EVENTS,
        id=deliver_events_workflow_id(task_queue),
        task_queue=control_queue(task_queue),
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary="delivers events to those who subscribe",
    )


async def _ensure_search_attributes(client: Client) -> None:
    """Register what is missing. Raises IntegrationError with the command to run where we may not."""
    wanted = {key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in SEARCH_ATTRIBUTES}
    try:
        known = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
        missing = {name: kind for name, kind in wanted.items() if name not in known.custom_attributes}
        if missing:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
            )
    except RPCError as error:
        if error.status is RPCStatusCode.ALREADY_EXISTS:
            return  # another worker that started at the same time was first
        names = " ".join(f"--name {name}" for name in wanted)
        raise IntegrationError(
            ErrorCode.UNAVAILABLE,
            f"search attributes could not be checked ({error.status.name}); register them with "
            f"`temporal operator search-attribute create {names} --type Keyword`",
        ) from error
