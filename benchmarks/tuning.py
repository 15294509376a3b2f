"""What makes the tuned floor: the settings of our own worker and client, for a worker that does nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

from temporalio.client import GrpcCompression
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import UnsandboxedWorkflowRunner

from integration_service.activities.capacity import Capacity
from integration_service.settings import Settings
from integration_service.storage.temporal_converter import SharedPydanticConverter

TUNED_CLIENT: dict[str, Any] = {
    "data_converter": dataclasses.replace(pydantic_data_converter, payload_converter_class=SharedPydanticConverter),
    "grpc_compression": GrpcCompression.NONE,
}


def tuned_worker() -> dict[str, Any]:
    """Options of `Worker`: as `worker.py` gives them, by the defaults of its settings."""
    slots, grace = (Settings.model_fields[name].default for name in ("worker_slots", "worker_grace"))
    return {"workflow_runner": UnsandboxedWorkflowRunner(), **Capacity(slots=slots, grace=grace).methods()}
