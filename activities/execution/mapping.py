"""A definition's JSONata around a call: params into variables, answers into data."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from integration_service.activities.adapters import Parsed
from integration_service.activities.execution.attempt import Attempt
from integration_service.activities.execution.pagination import Evaluate
from integration_service.activities.execution.redaction import redact
from integration_service.activities.execution.sending import Sent
from integration_service.activities.execution.target import Target
from integration_service.activities.transforms import Transforms
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject, check_json

_WITHIN = timedelta(seconds=1)
_LARGE = 2 * 1024 * 1024


class Mapping:
    """Runs the transforms of a method."""

    def __init__(self, transforms: Transforms) -> None:
        self._transforms = transforms

    async def variables(self, call: MethodCall, target: Target) -> JsonObject:
        """What the request is made of. Raises IntegrationError TRANSFORM_ERROR."""
        transform = target.method.method.request_transform
        if transform is None:
            return call.params
        at = f"{target.method.at}.requestTransform"
        given = {"params": call.params, "config": target.config}
        variables = await self._transforms.evaluate(transform, given, at=at, owner=target.instance.id)
        if not isinstance(variables, dict):
            raise IntegrationError(ErrorCode.TRANSFORM_ERROR, "must give an object: the request's variables", path=at)
        try:
            check_json(variables)
        except ValueError as error:
            raise IntegrationError(ErrorCode.TRANSFORM_ERROR, f"gives {error}", path=at) from None
        return variables

    async def data(self, sent: Sent, parsed: Parsed, target: Target, attempt: Attempt) -> Any:
        """What an answer amounts to. Raises IntegrationError TRANSFORM_ERROR."""
        transform = target.method.method.response_transform
        if transform is None:
            return parsed.data
        response = sent.response
        bindings = {"status": response.status, "headers": redact(dict(response.headers), sent.secrets)[0]}
        return await attempt.insist(
            lambda: self._transforms.evaluate(
                transform,
                parsed.data,
                at=f"{target.method.at}.responseTransform",
                owner=target.instance.id,
                # A large body takes its time, and its caller waited for it.
                within=_WITHIN * (1 + len(response.body) / _LARGE),
                bindings=bindings,
            )
        )

    def evaluator(self, target: Target, attempt: Attempt) -> Evaluate:
        """For expressions over what an upstream answered."""

        async def evaluate(expression: str, at: str, data: Any) -> Any:
            return await attempt.insist(
                lambda: self._transforms.evaluate(expression, data, at=at, owner=target.instance.id)
            )

        return evaluate
