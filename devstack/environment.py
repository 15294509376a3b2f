"""The environment of the stack's children, and of other commands that talk to it."""

from __future__ import annotations

import os
from collections.abc import Mapping

# What must not leak from the user's shell: another Temporal, settings of ours, defaults of libpq (PGSSLMODE).
_FOREIGN = ("TEMPORAL_", "INTEGRATIONS_", "PG")


def child_environment(own: Mapping[str, str]) -> dict[str, str]:
    """The user's environment without what would redirect a child, and with `own`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {**inherited, **own}
