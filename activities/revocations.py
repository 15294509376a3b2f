"""Tokens that nobody will use any more go back to their provider, as far as it can be asked."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import activity

from integration_service.activities.oauth.provider import Providers, Registration
from integration_service.contracts.credentials import OAuth2Credential
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.instances import Instances

_TRIES = 3
_PAUSE = timedelta(milliseconds=500)


class Revocations:
    """Asks a provider to forget tokens (RFC 7009). What it answers is logged, and changes nothing here."""

    def __init__(self, *, instances: Instances, providers: Providers) -> None:
        self._instances = instances
        self._providers = providers

    async def revoke(self, registration: Registration, credential: OAuth2Credential) -> None:
        """Revoke a credential's tokens; a provider in trouble is asked up to three times for each."""
        try:
            url = await self._providers.revocation_endpoint(registration)
        except IntegrationError as error:
            activity.logger.warning("tokens were not revoked: %s", error.code)
            return
        # The refresh token first: a provider that knows RFC 7009 ends its access tokens with it.
        for token, hint in ((credential.refresh_token, "refresh_token"), (credential.access_token, "access_token")):
            if url is not None and token and not await self._one(registration, url, token, hint):
                return  # it does not answer: asking for the next would take as long again

    async def _one(self, registration: Registration, url: str, token: str, hint: str) -> bool:
        """Whether the provider answered at all."""
        told = ""
        for number in range(1, _TRIES + 1):
            try:
                status = await self._providers.revoke(registration, url=url, token=token, hint=hint)
            except IntegrationError as error:
                told = error.code
            else:
                if status < 500 and status != 429:
                    if status >= 300:
                        activity.logger.warning("the provider refused to revoke the %s (status %s)", hint, status)
                    return True
                told = f"status {status}"
            if number < _TRIES:
                await asyncio.sleep((_PAUSE * number).total_seconds())
        activity.logger.warning("the %s was not revoked: the provider is in trouble (%s)", hint, told)
        return False

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
            await self.revoke(registration, credential)
        else:
            activity.logger.warning("tokens that came too late were dropped: the instance has others")
