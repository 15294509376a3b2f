"""Keeps the stack's children alive: a death while starting is an error, a later one a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.devstack.child import Child, ChildSpec, describe_exit
from integration_service.devstack.data_dir import DataDir

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_FIRST_DELAY = timedelta(milliseconds=200)
_LONGEST_DELAY = timedelta(seconds=10)
# Having run this long, a child is taken to be healthy again.
_HEALTHY_AFTER = timedelta(seconds=10)


class Supervisor:
    """The children of one stack, by name."""

    def __init__(self, data_dir: DataDir) -> None:
        self._data_dir = data_dir
        self._children: dict[str, Child] = {}
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self, *specs: ChildSpec) -> None:
        """Starts children; it does not wait until they are ready."""
        for spec in specs:
            child = self._children[spec.name] = Child(spec, self._data_dir)
            await child.start()

    async def run_once(self, spec: ChildSpec, within: timedelta) -> None:
        """Runs a child that is meant to end. Raises UNAVAILABLE with the end of its log when it fails."""
        child = self._children[spec.name] = Child(spec, self._data_dir)
        await child.start()
        try:
            code = await asyncio.wait_for(child.wait(), within.total_seconds())
        except TimeoutError:
            raise _silent(spec.name, within) from None
        del self._children[spec.name]
        if code:
            raise _died(child, code)

    async def while_alive(self, work: Coroutine[Any, Any, _T], within: timedelta) -> _T:
        """The result of `work`, during which no child may end.

        Raises UNAVAILABLE with the end of the log of a child that did, or when `within` is over.
        """
        task = asyncio.create_task(work)
        deaths = {asyncio.create_task(child.wait()): child for child in self._children.values()}
        try:
            await asyncio.wait({task, *deaths}, timeout=within.total_seconds(), return_when=asyncio.FIRST_COMPLETED)
            # A child's end says more than the error that it caused in our work.
            for death, child in deaths.items():
                if death.done():
                    raise _died(child, death.result())
            if not task.done():
                raise _silent(", ".join(self._children), within)
            return task.result()
        finally:
            await _cancel(task, *deaths)

    def keep(self) -> None:
        """From now on whatever ends is restarted."""
        self._keepers = [asyncio.create_task(self._keep(child)) for child in self._children.values()]

    async def run_until(self, stop: asyncio.Event) -> None:
        """Until `stop` is set."""
        stopped = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait({stopped, *self._keepers}, return_when=asyncio.FIRST_COMPLETED)
            for keeper in done - {stopped}:
                keeper.result()  # a keeper ends only by a bug, which is not ours to hide
        finally:
            await _cancel(stopped)

    async def stop(self, *names: str) -> None:
        """Stops these children at the same time; those that were never started are passed over."""
        if self._keepers:
            await _cancel(*self._keepers)
            self._keepers = []
        children = [self._children.pop(name) for name in names if name in self._children]
        for outcome in await asyncio.gather(*(child.stop() for child in children), return_exceptions=True):
            if isinstance(outcome, Exception):
                _log.error("%s", outcome)

    async def _keep(self, child: Child) -> None:
        delay = _FIRST_DELAY
        started = time.monotonic()
        while True:
            code = await child.wait()
            if time.monotonic() - started >= _HEALTHY_AFTER.total_seconds():
                delay = _FIRST_DELAY
            _log.warning(
                "%s ended (%s); starting it again in %.1f s; its log is %s",
                child.spec.name,
                describe_exit(code),
                delay.total_seconds(),
                child.log,
            )
            await asyncio.sleep(delay.total_seconds())
            delay = min(delay * 2, _LONGEST_DELAY)
            started = time.monotonic()
            try:
                await child.start()
            except (IntegrationError, OSError) as error:
                _log.error("%s: %s", child.spec.name, error)  # and once more, since `wait` returns at once


def _silent(names: str, within: timedelta) -> IntegrationError:
    return IntegrationError(ErrorCode.UNAVAILABLE, f"{names}: not ready within {within.total_seconds():.0f} s")


def _died(child: Child, code: int) -> IntegrationError:
    return IntegrationError(
        ErrorCode.UNAVAILABLE,
        f"{child.spec.name} ended while starting ({describe_exit(code)}); {child.log} ends: {child.last_words()}",
    )


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
