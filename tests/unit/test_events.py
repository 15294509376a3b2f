"""Events as values: what a change of status tells, patterns, targets, CloudEvents on the wire."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.events import (
    CloudEvent,
    EventType,
    NewSubscription,
    event_source,
    is_webhook_url,
    like_pattern,
    sequence_text,
    status_events,
)
from integration_service.contracts.instances import InstanceError, IntegrationInstanceStatus
from integration_service.contracts.wire import parse

Status = IntegrationInstanceStatus
_ERRORS = st.none() | st.sampled_from(["AUTH_ERROR", "REAUTH_REQUIRED"]).map(
    lambda code: InstanceError(message="m", code=code)
)
_WEBHOOK = {"url": "https://receiver.example/hooks"}


@given(st.sampled_from(Status), st.sampled_from(Status), _ERRORS, _ERRORS)
def test_a_status_event_comes_first_and_only_with_a_change(
    previous: Status, current: Status, error: InstanceError | None, before: InstanceError | None
) -> None:
    drafts = status_events(previous, current, error=error, error_before=before)
    types = [draft.type for draft in drafts]
    assert (EventType.STATUS in types) == (previous is not current)
    assert len(set(types)) == len(types)
    if previous is not current:
        assert drafts[0].type is EventType.STATUS
        assert drafts[0].data["previous"] == previous.value
        assert drafts[0].data["current"] == current.value
        assert drafts[0].data.get("reason") == (error.code if error else None)
        assert (EventType.CONNECTED in types) == (current is Status.CONNECTED)
        assert (EventType.DISCONNECTED in types) == (current is Status.DISCONNECTED)
        assert (EventType.AUTH_FAILED in types) == (current is Status.AUTH_ERROR)


def test_another_refusal_of_the_same_instance_is_told() -> None:
    one, other = (InstanceError(message="m", code=code) for code in ("AUTH_ERROR", "REAUTH_REQUIRED"))
    again = status_events(Status.AUTH_ERROR, Status.AUTH_ERROR, error=other, error_before=one)
    assert [draft.type for draft in again] == [EventType.AUTH_FAILED]
    assert status_events(Status.AUTH_ERROR, Status.AUTH_ERROR, error=one, error_before=one) == []


def test_an_error_s_message_and_details_stay_out_of_events() -> None:
    error = InstanceError(message="token abc was refused", code="AUTH_ERROR", details={"seen": "abc"})
    drafts = status_events(Status.CONNECTED, Status.AUTH_ERROR, error=error, error_before=None)
    assert "abc" not in str([draft.to_wire() for draft in drafts])


def test_the_wire_is_cloudevents_1_0() -> None:
    event = CloudEvent(
        id=str(uuid.uuid4()),
        source=event_source("team a/b", "github"),
        type=EventType.CONNECTED,
        subject="s",
        time=datetime(2026, 5, 1, 12, tzinfo=UTC),
        sequence=sequence_text(7),
        data={},
    )
    wire = event.to_wire()
    # §Attribute naming: lower-case letters and digits; the required ones are there.
    assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in wire)
    assert {"id", "source", "specversion", "type"} <= wire.keys()
    assert (wire["specversion"], wire["datacontenttype"]) == ("1.0", "application/json")
    assert wire["source"] == "/integrations/team%20a%2Fb/github"
    assert wire["time"] == "2026-05-01T12:00:00.000Z"


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_sequences_sort_as_text_as_they_do_as_numbers(one: int, other: int) -> None:
    assert (one < other) == (sequence_text(one) < sequence_text(other))


@given(st.sampled_from(EventType), st.sampled_from(EventType))
def test_a_type_by_itself_matches_itself_alone(one: EventType, other: EventType) -> None:
    assert like_pattern(one.value) == one.value
    assert not set("%_\\") & set(one.value)


@pytest.mark.parametrize("pattern", ["*", "integration.*", "integration.credential.*", "integration.connected"])
def test_patterns_are_taken(pattern: str) -> None:
    taken = parse(NewSubscription, {"webhook": _WEBHOOK, "eventTypes": [pattern]})
    assert like_pattern(taken.event_types[0]) == pattern.replace("*", "%")


@pytest.mark.parametrize("pattern", ["", "%", "integration.%", "in*n", "integration*", "*.connected", "a_b", "A"])
def test_other_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(IntegrationError, match="eventTypes"):
        parse(NewSubscription, {"webhook": _WEBHOOK, "eventTypes": [pattern]})


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook": None},
        {"workflow": {"workflowId": "w", "signalName": "s"}},
        {"scope": "team", "allScopes": True},
        {"eventTypes": []},
        {"webhook": {"url": "https://receiver.example", "secret": "whsec_"}},
    ],
)
def test_a_subscription_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    asked = {"webhook": _WEBHOOK, **changes}
    with pytest.raises(IntegrationError):
        parse(NewSubscription, {key: value for key, value in asked.items() if value is not None})


@pytest.mark.parametrize(
    "url", ["https://a.example", "http://127.0.0.1:8080/x?y=z", "https://[::1]/", "http://a/b%20c"]
)
def test_a_webhook_s_url(url: str) -> None:
    assert is_webhook_url(url)


@pytest.mark.parametrize(
    "url",
    ["", "a.example", "ftp://a", "file:///etc/passwd", "https://", "https://u:p@a.example", "https://a b", "https://ä",
     "https://a:99999", "https://a\\b", "https://a\n", "https://[", "javascript:alert(1)"],
)  # fmt: skip
def test_no_webhook_s_url(url: str) -> None:
    assert not is_webhook_url(url)
    with pytest.raises(IntegrationError) as refused:
        parse(NewSubscription, {"webhook": {"url": url}})
    assert url == "" or url not in str(refused.value)
