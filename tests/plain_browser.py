"""A browser without script, and the help desk that it connects: cookies, forms, and the headers that each page has."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.connect_tickets import ConnectTicketWanted
from integration_service.contracts.wire import JsonObject
from integration_service.storage.connect_tickets import ConnectTickets
from tests.world import World, definition_file, method

GOOD = "Planted-Page-Key-3d7a/1+q"
WRONG = "Planted-Page-Wrong-9c2"
SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "title": "Address", "format": "uri", "description": "Where your help desk is."},
        "pages": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
        "region": {"enum": ["eu", "us"]},
        "archive": {"type": "boolean"},
        "owner": {"type": "object", "properties": {"mail": {"type": "string", "format": "email"}}},
        "labels": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["url", "region"],
    "additionalProperties": False,
}


def desk(name: str, **changes: Any) -> JsonObject:
    return definition_file(
        name,
        title="Help desk <1>",
        authType="api_key",
        configSchema=SCHEMA,
        connectionTest="me",
        methods=[method("me", "GET", "/me")],
        **changes,
    )


async def only_the_good_key(request: Request) -> Response:
    return JSONResponse({}, 200 if request.headers.get("x-api-key") == GOOD else 401)


class Browser:
    """Cookies, forms, and no script. Redirects are looked at."""

    def __init__(self, gateway: str) -> None:
        self.origin = gateway
        self.http = httpx2.AsyncClient(base_url=gateway, trust_env=False, timeout=60)

    async def __aenter__(self) -> Browser:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def get(self, url: str) -> httpx2.Response:
        return safe(await self.http.get(url))

    async def post(self, url: str, data: dict[str, str] | None = None, **headers: str) -> httpx2.Response:
        sent = {"Sec-Fetch-Site": "same-origin", "Origin": self.origin, **headers}
        return safe(await self.http.post(url, data=data or {}, headers=sent))

    async def opens(self, url: str) -> httpx2.Response:
        """The ticket's page, its button, and the form that it leads to."""
        assert "Continue" in (await self.get(url)).text
        answer = await self.post(url)
        assert (answer.status_code, answer.headers["location"]) == (303, "/connect")
        return await self.get("/connect")

    async def sends(self, page: httpx2.Response, **given: str) -> httpx2.Response:
        """The form that a page shows, as it is filled in already but for what is `given` (``a__b`` is ``a.b``)."""
        data = filled(page.text)
        return await self.post("/connect", {**data, **{name.replace("__", "."): text for name, text in given.items()}})


def filled(html: str) -> dict[str, str]:
    data = {}
    for tag in re.findall(r"<input [^>]*>", html):
        name, value = (re.search(rf' {one}="([^"]*)"', tag) for one in ("name", "value"))
        if name and ("checkbox" not in tag or " checked" in tag):
            data[unescape(name[1])] = unescape(value[1]) if value else ""
    for name, inner in re.findall(r'<select[^>]* name="([^"]*)"[^>]*>(.*?)</select>', html):
        chosen = re.search(r'value="([^"]*)" selected', inner) or re.search(r'value="([^"]*)"', inner)
        assert chosen is not None
        data[unescape(name)] = unescape(chosen[1])
    for name, inner in re.findall(r'<textarea[^>]* name="([^"]*)"[^>]*>\n(.*?)</textarea>', html, re.DOTALL):
        data[unescape(name)] = unescape(inner)
    return data


def safe(response: httpx2.Response) -> httpx2.Response:
    headers = response.headers
    # A form's own page tells us where it is sent from, and nobody else.
    assert headers["referrer-policy"] == ("same-origin" if "<form " in response.text else "no-referrer")
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    if response.status_code != 303:
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-frame-options"] == "DENY"
        assert "<script" not in response.text
        assert '<html lang="en">' in response.text
    return response


async def link(world: World, instance: JsonObject, **more: Any) -> str:
    wanted = ConnectTicketWanted(instance_id=instance["id"], **more)
    allowed = ["https://app.test"]
    gateway = world.stack.ready.gateway
    return (await ConnectTickets(world.database).make(wanted, public_url=gateway, return_urls=allowed)).url
