"""What a definition's WSDL is checked for when it is registered, and how it is read with all that it imports."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from starlette.requests import Request
from starlette.responses import Response

from integration_service.activities.adapters import adapter_for
from integration_service.activities.auth import check_auth
from integration_service.activities.execution.compiled import check_definition
from integration_service.activities.outbound.egress import EgressPolicy
from integration_service.activities.outbound.transport import Transport
from integration_service.activities.wsdl.collection import with_documents
from integration_service.activities.wsdl.documents import MAX_BYTES, MAX_DOCUMENTS
from integration_service.activities.wsdl.model import wsdl_model
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode, IntegrationError
from tests.unit.soap_wsdl import NAMESPACE, SCHEMA, wsdl
from tests.upstream import Upstream

XSD = "http://www.w3.org/2001/XMLSchema"
PORT = "<port name='{port}' binding='t:B'><s:address location='{url}'/></port>"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    sender = Transport(EgressPolicy(["127.0.0.0/8"]))
    await sender.open()
    yield sender
    await sender.close()


def definition(text: str | None, **request: Any) -> DefinitionFile:
    return DefinitionFile.model_validate(
        {
            "name": "items",
            "description": "",
            "version": "1.0.0",
            "type": "soap",
            "authType": "none",
            "wsdl": text,
            "configSchema": True,
            "methods": [
                {
                    "name": "send",
                    "description": "",
                    "paramSchema": True,
                    "resultSchema": True,
                    "request": {"operation": "send", **request},
                }
            ],
        }
    )


def refused(text: str | None, **request: Any) -> IntegrationError:
    with pytest.raises(IntegrationError) as caught:
        check_definition(definition(text, **request), publish=True)
    assert caught.value.code == ErrorCode.VALIDATION_ERROR
    return caught.value


def service(name: str, *ports: str, url: str = "http://h/") -> str:
    return f"<service name='{name}'>{''.join(PORT.format(port=port, url=url) for port in ports)}</service>"


def test_a_good_one_passes() -> None:
    for version in ("1.1", "1.2"):
        check_definition(definition(wsdl(version=version)), publish=True)
    check_definition(definition(None), publish=False)


@pytest.mark.parametrize(
    ("text", "request_", "path", "words"),
    [
        (None, {}, "wsdl", "missing"),
        ("https://example.com/?wsdl", {}, "wsdl", "apply"),
        ("<nothing", {}, "wsdl", "well-formed"),
        ("<html/>", {}, "wsdl", "no port"),
        (wsdl(services=""), {}, "wsdl", "no port"),
        ("<!DOCTYPE a>" + wsdl(), {}, "wsdl", "DTD"),
        (wsdl(schema=f"<x:schema xmlns:x='{XSD}'><x:element name='a' type='x:nope'/></x:schema>"), {}, "wsdl", "nope"),
        (wsdl(), {"operation": "sent"}, "methods[0].request.operation", "list, ping, send, tell"),
        (wsdl(), {"service": "No"}, "methods[0].request.service", "Items"),
        (wsdl(), {"port": "No"}, "methods[0].request.port", "only P"),
        (wsdl(services=service("A", "P") + service("B", "P")), {}, "methods[0].request.service", "A, B"),
        (wsdl(services=service("A", "P", "Q")), {}, "methods[0].request.port", "P, Q"),
        (wsdl(services=service("A", "P", url="ftp://h/")), {}, "wsdl", "http or https"),
        (wsdl(services=service("A", "P", url="http://u:p@h/")), {}, "wsdl", "without user"),
        (wsdl(services="<service name='A'><port name='P' binding='t:B'/></service>"), {}, "baseUrl", "no address"),
        (wsdl(use="encoded"), {}, "methods[0].request.operation", "encoded"),
        (wsdl().replace("urn:send", "urn:send&#10;X: y"), {}, "wsdl", "soapAction"),
    ],
)
def test_what_cannot_be_called_is_refused_with_its_path(
    text: str | None, request_: dict[str, str], path: str, words: str
) -> None:
    error = refused(text, **request_)
    assert (error.path, words in error.message) == (path, True), error


def test_service_and_port_choose() -> None:
    text = wsdl(services=service("A", "P", url="http://a/") + service("B", "P", "Q", url="http://b/"))
    for request, url in (({"service": "A"}, "http://a/"), ({"service": "B", "port": "Q"}, "http://b/")):
        file = definition(text, **request)
        built = adapter_for(file, file.methods[0], at="").build(
            params={"item": {"name": "a"}}, config={}, connection={}
        )
        assert built.url == url


def test_the_model_is_made_once_for_all_methods() -> None:
    one, other = definition(wsdl()), definition(wsdl())
    wsdl_model.cache_clear()
    for file in (one, one, other):
        adapter_for(file, file.methods[0], at="")
    assert wsdl_model.cache_info().misses == 1


ELEMENT = "<x:element name='e' type='x:int'/>"
SENDING = '<x:complexType name="Sending">'


def doubling(tag: str, first: str, ref: str) -> str:
    """Forty components, each of which is the one before it, twice: a million million when written out."""
    return f"<x:{tag} name='g0'>{first}</x:{tag}>" + "".join(
        f"<x:{tag} name='g{n}'>{ref.format(n=n - 1)}</x:{tag}>" for n in range(1, 40)
    )


@pytest.mark.parametrize(
    "components",
    [
        doubling("group", "<x:sequence/>", "<x:sequence><x:group ref='t:g{n}'/><x:group ref='t:g{n}'/></x:sequence>"),
        doubling("attributeGroup", "", "<x:attributeGroup ref='t:g{n}'/><x:attributeGroup ref='t:g{n}'/>"),
        doubling("simpleType", "<x:restriction base='x:string'/>", "<x:union memberTypes='t:g{n} t:g{n}'/>"),
        "<x:group name='g'><x:sequence><x:group ref='t:g'/></x:sequence></x:group>",
        "<x:complexType name='g'><x:complexContent><x:extension base='t:g'/></x:complexContent></x:complexType>",
        "".join(f"<x:simpleType name='g{n}'><x:restriction base='t:g{n - 1}'/></x:simpleType>" for n in range(3000)),
        ELEMENT * 60_000,
        "<x:complexType name='g0'/>"
        + "".join(
            f"<x:complexType name='g{n}'><x:complexContent><x:extension base='t:g{n - 1}'><x:sequence>"
            f"{ELEMENT * 50}</x:sequence></x:extension></x:complexContent></x:complexType>"
            for n in range(1, 200)
        ),
    ],
    ids=["groups", "attribute groups", "unions", "own group", "own base", "simple chain", "many", "extension chain"],
)  # fmt: skip
def test_a_schema_that_grows_is_refused_before_it_does(components: str) -> None:
    assert refused(wsdl(schema=SCHEMA.replace(SENDING, components + SENDING))).path == "wsdl"


async def collected(transport: Transport, folder: Path, text: str, **documents: str) -> DefinitionFile:
    file = definition(text).model_copy(update={"wsdl_documents": documents or None})
    return await with_documents(file, beside=folder / "items.yaml", transport=transport)


def parts(folder: Path) -> None:
    """``api/items.wsdl`` → ``xsd/main.xsd`` → ``common.xsd`` beside it → itself and ``main.xsd`` again."""
    (folder / "api").mkdir()
    (folder / "xsd").mkdir()
    schema = f'<x:schema xmlns:x="{XSD}" xmlns:t="{NAMESPACE}" targetNamespace="{NAMESPACE}">'
    include = "<x:include schemaLocation='{}'/>".format
    (folder / "api/items.wsdl").write_text(wsdl(schema=f"{schema}{include('../xsd/main.xsd')}</x:schema>"))
    pair = SCHEMA[SCHEMA.index('<x:complexType name="Pair">') : SCHEMA.index("<x:simpleType")]
    (folder / "xsd/main.xsd").write_text(SCHEMA.replace(pair, "").replace(schema, schema + include("common.xsd")))
    text = f"{schema}{include('./main.xsd')}{include('common.xsd')}{pair}</x:schema>"
    (folder / "xsd/common.xsd").write_bytes(f'<?xml version="1.0" encoding="utf-16"?>{text}'.encode("utf-16"))


async def test_files_and_what_they_include_are_taken_in(transport: Transport, tmp_path: Path) -> None:
    parts(tmp_path)
    stored = await collected(transport, tmp_path, "api/items.wsdl")
    assert list(stored.wsdl_documents or {}) == ["file:///xsd/common.xsd", "file:///xsd/main.xsd"]
    check_definition(stored, publish=True)
    again = await collected(transport, tmp_path, "api/items.wsdl")
    assert again.content() == stored.content()
    # What `definition show` prints can be applied again, elsewhere, and is the same.
    elsewhere = await with_documents(stored, beside=Path("/nowhere/items.yaml"), transport=transport)
    assert elsewhere.content() == stored.content()


async def test_an_inline_wsdl_stays_as_it_is(transport: Transport, tmp_path: Path) -> None:
    stored = await collected(transport, tmp_path, wsdl())
    assert (stored.wsdl, stored.wsdl_documents) == (wsdl(), None)


async def test_other_types_are_left_alone(transport: Transport) -> None:
    http = definition(None).model_copy(update={"type": "http", "wsdl": "nowhere.wsdl"})
    assert await with_documents(http, beside=Path("x"), transport=transport) is http


IMPORT = f"<x:import xmlns:x='{XSD}' namespace='urn:z' schemaLocation='%s'/>"


def importing(location: str) -> str:
    return wsdl().replace("<x:complexType", IMPORT % location + "<x:complexType", 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("missing.wsdl", "No such file"),
        ("../out.wsdl", "out of the folder"),
        ("/etc/passwd", "out of the folder"),
        ("file:///etc/passwd", "out of the folder"),
        ("a/../../out.wsdl", "out of the folder"),
        ("%2e%2e/out.wsdl", "out of the folder"),
        ("link.wsdl", "out of the folder"),
        ("a\x00b", "no file name"),
        (".", "Is a directory"),
        ("gopher://h/x", "out of the folder"),
        ("http://u:secret@127.0.0.1/x", "without user"),
        ("http://[::1", "no URL"),
        (importing("../out.wsdl"), "out of the folder"),
        (importing("/etc/passwd"), "out of the folder"),
        (importing("file:///etc/passwd"), "out of the folder"),
        (importing("text.xsd"), "well-formed"),
        (importing("dtd.xsd"), "DTD"),
    ],
)
async def test_where_a_wsdl_is_not_read_from(transport: Transport, tmp_path: Path, text: str, words: str) -> None:
    folder = tmp_path / "definitions"
    folder.mkdir()
    (tmp_path / "out.wsdl").write_text(wsdl())
    (folder / "link.wsdl").symlink_to(tmp_path / "out.wsdl")
    (folder / "text.xsd").write_text("no xml")
    (folder / "dtd.xsd").write_text("<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>")
    with pytest.raises(IntegrationError) as caught:
        await collected(transport, folder, text)
    error = caught.value
    assert (error.code, error.path, words in error.message) == (ErrorCode.VALIDATION_ERROR, "wsdl", True), error
    assert "secret" not in str(caught.value)


async def test_a_url_and_what_it_imports(transport: Transport, upstream: Upstream, tmp_path: Path) -> None:
    bodies = {
        "/v1/items": importing("types/z.xsd?k=1#f"),
        "/v1/types/z.xsd": f"<x:schema xmlns:x='{XSD}' targetNamespace='urn:z'>"
        f"<x:import namespace='{NAMESPACE}' schemaLocation='z.xsd?k=1'/>"
        "<x:import namespace='http://www.w3.org/XML/1998/namespace' schemaLocation='http://www.w3.org/2001/xml.xsd'/>"
        "</x:schema>",
    }

    async def answer(request: Request) -> Response:
        return Response(bodies[request.url.path], media_type="text/xml")

    upstream.handler = answer
    stored = await collected(transport, tmp_path, f"{upstream.url}/v1/items?wsdl")
    assert list(stored.wsdl_documents or {}) == [f"{upstream.url}/v1/types/z.xsd?k=1"]
    assert etree.fromstring((stored.wsdl or "").encode()).find(f".//{{{XSD}}}import").get("schemaLocation") in (  # type: ignore[union-attr]
        stored.wsdl_documents or {}
    )
    assert len(upstream.seen) == 2


async def test_bounds_of_what_is_fetched(transport: Transport, upstream: Upstream, tmp_path: Path) -> None:
    async def endless(request: Request) -> Response:
        return Response(importing(f"?n={int(request.query_params.get('n', '0')) + 1}"), media_type="text/xml")

    upstream.handler = endless
    with pytest.raises(IntegrationError, match=f"over {MAX_DOCUMENTS} documents"):
        await collected(transport, tmp_path, f"{upstream.url}/")
    assert len(upstream.seen) <= MAX_DOCUMENTS + 1

    upstream.handler = None
    upstream.answers = [Response("<a>" + "x" * MAX_BYTES + "</a>")]
    with pytest.raises(IntegrationError, match=f"over {MAX_BYTES} bytes"):
        await collected(transport, tmp_path, f"{upstream.url}/")
    upstream.answers = [Response("", 404)]
    with pytest.raises(IntegrationError, match="answers 404") as caught:
        await collected(transport, tmp_path, f"{upstream.url}/?key=secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["main", "import"])
async def test_no_packet_reaches_a_denied_address(tmp_path: Path, text: str) -> None:
    sender = Transport(EgressPolicy())
    await sender.open()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x.xsd"
        with pytest.raises(IntegrationError) as caught:
            await collected(sender, tmp_path, importing(url) if text == "import" else url)
        with pytest.raises(BlockingIOError):
            listener.accept()
    await sender.close()
    assert (caught.value.code, caught.value.path) == (ErrorCode.EGRESS_DENIED, "wsdl")


def test_a_stored_definition_that_lacks_a_document_asks_nobody_for_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        error = refused(importing(f"http://127.0.0.1:{listener.getsockname()[1]}/x.xsd"))
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert error.path == "wsdlDocuments"


@pytest.mark.parametrize(("type_", "auth"), [("http", "basic"), ("soap", "api_key"), ("soap", "none")])
def test_a_username_token_is_for_soap_and_basic(type_: str, auth: str) -> None:
    file = DefinitionFile.model_validate(
        {
            "name": "x",
            "description": "",
            "version": "1.0.0",
            "methods": [],
            "configSchema": True,
            "type": type_,
            "authType": auth,
            "soap": {"security": "usernameToken"},
        }
    )
    with pytest.raises(IntegrationError) as caught:
        check_auth(file)
    assert caught.value.path == "soap"
