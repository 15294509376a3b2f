"""Which keys of the payload key set stand in what Temporal keeps: names of keys, which are in clear, and no payload.

Seen are histories of workflows (with memos, summaries and results), open ones first, and the inputs of schedules, of
one namespace. Standalone activities, other namespaces and exported histories are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field

from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.vault.keyring import KeyRef
from integration_service.storage.vault.payload_codec import ENCODING, KEY_ID, KEY_VERSION

_AT_ONCE = 8
_ORDER = ("ExecutionStatus = 'Running'", "ExecutionStatus != 'Running'")


@dataclass
class PayloadUse:
    """What was found. `found` has, for each key, how many holders there are and the name of one of them."""

    found: dict[KeyRef, tuple[int, str]] = field(default_factory=dict)
    looked_at: int = 0
    whole: bool = True
    """Whether there was no more to look at."""

    def note(self, holder: str, refs: set[KeyRef]) -> None:
        self.looked_at += 1
        for ref in refs:
            count, first = self.found.get(ref, (0, holder))
            self.found[ref] = (count + 1, first)


async def payload_use(client: Client, *, at_most: int | None = None, until: KeyRef | None = None) -> PayloadUse:
    """Look through the client's namespace: at most so many holders, and no further once `until` was seen.

    Raises IntegrationError UNAVAILABLE when Temporal does not answer.
    """
    use = PayloadUse()
    batch: list[tuple[str, str | None]] = []
    try:
        async for holder in _holders(client):
            if at_most is not None and use.looked_at + len(batch) >= at_most:
                use.whole = False
                break
            batch.append(holder)
            if len(batch) == _AT_ONCE:
                await _look_at(client, batch, use)
                batch = []
                if until is not None and until in use.found:
                    use.whole = False
                    break
        await _look_at(client, batch, use)
    except RPCError as error:
        raise IntegrationError(ErrorCode.UNAVAILABLE, f"Temporal answered {error.status.name}") from error
    return use


async def _holders(client: Client) -> AsyncIterator[tuple[str, str | None]]:
    """Schedules by their id, workflows by id and run."""
    async for schedule in await client.list_schedules():
        yield schedule.id, None
    for query in _ORDER:
        async for found in client.list_workflows(query):
            yield found.id, found.run_id


async def _look_at(client: Client, batch: list[tuple[str, str | None]], use: PayloadUse) -> None:
    for (name, run_id), refs in zip(batch, await asyncio.gather(*(_keys(client, *one) for one in batch)), strict=True):
        use.note(f"workflow {name}" if run_id else f"schedule {name}", refs)


async def _keys(client: Client, name: str, run_id: str | None) -> set[KeyRef]:
    try:
        if run_id is None:
            kept: list[Message] = [(await client.get_schedule_handle(name).describe()).raw_description]
        else:
            kept = list((await client.get_workflow_handle(name, run_id=run_id).fetch_history()).events)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:  # gone since it was listed
            return set()
        raise
    return {ref for message in kept if ENCODING in message.SerializeToString() for ref in _refs(message)}


def _refs(message: Message) -> Iterator[KeyRef]:
    if isinstance(message, Payload):
        key_id, version = message.metadata.get(KEY_ID), message.metadata.get(KEY_VERSION, b"")
        if message.metadata.get("encoding") == ENCODING and key_id is not None and version.isdigit():
            yield KeyRef(key_id.decode(errors="replace"), int(version))
        return
    for _, value in message.ListFields():
        if isinstance(value, Message):
            yield from _refs(value)
        elif isinstance(value, Mapping):
            for item in value.values():
                if isinstance(item, Message):
                    yield from _refs(item)
        elif not isinstance(value, str | bytes | int | float):
            for item in value:
                if isinstance(item, Message):
                    yield from _refs(item)
