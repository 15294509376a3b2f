"""SOAP 1.1 and 1.2 over HTTP: params are an operation's input, `data` is what stands in its output element.

zeep knows the WSDL and writes the envelope; it sends nothing. Sources: https://www.w3.org/TR/2000/NOTE-SOAP-20000508/,
https://www.w3.org/TR/soap12-part2/#soapinhttp, https://www.w3.org/TR/wsdl.html
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from lxml import etree
from zeep.exceptions import Error as ZeepError
from zeep.xsd.types import ComplexType

from integration_service.activities.adapters.base_url import BaseUrl
from integration_service.activities.adapters.protocol import Parsed
from integration_service.activities.adapters.soap_answer import AnswerReader
from integration_service.activities.adapters.soap_arguments import Arguments
from integration_service.activities.adapters.soap_fault import SOAP_11, SOAP_12, failure_of, fault_in
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.activities.wsdl.model import WsdlModel
from integration_service.activities.wsdl.xml_text import load_xml, local_name
from integration_service.contracts.definitions import SoapRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject

HEADERS = "_headers"
MAX_ELEMENTS = 100_000
"""Of an answer. A million small ones would take 6 s and 700 MB to read."""
_STATUS_SAYS_ALL = frozenset({401, 403, 408, 429})
_ACTION = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]*")
_NO_CONTENT = frozenset({202, 204})


class SoapAdapter:
    """One operation of a WSDL."""

    def __init__(self, model: WsdlModel, request: SoapRequest, *, base_url: str | None, at: str) -> None:
        """`base_url` stands in place of the port's own address.

        Raises IntegrationError VALIDATION_ERROR with the path of what is wrong in the definition.
        """
        self._operation = model.operation(request, at=at)
        self._base = BaseUrl(base_url) if base_url is not None else None
        if self._base is None:
            _check_address(self._operation.address)
        if not _ACTION.fullmatch(self._operation.action):
            raise _wrong("wsdl", "the operation's soapAction holds what a header cannot")
        self._arguments = Arguments(self._operation.schema)
        self._reader = AnswerReader(self._operation.schema)

    @property
    def idempotent(self) -> bool:
        """SOAP does not tell."""
        return False

    def build(self, *, params: JsonObject, config: JsonObject, connection: JsonObject) -> OutboundRequest:
        """The request for these params; headers that the WSDL declares stand in the param ``_headers``.

        Raises IntegrationError VALIDATION_ERROR with the param's path, CONFIG_ERROR for the URL.
        """
        operation = self._operation
        url = self._base.render(config=config, connection=connection) if self._base else str(operation.address)
        return OutboundRequest(method="POST", url=url, headers=self._http_headers(), body=self._envelope(params))

    def parse(self, response: InboundResponse) -> Parsed:
        """The output element's attributes and children as an object; the value alone where it is of a simple type.

        Raises IntegrationError SOAP_FAULT, AUTH_ERROR or MALFORMED_RESPONSE.
        """
        output = self._operation.output
        if not response.body and (output is None or response.status in _NO_CONTENT):
            return Parsed(None)
        body = _body(response)
        if (fault := fault_in(body)) is not None:
            raise failure_of(fault, status=response.status, reader=self._reader)
        if output is None or output.body is None:
            return Parsed(None)
        if output._is_body_wrapped:
            return Parsed(self._reader.value(body, output.body.type, at="data"))
        answer = next(iter(body), None)
        if answer is None or not (self._operation.rpc or local_name(answer) == output.body.name):
            raise _malformed("the upstream's answer is not what the WSDL says that the operation answers")
        return Parsed(self._reader.value(answer, output.body.type, at="data"))

    def refusal(self, response: InboundResponse) -> IntegrationError | None:
        """The fault that a response tells; None for 401, 403, 408, 429 and where there is none."""
        if response.status in _STATUS_SAYS_ALL:
            return None
        try:
            fault = fault_in(_body(response))
        except IntegrationError:
            return None
        return failure_of(fault, status=response.status, reader=self._reader) if fault is not None else None

    def _http_headers(self) -> tuple[tuple[str, str], ...]:
        action = f'"{self._operation.action}"'
        if self._operation.namespace == SOAP_12:
            content_type = "application/soap+xml; charset=utf-8"
            if self._operation.action:
                content_type += f"; action={action}"
            return ("Content-Type", content_type), ("Accept", "application/soap+xml, text/xml")
        return ("Content-Type", "text/xml; charset=utf-8"), ("SOAPAction", action), ("Accept", "text/xml")

    def _envelope(self, params: JsonObject) -> bytes:
        message, namespace = self._operation.input, self._operation.namespace
        envelope = etree.Element(f"{{{namespace}}}Envelope", nsmap={"soap-env": namespace})
        rest = {name: value for name, value in params.items() if name != HEADERS}
        try:
            if HEADERS in params:
                self._write_headers(etree.SubElement(envelope, f"{{{namespace}}}Header"), params[HEADERS])
            if message.body is None:
                _refuse_all(rest)
                etree.SubElement(envelope, f"{{{namespace}}}Body")
            elif message._is_body_wrapped:
                message.body.render(envelope, self._arguments.of(message.body.type, rest, at="params"))
            else:
                body = etree.SubElement(envelope, f"{{{namespace}}}Body")
                message.body.render(body, self._input(message.body, rest))
        except ZeepError as error:
            names = [str(name) for name in getattr(error, "path", None) or ()]
            raise _wrong(".".join(["params", *names[1:]]), "does not fit the operation's input") from None
        except (TypeError, ValueError, LookupError, AttributeError, RecursionError):
            # What zeep and lxml say quotes values.
            raise _wrong("params", "do not fit the operation's input") from None
        return etree.tostring(envelope, xml_declaration=True, encoding="utf-8")

    def _write_headers(self, header: etree._Element, given: Any) -> None:
        """Those that are given: WSDLs declare headers that an upstream does not ask for."""
        at, declared = f"params.{HEADERS}", dict(self._operation.input.header.type.elements)
        if not isinstance(given, dict):
            raise _wrong(at, "must be an object")
        for name, value in given.items():
            if name not in declared:
                raise _wrong(f"{at}.{name}", "the WSDL declares no header of that name")
            declared[name].render(header, self._arguments.of(declared[name].type, value, at=f"{at}.{name}"), [name])

    def _input(self, element: Any, params: JsonObject) -> Any:
        """An element of a simple type has no children to name: the param of its own name is its value."""
        if isinstance(element.type, ComplexType):
            return self._arguments.of(element.type, params, at="params")
        _refuse_all({name: value for name, value in params.items() if name != element.name})
        return self._arguments.of(element.type, params.get(element.name), at=f"params.{element.name}")


def _body(response: InboundResponse) -> etree._Element:
    """The envelope's body. Raises IntegrationError MALFORMED_RESPONSE or RESPONSE_TOO_LARGE."""
    # Before a tree is built: an element has two of them, or one and a slash.
    if response.body.count(b"<") > 2 * MAX_ELEMENTS:
        raise IntegrationError(
            ErrorCode.RESPONSE_TOO_LARGE, f"the upstream's answer has over {MAX_ELEMENTS} elements: ask for less"
        )
    if response.content_type.startswith("multipart/"):
        raise _malformed("the upstream answers with attachments, which this version cannot read")
    try:
        envelope = load_xml(response.body)
    except ValueError as error:
        raise _malformed(f"the upstream's answer {error}") from None
    for namespace in (SOAP_11, SOAP_12):
        if envelope.tag == f"{{{namespace}}}Envelope":
            body = envelope.find(f"{{{namespace}}}Body")
            if body is not None:
                return body
    raise _malformed("the upstream's answer is no SOAP envelope with a body")


def _check_address(address: str | None) -> None:
    if address is None:
        raise _wrong("baseUrl", "is needed, because the WSDL's port has no address")
    try:
        parts = urlsplit(address)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.username is not None or re.search(r"[\s\\#]", address):
        raise _wrong("wsdl", "the port's address must be an http or https URL without user or fragment")


def _refuse_all(params: JsonObject) -> None:
    for name in params:
        raise _wrong(f"params.{name}", "the WSDL has no element or attribute of that name here")


def _wrong(path: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=path)


def _malformed(message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.MALFORMED_RESPONSE, message)
