"""What makes the tuned floor: the settings of our own worker and client, for a worker that does nothing else."""

from __future__ import annotations

from typing import Any

from temporalio.client import GrpcCompression
from temporalio.worker import UnsandboxedWorkflowRunner

from integration_service.activities.capacity import Capacity
from integration_service.settings import Settings
from integration_service.storage.temporal_converter import SHARED_DATA_CONVERTER

TUNED_CLIENT: dict[str, Any] = {"data_converter": SHARED_DATA_CONVERTER, "grpc_compression": GrpcCompression.NONE}


def tuned_worker() -> dict[str, Any]:
    """Options of `Worker`: as `worker.py` gives them, by the defaults of its settings."""
    slots, grace = (Settings.model_fields[name].default for name in ("worker_slots", "worker_grace"))
    return {"workflow_runner": UnsandboxedWorkflowRunner(), **Capacity(slots=slots, grace=grace).methods()}
