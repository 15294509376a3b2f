"""What one worker's activities are made of: every part is built here and handed to those that need it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.worker import Interceptor

from integration_service.activities.authorizations import AuthorizationActivities
from integration_service.activities.capacity import Capacity
from integration_service.activities.connection_reader import ConnectionReader
from integration_service.activities.connections import ConnectionActivities
from integration_service.activities.events import EventActivities
from integration_service.activities.exchange import Exchange
from integration_service.activities.execution.answers import Answers
from integration_service.activities.execution.caching import ResponseCache
from integration_service.activities.execution.compiled import CompiledDefinitions
from integration_service.activities.execution.mapping import Mapping
from integration_service.activities.execution.observing import Observer
from integration_service.activities.execution.pagination import PageTokens
from integration_service.activities.execution.pipeline import MethodPipeline
from integration_service.activities.execution.recording import Recorder
from integration_service.activities.execution.results import Results
from integration_service.activities.execution.sending import Sender
from integration_service.activities.keys import KeyActivities
from integration_service.activities.maintenance import MaintenanceActivities
from integration_service.activities.methods import MethodActivities
from integration_service.activities.nexus import IntegrationsHandler
from integration_service.activities.oauth.provider import Providers
from integration_service.activities.openings import OpeningsInterceptor
from integration_service.activities.outbound.breaker import Breakers
from integration_service.activities.outbound.egress import EgressPolicy
from integration_service.activities.outbound.limits import RateLimiter, Waiting
from integration_service.activities.outbound.transport import Transport
from integration_service.activities.renewal import TokenRenewal
from integration_service.activities.reporting import ReportingInterceptor
from integration_service.activities.revocations import Revocations
from integration_service.activities.tokens import TokenActivities
from integration_service.activities.transforms import Transforms
from integration_service.contracts.names import control_queue
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
from integration_service.storage.delivery_news import DeliveryNews
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
from integration_service.telemetry.process import Telemetry


@dataclass(frozen=True)
class Parts:
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
    reporting: ReportingInterceptor
    events: EventActivities
    nexus: IntegrationsHandler

    @classmethod
    def build(
        cls,
        settings: Settings,
        *,
        task_queue: str,
        capacity: Capacity | None = None,
        telemetry: Telemetry | None = None,
    ) -> Parts:
        """Connects nothing. Raises IntegrationError when a setting is missing or the keyring cannot be read."""
        capacity, telemetry = capacity or Capacity.of(settings), telemetry or Telemetry()
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
        outbox, stats = Outbox(database), AuditStats(database)
        revocations = Revocations(instances=instances, providers=providers, alerts=stats, outbox=outbox)
        exchange = Exchange(providers=providers, credentials=credentials, revocations=revocations)
        reader = ConnectionReader(definitions=compiled, credentials=credentials)
        audit, transforms = AuditLog(database), Transforms()
        large = LargeResults(database, results_keyring, public_url=settings.public_url)
        observer = Observer(telemetry.metrics, telemetry.tracing)
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
                waiting=Waiting(capacity.sleepers),
                paging=Waiting(capacity.sleepers, longest=timedelta(hours=1)),
                observer=observer,
            ),
            answers=Answers(transforms),
            mapping=Mapping(transforms),
            cache=ResponseCache(responses, max_waiting=capacity.sleepers),
            page_tokens=PageTokens(keyring),
            results=Results(large),
            recorder=Recorder(audit, observer),
        )
        return cls(
            database=database,
            transport=transport,
            transforms=transforms,
            provider_transport=provider_transport,
            webhook_transport=webhook_transport,
            seal_keys=seal_keys,
            methods=MethodActivities(pipeline=pipeline, instances=instances, waiters=waiters),
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
            reporting=ReportingInterceptor(telemetry),
            maintenance=MaintenanceActivities(
                partitions=AuditPartitions(database),
                chain=AuditChain(database),
                stats=stats,
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
                metrics=telemetry.metrics,
            ),
            events=EventActivities(
                outbox=outbox,
                deliveries=Deliveries(database),
                subscriptions=Subscriptions(database, keyring),
                news=DeliveryNews(database),
                transport=webhook_transport,
            ),
            nexus=IntegrationsHandler(instances=instances),
        )

    @property
    def interceptors(self) -> list[Interceptor]:
        return [self.reporting, self.openings]

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
