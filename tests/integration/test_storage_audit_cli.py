"""`integrations audit stats` and `verify`, as an operator runs them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from integration_service.storage.audit_months import month_of
from integration_service.storage.audit_stats import AuditStats
from tests.audit_rows import Trail

NOW = datetime.now(UTC)


async def run(trail: Trail, *arguments: str) -> tuple[int, Any, str]:
    """Exit code, stdout as JSON, stderr."""
    command = [str(Path(sys.executable).with_name("integrations")), "audit", *arguments, "--json"]
    environment = {**os.environ, "INTEGRATIONS_DATABASE_URL": trail.url}
    done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


async def sealed(trail: Trail) -> str:
    """Nine rows in three seals and one without; the head."""
    await trail.record(*[NOW] * 9)
    chain = trail.chain(settled_after=timedelta(0), batch=3)
    head = b""
    while seal := await chain.seal():
        head = seal.hash
    await trail.record(NOW)
    return head.hex()


async def test_a_chain_that_holds_is_told_with_its_head(trail: Trail) -> None:
    head = await sealed(trail)
    code, found, _ = await run(trail, "verify", "--head", head)
    assert code == 0
    assert found == {
        "seals": 3, "rows": 9, "head": head, "unsealed": 1, "firstSeal": 1, "droppedBefore": None
    }  # fmt: skip


async def test_the_first_bad_batch_is_named_and_the_exit_is_1(trail: Trail) -> None:
    await sealed(trail)
    await trail.run("UPDATE audit.executions SET code = 'X' WHERE seq IN (5, 8)")
    code, found, stderr = await run(trail, "verify")
    assert (code, found) == (1, None)
    error = json.loads(stderr)
    assert error == {
        "code": "INTEGRITY_ERROR",
        "message": f"seal 2 does not hold: rows of {NOW:%Y-%m} were changed",
        "path": "seals[2]",
    }


@pytest.mark.parametrize(("head", "code"), [("00" * 32, "INTEGRITY_ERROR"), ("xyz", "VALIDATION_ERROR")])
async def test_a_head_that_the_chain_does_not_hold_is_refused(trail: Trail, head: str, code: str) -> None:
    await sealed(trail)
    exit_code, _, stderr = await run(trail, "verify", "--head", head)
    assert exit_code == 1
    assert (json.loads(stderr)["code"], json.loads(stderr)["path"]) == (code, "--head")


async def test_stats_tell_what_needs_somebody(trail: Trail) -> None:
    head = await sealed(trail)
    await trail.run(f"ALTER TABLE audit.executions DETACH PARTITION audit.executions_{month_of(NOW):%Y_%m}")
    await trail.record(NOW)
    await AuditStats(trail.database).alert("partition_missing", "a sentence")
    code, found, _ = await run(trail, "stats")
    assert code == 0
    assert (found["rows"], found["defaultRows"], found["unsealed"]) == (1, 1, 1)
    assert found["missingPartitions"] == [f"{NOW:%Y-%m}"]
    assert (found["alerts"], found["lastAlert"]) == (1, "a sentence")
    assert (found["seals"], found["head"]) == (3, head)
    assert len(found["partitions"]) == 3
