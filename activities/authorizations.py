"""Authorization activities: from the URL that a person opens to the tokens that come of it."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from typing import Any

from temporalio import activity

from integration_service.activities.connection_reader import ConnectionReader
from integration_service.activities.exchange import Exchange
from integration_service.activities.failures import typed
from integration_service.activities.oauth.authorization import authorization_url, new_secret, requested_scope
from integration_service.activities.oauth.provider import Providers, Registration
from integration_service.activities.oauth.token_answer import TokenRefused
from integration_service.activities.oauth.token_request import CodeGrant, DeviceGrant, additional_parameters
from integration_service.activities.tokens import STORE_RETRY, beating
from integration_service.contracts import oauth as names
from integration_service.contracts.connections import (
    BeginAuthorization,
    ConnectionState,
    PollDevice,
    ReturnedAuthorization,
)
from integration_service.contracts.errors import Decision, ErrorCode, IntegrationError
from integration_service.contracts.instances import IntegrationInstance
from integration_service.contracts.oauth import Authorize, PendingAuthorization, PollOutcome, state_hash
from integration_service.contracts.oauth_urls import allowed_return_url, is_loopback_redirect
from integration_service.contracts.wire import JsonObject
from integration_service.storage.authorizations import Authorizations
from integration_service.storage.claim import Claim
from integration_service.storage.seal_keys import SealKeys

_LIFETIME = timedelta(minutes=10)
_LONGEST_DEVICE_FLOW = timedelta(hours=1)
CALLBACK_PATH = "/oauth/callback"


class AuthorizationActivities:
    """What runs on the control queue for the updates `authorize` and `complete_authorization`."""

    def __init__(
        self,
        *,
        authorizations: Authorizations,
        seal_keys: SealKeys,
        providers: Providers,
        exchange: Exchange,
        reader: ConnectionReader,
        public_url: str,
        return_urls: tuple[str, ...],
    ) -> None:
        self._authorizations = authorizations
        self._seal_keys = seal_keys
        self._providers = providers
        self._exchange = exchange
        self._reader = reader
        self._redirect_uri = public_url.rstrip("/") + CALLBACK_PATH
        self._return_urls = return_urls

    @activity.defn(name=names.BEGIN_AUTHORIZATION)
    async def begin(self, begun: BeginAuthorization) -> PendingAuthorization:
        """The URL to open (RFC 6749 §4.1.1, RFC 7636), or the code to type elsewhere (RFC 8628 §3.2)."""
        async with typed():
            registration = await self._exchange.registration(begun.instance)
            match registration.config.grant:
                case "authorization_code":
                    return await self._begin_code(begun.instance, begun.wanted, registration)
                case "device_code":
                    return await self._begin_device(begun.instance, begun.wanted, registration)
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR,
                f"grant {registration.config.grant} needs no authorization",
                path="oauth2Config.grantType",
            )

    async def _begin_code(
        self, instance: IntegrationInstance, wanted: Authorize, registration: Registration
    ) -> PendingAuthorization:
        config = registration.config
        if wanted.return_url is not None and not allowed_return_url(wanted.return_url, self._return_urls):
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, "not among INTEGRATIONS_RETURN_URLS", path="returnUrl")
        if wanted.redirect_uri is not None and not is_loopback_redirect(wanted.redirect_uri):
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR, "only a loopback address may stand here", path="redirectUri"
            )
        scope = requested_scope(config)
        redirect_uri = wanted.redirect_uri or self._redirect_uri
        state = f"{instance.id}.{new_secret()}"
        verifier = new_secret() if config.pkce is not False else None
        nonce = new_secret() if "openid" in re.split(r"[\s,]+", config.scope or "") else None
        url = authorization_url(
            endpoint=await self._providers.authorization_endpoint(registration),
            client_id=registration.client.client_id,
            redirect_uri=redirect_uri,
            state=state,
            scope=scope,
            verifier=verifier,
            nonce=nonce,
            extra=additional_parameters(config, registration.values),
            rename=config.token_request.rename if config.token_request else {},
        )
        secret: JsonObject = {
            "redirectUri": redirect_uri,
            "codeVerifier": verifier,
            "nonce": nonce,
            "anyAccount": wanted.allow_different_account,
        }
        hashed = state_hash(state)
        expires_at = await self._authorizations.begin(
            hashed=hashed,
            instance_id=instance.id,
            scope=instance.scope,
            return_url=wanted.return_url,
            secret=secret,
            lifetime=_LIFETIME,
        )
        return PendingAuthorization(authorization_url=url, expires_at=expires_at, state_hash=hashed)

    async def _begin_device(
        self, instance: IntegrationInstance, wanted: Authorize, registration: Registration
    ) -> PendingAuthorization:
        device = await self._providers.device_code(registration)
        hashed = state_hash(f"{instance.id}.{new_secret()}")
        expires_at = await self._authorizations.begin(
            hashed=hashed,
            instance_id=instance.id,
            scope=instance.scope,
            return_url=None,
            secret={"deviceCode": device.device_code, "anyAccount": wanted.allow_different_account},
            lifetime=min(device.expires_in, _LONGEST_DEVICE_FLOW),
        )
        return PendingAuthorization(
            authorization_url=device.verification_uri_complete or device.verification_uri,
            user_code=device.user_code,
            expires_at=expires_at,
            interval_ms=round(device.interval / timedelta(milliseconds=1)),
            state_hash=hashed,
        )

    @activity.defn(name=names.COMPLETE_AUTHORIZATION)
    async def complete(self, returned: ReturnedAuthorization) -> ConnectionState:
        """Use up the state, spend the code, store the tokens.

        Raises VALIDATION_ERROR (path `state` or `iss`) before any token request; OUTCOME_UNKNOWN when an earlier
        attempt may have spent the code and its answer was lost: the person must authorise again.
        """
        async with typed():
            return await beating(self._complete(returned))

    async def _complete(self, returned: ReturnedAuthorization) -> ConnectionState:
        instance = returned.instance
        # Opened first: what cannot be read does not use up the state.
        given = _read(await self._seal_keys.open(returned.sealed, instance.id)) if returned.sealed else {}
        info = activity.info()
        claimant = f"{info.workflow_run_id}/{info.activity_id}"
        secret = await self._authorizations.claim(returned.state_hash, instance.id, claimant=claimant)
        registration = await self._exchange.registration(instance)
        if returned.error is not None:
            await self._check_issuer(registration, returned.error.iss, required=False)
            return await self._reader.state(instance)
        await self._check_issuer(registration, given.get("iss"), required=True)
        if "deviceCode" in secret:
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, "the state is one of the device flow", path="state")
        prepared = await self._exchange.prepare(instance, registration)
        # From here on the code may be spent: whatever can fail without a send has not.
        if not await self._authorizations.leaves(returned.state_hash, claimant=claimant):
            if await self._authorizations.is_stored(returned.state_hash, claimant=claimant):
                return await self._reader.state(instance)  # by an attempt whose worker died before it could say so
            raise IntegrationError(
                ErrorCode.OUTCOME_UNKNOWN, "the provider's answer to the code was lost; authorise again"
            )
        try:
            await self._exchange.spend(
                prepared,
                CodeGrant(given["code"], secret["redirectUri"], secret["codeVerifier"]),
                Claim(returned.state_hash, claimant),
                nonce=secret["nonce"],
                callback=given.get("callback") or {},
                any_account=secret["anyAccount"],
            )
        except TokenRefused as refused:
            raise _once(refused, f"the provider refused the code{_named(refused.error)}; authorise again") from None
        while True:
            try:
                return await self._reader.state(instance)
            except IntegrationError as error:
                # The tokens are stored: an outage now must not look like a lost answer.
                if error.decision is not Decision.WAIT:
                    raise
                await asyncio.sleep(STORE_RETRY.total_seconds())

    async def _check_issuer(self, registration: Registration, iss: str | None, *, required: bool) -> None:
        """RFC 9207 §2.4: an answer of another authorization server is a mix-up, or an attack."""
        issuer = registration.issuer
        if issuer is None or iss == issuer:
            return
        if iss is not None or (required and await self._providers.requires_iss(registration)):
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR, "the answer comes from another issuer than the definition's", path="iss"
            )

    @activity.defn(name=names.POLL_DEVICE)
    async def poll(self, polled: PollDevice) -> PollOutcome:
        """Ask once whether the person has said yes (RFC 8628 §3.4, §3.5)."""
        async with typed(retry=False):
            instance = polled.instance
            secret = await self._authorizations.read(polled.state_hash, instance.id)
            if secret is None:
                # An earlier poll may have stored the tokens, and its worker died before it could say so.
                done = await self._authorizations.is_stored(polled.state_hash)
                return PollOutcome(done=True) if done else PollOutcome(refused="expired_token")
            registration = await self._exchange.registration(instance)
            prepared = await self._exchange.prepare(instance, registration)
            try:
                await self._exchange.spend(
                    prepared,
                    DeviceGrant(secret["deviceCode"]),
                    Claim(polled.state_hash),
                    any_account=bool(secret.get("anyAccount")),
                )
            except TokenRefused as refused:
                match refused.error:
                    case "authorization_pending":
                        return PollOutcome()
                    case "slow_down":
                        return PollOutcome(slow_down=True)
                if refused.invalid_grant or refused.code == ErrorCode.AUTH_ERROR:
                    return PollOutcome(refused=refused.error or "refused")
                raise
            except IntegrationError as error:
                if error.code == ErrorCode.VALIDATION_ERROR and error.path == "state":
                    return PollOutcome(refused="expired_token")  # given up or replaced while its answer was on its way
                if error.code == ErrorCode.AUTH_ERROR:
                    return PollOutcome(refused=error.path or "refused")  # another account, a bad ID token
                raise
            return PollOutcome(done=True)


def _read(plaintext: bytes) -> dict[str, Any]:
    """``{"code", "iss"?, "callback"?}``. Raises IntegrationError VALIDATION_ERROR that quotes nothing."""
    try:
        data = json.loads(plaintext)
        sound = isinstance(data, dict) and isinstance(data.get("code"), str) and bool(data["code"])
        callback = data.get("callback") if sound else None
        sound = sound and isinstance(data.get("iss"), str | None)
        sound = sound and (callback is None or all(isinstance(value, str) for value in dict(callback).values()))
    except (ValueError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, 'expected {"code", "iss"?, "callback"?}', path="sealed")
    return dict(data)


def _once(error: IntegrationError, message: str) -> IntegrationError:
    """A code is spent once: whatever came back, asking again with it can only hurt."""
    return IntegrationError(ErrorCode.AUTH_ERROR, message, details=error.details)


def _named(error: str | None) -> str:
    return f" ({error})" if error else ""
