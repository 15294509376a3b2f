"""One attempt at one method call: load, validate, cache, transform, build, authenticate, limit, send, parse,
transform, validate, record."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from pydantic_core import to_json

from integration_service.activities.adapters import Parsed
from integration_service.activities.auth import authenticate
from integration_service.activities.execution.answers import Answers
from integration_service.activities.execution.attempt import Attempt
from integration_service.activities.execution.caching import ResponseCache
from integration_service.activities.execution.compiled import CompiledDefinitions
from integration_service.activities.execution.expiry import is_refused_as_expired
from integration_service.activities.execution.mapping import Mapping
from integration_service.activities.execution.pagination import Page, PageTokens
from integration_service.activities.execution.recording import Recorder
from integration_service.activities.execution.results import Results
from integration_service.activities.execution.sending import Sender, Sent
from integration_service.activities.execution.target import Progress, Target
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.calls import MethodCall, MethodResult
from integration_service.contracts.credentials import IntegrationCredential
from integration_service.contracts.errors import UNEXPECTED, Decision, ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject
from integration_service.storage.cache_key import CacheKey
from integration_service.storage.instances import InstanceForCall, Instances

_BESIDE_THE_SENDS = timedelta(seconds=15)
_PAGE_REFUSALS = 3
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
        mapping: Mapping,
        cache: ResponseCache,
        page_tokens: PageTokens,
        results: Results,
        recorder: Recorder,
    ) -> None:
        self._instances = instances
        self._definitions = definitions
        self._sender = sender
        self._answers = answers
        self._mapping = mapping
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
        instance: InstanceForCall | None = None,
    ) -> MethodResult:
        """One attempt. `definition` is the one that the activity's type names, `instance` one that was just read.

        Raises IntegrationError; `progress` then tells how far it came. Either way the log has its row.
        """
        try:
            progress.target = await self.find(call, definition=definition, instance=instance)
            result = await self._run(call, attempt, progress)
        except asyncio.CancelledError:
            await asyncio.shield(self._recorder.record(call, attempt, progress, "CANCELLED"))
            raise
        except IntegrationError as error:
            error = _final(error, progress)
            await self._recorder.record(call, attempt, progress, error.code)
            raise error from None
        except Exception:
            await self._recorder.record(call, attempt, progress, UNEXPECTED)
            raise
        await self._recorder.record(call, attempt, progress, None)
        return result

    async def at_hand(self, call: MethodCall, attempt: Attempt, progress: Progress) -> MethodResult | None:
        """The cached answer to a call that was found, recorded like an attempt's. None where there is none to be had
        at once, for whatever reason: an attempt then says what is wrong, and does what is to be done.

        Raises IntegrationError UNAVAILABLE when it cannot be recorded.
        """
        target = progress.resolved
        cache = target.method.method.cache
        if cache is None or call.cache != "use":
            return None
        try:
            key = _cache_key(call, target, *await self._prepare(call, progress), shared=not cache.vary_by_instance)
            found = await self._cache.at_hand(key, ttl=timedelta(milliseconds=cache.ttl_ms))
        except IntegrationError:
            return None
        if found is not None:
            await self._recorder.record(call, attempt, progress, None)
        return found

    async def find(
        self, call: MethodCall, *, definition: str | None = None, instance: InstanceForCall | None = None
    ) -> Target:
        """The instance, its definition and the method. Raises IntegrationError that says what is missing."""
        if instance is None:
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
        credential, first = await self._prepare(call, progress)
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

    async def _prepare(self, call: MethodCall, progress: Progress) -> tuple[IntegrationCredential | None, Page]:
        """The credential and the page to begin with, once the params are in order."""
        target = progress.resolved
        credential = await self._sender.open(progress)
        target.method.params.check(call.params, at="params", code=ErrorCode.VALIDATION_ERROR, what="the params object")
        return credential, await self._first_page(call, target)

    async def _first_page(self, call: MethodCall, target: Target) -> Page:
        pages = target.method.pages
        if pages is None:
            if call.page is not None:
                raise IntegrationError(ErrorCode.VALIDATION_ERROR, "the method has no pages", path="page")
            return Page()
        if call.page is None:
            return pages.first()
        position = await self._page_tokens.open(call.page, owner=_page_owner(target), method=target.method.method.name)
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
        variables = await self._mapping.variables(call, progress.resolved)
        evaluate = self._mapping.evaluator(progress.resolved, attempt)
        items: list[Any] = []
        errors: list[Any] = []
        size, following = 0, None
        for number in range(method.max_sends):
            await self._sender.take_place(attempt, progress, first=number == 0)
            sent, parsed = await self._ask(call, attempt, progress, credential, variables, page)
            credential = sent.credential
            errors += parsed.errors or ()
            data = await self._mapping.data(sent, parsed, progress.resolved, attempt)
            if method.pages is None:
                break
            found = await method.pages.items(data, evaluate)
            items += found
            # A transform can make much of little.
            size += max(len(sent.response.body), len(to_json(found)) + len(to_json(parsed.errors)))
            if size > _MAX_PAGED_BYTES:
                raise IntegrationError(
                    ErrorCode.RESPONSE_TOO_LARGE, f"the pages are over {_MAX_PAGED_BYTES} bytes: ask for less"
                )
            following = await method.pages.after(
                page, items=len(found), body=parsed.data, response=sent.response, evaluate=evaluate
            )
            progress.pages_read += 1
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
        refusals = 0
        while True:
            request = _request(call, attempt, progress.resolved, credential, variables | page.variables, page)
            sent = Sent(request, await self._sender.send(request, attempt, progress), credential)
            try:
                parsed = await self._answers.read(sent, progress.resolved)
            except IntegrationError as error:
                target = progress.resolved
                if error.code == ErrorCode.RATE_LIMITED:
                    progress.without_effect = True
                    if error.retry_after is not None and sent.says_ok:
                        await self._sender.push(target, error.retry_after)  # the headers said nothing of it
                    # Amid pages this one is asked for again: the call would begin anew at page one.
                    if refusals < _PAGE_REFUSALS and await self._sender.waits(attempt, progress, error.retry_after):
                        refusals += 1
                        continue
                mendable = target.is_renewable and _is_refused(error, sent, target)
                if not (mendable and progress.renewing) or progress.renewed:
                    raise
                progress.without_effect = True
                credential = await self._sender.renew(attempt, progress)
                continue
            if parsed.hold_back is not None:
                await self._sender.push(progress.resolved, parsed.hold_back)
            return sent, parsed

    async def _token(self, following: Page | None, target: Target) -> str | None:
        if following is None:
            return None
        return await self._page_tokens.seal(following, owner=_page_owner(target), method=target.method.method.name)


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


def _page_owner(target: Target) -> str:
    """Whose a page's token is: the instance's, or all instances' that share a cached answer."""
    cache = target.method.method.cache
    if cache is None or cache.vary_by_instance:
        return target.instance.id
    return f"{target.instance.scope}/{target.instance.definition_id}"


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


def _final(error: IntegrationError, progress: Progress) -> IntegrationError:
    """The failure, unless it says to come again to one that must not: the upstream has answered, and an outage of ours
    kept the answer from being handed over."""
    if error.decision is not Decision.WAIT or progress.repeatable:
        return error
    return IntegrationError(
        ErrorCode.OUTCOME_UNKNOWN,
        f"the upstream answered {progress.status_code}, but its answer could not be handed over: {error.message}",
        details={"statusCode": progress.status_code},
    )
