"""Method calls: what callers send and what they get."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from integration_service.contracts.definitions import MAX_TIMEOUT_MS
from integration_service.contracts.names import DEFAULT_SCOPE, DefinitionName, MethodName, Scope, SemVer, Uuid
from integration_service.contracts.retry import RetryConfig
from integration_service.contracts.wire import AnswerModel, JsonObject, Timestamp, WireModel

DAY_MS = 24 * 3600 * 1000
MAX_RESULT_BYTES = 1024 * 1024
"""An encoded result above this is RESPONSE_TOO_LARGE: Temporal would refuse 2 MiB and run the call again."""


class MethodPlan(AnswerModel):
    """How a method's activity is scheduled: its retry policy and its time. A published version's never changes.

    `ExecuteMethod` looks it up for each call, unless the call brings it.
    """

    definition: DefinitionName
    definition_version: SemVer
    retry: RetryConfig
    timeout_ms: int = Field(ge=1, le=MAX_TIMEOUT_MS)
    """All sends of one attempt together."""


def _plan_kind(value: Any) -> str:
    return "<wanted>" if value == "wanted" else "<plan>"


_PlanOrWanted = Annotated[
    Annotated[MethodPlan, Tag("<plan>")] | Annotated[Literal["wanted"], Tag("<wanted>")], Discriminator(_plan_kind)
]


class MethodCall(WireModel):
    """One call of one method of one instance. `method` may be left out where the activity's type names it.

    `plan` is the one that the result of an earlier call of the method brought, or "wanted" to be given one. It is
    checked before anything is sent: with one that is not of the instance's version the call takes a detour.
    """

    instance_id: str = Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")
    scope: Scope = DEFAULT_SCOPE
    method: MethodName | None = None
    params: JsonObject = Field(default_factory=dict)
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")
    cache: Literal["use", "bypass", "refresh"] = "use"
    on_auth_error: Literal["fail", "wait"] = "fail"
    wait_timeout_ms: int | None = Field(default=None, ge=1)
    deadline_ms: int = Field(default=DAY_MS, ge=1, le=365 * DAY_MS)
    large_result: Literal["fail", "reference"] = "fail"
    page: Any | None = None
    correlation_id: str | None = Field(default=None, max_length=255, pattern=r"^[^\x00]*$")
    plan: _PlanOrWanted | None = None


RESULTS_PATH = "/v1/results/"
"""Where the gateway serves large results, by id."""


class ResultRef(AnswerModel):
    """A result that is too large to be handed over: what `GET url` with a bearer token gives.

    `sha256` (hex) and `bytes` are of the body: the JSON of `data`, or the raw bytes of a binary result.
    """

    id: Uuid
    url: str
    sha256: str
    bytes: int
    expires_at: Timestamp


class MethodResult(AnswerModel):
    """What a call gave. `attempts` counts the sends that spent a try."""

    always_present: ClassVar[frozenset[str]] = frozenset({"data"})

    data: Any
    status_code: int
    cached: bool = False
    cache_age_ms: int | None = None
    attempts: int
    duration_ms: int
    definition: str
    definition_version: str
    errors: list[Any] | None = None
    next_page: Any | None = None
    result_ref: ResultRef | None = None
    plan: MethodPlan | None = None
    """From `ExecuteMethod`, for calls to come: where this one wanted a plan, or brought one that was not right."""


class ResolvedMethod(MethodPlan):
    """What `ExecuteMethod` must know to schedule the activity; no config, no secret."""

    instance_id: Uuid
    method: MethodName
    cacheable: bool = False
    """Its answers may be found by looking it up: no plan is given away."""
    answer: MethodResult | None = None
    """The cached one: then no activity is scheduled."""

    @property
    def plan(self) -> MethodPlan:
        return MethodPlan(
            definition=self.definition,
            definition_version=self.definition_version,
            retry=self.retry,
            timeout_ms=self.timeout_ms,
        )


class Continuation(AnswerModel):
    """What `ExecuteMethod` hands to the activity beside the call.

    Its presence says that the caller waits on a durable timer when told to, so a throttle spends no retry.
    `executionKey` is the same for all activities of one execution; `triesSpent` is what earlier ones used up.
    """

    execution_key: Uuid
    tries_spent: int = Field(default=0, ge=0)
    reserved: bool = False
    """The wait before this run was for a place in the rate limit, which it now takes."""
    plan: MethodPlan | None = None
    """What the caller says of the method, and nobody has looked up."""


class Park(AnswerModel):
    """Local activity `park`: this workflow waits for the instance to be connected."""

    instance_id: Uuid
    scope: Scope


class CarriedFailure(AnswerModel):
    """Why a call is parked."""

    code: str
    message: str
    details: JsonObject = Field(default_factory=dict)


class CarriedPark(AnswerModel):
    """A call that waits for its instance. `away` says that a look found the instance not connected: once it is, the
    call goes on at once."""

    failure: CarriedFailure
    since: Timestamp
    away: bool = False


class CarriedCall(AnswerModel):
    """What one run of `ExecuteMethod` hands to the next; times are absolute."""

    deadline: Timestamp
    resolved: ResolvedMethod | None = None
    until: Timestamp | None = None
    """How long refusals are waited out."""
    spent: int = Field(default=0, ge=0)
    waits: int = Field(default=0, ge=0)
    lost: int = Field(default=0, ge=0)
    reserved: bool = False
    looks: int = Field(default=0, ge=0)
    park: CarriedPark | None = None


class Parked(AnswerModel):
    """How the instance stood once the waiter was noted: a connection that came before it is not missed."""

    connected: bool
    generation: int = Field(ge=0)
