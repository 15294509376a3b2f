"""The identity provider: what it is used for in other tests, by hand."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest
import yaml
from joserfc import jwk, jwt

from integration_service.activities.execution.compiled import check_definition
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.wire import parse
from integration_service.devstack.identity import User
from integration_service.devstack.identity_tokens import token_hash
from tests.identity import Identity, identity_provider

pytestmark = pytest.mark.slow

CALLBACK = "http://127.0.0.1:18999/callback"


@pytest.fixture(scope="module")
async def provider(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Identity]:
    async with identity_provider(tmp_path_factory.mktemp("identity"), device_interval_seconds=1) as running:
        yield running


@pytest.fixture
async def http(provider: Identity) -> AsyncIterator[httpx2.AsyncClient]:
    limits = httpx2.Limits(max_connections=100)
    async with httpx2.AsyncClient(base_url=provider.url, trust_env=False, timeout=60, limits=limits) as client:
        yield client


def challenge(verifier: str) -> dict[str, str]:
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    return {"code_challenge": digest, "code_challenge_method": "S256"}


def authorization_url(provider: Identity, **changes: Any) -> str:
    query = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": CALLBACK,
        "scope": "openid read write",
        "state": "s-1",
        **changes,
    }
    return f"{provider.url}/o/authorize/?{urlencode(query)}"


def query_of(url: str) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}


async def token(http: httpx2.AsyncClient, provider: Identity, **fields: str) -> httpx2.Response:
    return await http.post("/o/token/", data=fields, auth=(provider.client_id, provider.client_secret))


async def refresh(http: httpx2.AsyncClient, provider: Identity, refresh_token: str) -> httpx2.Response:
    return await token(http, provider, grant_type="refresh_token", refresh_token=refresh_token)


async def consented(http: httpx2.AsyncClient, provider: Identity, user: User | None = None) -> dict[str, Any]:
    """The tokens of a new consent."""
    verifier = secrets.token_urlsafe(48)
    landed = query_of(await provider.authorize(authorization_url(provider, **challenge(verifier)), user=user))
    answer = await token(
        http,
        provider,
        grant_type="authorization_code",
        code=landed["code"],
        redirect_uri=CALLBACK,
        code_verifier=verifier,
    )
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


async def whose(http: httpx2.AsyncClient, access_token: str) -> httpx2.Response:
    return await http.get("/o/userinfo/", headers={"Authorization": f"Bearer {access_token}"})


async def test_the_code_flow(provider: Identity, http: httpx2.AsyncClient) -> None:
    verifier = secrets.token_urlsafe(48)
    landed = await provider.authorize(authorization_url(provider, nonce="n-1", **challenge(verifier)))
    assert landed.startswith(f"{CALLBACK}?")
    assert query_of(landed)["state"] == "s-1"
    assert query_of(landed)["iss"] == provider.issuer
    answer = await token(
        http,
        provider,
        grant_type="authorization_code",
        code=query_of(landed)["code"],
        redirect_uri=CALLBACK,
        code_verifier=verifier,
    )
    tokens = answer.json()
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 3600
    assert set(tokens["scope"].split()) == {"openid", "read", "write"}
    keys = jwk.KeySet.import_key_set((await http.get("/o/.well-known/jwks.json")).json())
    claims = jwt.decode(tokens["id_token"], keys, algorithms=["RS256"]).claims
    assert claims["iss"] == provider.issuer
    assert claims["aud"] == provider.client_id
    assert claims["nonce"] == "n-1"
    assert (await whose(http, tokens["access_token"])).json() == {"sub": claims["sub"]}
    line = provider.token_requests()[-1]
    assert line["grant_type"] == "authorization_code"
    assert (line["client_id"], line["status"], line["error"], line["fault"]) == ("app", 200, None, None)


async def test_accounts_differ_in_sub(provider: Identity, http: httpx2.AsyncClient) -> None:
    one = await consented(http, provider)
    other = await consented(http, provider, provider.other_user)
    subjects = [(await whose(http, tokens["access_token"])).json()["sub"] for tokens in (one, one, other)]
    assert len(set(subjects)) == 2


async def test_the_catalog_definition_is_good(provider: Identity) -> None:
    file = yaml.safe_load((Path(__file__).parents[2] / "catalog" / "identity.yaml").read_text())
    check_definition(parse(DefinitionFile, file), publish=True)
    changed = parse(DefinitionFile, provider.definition("mine", pkce=None))
    assert changed.oauth2_config is not None
    assert changed.oauth2_config.pkce is None


async def test_pkce_with_s256_is_required(provider: Identity) -> None:
    without = query_of(await provider.authorize(authorization_url(provider)))
    assert without["error"] == "invalid_request"
    plain = {"code_challenge": "a" * 43, "code_challenge_method": "plain"}
    assert query_of(await provider.authorize(authorization_url(provider, **plain)))["error"] == "invalid_request"


async def test_a_person_may_say_no(provider: Identity) -> None:
    landed = query_of(await provider.authorize(authorization_url(provider, **challenge("v" * 43)), consent=False))
    assert landed["error"] == "access_denied"
    assert landed["state"] == "s-1"


async def test_a_wrong_password_leads_nowhere(provider: Identity) -> None:
    url = authorization_url(provider, **challenge("v" * 43))
    with pytest.raises(IntegrationError, match="/login/"):
        await provider.authorize(url, user=User(username="ada", password="wrong"))


async def test_a_refresh_token_is_good_once(provider: Identity, http: httpx2.AsyncClient) -> None:
    first = await consented(http, provider)
    before = len(provider.token_requests())
    answer = await refresh(http, provider, first["refresh_token"])
    second = answer.json()
    assert second["refresh_token"] != first["refresh_token"]
    assert (await whose(http, first["access_token"])).status_code == 401
    assert (await whose(http, second["access_token"])).status_code == 200

    again = await refresh(http, provider, first["refresh_token"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")

    # The whole family is gone: what the rightful owner holds too.
    assert (await whose(http, second["access_token"])).status_code == 401
    assert (await refresh(http, provider, second["refresh_token"])).json()["error"] == "invalid_grant"

    lines = provider.token_requests(grant_type="refresh_token")[-3:]
    assert len(provider.token_requests()) == before + 3
    assert [line["error"] for line in lines] == [None, "invalid_grant", "invalid_grant"]
    assert [line["refresh_token_sha256"] for line in lines] == [
        token_hash(each["refresh_token"]) for each in (first, first, second)
    ]


async def test_of_two_at_the_same_time_one_wins_and_both_lose(provider: Identity, http: httpx2.AsyncClient) -> None:
    tokens = await consented(http, provider)
    answers = await asyncio.gather(*(refresh(http, provider, tokens["refresh_token"]) for _ in range(5)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: 4}
    winner = next(answer for answer in answers if answer.status_code == 200).json()
    assert (await refresh(http, provider, winner["refresh_token"])).json()["error"] == "invalid_grant"


async def test_fifty_at_once(provider: Identity, http: httpx2.AsyncClient) -> None:
    auth = (provider.machine.client_id, provider.machine.client_secret)
    fields = {"grant_type": "client_credentials", "scope": "read"}
    answers = await asyncio.gather(*(http.post("/o/token/", data=fields, auth=auth) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["access_token"] for answer in answers}) == 50


async def test_a_machine_has_no_user_and_needs_the_scope(provider: Identity, http: httpx2.AsyncClient) -> None:
    auth = (provider.machine.client_id, provider.machine.client_secret)

    async def whoami(scope: str) -> httpx2.Response:
        fields = {"grant_type": "client_credentials", "scope": scope}
        tokens = (await http.post("/o/token/", data=fields, auth=auth)).json()
        return await http.get("/whoami/", headers={"Authorization": f"Bearer {tokens['access_token']}"})

    assert (await whoami("read")).json() == {"user": None}
    refused = await whoami("write")
    assert refused.status_code == 403
    assert "insufficient_scope" in refused.headers["WWW-Authenticate"]


async def test_grant_password(provider: Identity, http: httpx2.AsyncClient) -> None:
    auth = (provider.legacy.client_id, provider.legacy.client_secret)
    fields = {"grant_type": "password", "username": provider.user.username, "scope": "openid read"}
    wrong = await http.post("/o/token/", data={**fields, "password": "wrong"}, auth=auth)
    assert wrong.json()["error"] == "invalid_grant"
    right = await http.post("/o/token/", data={**fields, "password": provider.user.password}, auth=auth)
    whoami = await http.get("/whoami/", headers={"Authorization": f"Bearer {right.json()['access_token']}"})
    assert whoami.json() == {"user": "ada"}
    assert right.json()["refresh_token"]


async def test_a_public_client(provider: Identity, http: httpx2.AsyncClient) -> None:
    verifier = secrets.token_urlsafe(48)
    url = authorization_url(provider, client_id="native", **challenge(verifier))
    fields = {
        "grant_type": "authorization_code",
        "client_id": "native",
        "code": query_of(await provider.authorize(url))["code"],
        "redirect_uri": CALLBACK,
        "code_verifier": verifier,
    }
    tokens = (await http.post("/o/token/", data=fields)).json()
    assert (await whose(http, tokens["access_token"])).status_code == 200
    renewed = await http.post(
        "/o/token/",
        data={"grant_type": "refresh_token", "client_id": "native", "refresh_token": tokens["refresh_token"]},
    )
    assert renewed.status_code == 200


@pytest.mark.parametrize("consent", [True, False])
async def test_the_device_flow(provider: Identity, http: httpx2.AsyncClient, consent: bool) -> None:
    asked = await http.post("/o/device-authorization/", data={"client_id": "device", "scope": "openid read"})
    device = asked.json()
    assert device["interval"] == 1
    fields = {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "client_id": "device",
        "device_code": device["device_code"],
    }
    assert (await http.post("/o/token/", data=fields)).json()["error"] == "authorization_pending"
    await provider.approve_device(device["verification_uri_complete"], device["user_code"], consent=consent)
    answer = await http.post("/o/token/", data=fields)
    if consent:
        assert (await whose(http, answer.json()["access_token"])).status_code == 200
        assert answer.json()["refresh_token"]
    else:
        assert answer.json()["error"] == "access_denied"


async def test_revocation(provider: Identity, http: httpx2.AsyncClient) -> None:
    tokens = await consented(http, provider)
    auth = (provider.client_id, provider.client_secret)
    revoked = await http.post("/o/revoke_token/", data={"token": tokens["refresh_token"]}, auth=auth)
    assert revoked.status_code == 200
    assert (await whose(http, tokens["access_token"])).status_code == 401
    assert (await refresh(http, provider, tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_an_invented_answer_spends_nothing(provider: Identity, http: httpx2.AsyncClient) -> None:
    tokens = await consented(http, provider)
    provider.fault("status", status=503, headers={"Retry-After": "2"}, body="<html>")
    down = await refresh(http, provider, tokens["refresh_token"])
    assert (down.status_code, down.headers["Retry-After"], down.text) == (503, "2", "<html>")
    assert provider.token_requests()[-1]["fault"] == "status"
    assert (await refresh(http, provider, tokens["refresh_token"])).status_code == 200


async def test_a_lost_answer_has_spent_the_token(provider: Identity, http: httpx2.AsyncClient) -> None:
    tokens = await consented(http, provider)
    provider.fault("lose")
    with pytest.raises(httpx2.RemoteProtocolError):
        await refresh(http, provider, tokens["refresh_token"])
    line = provider.token_requests()[-1]
    assert (line["status"], line["fault"]) == (200, "lose")
    assert (await refresh(http, provider, tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_an_answer_may_hang(provider: Identity, http: httpx2.AsyncClient) -> None:
    tokens = await consented(http, provider)
    count = len(provider.token_requests())
    provider.fault("hang", seconds=60)
    request = asyncio.create_task(refresh(http, provider, tokens["refresh_token"]))
    await longer(provider, count)
    assert not request.done()
    assert provider.token_requests()[-1]["status"] == 200
    request.cancel()
    assert (await refresh(http, provider, tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_request_may_arrive_after_its_client_has_gone(provider: Identity, http: httpx2.AsyncClient) -> None:
    tokens = await consented(http, provider)
    count = len(provider.token_requests())
    provider.fault("delay", seconds=1)
    fields = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    with pytest.raises(httpx2.ReadTimeout):
        await http.post("/o/token/", data=fields, auth=(provider.client_id, provider.client_secret), timeout=0.2)
    await longer(provider, count)
    assert provider.token_requests()[-1]["status"] == 200


async def longer(provider: Identity, count: int) -> None:
    """Returns once there are more than `count` token requests."""
    async with asyncio.timeout(20):
        while len(provider.token_requests()) == count:
            await asyncio.sleep(0.02)


async def test_lifetime_and_grace_are_options(tmp_path: Path) -> None:
    async with (
        identity_provider(tmp_path / "deep" / "er", access_seconds=1, grace_seconds=600) as provider,
        httpx2.AsyncClient(base_url=provider.url, trust_env=False) as http,
    ):
        tokens = await consented(http, provider)
        assert tokens["expires_in"] == 1
        async with asyncio.timeout(20):
            while (answer := await whose(http, tokens["access_token"])).status_code == 200:
                await asyncio.sleep(0.05)
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
        one = await refresh(http, provider, tokens["refresh_token"])
        same = await refresh(http, provider, tokens["refresh_token"])
        assert one.json()["refresh_token"] == same.json()["refresh_token"]
    for path in provider.folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
