"""Connection-side activities: the only code that writes instances, on behalf of their `ConnectInstance`."""

from __future__ import annotations

import contextlib

from temporalio import activity
from temporalio.service import RPCError

from integration_service.activities import auth
from integration_service.activities.breaker_news import tell_of_breaker
from integration_service.activities.connection_reader import ConnectionReader
from integration_service.activities.exchange import Exchange
from integration_service.activities.execution.attempt import Attempt, heartbeats
from integration_service.activities.execution.compiled import CompiledDefinitions
from integration_service.activities.execution.outcome import failure
from integration_service.activities.execution.pipeline import MethodPipeline
from integration_service.activities.execution.target import Progress
from integration_service.activities.failures import typed
from integration_service.contracts import connections as names
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.connections import (
    ConnectionRef,
    ConnectionState,
    ConnectionTest,
    PinnedVersion,
    PinVersion,
    StoreCredential,
    TestOutcome,
    WriteConnection,
)
from integration_service.contracts.credentials import parse_credential
from integration_service.contracts.definitions import IntegrationAuthType
from integration_service.contracts.errors import ErrorCode, IntegrationError, to_application_error, unexpected
from integration_service.contracts.instances import ConnectInstanceInput, IntegrationInstanceStatus
from integration_service.storage.authorizations import Authorizations
from integration_service.storage.cache import CachedResponses
from integration_service.storage.credentials import Credentials
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.seal_keys import SealKeys
from integration_service.storage.waiters import Waiters


class ConnectionActivities:
    """What runs on the control queue for `ConnectInstance`."""

    def __init__(
        self,
        *,
        instances: Instances,
        definitions: Definitions,
        compiled: CompiledDefinitions,
        credentials: Credentials,
        seal_keys: SealKeys,
        pipeline: MethodPipeline,
        reader: ConnectionReader,
        waiters: Waiters,
        authorizations: Authorizations,
        exchange: Exchange,
        responses: CachedResponses,
    ) -> None:
        self._responses = responses
        self._instances = instances
        self._definitions = definitions
        self._compiled = compiled
        self._credentials = credentials
        self._seal_keys = seal_keys
        self._pipeline = pipeline
        self._reader = reader
        self._waiters = waiters
        self._authorizations = authorizations
        self._exchange = exchange

    @activity.defn(name=names.OPEN_CONNECTION)
    async def open(self, wanted: ConnectInstanceInput) -> ConnectionState:
        """Insert the instance, or adopt the row that is there: then it keeps its version and config."""
        async with typed():
            if not await self._instances.exists(wanted.instance_id):
                definition = await self._definitions.connectable(wanted.scope, wanted.definition, wanted.version)
                return await self._reader.state(await self._instances.add(wanted, definition))
            return await self._reader.state(await self._instances.find(wanted.scope, wanted.instance_id))

    @activity.defn(name=names.LOAD_CONNECTION)
    async def load(self, ref: ConnectionRef) -> ConnectionState:
        """The row as it stands now."""
        async with typed():
            return await self._reader.state(await self._instances.find(ref.scope, ref.instance_id))

    @activity.defn(name=names.WRITE_CONNECTION)
    async def write(self, wanted: WriteConnection) -> ConnectionState:
        """Write the row if nobody did since it was read; VERSION_CONFLICT otherwise."""
        async with typed():
            written = await self._instances.update(
                wanted.instance,
                status=wanted.status,
                error=wanted.error,
                config=wanted.config,
                definition_id=wanted.definition_id,
            )
            if written.status in (IntegrationInstanceStatus.CONNECTED, IntegrationInstanceStatus.DISCONNECTED):
                await self._wake(written.id)
            return await self._reader.state(written)

    @activity.defn(name=names.PIN_VERSION)
    async def pin(self, wanted: PinVersion) -> PinnedVersion:
        """Find the published version that an instance is upgraded to."""
        async with typed():
            instance = wanted.instance
            definition = await self._definitions.connectable(instance.scope, instance.definition, wanted.version)
            return PinnedVersion(definition_id=definition.id, same_auth=definition.auth_type == instance.auth_type)

    @activity.defn(name=names.STORE_CREDENTIAL)
    async def store_credential(self, wanted: StoreCredential) -> ConnectionState:
        """Open the seal, check its shape, encrypt and keep the credential."""
        async with typed():
            instance = wanted.instance
            # An attempt that was given up may still be at it: from now on it stores nothing.
            submission = activity.info().current_attempt_scheduled_time
            await self._credentials.begin_submission(instance.id, at=submission)
            payload = parse_credential(await self._seal_keys.open(wanted.sealed, instance.id))
            if payload.type is not instance.auth_type:
                raise IntegrationError(
                    ErrorCode.VALIDATION_ERROR,
                    f"{instance.definition} takes credentials of type {instance.auth_type}",
                    path="sealed.type",
                )
            auth.check_credential(payload, (await self._compiled.get(instance.integration_definition_id)).definition)
            if payload.type is IntegrationAuthType.OAUTH2 and payload.oauth2 is None:
                await self._exchange.password(instance, payload, submission=submission)
            elif payload.type is IntegrationAuthType.OAUTH2:
                await self._exchange.keep(instance, payload, submission=submission)
            else:
                await self._credentials.store(
                    instance_id=instance.id, scope=instance.scope, payload=payload, submission=submission
                )
            return await self._reader.state(instance)

    @activity.defn(name=names.ERASE_CREDENTIAL)
    async def erase_credential(self, ref: ConnectionRef) -> ConnectionState:
        """Delete the credential."""
        async with typed():
            # First what may still bring a credential, then the credential.
            await self._authorizations.erase(ref.instance_id)
            await self._credentials.erase(ref.instance_id, at=activity.info().current_attempt_scheduled_time)
            await self._responses.forget(ref.instance_id)
            return await self._reader.state(await self._instances.find(ref.scope, ref.instance_id))

    @activity.defn(name=names.TEST_CONNECTION)
    async def test(self, wanted: ConnectionTest) -> TestOutcome:
        """Call the definition's `connectionTest`; its failure is the method's own, retried as the method is."""
        progress = Progress(testing=True, renewing=wanted.renew)
        attempt = Attempt.current(None)
        try:
            instance = await self._instances.find(wanted.scope, wanted.instance_id)
            method = (await self._compiled.get(instance.integration_definition_id)).definition.connection_test
            if method is None:
                return TestOutcome(tested=False)
            call = MethodCall(instance_id=instance.id, scope=instance.scope, method=method)
            try:
                with heartbeats(attempt):
                    await self._pipeline.run(call, attempt, progress)
            finally:
                await tell_of_breaker(progress)
        except IntegrationError as error:
            if error.code == ErrorCode.CIRCUIT_OPEN:
                raise to_application_error(error) from None  # whoever asks wants to know now
            raise failure(error, attempt=attempt, progress=progress) from None
        except Exception as error:
            raise unexpected(error) from None
        return TestOutcome(tested=True)

    async def _wake(self, instance_id: str) -> None:
        """Tell the calls that wait for this instance to go on or give up. One that is missed looks again by itself."""
        try:
            waiting = await self._waiters.take(instance_id)
        except IntegrationError:
            return
        for workflow_id, run_id in waiting:
            with contextlib.suppress(RPCError):  # it ended meanwhile
                await activity.client().get_workflow_handle(workflow_id, run_id=run_id).signal("instance_connected")

    @activity.defn(name=names.DELETE_INSTANCE)
    async def delete(self, ref: ConnectionRef) -> None:
        """Erase the instance and all that hangs on it; audit rows stay."""
        async with typed():
            await self._instances.delete(ref.instance_id)
