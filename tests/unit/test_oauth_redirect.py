"""A token request goes where it was sent, and nowhere else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from starlette.responses import Response

from integration_service.activities.oauth.token_request import RefreshGrant, token_request
from integration_service.activities.outbound.egress import EgressPolicy
from integration_service.activities.outbound.transport import Transport
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.oauth import OAuthClientRecord, TokenRequestMapping
from tests.upstream import Upstream


async def test_a_refresh_by_get_follows_no_redirect(upstream: Upstream) -> None:
    upstream.answers = [Response(status_code=302, headers={"location": "/elsewhere"})]
    request = token_request(
        OAuth2Config(token_request=TokenRequestMapping(method="GET")),
        OAuthClientRecord(client_id="app", client_secret="secret"),
        RefreshGrant("refresh", "access"),
        url=f"{upstream.url}/token",
        values={},
        now=datetime.now(UTC),
    )
    transport = Transport(EgressPolicy(["127.0.0.0/8"]))
    await transport.open()
    try:
        answer = await transport.send(request, within=timedelta(seconds=5))
    finally:
        await transport.close()
    assert answer.status == 302
    assert [(seen.method, seen.path) for seen in upstream.seen] == [("GET", "/token")]
