"""A SOAP fault as the failure that it tells.

Sources: https://www.w3.org/TR/2000/NOTE-SOAP-20000508/#_Toc478383507, https://www.w3.org/TR/soap12-part1/#soapfault
"""

from __future__ import annotations

from typing import Any

from lxml import etree
from zeep.utils import as_qname

from integration_service.activities.adapters.soap_answer import AnswerReader
from integration_service.activities.wsdl.xml_text import local_name
from integration_service.contracts.errors import ErrorCode, IntegrationError

SOAP_11 = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"
_MAX_REASON = 256
_MAX_CODES = 8
_MAX_DETAIL = 4096
# WSS SOAP Message Security 1.1, §12: the credential is refused, not the request.
_REFUSED = frozenset({"FailedAuthentication", "InvalidSecurityToken"})


def fault_in(body: etree._Element) -> etree._Element | None:
    """The fault that an envelope's body is, of either version, or None."""
    return next((node for node in body if node.tag in (f"{{{SOAP_11}}}Fault", f"{{{SOAP_12}}}Fault")), None)


def failure_of(fault: etree._Element, *, status: int, reader: AnswerReader) -> IntegrationError:
    """SOAP_FAULT, or AUTH_ERROR where WS-Security says that the credential is refused.

    Details: ``faultcode`` and, nested, ``subcodes`` (``{namespace}Name``; SOAP's own without it), ``faultstring`` of
    at most 256 characters, ``detail`` as JSON of at most 4 KiB, and `detailCut` where it was more.
    """
    codes = _codes(fault)
    details: dict[str, Any] = {"statusCode": status, "faultcode": codes[0] if codes else None}
    if len(codes) > 1:
        details["subcodes"] = codes[1:]
    reason = _reason(fault)
    if reason:
        details["faultstring"] = reason
    detail = _child(fault, "detail", "Detail")
    if detail is not None:
        budget = _Budget(_MAX_DETAIL)
        details["detail"] = budget.cut(_detail(detail, reader))
        if budget.left < 0:
            details["detailCut"] = True
    if any(code.rpartition("}")[2].rpartition(":")[2] in _REFUSED for code in codes):
        return IntegrationError(ErrorCode.AUTH_ERROR, "the upstream refuses the credential", details=details)
    return IntegrationError(ErrorCode.SOAP_FAULT, "the upstream answered with a SOAP fault", details=details)


def _codes(fault: etree._Element) -> list[str]:
    code = _child(fault, "faultcode", "Code")
    if code is None or local_name(code) == "faultcode":
        return [_code(code)] if code is not None else []
    codes: list[str] = []
    while code is not None and len(codes) < _MAX_CODES:
        value = _child(code, "Value")
        if value is not None:
            codes.append(_code(value))
        code = _child(code, "Subcode")
    return codes


def _code(node: etree._Element) -> str:
    text = (node.text or "").strip()[:_MAX_REASON]
    try:
        name = as_qname(text, node.nsmap, None)
        return name.localname if name.namespace in (None, SOAP_11, SOAP_12) else str(name.text)
    except Exception:  # a prefix that nobody declared, or no name at all
        return text


def _reason(fault: etree._Element) -> str:
    node = _child(fault, "faultstring", "Reason")
    if node is not None and local_name(node) == "Reason":
        node = _child(node, "Text")
    return (node.text or "").strip()[:_MAX_REASON] if node is not None else ""


def _detail(detail: etree._Element, reader: AnswerReader) -> Any:
    try:
        if not len(detail):
            return detail.text or ""
        return {local_name(child): reader.any(child, at="detail") for child in detail}
    except IntegrationError:
        return reader.untyped(detail)  # a fault is told, also where its detail is not of its type


def _child(node: etree._Element, *names: str) -> etree._Element | None:
    return next((child for child in node if local_name(child) in names), None)


class _Budget:
    """Copies a JSON value until so many characters are used; what comes after is left out."""

    def __init__(self, left: int) -> None:
        self.left = left

    def cut(self, value: Any) -> Any:
        match value:
            case dict():
                return {key: self.cut(item) for key, item in value.items() if self._has(len(key) + 6)}
            case list():
                return [self.cut(item) for item in value if self._has(2)]
            case str():
                text = value[: max(self.left, 0)]
                self.left -= len(value) + 2
                return text
        self.left -= len(str(value))
        return value

    def _has(self, size: int) -> bool:
        self.left -= size
        return self.left >= 0
