"""From what a person gave, a code or a password, to a stored token."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

from integration_service.activities.oauth.authorization import requested_scope
from integration_service.activities.oauth.id_token import account_of, claims_of
from integration_service.activities.oauth.provider import Providers, Registration
from integration_service.activities.oauth.token_answer import Tokens
from integration_service.activities.oauth.token_request import Grant, PasswordGrant
from integration_service.activities.revocations import Revocations
from integration_service.activities.tokens import STORE_RETRY, renewable
from integration_service.contracts.credentials import CredentialPayload, OAuth2Credential
from integration_service.contracts.definitions import IntegrationAuthType
from integration_service.contracts.errors import Decision, ErrorCode, IntegrationError
from integration_service.contracts.instances import IntegrationInstance
from integration_service.storage.claim import Claim
from integration_service.storage.credentials import Credentials

_TRIES = 5


@dataclass(frozen=True)
class Prepared:
    """An exchange that is ready to be sent. `account` is the one that the instance has now."""

    instance: IntegrationInstance
    registration: Registration
    token_url: str
    account: str | None = field(repr=False)


class Exchange:
    """Token requests that begin a connection, and the write that ends them."""

    def __init__(self, *, providers: Providers, credentials: Credentials, revocations: Revocations) -> None:
        self._providers = providers
        self._credentials = credentials
        self._revocations = revocations

    async def registration(self, instance: IntegrationInstance) -> Registration:
        return await self._providers.registration(
            instance_id=instance.id,
            scope=instance.scope,
            definition_id=instance.integration_definition_id,
            config=instance.config,
            connection=None,
        )

    async def password(
        self, instance: IntegrationInstance, payload: CredentialPayload, *, submission: datetime
    ) -> None:
        """Grant `password` (RFC 6749 §4.3): user and password are kept, to renew with."""
        registration = await self.registration(instance)
        if registration.config.grant != "password" or payload.basic_auth is None:
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR, "user and password fit the grant `password` only", path="sealed.basicAuth"
            )
        grant = PasswordGrant(payload.basic_auth.username, payload.basic_auth.password)
        tokens = await self._providers.tokens(registration, grant)
        kept = payload.model_copy(update={"oauth2": tokens.credential})
        try:
            await self._store(instance, registration, kept, submission=submission)
        except IntegrationError as error:
            await self._give_back(instance, registration, tokens.credential, error)
            raise

    async def keep(self, instance: IntegrationInstance, payload: CredentialPayload, *, submission: datetime) -> None:
        """Tokens that were had elsewhere."""
        await self._store(instance, await self.registration(instance), payload, submission=submission)

    async def prepare(self, instance: IntegrationInstance, registration: Registration) -> Prepared:
        """All that can fail before anything is sent: the endpoint, discovered or given, and what the vault holds."""
        stored = await self._credentials.load(instance.id)
        before = await self._credentials.open(stored) if stored else None
        return Prepared(
            instance=instance,
            registration=registration,
            token_url=await self._providers.token_endpoint(registration),
            account=before.oauth2.account if before and before.oauth2 else None,
        )

    async def spend(
        self,
        prepared: Prepared,
        grant: Grant,
        claim: Claim,
        *,
        nonce: str | None = None,
        callback: dict[str, str] | None = None,
        any_account: bool = False,
    ) -> None:
        """Spend a code, and keep the tokens if they are of the same account as before, and the authorization is
        still `claim`'s. If not, it was given up or replaced meanwhile: the tokens go back.

        Raises IntegrationError: TokenRefused, SendFailed, AUTH_ERROR for another account or a bad ID token, or
        VALIDATION_ERROR (path ``state``).
        """
        registration, known = prepared.registration, prepared.account
        tokens = await self._providers.tokens(registration, grant, callback=callback, url=prepared.token_url)
        account = self._account(registration, tokens, nonce)
        if known is not None and account is not None and known != account and not any_account:
            instance = prepared.instance
            await self._revocations.revoke(
                registration, tokens.credential, instance_id=instance.id, scope=instance.scope
            )
            raise IntegrationError(
                ErrorCode.AUTH_ERROR,
                "another account than before; ask for it with allowDifferentAccount, or make another instance",
                path="account",
            )
        # An answer without a scope grants what was asked for (RFC 6749 §5.1).
        scope = tokens.credential.scope or requested_scope(registration.config)
        credential = tokens.credential.model_copy(update={"account": account or known, "scope": scope})
        payload = CredentialPayload(type=IntegrationAuthType.OAUTH2, oauth2=credential)
        try:
            await self._store(prepared.instance, registration, payload, claim=claim)
        except IntegrationError as error:
            await self._give_back(prepared.instance, registration, credential, error)
            raise

    async def _give_back(
        self,
        instance: IntegrationInstance,
        registration: Registration,
        credential: OAuth2Credential,
        error: IntegrationError,
    ) -> None:
        """What came too late to be stored."""
        if error.code in (ErrorCode.VALIDATION_ERROR, ErrorCode.INSTANCE_NOT_FOUND):
            await self._revocations.give_back(registration, credential, instance_id=instance.id, scope=instance.scope)

    def _account(self, registration: Registration, tokens: Tokens, nonce: str | None) -> str | None:
        claims = None
        if tokens.id_token is not None:
            claims = claims_of(
                tokens.id_token,
                issuer=registration.issuer,
                client_id=registration.client.client_id,
                nonce=nonce,
                now=datetime.now(UTC),
            )
        return account_of(registration.config, tokens, claims)

    async def _store(
        self,
        instance: IntegrationInstance,
        registration: Registration,
        payload: CredentialPayload,
        *,
        claim: Claim | None = None,
        submission: datetime | None = None,
    ) -> None:
        """A refresh that ends at the same time may move the generation: what a person gave wins. An outage of ours
        is sat out: the code is spent by now."""
        conflicts = 0
        while True:
            try:
                await self._credentials.store(
                    instance_id=instance.id,
                    scope=instance.scope,
                    payload=payload,
                    renewable=renewable(registration.config, payload),
                    claim=claim,
                    submission=submission,
                )
                return
            except IntegrationError as error:
                conflicts += error.code == ErrorCode.VERSION_CONFLICT
                if error.decision is Decision.WAIT:
                    await asyncio.sleep(STORE_RETRY.total_seconds())
                elif error.code != ErrorCode.VERSION_CONFLICT or conflicts == _TRIES:
                    raise
