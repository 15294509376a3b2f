"""A worker deployment of a test's own, led by the commands of docs/operating.md word by word."""

from __future__ import annotations

import asyncio
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.common import VersioningBehavior

from integration_service.devstack.environment import child_environment
from tests.waiting import eventually
from tests.world import World

PINNED, AUTO_UPGRADE = VersioningBehavior.PINNED.value, VersioningBehavior.AUTO_UPGRADE.value
_PAGE = (Path(__file__).resolve().parents[1] / "docs" / "operating.md").read_text().replace("\\\n", "")


@dataclass(frozen=True)
class Deployment:
    """Builds are named by the test."""

    world: World
    name: str = field(default_factory=lambda: f"d-{uuid.uuid4().hex[:8]}")

    async def ramp(self, build: str) -> None:
        """A tenth of what is new begins there. Returns once Temporal knows the version."""
        await self._done("worker deployment set-ramping-version", build=build)

    async def make_current(self, build: str) -> None:
        """Returns once Temporal knows the version."""
        await self._done("worker deployment set-current-version", build=build)

    async def held_by(self, build: str) -> int:
        """How many calls are pinned to that version and have not ended."""
        counted = await self._done("workflow count", old=build)
        return int(counted.removeprefix("Total: "))

    async def move(self, old: str, build: str) -> None:
        """Those calls to another version. Returns when the move has begun."""
        await self._done("workflow update-options", old=old, build=build)

    async def _done(self, command: str, *, build: str = "", old: str = "") -> str:
        """Run the one command of the page that begins so; tried again while Temporal refuses it."""
        [line] = re.findall(rf"^temporal {command} .*", _PAGE, re.MULTILINE)
        line = line.replace("deployment-name integrations", f"deployment-name {self.name}")
        line = line.replace("integrations:$OLD", f"{self.name}:$OLD")

        async def accepted() -> str | None:
            process = await asyncio.create_subprocess_exec(
                *("sh", "-c", line),
                env=child_environment(
                    {"TEMPORAL_ADDRESS": self.world.stack.ready.temporal, "BUILD": build, "OLD": old}
                ),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            out, _ = await process.communicate()
            return out.decode().strip() if process.returncode == 0 else None

        return await eventually(accepted)


async def version_of(handle: WorkflowHandle[Any, Any]) -> tuple[int, str]:
    """How the workflow is versioned, and the build that did its last step."""
    found = (await handle.describe()).raw_description.workflow_execution_info.versioning_info
    return found.behavior, found.deployment_version.build_id
