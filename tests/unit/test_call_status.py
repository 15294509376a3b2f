"""What `ExecuteMethod` says of itself, to people and to programs: each refusal tells what to do about it."""

from __future__ import annotations

import shlex
import uuid
from datetime import UTC, datetime

import pytest
from click import Command, Context, Group

from integration_service.cli.main import integrations
from integration_service.contracts.call_page import call_page
from integration_service.contracts.call_status import UNREAD, CallStatus, starts
from integration_service.contracts.calls import MethodCall, MethodResult, ResolvedMethod
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.retry import RetryConfig
from integration_service.contracts.wire import parse

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
ID = str(uuid.uuid4())
RETRY = RetryConfig(max_retries=3, backoff_multiplier=2, initial_delay_ms=1, max_delay_ms=1)
RESOLVED = ResolvedMethod(
    instance_id=ID, definition="github", definition_version="1.2.0", method="get", retry=RETRY, timeout_ms=1
)


def _begun(**call: object) -> CallStatus:
    given = parse(MethodCall, {"instanceId": "acme's", "method": "get", **call})
    return starts(given, deadline=NOW, called_by="report")


def _commands(text: str) -> list[list[str]]:
    spans = text.split("`")[1::2]
    return [shlex.split(span) for span in spans if span.startswith("integrations ")]


def test_a_call_from_its_start_to_its_end() -> None:
    started = _begun(correlationId="c-17")
    page = call_page(started)
    assert page.startswith("## Starts\n")
    assert "- Method: `get` of instance `acme's`" in page
    known = started.known(RESOLVED)
    runs = known.runs(spent=1)
    page = call_page(runs)
    assert "- Method: `github.get`, definition version `1.2.0`" in page
    assert f"- Instance: `acme's`, `{ID}`, workflow `connection:{ID}`" in page
    assert "- Tries that earlier activities spent: 1 of 4" in page
    assert "- Called by workflow `report`" in page
    waits = runs.waits(IntegrationError(ErrorCode.RATE_LIMITED, "planted"), NOW, spent=2)
    assert waits.to_wire() == {
        "state": "WAITING",
        "why": (
            "The rate limit is used up. (`RATE_LIMITED`) The call then goes on by itself, and this spends none of its "
            "retries."
        ),
        "whatToDo": "nothing, unless it lasts. Wait, or call less often.",
        "instance": "acme's",
        "scope": "global",
        "method": "get",
        "instanceId": ID,
        "definition": "github",
        "definitionVersion": "1.2.0",
        "triesSpent": 2,
        "maxTries": 4,
        "code": "RATE_LIMITED",
        "until": "2026-03-01T12:00:30.000Z",
        "deadline": "2026-03-01T12:00:30.000Z",
        "calledBy": "report",
        "correlationId": "c-17",
    }
    assert call_page(waits).startswith("## Waits until 2026-03-01 12:00:30 UTC\n")
    result = MethodResult(
        data={"planted": 1}, status_code=200, attempts=3, duration_ms=1, definition="g", definition_version="1.0.0"
    )
    done = waits.done(result)
    assert (done.state, done.code, done.until) == ("DONE", None, None)
    assert "The upstream answered: HTTP 200, tries: 3." in call_page(done)
    assert call_page(runs.cancelled()).startswith("## Cancelled\n")
    assert "planted" not in str([one.to_wire() for one in (waits, done)])


def test_a_parked_call_says_how_a_person_connects_the_instance() -> None:
    status = _begun(scope="team a").known(RESOLVED).parked("REAUTH_REQUIRED", NOW)
    page = call_page(status)
    assert "It is given up at 2026-03-01 12:00:30 UTC." in page
    assert _commands(status.what_to_do) == [["integrations", "instance", "connect-link", ID, "--scope", "team a"]]
    assert status.what_to_do in page


@pytest.mark.parametrize(
    ("error", "command", "wrong"),
    [
        (
            IntegrationError("VALIDATION_ERROR", "unknown key", path="nope"),
            "integrations schema MethodCall",
            "The input does not fit: unknown key. (`nope`)",
        ),
        (
            IntegrationError("INSTANCE_NOT_FOUND", "no instance acme", path="instanceId"),
            "integrations instance list --scope global",
            "There is no such instance in that scope: no instance acme.",
        ),
        (
            IntegrationError("METHOD_NOT_FOUND", "github has no method got", path="method"),
            "integrations instance show",
            "The instance's version has no such method: github has no method got.",
        ),
        (
            IntegrationError("INSTANCE_NOT_CONNECTED", "i is DISCONNECTED", details={"status": "DISCONNECTED"}),
            "integrations instance reconnect",
            "The instance is not connected: i is DISCONNECTED.",
        ),
        (
            IntegrationError("INSTANCE_NOT_CONNECTED", "i waits", details={"status": "PENDING_AUTHENTICATION"}),
            "integrations instance connect-link",
            "The instance is not connected: i waits.",
        ),
        (
            IntegrationError("INSTANCE_NOT_CONNECTED", "i waits", details={"status": "PENDING_CONFIGURATION"}),
            "integrations instance configure",
            "The instance is not connected: i waits.",
        ),
        (
            IntegrationError("CONFIG_ERROR", "i is CONFIG_ERROR", details={"status": "CONFIG_ERROR"}),
            "integrations instance configure",
            "The instance's config does not fit: i is CONFIG\\_ERROR.",
        ),
        (
            IntegrationError("REAUTH_REQUIRED", "planted", details={"status": "AUTH_ERROR"}),
            "integrations instance connect-link",
            "The connection was lost.",
        ),
    ],
)
def test_a_refused_call_says_what_is_wrong_and_names_a_command_that_there_is(
    error: IntegrationError, command: str, wrong: str
) -> None:
    page = call_page(_begun().failed(error))
    assert page.startswith(f"## Failed: `{error.code}`\n")
    assert f"**What is wrong:** {wrong}" in page
    commands = _commands(page.split("**What to do:** ")[1])
    assert any(shlex.join(words).startswith(command) for words in commands)
    for words in commands:
        _exists(words[1:])
    assert "planted" not in page


def test_params_lead_to_the_schema_of_the_method() -> None:
    wrong = IntegrationError("VALIDATION_ERROR", "must be an integer", path="params.page_size")
    page = call_page(_begun().known(RESOLVED).failed(wrong))
    assert "The input does not fit: must be an integer. (`params.page_size`)" in page
    assert "Fix `params.page_size` and call again: `integrations definition show github` has the method's" in page


def test_an_input_that_cannot_be_read_at_all() -> None:
    page = call_page(UNREAD.failed(IntegrationError("VALIDATION_ERROR", "expected a JSON object, got a string")))
    assert page.endswith("`integrations schema MethodCall` shows what a call takes.")
    assert "The input does not fit: expected a JSON object, got a string." in page


def test_an_upstreams_words_are_in_neither() -> None:
    status = _begun().known(RESOLVED).failed(IntegrationError("HTTP_404", "planted words", details={"body": "planted"}))
    assert "planted" not in call_page(status) + str(status.to_wire())


def _exists(words: list[str]) -> None:
    command: Command = integrations
    for word in words:
        if not isinstance(command, Group):
            return
        found = command.get_command(Context(command), word)
        assert found is not None, words
        command = found
