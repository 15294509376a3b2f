"""How much one worker process takes on, how it polls, and how it stops."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import timedelta
from typing import TypedDict

from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import (
    FixedSizeSlotSupplier,
    PollerBehavior,
    PollerBehaviorAutoscaling,
    ResourceBasedSlotConfig,
    ResourceBasedSlotSupplier,
    ResourceBasedTunerConfig,
    WorkerDeploymentConfig,
    WorkerTuner,
)

from integration_service.settings import Settings

_CONNECTION_TESTS = 50
"""At once, in one process: upstreams that hang take no more places than that, and none of a refresh."""
_CONTROL = 500
"""Many, and each waits on the network. Fixed: a refresh never waits for memory that calls have taken."""
_WORKFLOW_TASKS = 100
_NEXUS = 100
_PRESSED = 0.8
"""Of the memory that the process may use; above it a call more waits in the queue and is not lost with the process."""


class Serving(TypedDict, total=False):
    """Options of a Temporal worker."""

    tuner: WorkerTuner
    workflow_task_poller_behavior: PollerBehavior
    activity_task_poller_behavior: PollerBehavior
    graceful_shutdown_timeout: timedelta
    deployment_config: WorkerDeploymentConfig | None


@dataclass(frozen=True)
class Capacity:
    """Of one process with its three workers."""

    slots: int
    grace: timedelta
    deployment: WorkerDeploymentConfig | None = None

    @classmethod
    def of(cls, settings: Settings) -> Capacity:
        """As the environment says. A build makes the worker a versioned one."""
        deployment = None
        if settings.build_id:
            deployment = WorkerDeploymentConfig(
                version=WorkerDeploymentVersion(settings.deployment, settings.build_id),
                use_worker_versioning=True,
                default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
            )
        return cls(slots=settings.worker_slots, grace=settings.worker_grace, deployment=deployment)

    @property
    def sleepers(self) -> int:
        """How many calls may wait in their slots: a quarter."""
        return self.slots // 4

    def methods(self) -> Serving:
        """For the worker of method calls.

        Calls wait on the network, so slots are many; what they hold is memory. Half of the slots are given whatever
        happens: no neighbour's load on the processor takes them. The other half only while memory is left.
        """
        return self._serving(
            ResourceBasedSlotSupplier(
                ResourceBasedSlotConfig(
                    minimum_slots=max(self.slots // 2, 1), maximum_slots=self.slots, ramp_throttle=timedelta(0)
                ),
                ResourceBasedTunerConfig(target_memory_usage=_PRESSED, target_cpu_usage=1.0),
            ),
            grace=self.grace,
        )

    def control(self) -> Serving:
        """For the worker of the control queue. Its grace is longer than a token request may last: an answer that is on
        its way is stored."""
        return self._serving(FixedSizeSlotSupplier(_CONTROL), grace=timedelta(seconds=25))

    def tests(self) -> Serving:
        """For the worker of connection tests, which are cheap to repeat."""
        return self._serving(FixedSizeSlotSupplier(_CONNECTION_TESTS), grace=timedelta(0))

    def within(self, deployment: WorkerDeploymentConfig | None) -> Capacity:
        """The same beside a worker that somebody else made: our entities are of its version, and move on with it."""
        if deployment is not None and deployment.use_worker_versioning:
            deployment = dataclasses.replace(deployment, default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE)
        return dataclasses.replace(self, deployment=deployment)

    def _serving(self, activities: FixedSizeSlotSupplier | ResourceBasedSlotSupplier, *, grace: timedelta) -> Serving:
        serving = Serving(
            tuner=WorkerTuner.create_composite(
                workflow_supplier=FixedSizeSlotSupplier(_WORKFLOW_TASKS),
                activity_supplier=activities,
                local_activity_supplier=FixedSizeSlotSupplier(self.slots),
                nexus_supplier=FixedSizeSlotSupplier(_NEXUS),
            ),
            workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
            activity_task_poller_behavior=PollerBehaviorAutoscaling(),
            graceful_shutdown_timeout=grace,
        )
        if self.deployment is not None:
            serving["deployment_config"] = self.deployment
        return serving
