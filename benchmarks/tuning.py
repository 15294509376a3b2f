"""What makes the tuned floor: the settings of our own worker and client, for a worker that does nothing else."""

from __future__ import annotations

from typing import Any

from temporalio.client import GrpcCompression
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import PollerBehaviorAutoscaling, UnsandboxedWorkflowRunner

TUNED_CLIENT: dict[str, Any] = {"data_converter": pydantic_data_converter, "grpc_compression": GrpcCompression.NONE}


def tuned_worker() -> dict[str, Any]:
    """Options of `Worker`."""
    return {
        "workflow_runner": UnsandboxedWorkflowRunner(),
        "workflow_task_poller_behavior": PollerBehaviorAutoscaling(),
        "activity_task_poller_behavior": PollerBehaviorAutoscaling(),
    }
