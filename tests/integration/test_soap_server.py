"""SOAP against a server that others wrote, through the real sender: its WSDL read as `apply` does, then calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from integration_service.activities.adapters import Adapter, Parsed, adapter_for
from integration_service.activities.auth import authenticate, secret_texts
from integration_service.activities.outbound.egress import EgressPolicy
from integration_service.activities.outbound.transport import Transport
from integration_service.activities.wsdl.collection import with_documents
from integration_service.contracts.credentials import BasicAuth, CredentialPayload
from integration_service.contracts.definitions import DefinitionFile, IntegrationAuthType
from integration_service.contracts.errors import ErrorCode, IntegrationError
from tests.soap_server import NAMESPACE, PASSWORD, USER, SoapServer, soap_server

PATIENCE = timedelta(seconds=10)
ORDER = {
    "id": "Zoë & <co> ]]>",
    "total": 12.5,
    "due": "2026-01-31",
    "express": True,
    "scan": {"$binary": "AAEC/w==", "contentType": "application/octet-stream"},
    "lines": {"line": [{"sku": "a", "quantity": 1}, {"sku": "", "quantity": -2}]},
}


def definition(wsdl: str, operation: str, **more: Any) -> DefinitionFile:
    method = {
        "name": "call",
        "description": "",
        "paramSchema": True,
        "resultSchema": True,
        "request": {"operation": operation},
    }
    return DefinitionFile.model_validate(
        {
            "name": "orders",
            "description": "",
            "version": "1.0.0",
            "type": "soap",
            "authType": "none",
            "wsdl": wsdl,
            "configSchema": True,
            "methods": [method],
            **more,
        }
    )


async def read(transport: Transport, wsdl: str, operation: str, **more: Any) -> tuple[DefinitionFile, Adapter]:
    stored = await with_documents(definition(wsdl, operation, **more), beside=Path("orders.yaml"), transport=transport)
    return stored, adapter_for(stored, stored.methods[0], at="methods[0]")


async def call(transport: Transport, server: SoapServer, operation: str, params: dict[str, Any]) -> Parsed:
    _, adapter = await read(transport, server.wsdl_url, operation)
    return await send(transport, adapter, params)


async def send(
    transport: Transport,
    adapter: Adapter,
    params: dict[str, Any],
    definition: DefinitionFile | None = None,
    credential: CredentialPayload | None = None,
) -> Parsed:
    """What the pipeline does around the adapter: build, authenticate, send, and parse or refuse."""
    request = authenticate(adapter.build(params=params, config={}, connection={}), credential, definition=definition)
    response = await transport.send(request, within=PATIENCE)
    if response.status != 200:
        failure = adapter.refusal(response)
        assert failure is not None, response.body
        raise failure
    return adapter.parse(response)


@pytest.fixture(params=[("1.1", False), ("1.2", False), ("1.1", True), ("1.2", True)], ids=str)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[SoapServer]:
    version, rpc = request.param
    async with soap_server(version=version, rpc=rpc) as running:
        yield running


async def test_the_answers_children_are_the_data(transport: Transport, server: SoapServer) -> None:
    assert await call(transport, server, "add", {"a": 2, "b": -3}) == Parsed({"return": -1})
    assert server.calls == [{"a": 2, "b": -3}]


@pytest.mark.parametrize("name", ["Zoë & <b>", "]]>", "", " two  spaces ", "a\r\nb\tc", "\U0001f600", "&amp;"])
async def test_a_text_arrives_as_it_is(transport: Transport, server: SoapServer, name: str) -> None:
    assert (await call(transport, server, "greet", {"name": name})).data == {"return": f"Hello {name}"}
    assert server.calls == [{"name": name}]


async def test_numbers_that_no_double_holds_stay_exact(transport: Transport, server: SoapServer) -> None:
    params = {"amount": "0.20000000000000000002", "on": "2026-02-28"}
    assert (await call(transport, server, "halve", params)).data == {"return": "0.10000000000000000001"}
    assert (await call(transport, server, "halve", {"amount": 5, "on": "2026-02-28"})).data == {"return": 2.5}


async def test_complex_types_go_there_and_back(transport: Transport, server: SoapServer) -> None:
    assert (await call(transport, server, "place", {"order": ORDER})).data == {"order": ORDER}
    assert server.calls[0]["scan"] == b"\x00\x01\x02\xff"
    assert server.calls[0]["lines"] == [{"sku": "a", "quantity": 1}, {"sku": "", "quantity": -2}]


async def test_a_fault_is_told_with_its_detail(transport: Transport, server: SoapServer) -> None:
    with pytest.raises(IntegrationError) as refused:
        await call(transport, server, "fail", {"reason": "no more"})
    details = refused.value.details
    assert refused.value.code == ErrorCode.SOAP_FAULT
    assert details["faultstring"] == "no more"
    assert details["faultcode"] in ("Server", "Receiver")
    assert details["detail"] == {"stock": {"left": "3"}}
    if details["faultcode"] == "Receiver":
        assert details["subcodes"] == [f"{{{NAMESPACE}}}OutOfStock"]


@pytest.mark.parametrize("digest", [False, True])
@pytest.mark.parametrize("version", ["1.1", "1.2"])
async def test_a_username_token_that_the_server_verifies(transport: Transport, version: str, digest: bool) -> None:
    def account(password: str) -> CredentialPayload:
        return CredentialPayload(type=IntegrationAuthType.BASIC, basic_auth=BasicAuth(username=USER, password=password))

    async with soap_server(version=version, secured=True) as server:
        more = {"authType": "basic", "soap": {"security": "usernameToken", "digest": digest}}
        stored, adapter = await read(transport, server.wsdl_url, "add", **more)
        for _ in range(2):  # the server takes each nonce once
            assert (await send(transport, adapter, {"a": 1, "b": 1}, stored, account(PASSWORD))).data == {"return": 2}
        with pytest.raises(IntegrationError) as refused:
            await send(transport, adapter, {"a": 1, "b": 1}, stored, account("wrong"))
        assert refused.value.code == ErrorCode.SOAP_FAULT
        assert len(server.calls) == 2

        request = authenticate(
            adapter.build(params={"a": 1, "b": 1}, config={}, connection={}), account(PASSWORD), definition=stored
        )
        assert request.header("Authorization") is None
        assert not request.follow_redirects
        assert (PASSWORD.encode() in request.body.replace(b"&lt;&amp;&gt;", b"<&>")) is not digest  # type: ignore
        assert PASSWORD in secret_texts(account(PASSWORD), sent=request)


async def test_a_wsdl_at_a_denied_address_is_not_fetched(server: SoapServer) -> None:
    sender = Transport(EgressPolicy())
    await sender.open()
    with pytest.raises(IntegrationError) as refused:
        await read(sender, server.wsdl_url, "add")
    await sender.close()
    assert (refused.value.code, refused.value.path) == (ErrorCode.EGRESS_DENIED, "wsdl")
