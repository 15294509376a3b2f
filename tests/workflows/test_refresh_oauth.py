"""`RefreshOAuth` by itself, with time skipped: when it refreshes, how it waits, when it gives up."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.client import WorkflowUpdateStage as Stages
from temporalio.worker import Replayer

from integration_service.contracts.errors import ErrorCode, IntegrationError, from_failure
from integration_service.contracts.names import refresh_workflow_id
from integration_service.contracts.oauth import RefreshAnswer
from integration_service.plugin import IntegrationPlugin
from tests.refresh_stage import HOUR, Clock, Stage, raw, running_clock
from tests.waiting import eventually

pytestmark = pytest.mark.slow
whole_year = pytest.mark.skipif("SOAK" not in os.environ, reason="minutes long: SOAK=1 runs it")

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
_SLACK = timedelta(milliseconds=600)
"""What a loaded machine adds to a wait: while an activity runs, the server's time is the machine's."""


@pytest.fixture(scope="module")
async def clock() -> AsyncIterator[Clock]:
    async with running_clock() as running:
        yield running


def outage(**details: Any) -> IntegrationError:
    return IntegrationError(ErrorCode.UNAVAILABLE, "the provider gave no token answer (status 500)", **details)


def revoked(cause: str = "revoked") -> IntegrationError:
    return IntegrationError(
        ErrorCode.REAUTH_REQUIRED, "the provider refuses the refresh token (invalid_grant)", details={"cause": cause}
    )


# When it refreshes


@pytest.mark.parametrize("days", [3, pytest.param(365, marks=whole_year)])
async def test_hourly_tokens_are_refreshed_for_as_long_as_it_takes(clock: Clock, days: int) -> None:
    """Each before it expires, each once, the owner told of each, and no run's history long."""
    async with clock.stage() as stage:
        await clock.passes(timedelta(days=days))
        count = len(stage.requests)
        assert count >= days * 24
        assert [request.generation for request in stage.requests] == list(range(1, count + 1))
        assert all(request.at < request.expires_at for request in stage.requests if request.expires_at)
        heard = await stage.heard()
        assert [news["generation"] for news in heard] == list(range(2, count + 2))
        assert {news["code"] for news in heard} == {"REFRESHED"}
        assert all(news["token"]["nextRefreshAt"] < news["token"]["expiresAt"] for news in heard)
        histories = await stage.histories()
        assert len(histories) > 1
        assert max(len(history.events) for history in histories) < 2000
        for history in histories[:: max(1, len(histories) // 4)]:
            await Replayer(workflows=[], plugins=[IntegrationPlugin()]).replay_workflow(history)


@settings(max_examples=25, deadline=None)
@given(
    lives=st.integers(min_value=10, max_value=90 * 24 * 3600),
    margin_ms=st.integers(min_value=0, max_value=3 * 24 * 3600 * 1000),
)
async def test_the_margin_is_at_most_half_the_lifetime_and_jittered(clock: Clock, lives: int, margin_ms: int) -> None:
    async with clock.stage(lives=timedelta(seconds=lives), margin_ms=margin_ms) as stage:
        token = stage.current
        assert token is not None
        assert token.expires_at is not None
        margin = min(timedelta(milliseconds=margin_ms), timedelta(seconds=lives) / 2)
        due, rounded = _time((await stage.status())["due"]), timedelta(milliseconds=1)
        assert token.expires_at - margin - rounded <= due <= token.expires_at - margin * 0.6 + rounded


async def test_tokens_that_expire_together_are_not_refreshed_together(clock: Clock) -> None:
    async with clock.stage() as stage:
        dues = set()
        for _ in range(10):
            await stage.changed(await stage.replace())
            dues.add((await stage.status())["due"])
        assert len(dues) == 10


@pytest.mark.parametrize(
    "token",
    [{"lives": None}, {"automatic": False}, {"renewable": False}],
    ids=["no expiry", "strategy manual", "nothing to refresh with"],
)
async def test_what_is_never_refreshed_by_timer(clock: Clock, token: dict[str, Any]) -> None:
    async with clock.stage(**token) as stage:
        await clock.passes(30 * DAY)
        assert "due" not in await stage.status()
        assert stage.requests == []
        assert (await stage.ask()).generation == 2
        await clock.passes(30 * DAY)
        assert len(stage.requests) == 1
        (news,) = await stage.heard()
        assert "nextRefreshAt" not in news["token"]


async def test_tokens_that_are_born_dead_are_not_asked_for_without_end(clock: Clock) -> None:
    """A provider whose clock is wrong, or whose `expires_in` is 0: whoever calls asks, no timer does."""
    async with clock.stage(lives=timedelta(0)) as stage:
        await clock.passes(DAY)
        assert len(stage.requests) == 1
        assert (await stage.ask(2)).generation == 3


async def test_tokens_that_live_for_a_moment_are_not_asked_for_in_a_rush(clock: Clock) -> None:
    async with clock.stage(lives=timedelta(milliseconds=400)) as stage:
        await clock.passes(timedelta(seconds=30))
        assert 1 <= len(stage.requests) <= 30


# How it waits


async def test_waits_after_failures_grow_to_a_minute_and_begin_anew(clock: Clock) -> None:
    async with clock.stage() as stage:
        stage.script.extend([outage()] * 9)
        await clock.passes(HOUR + timedelta(minutes=10))
        assert _gaps(stage) == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert {request.generation for request in stage.requests} == {1}
        stage.script.append(outage())
        await clock.passes(HOUR)
        assert _gaps(stage)[-1] == 1
        status = await stage.status()
        assert (status["failures"], status.get("failure")) == (0, None)
        assert [news["code"] for news in await stage.heard()] == ["REFRESHED", "REFRESHED"]


@pytest.mark.parametrize(("asked", "waits"), [(120_000, 120), (3_600_000, 3600)])
async def test_a_provider_that_names_a_wait_gets_it(clock: Clock, asked: int, waits: int) -> None:
    async with clock.stage() as stage:
        throttled = IntegrationError(ErrorCode.RATE_LIMITED, "429", retry_after=timedelta(milliseconds=asked))
        stage.script.extend([throttled, throttled])
        await clock.passes(4 * HOUR)
        assert _gaps(stage)[:2] == [waits, waits]


async def test_a_provider_that_names_no_wait_at_all_is_not_hammered(clock: Clock) -> None:
    async with clock.stage() as stage:
        stage.script.append(IntegrationError(ErrorCode.RATE_LIMITED, "429", retry_after=timedelta(0)))
        await clock.passes(HOUR)
        assert _gaps(stage) == [1]


async def test_a_bug_in_the_activity_is_waited_out(clock: Clock) -> None:
    async with clock.stage() as stage:
        stage.script.extend([RuntimeError("a bug"), KeyError("another")])
        await clock.passes(HOUR)
        assert _gaps(stage) == [1, 2]
        assert (await stage.status())["token"]["generation"] == 2
        assert [news["code"] for news in await stage.heard()] == ["REFRESHED"]


async def test_a_call_is_told_how_long_to_wait_and_a_person_need_not(clock: Clock) -> None:
    async with clock.stage() as stage:
        stage.script.append(IntegrationError(ErrorCode.RATE_LIMITED, "429", retry_after=timedelta(minutes=5)))
        first = await stage.ask(1)
        assert first.generation == 1
        assert 290_000 < (first.retry_after_ms or 0) <= 300_000
        again = await stage.ask(1)
        assert (again.generation, again.retry_at) == (1, first.retry_at)
        assert len(stage.requests) == 1
        assert (await stage.ask()).generation == 2  # somebody asks without a generation: at once
        answer = await stage.ask(1)
        assert (answer.generation, answer.retry_after_ms) == (2, None)
        assert len(stage.requests) == 2


# When it gives up


@pytest.mark.parametrize("cause", ["revoked", "outcome_unknown"])
async def test_a_dead_grant_stops_the_timer_and_is_told_once(clock: Clock, cause: str) -> None:
    async with clock.stage() as stage:
        stage.script.extend([revoked(cause)] * 3)
        await clock.passes(7 * DAY)
        assert len(stage.requests) == 1
        assert await stage.heard() == [{"generation": 1, "code": "REAUTH_REQUIRED", "cause": cause}]
        status = await stage.status()
        assert status["failure"]["final"] is True
        assert "due" not in status
        for seen in (None, 1):
            error = await _refusal(stage.ask(seen))
            assert (error.code, error.details) == ("REAUTH_REQUIRED", {"cause": cause})
        assert len(stage.requests) == 1


async def test_the_call_that_meets_the_dead_grant_is_told_too(clock: Clock) -> None:
    async with clock.stage() as stage:
        stage.script.append(revoked())
        assert (await _refusal(stage.ask(1))).code == "REAUTH_REQUIRED"
        assert len(await stage.heard()) == 1


async def test_only_a_new_authorization_revives_it(clock: Clock) -> None:
    async with clock.stage() as stage:
        stage.script.extend([revoked(), revoked()])
        await clock.passes(DAY)
        old = stage.current
        assert old is not None
        await stage.changed(old)  # the owner was tested, or started again: once more, and no oftener
        await clock.passes(DAY)
        assert [request.generation for request in stage.requests] == [1, 1]
        assert (await _refusal(stage.ask())).code == "REAUTH_REQUIRED"
        await stage.changed(await stage.replace())
        status = await stage.status()
        assert status["token"]["generation"] == 2
        assert "failure" not in status
        await clock.passes(HOUR)
        assert [request.generation for request in stage.requests] == [1, 1, 2]
        assert [news["code"] for news in await stage.heard()] == ["REAUTH_REQUIRED", "REAUTH_REQUIRED", "REFRESHED"]


async def test_an_authorization_during_a_failing_request_counts(clock: Clock) -> None:
    async with clock.stage() as stage:
        stage.script.append(revoked())
        stage.open.clear()
        asked = asyncio.ensure_future(stage.ask(1))
        await eventually(lambda: _requests(stage, 1))
        await stage.changed(await stage.replace())
        stage.open.set()
        assert (await asked).generation == 2
        assert await stage.heard() == []
        assert "failure" not in await stage.status()


async def test_old_news_of_the_credential_changes_nothing(clock: Clock) -> None:
    """The owner may tell a token that was refreshed while it did so."""
    async with clock.stage() as stage:
        old = stage.current
        assert old is not None
        assert (await stage.ask()).generation == 2
        planned = (await stage.status())["due"]
        await stage.changed(old)
        status = await stage.status()
        assert (status["token"]["generation"], status["due"]) == (2, planned)
        assert (await stage.ask(2)).generation == 3


async def test_the_same_news_again_changes_nothing(clock: Clock) -> None:
    """The owner tells the token as it knows it whenever it is tested: with the time of the next refresh."""
    async with clock.stage() as stage:
        stage.script.append(IntegrationError(ErrorCode.RATE_LIMITED, "429", retry_after=timedelta(minutes=5)))
        assert (await stage.ask()).retry_after_ms
        before, same = await stage.status(), stage.current
        assert same is not None
        await stage.changed(same)
        await stage.changed(same.model_copy(update={"next_refresh_at": await clock.now()}))
        assert await stage.status() == before


async def test_stop_ends_it(clock: Clock) -> None:
    async with clock.stage() as stage:
        await stage.refresher.signal("stop")
        await stage.refresher.result()
        assert stage.requests == []


async def test_what_is_needed_again_while_it_stops_goes_on(clock: Clock) -> None:
    async with clock.stage() as stage:
        stage.open.clear()
        asked = asyncio.ensure_future(stage.ask())
        await eventually(lambda: _requests(stage, 1))
        await stage.refresher.signal("stop")
        await stage.changed(await stage.replace())
        stage.open.set()
        assert (await asked).generation == 2
        await clock.passes(HOUR)
        assert (await stage.refresher.describe()).status is WorkflowExecutionStatus.RUNNING
        assert [request.generation for request in stage.requests] == [1, 2]


async def test_a_deleted_instance_ends_it(clock: Clock) -> None:
    async with clock.stage() as stage:
        stage.script.append(IntegrationError(ErrorCode.INSTANCE_NOT_FOUND, "there is no such instance"))
        await clock.passes(4 * HOUR)
        assert (await stage.refresher.describe()).status is WorkflowExecutionStatus.COMPLETED
        assert len(stage.requests) == 1


async def test_it_goes_on_without_an_owner(clock: Clock) -> None:
    async with clock.stage() as stage:
        await stage.owner.signal("leave")
        await eventually(lambda: stage.has_ended(stage.owner))
        await clock.passes(4 * HOUR)
        assert len(stage.requests) >= 4


# What is asked of it


async def test_a_stale_caller_is_answered_without_a_request(clock: Clock) -> None:
    async with clock.stage() as stage:
        assert (await stage.ask(1)).generation == 2
        answers = await asyncio.gather(*(stage.ask(1) for _ in range(5)))
        assert {answer.generation for answer in answers} == {2}
        assert all(answer.expires_at == stage.current.expires_at for answer in answers if stage.current)
        assert len(stage.requests) == 1


async def test_a_stale_caller_is_answered_while_a_request_is_under_way(clock: Clock) -> None:
    async with clock.stage(lives=None) as stage:
        await stage.ask()
        stage.open.clear()
        under_way = asyncio.create_task(stage.ask())
        await eventually(lambda: _requests(stage, 2))
        assert (await asyncio.wait_for(stage.ask(1), timeout=5)).generation == 2
        assert not under_way.done()
        stage.open.set()
        assert (await under_way).generation == 3


async def test_a_token_that_was_stored_unnoticed_is_learnt_of(clock: Clock) -> None:
    """The worker was lost between its write and its answer; a call met the new token refused."""
    async with clock.stage() as stage:
        await stage.replace()
        answer = await stage.ask(2)
        assert answer.generation == 3
        assert [request.generation for request in stage.requests] == [2]


@whole_year
async def test_a_flood_of_questions_makes_no_history_long(clock: Clock) -> None:
    async with clock.stage() as stage:
        assert (await stage.ask(1)).generation == 2
        for _ in range(600):
            assert (await stage.ask(1)).generation == 2
        histories = await stage.histories()
        assert len(histories) > 1
        assert max(len(history.events) for history in histories) < 2000
        assert len(stage.requests) == 1


@pytest.mark.parametrize("seen", [(None, None), (1, None), (1, 1)], ids=["by hand", "mixed", "by calls"])
async def test_two_at_once_make_one_request(clock: Clock, seen: tuple[int | None, ...]) -> None:
    async with clock.stage() as stage:
        stage.open.clear()
        asked = [
            await stage.refresher.start_update(
                "refresh",
                {} if generation is None else {"seenGeneration": generation},
                wait_for_stage=Stages.ACCEPTED,
                result_type=RefreshAnswer,
            )
            for generation in seen
        ]
        await eventually(lambda: _requests(stage, 1))
        stage.open.set()
        assert [(await update.result()).generation for update in asked] == [2, 2]
        assert len(stage.requests) == 1


async def test_what_is_asked_before_the_token_is_loaded_waits(clock: Clock) -> None:
    async with clock.stage(loads=True) as stage:
        stage.open.clear()
        assert await stage.status() == {}
        update = await stage.refresher.start_update(
            "refresh", {"seenGeneration": 0}, wait_for_stage=Stages.ACCEPTED, result_type=RefreshAnswer
        )
        assert stage.loads == 0
        stage.open.set()
        answer: RefreshAnswer = await update.result()
        assert (answer.generation, stage.loads, stage.requests) == (1, 1, [])


async def test_an_instance_without_a_token_fails_it_and_all_who_wait(clock: Clock) -> None:
    async with clock.stage(loads=True) as stage:
        stage.current = None
        stage.open.clear()
        update = await stage.refresher.start_update("refresh", {}, wait_for_stage=Stages.ACCEPTED)
        stage.open.set()
        assert (await _refusal(update.result())).code == "INSTANCE_NOT_CONNECTED"
        assert (await _refusal(stage.refresher.result())).code == "INSTANCE_NOT_CONNECTED"


@pytest.mark.parametrize("message", [{"seenGeneration": -1}, {"seenGeneration": "x"}, {"seen": 1}, [], "now", 7])
async def test_an_update_that_cannot_be_read_is_refused(clock: Clock, message: Any) -> None:
    async with clock.stage() as stage:
        refused = await _refusal(stage.refresher.execute_update("refresh", message))
        assert refused.code == "VALIDATION_ERROR"
        assert stage.requests == []


@pytest.mark.parametrize("message", [None, {}, {"token": {"generation": -1}}, [], "token", {"token": {}, "more": 1}])
async def test_a_signal_that_cannot_be_read_is_passed_over(clock: Clock, message: Any) -> None:
    async with clock.stage() as stage:
        before = await stage.status()
        await stage.refresher.signal("credential_changed", message)
        assert await stage.status() == before


@pytest.mark.parametrize(
    "wanted",
    [
        [],
        [None],
        [7],
        ["text"],
        [[]],
        [{}],
        [{"instanceId": "x", "scope": "global"}],
        [{"instanceId": str(uuid.UUID(int=1)), "scope": "global", "more": 1}],
        [{"wanted": {}, "state": {}}],
        [raw(b"{not json")],
        [raw(b"\xff")],
    ],
    ids=["none", "null", "number", "text", "array", "empty", "no uuid", "unknown key", "a state", "no JSON", "no text"],
)
async def test_bad_input_fails_it_and_does_not_hang_it(clock: Clock, wanted: list[Any]) -> None:
    handle = await clock.start(*wanted, id=f"oauth-refresh:{uuid.uuid4()}")
    assert (await _refusal(handle.result())).code == "VALIDATION_ERROR"


async def test_under_a_wrong_id_it_fails_and_says_why(clock: Clock) -> None:
    instance_id = str(uuid.uuid4())
    handle = await clock.start({"instanceId": instance_id, "scope": "global"}, id="anything")
    error = await _refusal(handle.result())
    assert (error.code, error.path) == ("VALIDATION_ERROR", "instanceId")
    assert refresh_workflow_id(instance_id) in error.message


# What tests share


async def _refusal(asked: Awaitable[Any]) -> IntegrationError:
    with pytest.raises((WorkflowUpdateFailedError, WorkflowFailureError)) as caught:
        await asked
    error = from_failure(caught.value.cause)
    assert error is not None, repr(caught.value.cause)
    return error


async def _requests(stage: Stage, count: int) -> bool:
    return len(stage.requests) >= count


def _gaps(stage: Stage) -> list[int]:
    """Seconds between requests of one generation."""
    found = []
    for one, next_one in pairwise(stage.requests):
        if one.generation == next_one.generation:
            gap = next_one.at - one.at
            whole = gap // SECOND
            assert gap - whole * SECOND < _SLACK, gap
            found.append(whole)
    return found


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
