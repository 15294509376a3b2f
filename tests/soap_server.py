"""A SOAP server from a package: soapbar, which checks what comes against its WSDL's schema with libxml2."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from lxml import etree
from soapbar.core.binding import BindingStyle, OperationParameter
from soapbar.core.envelope import SoapVersion
from soapbar.core.fault import SoapFault
from soapbar.core.types import ArrayXsdType, ComplexXsdType, xsd
from soapbar.core.wssecurity import UsernameTokenValidator
from soapbar.server import AsgiSoapApp, SoapApplication, SoapService, soap_operation

from tests.served import served

NAMESPACE = "urn:example:orders"
USER, PASSWORD = "shop", "planted-soap-password-7d <&>"


def _type(name: str) -> Any:
    found = xsd.resolve(name)
    assert found is not None
    return found


_LINE = ComplexXsdType("Line", [("sku", _type("string")), ("quantity", _type("int"))])
_LINES = ArrayXsdType("Lines", _LINE, element_tag="line")
_ORDER = ComplexXsdType(
    "Order",
    [
        ("id", _type("string")),
        ("total", _type("decimal")),
        ("due", _type("date")),
        ("express", _type("boolean")),
        ("scan", _type("base64Binary")),
        ("lines", _LINES),
    ],
)


@dataclass
class SoapServer:
    """A running server and the arguments that came."""

    url: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)

    @property
    def wsdl_url(self) -> str:
        return f"{self.url}?wsdl"


def _orders(server: SoapServer, version: SoapVersion, style: BindingStyle) -> SoapService:
    class Orders(SoapService):
        __service_name__ = "Orders"
        __tns__ = NAMESPACE
        __binding_style__ = style
        __soap_version__ = version
        __service_url__ = server.url

        @soap_operation()
        def add(self, a: int, b: int) -> int:
            server.calls.append({"a": a, "b": b})
            return a + b

        @soap_operation()
        def greet(self, name: str) -> str:
            server.calls.append({"name": name})
            return f"Hello {name}"

        @soap_operation()
        def halve(self, amount: Decimal, on: date) -> Decimal:
            server.calls.append({"amount": amount, "on": on})
            return amount / 2

        @soap_operation(
            input_params=[OperationParameter("order", _ORDER)], output_params=[OperationParameter("order", _ORDER)]
        )
        def place(self, order: dict[str, Any]) -> dict[str, Any]:
            server.calls.append(order)
            return {"order": order}

        @soap_operation()
        def fail(self, reason: str) -> str:
            server.calls.append({"reason": reason})
            detail = etree.Element(f"{{{NAMESPACE}}}stock")
            etree.SubElement(detail, "left").text = "3"
            raise SoapFault("Server", reason, detail=detail, subcodes=[(NAMESPACE, "OutOfStock")])

    return Orders()


class _Accounts(UsernameTokenValidator):
    def get_password(self, username: str) -> str | None:
        return PASSWORD if username == USER else None


class _Application(SoapApplication):
    """Declares the types, which it otherwise only does for a WSDL that it was given."""

    def _build_wsdl_definition(self, *args: Any, **kwargs: Any) -> Any:
        declared = super()._build_wsdl_definition(*args, **kwargs)
        declared.complex_types.update({one.name: one for one in (_LINE, _LINES, _ORDER)})
        return declared


class _Later:
    """The application, which must know its own URL, behind the socket that gives it one."""

    app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@asynccontextmanager
async def soap_server(*, version: str = "1.1", rpc: bool = False, secured: bool = False) -> AsyncIterator[SoapServer]:
    """Orders: ``add``, ``greet``, ``halve``, ``place`` (which answers what it got), ``fail``. With `secured` it asks
    for the UsernameToken of `USER` and `PASSWORD`, as text or digest, each nonce once."""
    later, server = _Later(), SoapServer()
    style = BindingStyle.RPC_LITERAL if rpc else BindingStyle.DOCUMENT_LITERAL_WRAPPED
    async with served(later) as url:
        server.url = f"{url}/orders"
        with warnings.catch_warnings(action="ignore"):  # it would have https
            app = _Application(
                service_url=server.url,
                security_validator=_Accounts() if secured else None,
                allow_plaintext_credentials=True,
                validate_body_schema=not rpc,  # libxml2 finds no element of an rpc wrapper's name in a schema
            )
            app.register(_orders(server, SoapVersion(version), style))
        later.app = AsgiSoapApp(app)
        yield server
