"""What a WSDL declares, compiled once per text: zeep reads it out of memory and never asks anybody for more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn, cast

from lxml import etree
from zeep import exceptions
from zeep.settings import Settings
from zeep.wsdl import Document
from zeep.wsdl.bindings import Soap11Binding, Soap12Binding
from zeep.xsd.types.simple import AnySimpleType

from integration_service.activities.wsdl.documents import WELL_KNOWN, WSDL, WsdlDocuments
from integration_service.activities.wsdl.expansion import check_expansion
from integration_service.activities.wsdl.xml_text import encoded
from integration_service.contracts.definitions import SoapRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError

MAIN = "file:///"
_KEPT = 32
_MAX_CHOICES = 20
_MAX_REASON = 200
_SOAP_BODIES = ("{http://schemas.xmlsoap.org/wsdl/soap/}body", "{http://schemas.xmlsoap.org/wsdl/soap12/}body")


@dataclass(frozen=True)
class SoapOperation:
    """One operation at one port. `namespace` is the envelope's; `input` and `output` are zeep's messages."""

    name: str
    namespace: str
    action: str
    address: str | None = field(repr=False)
    rpc: bool
    input: Any = field(repr=False)
    output: Any = field(repr=False)
    schema: Any = field(repr=False)


@dataclass(frozen=True)
class _Candidate:
    service: str
    port: str
    address: str | None
    operations: dict[str, Any] = field(repr=False)


class WsdlModel:
    """The services, ports and operations of one WSDL that speak SOAP 1.1 or 1.2 over HTTP."""

    def __init__(self, documents: WsdlDocuments) -> None:
        """Raises IntegrationError VALIDATION_ERROR with the path of what cannot be read."""
        self._encoded = _checked(documents)
        document = _load(documents)
        self._schema = document.types
        self._candidates = [
            _Candidate(service.name, port.name, (port.binding_options or {}).get("address"), port.binding.all())
            for service in document.services.values()
            for port in service.ports.values()
        ]
        if not self._candidates:
            raise _wrong("wsdl", "the WSDL has no port of SOAP over HTTP")

    def operation(self, request: SoapRequest, *, at: str) -> SoapOperation:
        """The operation that a method names, at the one port that has it.

        Raises IntegrationError VALIDATION_ERROR with the path, and what there is to choose from.
        """
        found = self._candidates
        for key, wanted in (("service", request.service), ("port", request.port)):
            if wanted is not None:
                names = [getattr(one, key) for one in found]
                found = [one for one in found if getattr(one, key) == wanted]
                if not found:
                    raise _wrong(f"{at}.{key}", f"the WSDL has no {key} of that name, only {_listed(names)}")
        having = [one for one in found if request.operation in one.operations]
        if not having:
            names = [name for one in found for name in one.operations]
            raise _wrong(f"{at}.operation", f"the WSDL has no operation of that name, only {_listed(names)}")
        for key in ("service", "port"):
            names = [getattr(one, key) for one in having]
            if len(set(names)) > 1:
                raise _wrong(f"{at}.{key}", f"say which {key}: {_listed(names)}")
        return self._operation(having[0], request.operation, at=at)

    def _operation(self, port: _Candidate, name: str, *, at: str) -> SoapOperation:
        operation = port.operations[name]
        if (operation.binding.name.localname, name) in self._encoded:
            raise _wrong(f"{at}.operation", "the operation is SOAP-encoded; only literal ones can be called")
        if operation.input is None or operation.input.abstract is None:
            raise _wrong(f"{at}.operation", "the operation takes no request")
        return SoapOperation(
            name=name,
            namespace=operation.nsmap["soap-env"],
            action=operation.soapaction or "",
            address=port.address,
            rpc=operation.style == "rpc",
            input=operation.input,
            output=operation.output if operation.output is not None and operation.output.abstract else None,
            schema=self._schema,
        )


@lru_cache(maxsize=_KEPT)
def wsdl_model(documents: WsdlDocuments) -> WsdlModel:
    """The model of these documents, shared by all methods of a definition. Raises as `WsdlModel` does."""
    return WsdlModel(documents)


def _checked(documents: WsdlDocuments) -> frozenset[tuple[str, str]]:
    """Which operations are SOAP-encoded, of documents that zeep may read."""
    trees = list(documents.trees())
    check_expansion(trees)
    return frozenset(key for tree in trees for key in _encoded_operations(tree))


def _load(documents: WsdlDocuments) -> Any:
    settings = Settings(forbid_dtd=True, forbid_entities=True, force_https=False)
    try:
        return _Document(MAIN, cast(Any, _Bundle(documents)), settings=settings)
    except IntegrationError:
        raise
    except exceptions.Error as error:
        # It names what the documents say; a definition is no secret.
        raise _wrong("wsdl", f"the WSDL cannot be read: {str(error)[:_MAX_REASON]}") from None
    except Exception as error:  # whatever zeep meets in a document that is not what it expects
        raise _wrong("wsdl", f"the WSDL cannot be read ({type(error).__name__})") from None


class _Document(Document):
    """zeep's, with built-in types that write a text as it is: ours have made it by then."""

    def load(self, location: str) -> None:
        internal = next(iter(self.types.documents))
        for name, type_ in list(internal._types.items()):
            if isinstance(type_, AnySimpleType):
                plain = type(type(type_).__name__, (type(type_),), {"xmlvalue": _as_it_is})
                internal.register_type(etree.QName(name), plain(is_global=True))
        super().load(location)  # type: ignore[no-untyped-call]


def _as_it_is(_: Any, value: Any) -> Any:
    return value


class _Bundle:
    """zeep's transport: serves what is in memory, and sends nothing."""

    binding_classes = (Soap11Binding, Soap12Binding)

    def __init__(self, documents: WsdlDocuments) -> None:
        self._documents = {**WELL_KNOWN, **documents.others, MAIN: documents.main}

    def load(self, url: str) -> bytes:
        """Raises IntegrationError VALIDATION_ERROR for what is not stored."""
        text = self._documents.get(str(url))
        if text is None:
            raise _wrong("wsdlDocuments", f"the WSDL imports {str(url)[:_MAX_REASON]}, which is not among them")
        return encoded(text)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise RuntimeError("nothing is sent from here")

    get = post = post_xml = _refuse


def _encoded_operations(tree: etree._Element) -> Iterator[tuple[str, str]]:
    """Binding and operation, where a message is SOAP-encoded."""
    for binding in tree.iter(f"{{{WSDL}}}binding"):
        for operation in binding.iterchildren(f"{{{WSDL}}}operation"):
            if any(body.get("use") == "encoded" for body in operation.iter(*_SOAP_BODIES)):
                yield binding.get("name", ""), operation.get("name", "")


def _listed(names: list[str]) -> str:
    unique = sorted(set(names))
    more = f" and {len(unique) - _MAX_CHOICES} more" if len(unique) > _MAX_CHOICES else ""
    return ", ".join(unique[:_MAX_CHOICES]) + more


def _wrong(path: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=path)
