"""The answer that begins a device flow."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from integration_service.activities.oauth.device import DeviceAuthorization, read_device_answer
from integration_service.activities.oauth.token_answer import TokenRefused
from integration_service.activities.outbound.messages import InboundResponse
from integration_service.contracts.errors import ErrorCode

ANSWER: dict[str, Any] = {
    "device_code": "planted-code",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://example.com/device",
    "verification_uri_complete": "https://example.com/device?user_code=WDJB-MJHT",
    "expires_in": 1800,
    "interval": 7,
}


def read(body: Any, status: int = 200, content_type: str = "application/json") -> DeviceAuthorization:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_device_answer(InboundResponse(status, {"content-type": content_type}, raw))


def test_the_standards_own_answer() -> None:
    found = read(ANSWER)
    assert (found.device_code, found.user_code) == ("planted-code", "WDJB-MJHT")
    assert found.verification_uri == ANSWER["verification_uri"]
    assert found.verification_uri_complete == ANSWER["verification_uri_complete"]
    assert (found.expires_in, found.interval) == (timedelta(minutes=30), timedelta(seconds=7))
    assert "planted" not in repr(found)


def test_google_called_the_address_otherwise_and_github_answers_with_a_form() -> None:
    renamed = {"device_code": "d", "user_code": "u", "verification_url": "https://g.example/device"}
    assert read(renamed).verification_uri == "https://g.example/device"
    form = b"device_code=d&user_code=u&verification_uri=https%3A%2F%2Fh.example%2Fd&expires_in=899&interval=5"
    found = read(form, content_type="application/x-www-form-urlencoded")
    assert (found.verification_uri, found.expires_in) == ("https://h.example/d", timedelta(seconds=899))


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [(None, 5), (0, 5), (-1, 5), ("3", 3), (0.01, 1), (10**9, 300), (float("nan"), 5), (True, 5), ("soon", 5)],
)
def test_an_interval_is_one_that_can_be_waited(interval: Any, seconds: float) -> None:
    assert read(ANSWER | {"interval": interval}).interval == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"error": "invalid_scope"}, 400, ErrorCode.AUTH_ERROR),
        ({"error": "unauthorized_client"}, 200, ErrorCode.AUTH_ERROR),
        ({"error": "slow"}, 429, ErrorCode.RATE_LIMITED),
        (ANSWER, 503, ErrorCode.UNAVAILABLE),
        (ANSWER, 302, ErrorCode.UNAVAILABLE),
        (b"<html>planted", 200, ErrorCode.UNAVAILABLE),
        ({**ANSWER, "device_code": ""}, 200, ErrorCode.UNAVAILABLE),
        ({**ANSWER, "user_code": "planted\n"}, 200, ErrorCode.UNAVAILABLE),
        ({**ANSWER, "verification_uri": None}, 200, ErrorCode.UNAVAILABLE),
        ({**ANSWER, "verification_uri": "javascript:planted"}, 200, ErrorCode.AUTH_ERROR),
        ({**ANSWER, "verification_uri_complete": "https://["}, 200, ErrorCode.AUTH_ERROR),
    ],
)
def test_anything_else_is_refused(body: Any, status: int, code: ErrorCode) -> None:
    with pytest.raises(TokenRefused) as error:
        read(body, status)
    assert error.value.code == code
    assert "planted" not in f"{error.value} {error.value.details}"


@example({"expires_in": 4.3e-146})
@given(st.dictionaries(st.sampled_from([*ANSWER]), st.text() | st.integers() | st.floats() | st.none()))
def test_no_answer_breaks_anything(changes: dict[str, Any]) -> None:
    try:
        found = read(ANSWER | changes)
    except TokenRefused:
        return
    assert found.interval >= timedelta(seconds=1)
    assert timedelta(0) < found.expires_in <= timedelta(days=1)
    assert found.verification_uri.startswith("http")
