"""Every failure is a decision, and crosses into Temporal once."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError, ApplicationErrorCategory, RetryState
from temporalio.testing import ActivityEnvironment

from integration_service.activities.methods import MethodActivities
from integration_service.contracts.errors import (
    Decision,
    ErrorCode,
    IntegrationError,
    decision_for,
    from_failure,
    http_code,
    to_application_error,
    unexpected,
)

# docs: the contract's list of codes, HTTP_<status> aside.
CONTRACT = """
VALIDATION_ERROR DEFINITION_NOT_FOUND DEFINITION_NOT_PUBLISHED METHOD_NOT_FOUND INSTANCE_NOT_FOUND
INSTANCE_NOT_CONNECTED CONFIG_ERROR VERSION_CONFLICT AUTH_ERROR REAUTH_REQUIRED RATE_LIMITED CIRCUIT_OPEN
TIMEOUT CONNECTION_ERROR MALFORMED_RESPONSE RESULT_VALIDATION_ERROR TRANSFORM_ERROR RESPONSE_TOO_LARGE
EGRESS_DENIED GRAPHQL_ERROR SOAP_FAULT OUTCOME_UNKNOWN UNAVAILABLE KEY_UNAVAILABLE INTEGRITY_ERROR
"""
CODES = CONTRACT.split()


def test_the_codes_are_those_of_the_contract() -> None:
    assert sorted(ErrorCode) == sorted(CODES)


@pytest.mark.parametrize("code", [*CODES, "HTTP_400", "HTTP_503"])
def test_every_code_has_a_decision(code: str) -> None:
    assert isinstance(decision_for(code), Decision)


@pytest.mark.parametrize("code", ["RATE_LIMITED", "CIRCUIT_OPEN", "UNAVAILABLE", "KEY_UNAVAILABLE"])
def test_what_passes_by_itself_is_waited_for(code: str) -> None:
    assert decision_for(code) is Decision.WAIT
    carried = to_application_error(IntegrationError(code, "later"))
    assert carried.category is ApplicationErrorCategory.BENIGN
    assert carried.details[0]["retryable"] is True


@pytest.mark.parametrize("code", ["INTEGRITY_ERROR", "OUTCOME_UNKNOWN", "EGRESS_DENIED", "RESPONSE_TOO_LARGE"])
def test_what_no_repetition_mends_is_given_up(code: str) -> None:
    assert decision_for(code) is Decision.GIVE_UP
    carried = to_application_error(IntegrationError(code, "no"))
    assert carried.non_retryable
    assert carried.details[0]["retryable"] is False


def test_429_has_a_name_of_its_own() -> None:
    assert [http_code(status) for status in (400, 429, 503)] == ["HTTP_400", "RATE_LIMITED", "HTTP_503"]


def error(code: str = "CONFIG_ERROR") -> IntegrationError:
    return IntegrationError(code, "breaks a rule", path="config.url", details={"errors": [{"rule": "format"}]})


@pytest.mark.parametrize("code", ["CONFIG_ERROR", "HTTP_502", "INTEGRITY_ERROR"])
@pytest.mark.parametrize("retry", [True, False])
def test_a_failure_comes_out_of_temporal_as_it_went_in(code: str, *, retry: bool) -> None:
    sent = error(code)
    back = from_failure(to_application_error(sent, retry=retry))
    assert back is not None
    assert (back.code, back.message, back.path, back.details) == (sent.code, sent.message, sent.path, sent.details)
    assert str(back) == f"{code}: breaks a rule (config.url)"


def test_the_details_have_the_contracts_four_keys() -> None:
    carried = to_application_error(error())
    assert carried.type == "CONFIG_ERROR"
    assert carried.details[0] == {
        "code": "CONFIG_ERROR",
        "message": "breaks a rule",
        "retryable": False,
        "details": {"path": "config.url", "errors": [{"rule": "format"}]},
    }


def test_retry_is_told_to_temporal() -> None:
    assert to_application_error(error(), retry=True).non_retryable is False
    assert to_application_error(error(), retry=False).non_retryable is True


def test_the_first_of_our_errors_in_a_chain_is_the_one() -> None:
    inner = to_application_error(error("AUTH_ERROR"))
    foreign = ApplicationError("theirs", {"code": "OTHER"}, type="SOMETHING")
    foreign.__cause__ = inner
    outer = ActivityError(
        "failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="",
        activity_type="t.m",
        activity_id="1",
        retry_state=RetryState.NON_RETRYABLE_FAILURE,
    )
    outer.__cause__ = foreign
    found = from_failure(outer)
    assert found is not None
    assert found.code == "AUTH_ERROR"


@pytest.mark.parametrize("failure", [None, ValueError("x"), ApplicationError("x"), ApplicationError("x", "text")])
def test_what_is_none_of_ours_is_told_apart(failure: BaseException | None) -> None:
    assert from_failure(failure) is None


def boom() -> None:
    raise RuntimeError("planted-secret-9")


def test_a_bug_is_carried_by_kind_and_place_without_its_text() -> None:
    try:
        boom()
    except RuntimeError as raised:
        carried = unexpected(raised)
    assert "planted-secret-9" not in f"{carried} {carried.details} {carried.__cause__} {carried!r}"
    assert "RuntimeError" in carried.message
    assert "boom" in carried.message
    assert from_failure(carried) is None


def test_an_error_that_was_never_raised_is_carried_too() -> None:
    assert "KeyError" in unexpected(KeyError("planted-secret-9")).message


async def test_a_bug_in_a_call_reaches_its_caller_with_a_code_and_all_four_fields() -> None:
    # Nothing is behind the activity, so that every call meets a bug.
    nothing: Any = None
    methods = MethodActivities(pipeline=nothing, instances=nothing, waiters=nothing)
    running = ActivityEnvironment()
    running.info = dataclasses.replace(running.info, activity_type="things.get")
    (payload,) = running.payload_converter.to_payloads([{"instanceId": "planted-secret-9"}])
    with pytest.raises(ApplicationError) as caught:
        await running.run(methods.run_method, [RawValue(payload)])
    (wire,) = caught.value.details
    assert (caught.value.type, caught.value.non_retryable) == ("UNAVAILABLE", True)
    assert wire["code"] == "UNAVAILABLE"
    assert wire["message"].startswith("unexpected AttributeError at ")
    assert (wire["retryable"], wire["details"]) == (False, {"cause": "UNEXPECTED"})
    assert "planted-secret-9" not in f"{caught.value!r} {wire}"
    # Who waits for an outage does not wait for a bug.
    found = from_failure(caught.value)
    assert found is not None
    assert found.decision is Decision.GIVE_UP
