"""Token activities: the only code that spends a refresh token, on behalf of `RefreshOAuth`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from temporalio import activity
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDConflictPolicy
from temporalio.service import RPCError

from integration_service.activities.failures import typed
from integration_service.activities.oauth.provider import REQUEST_DEADLINE, Providers, Registration, was_sent
from integration_service.activities.oauth.token_answer import TokenRefused, Tokens
from integration_service.activities.oauth.token_request import (
    ClientCredentialsGrant,
    Grant,
    JwtBearerGrant,
    PasswordGrant,
    RefreshGrant,
)
from integration_service.activities.revocations import Revocations
from integration_service.contracts import oauth as names
from integration_service.contracts.connections import ConnectionRef, StartRefresh
from integration_service.contracts.credentials import CredentialPayload, IntegrationCredential
from integration_service.contracts.definitions import IntegrationAuthType, OAuth2Config
from integration_service.contracts.errors import Decision, ErrorCode, IntegrationError
from integration_service.contracts.names import (
    INTEGRATION_DEFINITION,
    INTEGRATION_INSTANCE,
    REFRESH_OAUTH,
    refresh_workflow_id,
)
from integration_service.contracts.oauth import CredentialChanged, RefreshInput, RefreshToken, TokenState
from integration_service.storage.authorizations import Authorizations
from integration_service.storage.credentials import Credentials, StoredCredential
from integration_service.storage.instances import InstanceForCall, Instances
from integration_service.storage.refresh_intents import Intent, RefreshIntents
from integration_service.telemetry.metrics import OK, Metrics

_LEASE = timedelta(seconds=30)
"""How long an intent holds others back: longer than the transport's whole deadline."""
_LEASE_MARGIN = timedelta(seconds=5)
STORE_RETRY = timedelta(milliseconds=250)
_BEAT = timedelta(seconds=4)
Result = TypeVar("Result")


class TokenActivities:
    """What runs on the control queue for `RefreshOAuth`, and for `ConnectInstance` where it has to do with tokens."""

    def __init__(
        self,
        *,
        instances: Instances,
        credentials: Credentials,
        intents: RefreshIntents,
        authorizations: Authorizations,
        providers: Providers,
        revocations: Revocations,
        control_queue: str,
        metrics: Metrics,
    ) -> None:
        self._instances = instances
        self._credentials = credentials
        self._intents = intents
        self._authorizations = authorizations
        self._providers = providers
        self._revocations = revocations
        self._control_queue = control_queue
        self._metrics = metrics

    @activity.defn(name=names.REFRESH_TOKEN)
    async def refresh(self, wanted: RefreshToken) -> TokenState:
        """One token request, if `generation` is still the current one; else what is current.

        Generation 0 asks for the first token of a grant that needs nobody. Raises REAUTH_REQUIRED with its
        `cause` where only a new authorization helps; every other failure may pass, and details may hold
        `retryAfterMs`.
        """
        async with typed(retry=False):
            instance = await self._instances.for_call(wanted.scope, wanted.instance_id)
            current = instance.credential.generation if instance.credential else 0
            if current != wanted.generation and instance.credential is not None:
                return await self._state(instance)
            try:
                state = await beating(self._request(instance, current))
            except IntegrationError as error:
                self._metrics.refreshed(error.code)
                raise
            before = instance.credential.expires_at if instance.credential else None
            self._metrics.refreshed(OK, left=before - datetime.now(UTC) if before else None)
            return state

    async def _request(self, instance: InstanceForCall, generation: int) -> TokenState:
        held = await self._credentials.open(instance.credential) if instance.credential else None
        registration = await self._registration(instance, held)
        grant = _grant(registration.config, held)
        lease_began = time.monotonic()
        try:
            intent = await self._intents.begin(
                instance_id=instance.id, generation=generation, token_hash=_hash(grant), lease=_LEASE
            )
        except IntegrationError as error:
            if error.code == ErrorCode.VERSION_CONFLICT:
                return await self._current(instance)  # somebody authorised again since it was read
            raise
        # A process that slept since then must not send: another may hold the lease by now.
        left = _LEASE - timedelta(seconds=time.monotonic() - lease_began) - _LEASE_MARGIN
        if left <= timedelta(0):
            raise IntegrationError(ErrorCode.UNAVAILABLE, "the lease of this token request has run out")
        try:
            tokens = await self._providers.tokens(
                registration,
                grant,
                within=min(REQUEST_DEADLINE, left),
                previous=held.oauth2 if held else None,
            )
        except TokenRefused as refused:
            return await self._refused(instance, generation, refused, intent)
        except IntegrationError as error:
            # Where the request may have arrived, the intent stands until its deadline: the answer may be on its way.
            if not was_sent(error):
                await self._answered(instance.id, generation, intent, lost=False)
            raise
        return await self._store(instance, generation, held, tokens, registration)

    async def _refused(
        self, instance: InstanceForCall, generation: int, refused: TokenRefused, intent: Intent
    ) -> TokenState:
        await self._answered(instance.id, generation, intent, lost=refused.lost)
        if not refused.invalid_grant:
            raise refused
        again = await self._instances.for_call(instance.scope, instance.id)
        if again.credential is not None and again.credential.generation != generation:
            return await self._state(again)
        raise IntegrationError(
            ErrorCode.REAUTH_REQUIRED,
            "the provider refuses the refresh token (invalid_grant)",
            details={"cause": "outcome_unknown" if intent.lost else "revoked"},
        )

    async def _answered(self, instance_id: str, generation: int, intent: Intent, *, lost: bool) -> None:
        # If this is not written, the intent's deadline says the same a little later.
        with contextlib.suppress(IntegrationError):
            await self._intents.answered(instance_id=instance_id, generation=generation, lost=lost, send=intent.send)

    async def _store(
        self,
        instance: InstanceForCall,
        generation: int,
        held: IntegrationCredential | None,
        tokens: Tokens,
        registration: Registration,
    ) -> TokenState:
        """Keep trying for as long as the attempt lasts: a new token that is lost may cost the connection."""
        payload = CredentialPayload(
            type=IntegrationAuthType.OAUTH2, oauth2=tokens.credential, basic_auth=held.basic_auth if held else None
        )
        while True:
            try:
                await self._credentials.store(
                    instance_id=instance.id,
                    scope=instance.scope,
                    payload=payload,
                    expected=generation,
                    renewable=renewable(registration.config, payload),
                    renewal=True,
                )
                break
            except IntegrationError as error:
                if error.code in (ErrorCode.VERSION_CONFLICT, ErrorCode.INSTANCE_NOT_FOUND):
                    # Somebody authorised again meanwhile: theirs is the one that counts. Or they disconnected.
                    await self._revocations.give_back(
                        registration, tokens.credential, instance_id=instance.id, scope=instance.scope
                    )
                    break
                if error.decision is not Decision.WAIT:
                    raise
                await asyncio.sleep(STORE_RETRY.total_seconds())
        return await self._current(instance)

    async def _current(self, instance: InstanceForCall) -> TokenState:
        while True:
            try:
                return await self._state(await self._instances.for_call(instance.scope, instance.id))
            except IntegrationError as error:
                if error.decision is not Decision.WAIT:
                    raise
                await asyncio.sleep(STORE_RETRY.total_seconds())

    async def _state(self, instance: InstanceForCall) -> TokenState:
        if instance.credential is None:
            raise IntegrationError(ErrorCode.INSTANCE_NOT_FOUND, "the credential was erased", path="instanceId")
        config = await self._providers.config(instance.definition_id)
        return token_state(config, instance.credential)

    async def _registration(self, instance: InstanceForCall, held: IntegrationCredential | None) -> Registration:
        return await self._providers.registration(
            instance_id=instance.id,
            scope=instance.scope,
            definition_id=instance.definition_id,
            config=instance.config,
            connection=held.oauth2.connection if held and held.oauth2 else None,
        )

    @activity.defn(name=names.START_REFRESH)
    async def start(self, wanted: StartRefresh) -> None:
        """Start `RefreshOAuth` if it does not run, and tell it the token, in one request."""
        async with typed():
            given = RefreshInput(instance_id=wanted.instance_id, scope=wanted.scope)
            try:
                await client().start_workflow(
                    REFRESH_OAUTH,
                    given.to_wire(),
                    id=refresh_workflow_id(wanted.instance_id),
                    task_queue=self._control_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    start_signal="credential_changed",
                    start_signal_args=[CredentialChanged(token=wanted.token).to_wire()],
                    static_summary=f"keeps the token of {wanted.instance_id} fresh",
                    search_attributes=_found_by(wanted),
                )
            except RPCError as error:
                raise IntegrationError(ErrorCode.UNAVAILABLE, f"Temporal answered {error.status.name}") from None

    @activity.defn(name=names.REVOKE_TOKENS)
    async def revoke(self, ref: ConnectionRef) -> None:
        """Ask the provider to forget the tokens; what it answers changes nothing."""
        async with typed():
            # Nobody stores tokens between this and the erasure: an exchange that is late finds itself given up.
            await self._authorizations.erase(ref.instance_id)
            revoked: int | None = None
            while True:
                instance = await self._instances.for_call(ref.scope, ref.instance_id)
                # A refresh that was on its way may have brought another token meanwhile: that one too.
                if instance.credential is None or instance.credential.generation == revoked:
                    return
                revoked = instance.credential.generation
                held = await self._credentials.open(instance.credential)
                if held.oauth2 is not None:
                    await self._revocations.revoke(
                        await self._registration(instance, held),
                        held.oauth2,
                        instance_id=instance.id,
                        scope=instance.scope,
                    )


def _found_by(wanted: StartRefresh) -> TypedSearchAttributes:
    known = {INTEGRATION_INSTANCE: wanted.instance_id, INTEGRATION_DEFINITION: wanted.definition}
    return TypedSearchAttributes([SearchAttributePair(key, value) for key, value in known.items() if value])


def token_state(config: OAuth2Config, stored: StoredCredential) -> TokenState:
    """What the workflows may know of a stored token."""
    return TokenState(
        generation=stored.generation,
        expires_at=stored.expires_at,
        obtained_at=stored.obtained_at,
        automatic=config.automatic,
        margin_ms=config.margin_ms,
        granted_scope=stored.granted_scope,
        renewable=stored.renewable,
    )


def client() -> Client:
    """The worker's own client."""
    return activity.client()


async def beating(work: Awaitable[Result]) -> Result:
    """Await `work`, heartbeating; a cancelled activity still ends it: an answer that is on its way is worth more."""
    task = asyncio.ensure_future(work)
    while True:
        try:
            done, _ = await asyncio.wait({task}, timeout=_BEAT.total_seconds())
        except asyncio.CancelledError:
            await asyncio.wait({task})
            return task.result()
        if done:
            return task.result()
        activity.heartbeat()


def renewable(config: OAuth2Config, credential: CredentialPayload) -> bool:
    """Whether there is something to get the next token with."""
    mapping = config.token_request
    by_access_token = mapping is not None and mapping.refresh_with == "access_token"
    held = credential.oauth2
    return (
        by_access_token
        or not config.needs_person
        or credential.basic_auth is not None
        or (held is not None and held.refresh_token is not None)
    )


def _grant(config: OAuth2Config, held: IntegrationCredential | None) -> Grant:
    match config.grant:
        case "client_credentials":
            return ClientCredentialsGrant()
        case "jwt_bearer":
            return JwtBearerGrant()
    if held is None or held.oauth2 is None:
        raise IntegrationError(ErrorCode.INSTANCE_NOT_CONNECTED, "nobody has authorised the instance yet")
    if held.basic_auth is not None:
        return PasswordGrant(held.basic_auth.username, held.basic_auth.password)
    if not renewable(config, held):
        expires_at = held.oauth2.expires_at
        if expires_at is None or expires_at > datetime.now(UTC):
            # The token that is there is good for all that is known: no reason to ask anybody for another.
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, "the provider gave no refresh token to refresh with")
        raise IntegrationError(
            ErrorCode.REAUTH_REQUIRED,
            "the provider gave no refresh token",
            details={"cause": "no_refresh_token"},
        )
    return RefreshGrant(held.oauth2.refresh_token, held.oauth2.access_token)


def _hash(grant: Grant) -> bytes:
    """Names what is spent, so that a look at the database tells one token from another."""
    spent = grant.refresh_token or grant.access_token if isinstance(grant, RefreshGrant) else type(grant).__name__
    return hashlib.sha256(spent.encode()).digest()
