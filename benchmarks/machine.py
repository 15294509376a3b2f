"""On what figures were taken: without it they say nothing."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client

from benchmarks.processes import ROOT
from integration_service.storage.database import Database


async def describe(temporal: Client, database: Database) -> dict[str, str]:
    """Processor, cores, memory, versions, date and commit."""
    system = await temporal.workflow_service.get_system_info(GetSystemInfoRequest())
    row = await database.one("SELECT current_setting('server_version') AS version", {})
    postgres = row["version"] if row else ""
    load = os.getloadavg()[0]
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "load before": f"{load:.1f} (more than 0.5 means that others used the machine)",
        "speed": f"a million additions in Python take {_additions_ms():.0f} ms of CPU, at best",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_version()}, temporalio {version('temporalio')}, psycopg {version('psycopg')}",
        "servers": f"Temporal {system.server_version} (dev server, as `dev` runs it), Postgres {postgres}",
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _additions_ms() -> float:
    """What compares figures in milliseconds with those of another machine, or of this one on another day."""

    def once() -> float:
        began = time.process_time()
        total = 0
        for number in range(1_000_000):
            total += number
        return (time.process_time() - began) * 1000

    return min(once() for _ in range(10))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
