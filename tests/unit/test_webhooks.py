"""Webhooks: signatures by a verifier written from the specification, and what an answer means."""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration_service.activities.outbound.messages import InboundResponse
from integration_service.activities.webhooks import check_secret, new_secret, refusal, webhook_request
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.events import CloudEvent
from tests.webhook_verifier import BadSignature, verify

_NOW = datetime(2026, 5, 1, 12, 0, 0, 900_000, tzinfo=UTC)
_URL = "https://receiver.example/hooks?a=1"


def _event(data: dict[str, object] | None = None) -> CloudEvent:
    return CloudEvent(
        id=str(uuid.uuid4()), source="/x", type="integration.connected", subject="s", time=_NOW, data=data or {}
    )


def _signed(secrets: list[str], event: CloudEvent | None = None) -> tuple[bytes, dict[str, str]]:
    request = webhook_request(_URL, event or _event(), signing=secrets, at=_NOW)
    assert request.body is not None
    return request.body, {name.lower(): value for name, value in request.headers}


@given(st.binary(min_size=24, max_size=64), st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3))
def test_what_is_signed_verifies(key: bytes, data: dict[str, object]) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    event = _event(data)
    body, headers = _signed([secret], event)
    assert verify(body, headers, secret, now=_NOW) == event.to_wire()
    assert headers["webhook-id"] == event.id
    assert headers["webhook-timestamp"] == str(int(_NOW.timestamp()))


def test_the_signature_is_the_specification_s_own_formula() -> None:
    """`v1,` and base64 of HMAC-SHA256 over id, timestamp and body, by another library's steps."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body, headers = _signed([secret])
    mac = hmac.new(base64.b64decode(secret[6:]), digestmod=hashlib.sha256)
    mac.update(f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode())
    mac.update(body)
    assert headers["webhook-signature"] == "v1," + base64.b64encode(mac.digest()).decode()


def test_each_of_several_secrets_verifies_and_no_other() -> None:
    old, new, other = new_secret(), new_secret(), new_secret()
    body, headers = _signed([new, old])
    for secret in (old, new):
        verify(body, headers, secret, now=_NOW)
    with pytest.raises(BadSignature):
        verify(body, headers, other, now=_NOW)


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp", "body"])
def test_a_change_of_anything_is_found(changed: str) -> None:
    secret = new_secret()
    body, headers = _signed([secret])
    if changed == "body":
        body = body.replace(b"connected", b"Connected")
    else:
        headers[changed] = headers[changed][:-1] + ("0" if headers[changed][-1] != "0" else "1")
    with pytest.raises(BadSignature):
        verify(body, headers, secret, now=_NOW)


def test_the_request_is_a_post_that_no_redirect_moves_and_no_repr_shows() -> None:
    secret = new_secret()
    request = webhook_request(_URL, _event({"mark": "seen-nowhere"}), signing=[secret], at=_NOW)
    assert (request.method, request.follow_redirects) == ("POST", False)
    assert request.header("content-type") == "application/cloudevents+json; charset=UTF-8"
    assert "seen-nowhere" not in repr(request)
    assert secret not in str(request.headers)


def test_a_new_secret_is_one_and_each_is_another() -> None:
    assert len({new_secret() for _ in range(100)}) == 100
    check_secret(new_secret())


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "whsec_abc", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "A" * 88, "whsec_MfKQ9r8GKYq€wjUPD"],
)
def test_what_is_no_secret_is_refused_and_not_quoted(secret: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        check_secret(secret)
    assert len(secret) < 8 or secret not in str(refused.value)


def _answer(status: int, **headers: str) -> InboundResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return InboundResponse(status=status, headers=named, body=b"never kept")


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_has_arrived(status: int) -> None:
    assert refusal(_answer(status), now=_NOW) is None


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 408, 429, 500, 503])
def test_anything_else_is_tried_again(status: int) -> None:
    found = refusal(_answer(status), now=_NOW)
    assert found is not None
    assert not found.for_good
    assert "never kept" not in repr(found)


def test_410_ends_it() -> None:
    found = refusal(_answer(410), now=_NOW)
    assert found is not None
    assert found.for_good


@pytest.mark.parametrize(
    ("asked", "wait"),
    [
        ("120", timedelta(minutes=2)),
        ("86400", timedelta(hours=1)),
        (format_datetime((_NOW + timedelta(minutes=5)).replace(microsecond=0), usegmt=True), timedelta(seconds=299.1)),
        ("soon", None),
        ("-5", timedelta(0)),
    ],
)
def test_retry_after_is_honoured_up_to_an_hour(asked: str, wait: timedelta | None) -> None:
    found = refusal(_answer(503, retry_after=asked), now=_NOW)
    assert found is not None
    assert (found.wait is None) == (wait is None)
    assert abs((found.wait or timedelta(0)) - (wait or timedelta(0))) < timedelta(seconds=2)
