"""The HTTP adapter against a mock of an OpenAPI document, which others wrote, through the real sender."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from integration_service.activities.adapters.http import HttpAdapter
from integration_service.activities.outbound.transport import Transport
from integration_service.contracts.definitions import HttpRequest
from integration_service.contracts.wire import parse
from tests.openapi_server import openapi_server

PATIENCE = timedelta(seconds=10)
PHOTO = {"$binary": base64.b64encode(bytes(range(256))).decode(), "contentType": "image/png", "fileName": 'a"\\ö.png'}


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with openapi_server() as running:
        yield running


async def call(transport: Transport, url: str, request: dict[str, Any], params: dict[str, Any]) -> tuple[int, Any]:
    adapter = HttpAdapter(url, parse(HttpRequest, request), at="methods[0].request")
    response = await transport.send(adapter.build(params=params, config={}, connection={}), within=PATIENCE)
    return response.status, adapter.parse(response).data


LIST = {"method": "GET", "path": "/pets"}
GET = {"method": "GET", "path": "/pets/{name}"}
CREATE = {"method": "POST", "path": "/pets"}
FORM = {"method": "POST", "path": "/forms", "encoding": "form"}
FILES = {"method": "POST", "path": "/photos", "encoding": "multipart"}
RAW = {"method": "PUT", "path": "/raw", "body": "photo"}
NOTE = {"method": "POST", "path": "/notes", "body": "text", "encoding": "text"}


@pytest.mark.parametrize(
    ("request_", "params", "answer"),
    [
        (LIST, {"tags": ["50%&", "a b", "Zoë"], "limit": 5, "adopted": True}, [{"id": 1, "name": "Rex"}]),
        (GET, {"name": "50% ?#é"}, {"id": 1, "name": "Rex"}),
        (CREATE, {"name": "Zoë", "age": 3}, {"id": 3, "name": "New"}),
        (FORM, {"name": "Zoë & Co", "tags": ["a", "b"]}, {"taken": "form"}),
        (FILES, {"title": "Zoë", "photo": PHOTO, "more": [PHOTO, PHOTO]}, {"taken": "files"}),
        (RAW, {"photo": PHOTO}, {"taken": "png"}),
        (NOTE, {"text": "Zoë\r\n"}, "thanks"),
    ],
    ids=["query", "path", "json", "form", "multipart", "binary", "text"],
)
async def test_what_the_document_asks_for_is_sent(
    transport: Transport, url: str, request_: dict[str, Any], params: dict[str, Any], answer: Any
) -> None:
    status, data = await call(transport, url, request_, params)
    assert status in (200, 201), data
    assert data[:1] == answer if isinstance(data, list) else data == answer


@pytest.mark.parametrize(
    ("request_", "params", "status"),
    [
        (LIST, {"tags": ["a b"]}, 400),
        (LIST, {"tags": ["a b", "Zoë"], "limit": 101}, 400),
        (GET, {"name": "50%"}, 400),
        (CREATE, {"age": 3}, 400),
        (FORM, {"name": "Zoë & Co", "tags": ["a"]}, 400),
        (FILES, {"title": "Zoë", "photo": PHOTO}, 400),
        (FILES, {"title": "Zoe", "photo": PHOTO, "more": [PHOTO, PHOTO]}, 400),
        (RAW, {"photo": {**PHOTO, "contentType": "image/gif"}}, 415),
    ],
)
async def test_the_mock_does_refuse_what_breaks_the_document(
    transport: Transport, url: str, request_: dict[str, Any], params: dict[str, Any], status: int
) -> None:
    assert (await call(transport, url, request_, params))[0] == status


async def test_no_content_is_null(transport: Transport, url: str) -> None:
    delete = {"method": "DELETE", "path": "/pets/{name}"}
    assert await call(transport, url, delete, {"name": "plain"}) == (204, None)
