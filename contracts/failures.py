"""How failures look on the wire; `contracts.errors` says what they mean."""

from __future__ import annotations

from pydantic import Field

from integration_service.contracts.wire import AnswerModel, JsonObject


class Failure(AnswerModel):
    """The first detail of the ApplicationError that a caller gets; the error's type is the same `code`.

    `details` holds `path` where one thing is wrong, and what else the code's description says; never a value.
    """

    code: str = Field(pattern=r"^[A-Z][A-Z0-9_]*$")
    message: str
    retryable: bool
    details: JsonObject


class Refusal(AnswerModel):
    """The body of the gateway's 4xx and 5xx, and with `--json` the error line of a command."""

    code: str = Field(pattern=r"^[A-Z][A-Z0-9_]*$")
    message: str
    path: str | None = None
