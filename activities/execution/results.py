"""From an answer's data to the call's result: checked, and handed over or kept for the caller to fetch."""

from __future__ import annotations

from typing import Any

from integration_service.activities.execution.attempt import Attempt
from integration_service.activities.execution.redaction import redact
from integration_service.activities.execution.target import Progress
from integration_service.contracts.calls import MAX_RESULT_BYTES, MethodCall, MethodResult
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.large_results import LargeResults

_BESIDE_DATA = 64 * 1024
"""What partial errors and a page's token may add to a result that is handed over."""


class Results:
    """Makes results."""

    def __init__(self, large: LargeResults) -> None:
        self._large = large

    async def finish(
        self,
        data: Any,
        *,
        call: MethodCall,
        attempt: Attempt,
        progress: Progress,
        secrets: tuple[str, ...],
        errors: list[Any],
        next_page: str | None,
    ) -> MethodResult:
        """The result. `secrets` are taken out once more: a transform may have put them together, or found them in a
        header.

        Raises IntegrationError RESULT_VALIDATION_ERROR, or RESPONSE_TOO_LARGE where the caller wants no reference.
        """
        target = progress.resolved
        data, size = redact(data, secrets)
        target.method.result.check(
            data, at="data", code=ErrorCode.RESULT_VALIDATION_ERROR, what="the upstream's answer", first_only=True
        )
        errors, errors_size = redact(errors, secrets)
        if errors_size > _BESIDE_DATA:
            raise IntegrationError(
                ErrorCode.RESPONSE_TOO_LARGE, f"the errors beside the data are over {_BESIDE_DATA} bytes as JSON"
            )
        reference = None
        if size > MAX_RESULT_BYTES:
            if call.large_result != "reference":
                raise IntegrationError(
                    ErrorCode.RESPONSE_TOO_LARGE,
                    f"the result is {size} bytes as JSON, over {MAX_RESULT_BYTES}: ask for less, or call with "
                    'largeResult "reference"',
                )
            instance_id, body = target.instance.id, data
            reference = await attempt.insist(lambda: self._large.store(instance_id=instance_id, data=body))
            data = None
        return MethodResult(
            data=data,
            status_code=progress.status_code,
            attempts=attempt.tries,
            duration_ms=progress.duration_ms(),
            definition=target.compiled.definition.name,
            definition_version=target.compiled.definition.version,
            errors=errors or None,
            next_page=next_page,
            result_ref=reference,
        )
