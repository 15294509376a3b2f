"""Our own two processes in the stack, both told everything by environment variables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import timedelta

from integration_service.devstack.child import ChildSpec
from integration_service.devstack.environment import child_environment

WORKER = "worker"
GATEWAY = "gateway"
_WORKER_GRACE = timedelta(seconds=15)
_GATEWAY_GRACE = timedelta(seconds=10)


def service_children(environment: Mapping[str, str]) -> tuple[ChildSpec, ...]:
    """Worker and gateway of a stack with this `environment`."""
    return (
        _service(WORKER, "integration_service.worker", environment, _WORKER_GRACE),
        _service(GATEWAY, "integration_service.gateway", environment, _GATEWAY_GRACE),
    )


def _service(name: str, module: str, environment: Mapping[str, str], grace: timedelta) -> ChildSpec:
    return ChildSpec(
        name=name,
        # -P: a folder named `storage` where the user happens to stand must not be imported.
        command=(sys.executable, "-P", "-m", module),
        environment=child_environment({**environment, "PYTHONUNBUFFERED": "1"}),
        grace=grace,
    )
