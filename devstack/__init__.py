"""The embedded stack behind ``integrations dev`` and ``integrations demo``.

`Stack` itself stands in `stack`: it pulls in the whole service, which a command that only looks for a running
stack does not need.
"""

from integration_service.devstack.data_dir import DEFAULT_DATA_DIR
from integration_service.devstack.options import StackOptions
from integration_service.devstack.running import Ready, RunningStack, find_stack

__all__ = ["DEFAULT_DATA_DIR", "Ready", "RunningStack", "StackOptions", "find_stack"]
