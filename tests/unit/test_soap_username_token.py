"""WS-Security's UsernameToken: a basic credential inside the envelope."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime

import pytest
from lxml import etree

from integration_service.activities.auth import authenticate, secret_texts
from integration_service.activities.execution.redaction import redact
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.credentials import BasicAuth, CredentialPayload
from integration_service.contracts.definitions import DefinitionFile, IntegrationAuthType
from integration_service.contracts.errors import ErrorCode, IntegrationError
from tests.unit.soap_wsdl import ENVELOPE_11, ENVELOPE_12

PASSWORD = 'p<a>&"ss wörd]]>'
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECEXT = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"


def credential(password: str = PASSWORD) -> CredentialPayload:
    return CredentialPayload(type=IntegrationAuthType.BASIC, basic_auth=BasicAuth(username="zoë", password=password))


def definition(*, digest: bool) -> DefinitionFile:
    return DefinitionFile.model_validate(
        {
            "name": "x",
            "description": "",
            "version": "1.0.0",
            "methods": [],
            "configSchema": True,
            "type": "soap",
            "authType": "basic",
            "soap": {"security": "usernameToken", "digest": digest},
        }
    )


def sent(envelope: str, *, digest: bool, password: str = PASSWORD) -> OutboundRequest:
    request = OutboundRequest(method="POST", url="https://h/", body=envelope.encode())
    return authenticate(request, credential(password), definition=definition(digest=digest), now=NOW)


def security(request: OutboundRequest) -> etree._Element:
    envelope = etree.fromstring(request.body or b"")
    assert [etree.QName(child).localname for child in envelope] == ["Header", "Body"]
    found = envelope[0].find(f"{{{SECEXT}}}Security")
    assert found is not None
    return found


@pytest.mark.parametrize("envelope", [ENVELOPE_11, ENVELOPE_12])
@pytest.mark.parametrize("header", ["", "<e:Header><s xmlns='urn:s'/></e:Header>"])
def test_a_password_as_text(envelope: str, header: str) -> None:
    request = sent(envelope.replace("<e:Body>", header + "<e:Body>") % "<a>&lt;b&gt; \r x</a>", digest=False)
    token = security(request)[0]
    assert (token.findtext("{*}Username"), token.findtext("{*}Password")) == ("zoë", PASSWORD)
    namespace = etree.fromstring((envelope % "").encode()).nsmap["e"]
    assert security(request).get(f"{{{namespace}}}mustUnderstand") == "1"
    assert etree.fromstring(request.body or b"").findtext(".//{*}a") == "<b> \n x"
    assert request.header("Authorization") is None
    assert not request.follow_redirects


def test_a_digest_and_never_the_password() -> None:
    first, second = (sent(ENVELOPE_11 % "", digest=True) for _ in range(2))
    assert first.body != second.body
    token = security(first)[0]
    nonce = base64.b64decode(token.findtext("{*}Nonce") or "")
    created = token.findtext("{*}Created") or ""
    assert (len(nonce), created) == (16, "2026-01-31T12:00:00.000Z")
    digest = base64.b64encode(hashlib.sha1(nonce + created.encode() + PASSWORD.encode()).digest()).decode()
    assert token.findtext("{*}Password") == digest
    assert PASSWORD not in etree.tostring(token, method="text", encoding="unicode")


def test_what_comes_back_is_redacted() -> None:
    request = sent(ENVELOPE_11 % "", digest=True)
    digest = security(request)[0].findtext("{*}Password") or ""
    data, _ = redact({"echo": [digest, f"pw {PASSWORD}"]}, secret_texts(credential(), sent=request))
    assert data == {"echo": ["[REDACTED]", "pw [REDACTED]"]}


def test_a_password_that_xml_cannot_hold() -> None:
    with pytest.raises(IntegrationError) as caught:
        sent(ENVELOPE_11 % "", digest=False, password="secret\ufffe")
    assert caught.value.code == ErrorCode.AUTH_ERROR
    assert "secret" not in str(caught.value)


def test_without_asking_for_it_basic_is_the_header() -> None:
    plain = definition(digest=False).model_copy(update={"soap": None})
    request = OutboundRequest(method="POST", url="https://h/", body=(ENVELOPE_11 % "").encode())
    made = authenticate(request, credential(), definition=plain)
    assert (made.body, made.header("Authorization") is not None) == (request.body, True)
