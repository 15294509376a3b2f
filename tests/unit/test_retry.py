"""When a failed send is tried again, and after how long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.retry import DEFAULT_RETRY, RetryConfig
from integration_service.contracts.wire import parse

DAY_MS = 24 * 3600 * 1000


def config(**changes: Any) -> RetryConfig:
    wire = {"maxRetries": 3, "backoffMultiplier": 2, "initialDelayMs": 500, "maxDelayMs": 30_000, **changes}
    return parse(RetryConfig, wire)


@pytest.mark.parametrize(
    "code", ["TIMEOUT", "CONNECTION_ERROR", "RATE_LIMITED", "HTTP_408", "HTTP_500", "HTTP_503", "HTTP_599"]
)
def test_by_default_what_may_pass_by_itself_is_tried_again(code: str) -> None:
    assert DEFAULT_RETRY.retries(code)


@pytest.mark.parametrize(
    "code", ["HTTP_400", "HTTP_404", "VALIDATION_ERROR", "AUTH_ERROR", "MALFORMED_RESPONSE", "EGRESS_DENIED"]
)
def test_by_default_nothing_else_is(code: str) -> None:
    assert not DEFAULT_RETRY.retries(code)


@pytest.mark.parametrize(
    ("named", "code", "again"),
    [
        ("HTTP_5XX", "HTTP_500", True),
        ("HTTP_5XX", "HTTP_599", True),
        ("HTTP_5XX", "HTTP_499", False),
        ("HTTP_4XX", "HTTP_404", True),
        ("HTTP_4XX", "HTTP_500", False),
        ("HTTP_4XX", "RATE_LIMITED", True),
        ("HTTP_429", "RATE_LIMITED", True),
        ("RATE_LIMITED", "RATE_LIMITED", True),
        ("HTTP_503", "HTTP_503", True),
        ("HTTP_503", "HTTP_500", False),
        ("HTTP_503", "RATE_LIMITED", False),
        ("TIMEOUT", "TIMEOUT", True),
        ("TIMEOUT", "CONNECTION_ERROR", False),
        ("MALFORMED_RESPONSE", "MALFORMED_RESPONSE", True),
    ],
)
def test_a_code_or_its_class_is_what_the_list_names(named: str, code: str, *, again: bool) -> None:
    assert config(retryableErrors=[named]).retries(code) is again


def test_an_empty_list_retries_nothing() -> None:
    nothing = config(retryableErrors=[])
    assert not any(nothing.retries(code) for code in ("TIMEOUT", "HTTP_500", "RATE_LIMITED"))


def test_n_retries_are_n_and_one_tries() -> None:
    assert [config(maxRetries=n).max_tries for n in (0, 1, 7)] == [1, 2, 8]


def test_the_defaults_are_the_contracts() -> None:
    waits = [DEFAULT_RETRY.delay_after(tries) / timedelta(milliseconds=1) for tries in range(1, 9)]
    assert waits == [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]
    assert DEFAULT_RETRY.max_retries == 3


@pytest.mark.parametrize("tries", [1, 2, 1000, 10**9])
def test_a_huge_count_waits_no_longer_than_the_ceiling(tries: int) -> None:
    waits = config(backoffMultiplier=1000, initialDelayMs=1, maxDelayMs=DAY_MS).delay_after(tries)
    assert timedelta(milliseconds=1) <= waits <= timedelta(days=1)
    assert config(backoffMultiplier=1).delay_after(tries) == timedelta(milliseconds=500)


def test_no_initial_delay_stays_none_however_often_it_is_multiplied() -> None:
    assert config(initialDelayMs=0).delay_after(100_000) == timedelta(0)


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"maxRetries": -1}, "maxRetries"),
        ({"maxRetries": 1001}, "maxRetries"),
        ({"maxRetries": 1.5}, "maxRetries"),
        ({"backoffMultiplier": 0.9}, "backoffMultiplier"),
        ({"backoffMultiplier": float("nan")}, "backoffMultiplier"),
        ({"backoffMultiplier": float("inf")}, "backoffMultiplier"),
        ({"initialDelayMs": -1}, "initialDelayMs"),
        ({"maxDelayMs": DAY_MS + 1}, "maxDelayMs"),
        ({"retryableErrors": ["http_500"]}, "retryableErrors[0]"),
        ({"initialDelayMs": 501, "maxDelayMs": 500}, None),
    ],
)
def test_a_policy_that_temporal_would_refuse_is_refused_here(wrong: dict[str, Any], path: str | None) -> None:
    with pytest.raises(IntegrationError) as refused:
        config(**wrong)
    assert refused.value.code == "VALIDATION_ERROR"
    assert (refused.value.path or None) == path


@given(
    initial=st.integers(0, DAY_MS),
    extra=st.integers(0, DAY_MS),
    multiplier=st.floats(1, 1000),
    tries=st.integers(1, 2000),
)
@settings(max_examples=150)
def test_waits_never_shrink_and_stay_within_bounds(initial: int, extra: int, multiplier: float, tries: int) -> None:
    ceiling = min(initial + extra, DAY_MS)
    retry = config(initialDelayMs=initial, maxDelayMs=ceiling, backoffMultiplier=multiplier)
    now, later = retry.delay_after(tries), retry.delay_after(tries + 1)
    assert timedelta(milliseconds=initial) <= now <= later <= timedelta(milliseconds=ceiling)
