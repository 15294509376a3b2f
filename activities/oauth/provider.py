"""One provider as one instance meets it: its endpoints, found or discovered, and the requests to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from integration_service.activities.execution.compiled import CompiledDefinitions
from integration_service.activities.oauth.device import DeviceAuthorization, device_request, read_device_answer
from integration_service.activities.oauth.discovery import ProviderMetadata, metadata_urls, read_metadata
from integration_service.activities.oauth.refusal import without_what_was_sent
from integration_service.activities.oauth.revocation import revocation_request
from integration_service.activities.oauth.token_answer import Tokens, read_tokens
from integration_service.activities.oauth.token_request import Grant, RefreshGrant, token_request
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.activities.outbound.transport import SendFailed, Transport
from integration_service.activities.url_template import UrlTemplate
from integration_service.contracts.credentials import OAuth2Credential
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import JsonObject
from integration_service.storage.oauth_clients import OAuthClients

_Discovered = Callable[[ProviderMetadata], str | None]
REQUEST_DEADLINE = timedelta(seconds=20)
"""For one request to a provider, to the end of its answer. Shorter than the lease of a refresh."""
_REVOCATION_DEADLINE = timedelta(seconds=10)
MAX_ANSWER_BYTES = 1024 * 1024
_KEEP_METADATA = timedelta(hours=1)
_KEPT_ISSUERS = 1000


@dataclass(frozen=True)
class Registration:
    """An instance's side of its provider: the definition's OAuth config, the merged config, the client."""

    config: OAuth2Config
    values: JsonObject
    client: OAuthClientRecord
    connection: JsonObject = field(default_factory=dict)

    @property
    def issuer(self) -> str | None:
        """The provider's issuer identifier (RFC 8414 §2), its template filled."""
        return self.url(self.config.issuer, "issuer") if self.config.issuer else None

    def url(self, template: str, key: str) -> str:
        """A URL of the OAuth config, its template filled. Raises IntegrationError CONFIG_ERROR."""
        at = f"oauth2Config.{key}"
        return UrlTemplate(template, at=at).render(config=self.values, connection=self.connection)


class Providers:
    """Sends every request to an authorization server, through the one transport."""

    def __init__(self, *, transport: Transport, clients: OAuthClients, definitions: CompiledDefinitions) -> None:
        self._transport = transport
        self._clients = clients
        self._definitions = definitions
        self._known: dict[str, tuple[float, ProviderMetadata]] = {}

    async def config(self, definition_id: str) -> OAuth2Config:
        """The definition's OAuth config. Raises IntegrationError VALIDATION_ERROR where it has none."""
        found = (await self._definitions.get(definition_id)).definition.oauth2_config
        if found is None:
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, "the definition does not use OAuth", path="instanceId")
        return found

    async def registration(
        self, *, instance_id: str, scope: str, definition_id: str, config: JsonObject, connection: JsonObject | None
    ) -> Registration:
        """What requests of that instance are made of. Raises IntegrationError CONFIG_ERROR without a client."""
        oauth = await self.config(definition_id)
        compiled = await self._definitions.get(definition_id)
        name = compiled.definition.name
        client = await self._clients.load(scope=scope, definition=name, instance_id=instance_id)
        if client is None:
            raise IntegrationError(
                ErrorCode.CONFIG_ERROR,
                f"no OAuth client is set: `integrations definition client set {name}`",
                path="oauth2Config.clientId",
            )
        return Registration(oauth, compiled.merged_config(config), client, connection or {})

    async def tokens(
        self,
        registration: Registration,
        grant: Grant,
        *,
        within: timedelta = REQUEST_DEADLINE,
        previous: OAuth2Credential | None = None,
        callback: dict[str, str] | None = None,
        url: str | None = None,
    ) -> Tokens:
        """One token request, all of it within `within`, to `url` where the caller has asked for it already.

        Raises TokenRefused or SendFailed.
        """
        began = time.monotonic()
        config = registration.config
        if url is None:
            url = await self.token_endpoint(registration, refreshing=isinstance(grant, RefreshGrant))
        now = datetime.now(UTC)
        request = token_request(config, registration.client, grant, url=url, values=registration.values, now=now)
        # What a discovery took is gone from the time: the lease of a refresh began before it.
        left = within - timedelta(seconds=time.monotonic() - began)
        if left <= timedelta(0):
            raise IntegrationError(ErrorCode.UNAVAILABLE, "no time was left for the token request")
        response = await self._send(request, left)
        with without_what_was_sent(request):
            return read_tokens(config, response, now=now, previous=previous, callback=callback or {})

    async def token_endpoint(self, registration: Registration, *, refreshing: bool = False) -> str:
        """Where tokens are requested. Raises IntegrationError: what discovery meets, CONFIG_ERROR."""
        config = registration.config
        given = config.refresh_url if refreshing and config.refresh_url else config.token_url
        return await self._endpoint(registration, given, "tokenUrl", lambda found: found.token_endpoint)

    async def authorization_endpoint(self, registration: Registration) -> str:
        return await self._endpoint(
            registration,
            registration.config.authorization_url,
            "authorizationUrl",
            lambda found: found.authorization_endpoint,
        )

    async def device_code(self, registration: Registration) -> DeviceAuthorization:
        """Begin a device flow (RFC 8628 §3.1)."""
        url = await self._endpoint(
            registration,
            registration.config.device_authorization_url,
            "deviceAuthorizationUrl",
            lambda found: found.device_authorization_endpoint,
        )
        request = device_request(
            registration.config, registration.client, url=url, values=registration.values, now=datetime.now(UTC)
        )
        response = await self._send(request, REQUEST_DEADLINE)
        with without_what_was_sent(request):
            return read_device_answer(response)

    async def revocation_endpoint(self, registration: Registration) -> str | None:
        """Where tokens are revoked, or None where the provider has no way to be asked."""
        try:
            return await self._endpoint(
                registration,
                registration.config.revocation_url,
                "revocationUrl",
                lambda found: found.revocation_endpoint,
            )
        except IntegrationError as error:
            if error.code == ErrorCode.CONFIG_ERROR:
                return None
            raise

    async def revoke(self, registration: Registration, *, url: str, token: str, hint: str) -> int:
        """Ask the provider to forget one token (RFC 7009 §2.1); returns the answer's status. Raises SendFailed."""
        request = revocation_request(
            registration.config,
            registration.client,
            url=url,
            token=token,
            hint=hint,
            values=registration.values,
            now=datetime.now(UTC),
        )
        return (await self._send(request, _REVOCATION_DEADLINE)).status

    async def requires_iss(self, registration: Registration) -> bool:
        """Whether the provider says that its callbacks name their issuer (RFC 9207 §3)."""
        issuer = registration.issuer
        if issuer is None or registration.config.token_url is not None:
            return False
        return (await self._metadata(issuer)).iss_parameter_supported

    async def _endpoint(self, registration: Registration, given: str | None, key: str, discovered: _Discovered) -> str:
        path = f"oauth2Config.{key}"
        if given is not None:
            return registration.url(given, key)
        issuer = registration.issuer
        found = discovered(await self._metadata(issuer)) if issuer else None
        if found is None:
            raise IntegrationError(ErrorCode.CONFIG_ERROR, "the definition names no such endpoint", path=path)
        return found

    async def _metadata(self, issuer: str) -> ProviderMetadata:
        at, found = self._known.get(issuer, (0.0, None))
        if found is not None and time.monotonic() - at < _KEEP_METADATA.total_seconds():
            return found
        failed: IntegrationError | None = None
        for url in metadata_urls(issuer):
            request = OutboundRequest(method="GET", url=url, headers=(("Accept", "application/json"),))
            try:
                answered = read_metadata(issuer, await self._send(request, REQUEST_DEADLINE))
            except IntegrationError as error:
                failed = error
                continue
            if len(self._known) >= _KEPT_ISSUERS:
                self._known.clear()
            self._known[issuer] = (time.monotonic(), answered)
            return answered
        raise IntegrationError(
            ErrorCode.UNAVAILABLE,
            f"the issuer's metadata could not be read: {failed.message if failed else 'no address to ask'}",
            path="oauth2Config.issuer",
        )

    async def _send(self, request: OutboundRequest, within: timedelta) -> InboundResponse:
        # A code or a rotating refresh token is spent by one request.
        return await self._transport.send(request, within=within, once=True, max_bytes=MAX_ANSWER_BYTES)


def was_sent(error: IntegrationError) -> bool:
    """Whether a failed request may have reached the provider."""
    return isinstance(error, SendFailed) and error.maybe_sent
