"""Tokens that nobody will use any more go back to their provider, as far as it can be asked."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from temporalio import activity

from integration_service.activities.oauth.provider import Providers, Registration
from integration_service.contracts.credentials import OAuth2Credential
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.events import EventDraft, EventType
from integration_service.contracts.maintenance import TOKEN_NOT_REVOKED
from integration_service.storage.audit_stats import AuditStats
from integration_service.storage.instances import Instances
from integration_service.storage.outbox import Outbox

_TRIES = 3
_PAUSE = timedelta(milliseconds=500)


class Revocations:
    """Asks a provider to forget tokens (RFC 7009). What it answers changes nothing here; that it did not revoke one is
    an alert and an event, because somebody may want to do so on the provider's own page."""

    def __init__(self, *, instances: Instances, providers: Providers, alerts: AuditStats, outbox: Outbox) -> None:
        self._instances = instances
        self._providers = providers
        self._alerts = alerts
        self._outbox = outbox

    async def revoke(
        self, registration: Registration, credential: OAuth2Credential, *, instance_id: str, scope: str
    ) -> None:
        """Revoke a credential's tokens; a provider in trouble is asked up to three times for each."""
        try:
            url = await self._providers.revocation_endpoint(registration)
        except IntegrationError as error:
            await self._tell(instance_id, scope, "token", f"its endpoint could not be found ({error.code})")
            return
        # The refresh token first: a provider that knows RFC 7009 ends its access tokens with it.
        for token, hint in ((credential.refresh_token, "refresh_token"), (credential.access_token, "access_token")):
            if url is None or not token:
                continue
            answered, why = await self._one(registration, url, token, hint)
            if why is not None:
                await self._tell(instance_id, scope, hint, why)
            if not answered:
                return  # it does not answer: asking for the next would take as long again

    async def _one(self, registration: Registration, url: str, token: str, hint: str) -> tuple[bool, str | None]:
        """Whether the provider answered at all, and why the token may still be good."""
        told = ""
        for number in range(1, _TRIES + 1):
            try:
                status = await self._providers.revoke(registration, url=url, token=token, hint=hint)
            except IntegrationError as error:
                told = error.code
            else:
                if status < 500 and status != 429:
                    return True, f"the provider refused (status {status})" if status >= 300 else None
                told = f"status {status}"
            if number < _TRIES:
                await asyncio.sleep((_PAUSE * number).total_seconds())
        return False, f"the provider is in trouble ({told})"

    async def _tell(self, instance_id: str, scope: str, token: str, why: str) -> None:
        sentence = f"the {token} of instance {instance_id} was not revoked: {why}"
        activity.logger.warning("%s: %s", TOKEN_NOT_REVOKED, sentence)
        news = {"kind": TOKEN_NOT_REVOKED, "instanceId": instance_id, "token": token, "reason": why}
        # That nobody could be told either is no reason to keep the credential.
        with contextlib.suppress(IntegrationError):
            await self._alerts.alert(TOKEN_NOT_REVOKED, sentence)
            await self._outbox.publish(EventDraft(EventType.AUDIT_ALERT, news), subject="audit", scope=scope)

    async def give_back(
        self, registration: Registration, credential: OAuth2Credential, *, instance_id: str, scope: str
    ) -> None:
        """Revoke tokens that came too late, unless the instance has others by now: some providers end a whole
        grant with one of its tokens, and those may be of the same grant."""
        try:
            is_gone = (await self._instances.for_call(scope, instance_id)).credential is None
        except IntegrationError as error:
            is_gone = error.code == ErrorCode.INSTANCE_NOT_FOUND
        if is_gone:
            await self.revoke(registration, credential, instance_id=instance_id, scope=scope)
        else:
            activity.logger.warning("tokens that came too late were dropped: the instance has others")
