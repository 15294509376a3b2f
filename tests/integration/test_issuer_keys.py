"""The codec's key set over HTTP: which addresses are asked, and what an issuer in trouble, or an impostor, can do."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from integration_service.contracts.errors import IntegrationError
from integration_service.gateway import access_tokens
from integration_service.gateway.access_tokens import AccessTokens, KeySource
from tests.served import served

KEY = ECKey.generate_key("P-256")
JWKS: dict[str, Any] = {"keys": [KEY.as_dict(private=False)]}


async def _check(source: str) -> None:
    token = jwt.encode({"alg": "ES256"}, {"iss": "i", "aud": "a", "exp": time.time() + 60}, KEY)
    await AccessTokens(KeySource(source), issuer="i", audience="a").check(token)


async def _good(_: Request) -> Response:
    return JSONResponse(JWKS)


async def _elsewhere(_: Request) -> Response:
    return RedirectResponse("/jwks")


async def _long(_: Request) -> Response:
    return Response(b" " * 1_048_576 + json.dumps(JWKS).encode())


async def _dripping(_: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" "
            await asyncio.sleep(0.05)

    return StreamingResponse(parts())


async def _packed(_: Request) -> Response:
    return Response(gzip.compress(json.dumps(JWKS).encode()), headers={"Content-Encoding": "gzip"})


async def _deep(_: Request) -> Response:
    return Response(b"[" * 500_000)


@pytest.fixture
async def issuer() -> AsyncIterator[str]:
    answers = {
        "jwks": _good,
        "elsewhere": _elsewhere,
        "long": _long,
        "drip": _dripping,
        "packed": _packed,
        "deep": _deep,
    }
    async with served(Starlette(routes=[Route(f"/{path}", answer) for path, answer in answers.items()])) as url:
        yield url


async def test_only_a_whole_answer_of_its_own_in_time_counts(issuer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await _check(f"{issuer}/jwks")
    monkeypatch.setattr(access_tokens, "_FETCH_S", 0.5)
    for path in ("elsewhere", "long", "drip", "packed", "deep", "nowhere"):
        began = time.monotonic()
        with pytest.raises(IntegrationError) as refused:
            await _check(f"{issuer}/{path}")
        assert refused.value.code == "UNAVAILABLE", path
        assert time.monotonic() - began < 5, path


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.test/jwks",
        "http://10.1.2.3/jwks",
        "http://169.254.169.254/jwks",
        "http://localhost.evil.test/jwks",
        "http://[2001:db8::1]/jwks",
        "https://user:planted@idp.test/jwks",
        "https://",
        "https://idp.test:port/jwks",
    ],
)
def test_an_address_that_could_be_answered_by_somebody_else_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        KeySource(url)
    assert refused.value.path == "INTEGRATIONS_CODEC_JWKS"
    assert "planted" not in str(refused.value)


def test_https_loopback_and_what_is_allowed_are_taken() -> None:
    for url in ("https://idp.test/jwks", "http://127.0.0.1:9/jwks", "http://localhost:9/jwks", "http://[::1]:9/jwks"):
        KeySource(url)
    KeySource("http://10.1.2.3/jwks", allow=["fd00::/8", "10.0.0.0/8"])
    with pytest.raises(IntegrationError, match="must be https"):
        KeySource("http://10.1.2.3/jwks", allow=["10.9.0.0/16"])
    with pytest.raises(IntegrationError) as wrong:
        KeySource("http://10.1.2.3/jwks", allow=["10.1.2.3/8"])
    assert wrong.value.path == "INTEGRATIONS_EGRESS_ALLOW"
