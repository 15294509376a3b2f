"""One attempt at one method call: load, validate, cache, transform, build, authenticate, limit, send, parse,
transform, validate, record."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from integration_service.activities.adapters import Parsed
from integration_service.activities.auth import authenticate
from integration_service.activities.execution.answers import Answers
from integration_service.activities.execution.attempt import Attempt
from integration_service.activities.execution.caching import ResponseCache
from integration_service.activities.execution.compiled import CompiledDefinitions
from integration_service.activities.execution.expiry import is_refused_as_expired
from integration_service.activities.execution.pagination import Page, PageTokens
from integration_service.activities.execution.recording import Recorder
from integration_service.activities.execution.redaction import redact
from integration_service.activities.execution.results import Results
from integration_service.activities.execution.sending import Sender, Sent
from integration_service.activities.execution.target import Progress, Target
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.activities.transforms import Transforms
from integration_service.contracts.calls import MethodCall, MethodResult
from integration_service.contracts.credentials import IntegrationCredential
from integration_service.contracts.errors import UNEXPECTED, ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject, check_json
from integration_service.storage.cache_key import CacheKey
from integration_service.storage.instances import Instances

_BESIDE_THE_SENDS = timedelta(seconds=15)
_TRANSFORM = timedelta(seconds=1)
_A_LOT = 2 * 1024 * 1024
_MAX_PAGED_BYTES = 10 * 1024 * 1024


class MethodPipeline:
    """Runs attempts. Holds what they need; keeps nothing of them."""

    def __init__(
        self,
        *,
        instances: Instances,
        definitions: CompiledDefinitions,
        sender: Sender,
        answers: Answers,
        transforms: Transforms,
        cache: ResponseCache,
        page_tokens: PageTokens,
        results: Results,
        recorder: Recorder,
    ) -> None:
        self._instances = instances
        self._definitions = definitions
        self._sender = sender
        self._answers = answers
        self._transforms = transforms
        self._cache = cache
        self._page_tokens = page_tokens
        self._results = results
        self._recorder = recorder

    async def run(
        self,
        call: MethodCall,
        attempt: Attempt,
        progress: Progress,
        *,
        definition: str | None = None,
    ) -> MethodResult:
        """One attempt. `definition` is the one that the activity's type names.

        Raises IntegrationError; `progress` then tells how far it came. Either way the log has its row.
        """
        try:
            progress.target = await self._find(call, definition=definition)
            result = await self._run(call, attempt, progress)
        except asyncio.CancelledError:
            await asyncio.shield(self._recorder.record(call, attempt, progress, "CANCELLED"))
            raise
        except IntegrationError as error:
            await self._recorder.record(call, attempt, progress, error.code)
            raise
        except Exception:
            await self._recorder.record(call, attempt, progress, UNEXPECTED)
            raise
        await self._recorder.record(call, attempt, progress, None)
        return result

    async def _find(self, call: MethodCall, *, definition: str | None) -> Target:
        instance = await self._instances.for_call(call.scope, call.instance_id, method=call.method)
        compiled = await self._definitions.get(instance.definition_id)
        if definition is not None and definition != compiled.definition.name:
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR,
                f"the instance is one of {compiled.definition.name}, the activity's type names {definition}",
                path="instanceId",
            )
        config = compiled.merged_config(instance.config)
        return Target(instance, compiled, await compiled.ready(call.method or ""), config)

    async def _run(self, call: MethodCall, attempt: Attempt, progress: Progress) -> MethodResult:
        target = progress.resolved
        credential = await self._sender.open(progress)
        target.method.params.check(call.params, at="params", code=ErrorCode.VALIDATION_ERROR, what="the params object")
        first = await self._first_page(call, target)
        cache = target.method.method.cache
        if cache is None or progress.testing:
            return await self._fetch(call, attempt, progress, credential, first)
        return await self._cache.through(
            _cache_key(call, target, credential, first, shared=not cache.vary_by_instance),
            mode=call.cache,
            ttl=timedelta(milliseconds=cache.ttl_ms),
            claim_for=target.method.longest_fetch + _BESIDE_THE_SENDS,
            fetch=lambda: self._fetch(call, attempt, progress, credential, first),
        )

    async def _first_page(self, call: MethodCall, target: Target) -> Page:
        pages = target.method.pages
        if pages is None:
            if call.page is not None:
                raise IntegrationError(ErrorCode.VALIDATION_ERROR, "the method has no pages", path="page")
            return Page()
        if call.page is None:
            return pages.first()
        position = await self._page_tokens.open(
            call.page, instance_id=target.instance.id, method=target.method.method.name
        )
        return pages.at(position)

    async def _fetch(
        self,
        call: MethodCall,
        attempt: Attempt,
        progress: Progress,
        credential: IntegrationCredential | None,
        page: Page,
    ) -> MethodResult:
        method = progress.resolved.method
        credential = await self._sender.fresh(attempt, progress, credential)
        variables = await self._variables(call, progress.resolved)
        items: list[Any] = []
        errors: list[Any] = []
        size, following = 0, None
        for number in range(method.max_sends):
            await self._sender.take_place(attempt, progress, first=number == 0)
            sent, parsed = await self._ask(call, attempt, progress, credential, variables, page)
            credential = sent.credential
            errors += parsed.errors or ()
            data = await self._mapped(sent, parsed, progress.resolved)
            if method.pages is None:
                break
            found = await method.pages.items(data, self._evaluate)
            items += found
            size += len(sent.response.body)
            if size > _MAX_PAGED_BYTES:
                raise IntegrationError(
                    ErrorCode.RESPONSE_TOO_LARGE, f"the pages are over {_MAX_PAGED_BYTES} bytes: ask for less"
                )
            following = await method.pages.after(
                page, items=len(found), body=parsed.data, response=sent.response, evaluate=self._evaluate
            )
            if following is None:
                break
            page = following
        return await self._results.finish(
            data if method.pages is None else items,
            call=call,
            attempt=attempt,
            progress=progress,
            secrets=sent.secrets,
            errors=errors,
            next_page=await self._token(following, progress.resolved),
        )

    async def _ask(
        self,
        call: MethodCall,
        attempt: Attempt,
        progress: Progress,
        credential: IntegrationCredential | None,
        variables: JsonObject,
        page: Page,
    ) -> tuple[Sent, Parsed]:
        """One page, with one refresh and one more send for a token that is refused: neither spends a try."""
        while True:
            request = _request(call, attempt, progress.resolved, credential, variables | page.variables, page)
            sent = Sent(request, await self._sender.send(request, attempt, progress), credential)
            try:
                parsed = await self._answers.read(sent, progress.resolved)
            except IntegrationError as error:
                target = progress.resolved
                if error.code == ErrorCode.RATE_LIMITED:
                    progress.throttled = True
                    if error.retry_after is not None and sent.says_ok:
                        await self._sender.push(target, error.retry_after)  # the headers said nothing of it
                mendable = target.is_renewable and _is_refused(error, sent, target)
                if not (mendable and progress.renewing) or progress.renewed:
                    raise
                credential = await self._sender.renew(attempt, progress)
                continue
            if parsed.hold_back is not None:
                await self._sender.push(progress.resolved, parsed.hold_back)
            return sent, parsed

    async def _variables(self, call: MethodCall, target: Target) -> JsonObject:
        transform = target.method.method.request_transform
        if transform is None:
            return call.params
        at = f"{target.method.at}.requestTransform"
        variables = await self._evaluate(transform, at, {"params": call.params, "config": target.config})
        if not isinstance(variables, dict):
            raise IntegrationError(ErrorCode.TRANSFORM_ERROR, "must give an object: the request's variables", path=at)
        try:
            check_json(variables)
        except ValueError as error:
            raise IntegrationError(ErrorCode.TRANSFORM_ERROR, f"gives {error}", path=at) from None
        return variables

    async def _mapped(self, sent: Sent, parsed: Parsed, target: Target) -> Any:
        transform = target.method.method.response_transform
        if transform is None:
            return parsed.data
        return await self._transforms.evaluate(
            transform,
            parsed.data,
            at=f"{target.method.at}.responseTransform",
            # A large body takes its time, and its caller waited for it.
            within=_TRANSFORM + _TRANSFORM * (len(sent.response.body) / _A_LOT),
            bindings={"status": sent.response.status, "headers": redact(dict(sent.response.headers), sent.secrets)[0]},
        )

    async def _evaluate(self, expression: str, at: str, data: Any) -> Any:
        return await self._transforms.evaluate(expression, data, at=at)

    async def _token(self, following: Page | None, target: Target) -> str | None:
        if following is None:
            return None
        return await self._page_tokens.seal(following, instance_id=target.instance.id, method=target.method.method.name)


def _request(
    call: MethodCall,
    attempt: Attempt,
    target: Target,
    credential: IntegrationCredential | None,
    variables: JsonObject,
    page: Page,
) -> OutboundRequest:
    """The request for a page, the credential on it."""
    method = target.method
    request = page.of(
        method.adapter.build(params=variables, config=target.config, connection=_connection(credential) or {})
    )
    if (name := method.method.idempotency_header) is not None:
        request = request.with_header(name, call.idempotency_key or attempt.execution_key)
    return authenticate(request, credential, definition=target.compiled.definition, config=target.config)


def _connection(credential: IntegrationCredential | None) -> JsonObject | None:
    """What the token's answer told of the connection."""
    return credential.oauth2.connection if credential is not None and credential.oauth2 is not None else None


def _cache_key(
    call: MethodCall, target: Target, credential: IntegrationCredential | None, page: Page, *, shared: bool
) -> CacheKey:
    instance = target.instance
    return CacheKey.of(
        definition_id=instance.definition_id,
        method=target.method.method.name,
        scope=instance.scope,
        instance_id=instance.id,
        epoch=instance.credential.epoch if instance.credential else None,
        config=target.config,
        connection=_connection(credential),
        params=call.params,
        page=page.position,
        shared=shared,
    )


def _is_refused(error: IntegrationError, sent: Sent, target: Target) -> bool:
    """Whether the credential is refused in a way that a newer token may mend."""
    if error.code != ErrorCode.AUTH_ERROR or target.oauth is None or not target.oauth.automatic:
        return False
    return sent.says_ok or is_refused_as_expired(sent.response, target.oauth)
