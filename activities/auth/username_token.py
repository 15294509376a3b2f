"""A basic credential in the envelope instead of a header: WS-Security's UsernameToken.

Source: https://docs.oasis-open.org/wss-m/wss/v1.1.1/os/wss-UsernameTokenProfile-v1.1.1-os.html
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import replace
from datetime import datetime

from lxml import etree

from integration_service.activities.auth.context import AuthContext
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.activities.wsdl.xml_text import has_no_xml, load_xml
from integration_service.contracts.credentials import BasicAuth, CredentialPayload
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import format_time

_OASIS = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-"
_WSSE, _WSU = f"{_OASIS}wssecurity-secext-1.0.xsd", f"{_OASIS}wssecurity-utility-1.0.xsd"
_PROFILE = f"{_OASIS}username-token-profile-1.0"
_BASE64 = f"{_OASIS}soap-message-security-1.0#Base64Binary"
_NONCE_BYTES = 16


def applies(context: AuthContext) -> bool:
    """Whether the definition asks for a UsernameToken."""
    return context.definition is not None and context.definition.soap is not None


def apply(request: OutboundRequest, credential: CredentialPayload, context: AuthContext) -> OutboundRequest:
    """Adds ``wsse:Security`` with the token to the envelope's header. The request then follows no redirect.

    Raises IntegrationError AUTH_ERROR for a user name or password that XML cannot hold.
    """
    basic = credential.basic_auth
    if basic is None or request.body is None or context.definition is None or context.definition.soap is None:
        raise TypeError("not a basic credential and an envelope")
    if has_no_xml(basic.username + basic.password):
        raise IntegrationError(ErrorCode.AUTH_ERROR, "the user name or password holds what XML cannot")
    envelope = load_xml(request.body)
    namespace = etree.QName(envelope).namespace
    header = envelope.find(f"{{{namespace}}}Header")
    if header is None:
        header = etree.Element(f"{{{namespace}}}Header")
        envelope.insert(0, header)
    security = etree.SubElement(header, f"{{{_WSSE}}}Security", nsmap={"wsse": _WSSE, "wsu": _WSU})
    security.set(f"{{{namespace}}}mustUnderstand", "1")
    _add_token(security, basic, digest=context.definition.soap.digest, now=context.now)
    body = etree.tostring(envelope, xml_declaration=True, encoding="utf-8")
    return replace(request, body=body, follow_redirects=False)


def sent_secrets(request: OutboundRequest) -> tuple[str, ...]:
    """What the request's token holds in place of the password: a digest that can be tried against guesses."""
    if request.body is None or _WSSE.encode() not in request.body:
        return ()
    found = load_xml(request.body).iter(f"{{{_WSSE}}}Password")
    return tuple(node.text for node in found if node.text)


def _add_token(security: etree._Element, basic: BasicAuth, *, digest: bool, now: datetime) -> None:
    token = etree.SubElement(security, f"{{{_WSSE}}}UsernameToken")
    etree.SubElement(token, f"{{{_WSSE}}}Username").text = basic.username
    password = etree.SubElement(token, f"{{{_WSSE}}}Password")
    password.set("Type", f"{_PROFILE}#{'PasswordDigest' if digest else 'PasswordText'}")
    if not digest:
        password.text = basic.password
        return
    nonce, created = secrets.token_bytes(_NONCE_BYTES), format_time(now)
    # SHA-1 is what the profile says; what it protects is worth a guess per nonce.
    hashed = hashlib.sha1(nonce + created.encode() + basic.password.encode(), usedforsecurity=False)
    password.text = base64.b64encode(hashed.digest()).decode()
    node = etree.SubElement(token, f"{{{_WSSE}}}Nonce", EncodingType=_BASE64)
    node.text = base64.b64encode(nonce).decode()
    etree.SubElement(token, f"{{{_WSU}}}Created").text = created
