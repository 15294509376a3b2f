"""Definitions, instances and credentials under concurrent writers: no update is lost, whoever comes late is told."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from integration_service.devstack.stack import Stack
from integration_service.storage.vault.keyring import Keyring
from tests.fresh_database import fresh_database
from tests.store_machine import StoreMachine

_STEPS = 50


@pytest.mark.parametrize(
    "steps",
    [
        300,
        pytest.param(
            10_000,
            marks=[pytest.mark.slow, pytest.mark.skipif(not os.environ.get("SOAK"), reason="a heavy proof: SOAK=1")],
        ),
    ],
)
async def test_no_update_is_lost(stack: Stack, keyring: Keyring, steps: int) -> None:
    async with fresh_database(stack) as fresh:

        class Machine(StoreMachine):
            url, provider = fresh.url, keyring

        wanted = settings(
            max_examples=steps // _STEPS,
            stateful_step_count=_STEPS,
            deadline=None,
            phases=(Phase.generate,),
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        began = time.monotonic()
        # In a thread of its own: each run has an event loop, and the stack's supervisor goes on in this one.
        while Machine.steps < steps:
            await asyncio.to_thread(run_state_machine_as_test, Machine, settings=wanted)
        took = time.monotonic() - began
        print(f"{Machine.steps} steps in {took:.0f} s, {Machine.conflicts} conflicts told")
        assert Machine.conflicts > steps / 10
