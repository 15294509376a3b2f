"""An instance that was read to resolve a call, handed to the attempt that follows in the same process.

`ExecuteMethod` resolves a call and at once runs it, most often here: then both would read the same row within
milliseconds. Only the first attempt gets it, once, and only while it is no older than what an attempt has read itself
that then waits for its turn where it is. The credential in it is as the database has it: encrypted.
"""

from __future__ import annotations

import time
from datetime import timedelta

from integration_service.storage.instances import InstanceForCall

_GOOD_FOR = timedelta(seconds=1)
_MOST = 1_000


class Handover:
    """What was resolved and not yet taken, by the run that asked. One for all calls of a process."""

    def __init__(self, *, good_for: timedelta = _GOOD_FOR) -> None:
        self._good_for = good_for.total_seconds()
        self._left: dict[tuple[str, str], tuple[float, InstanceForCall]] = {}

    def leave(self, run_id: str, method: str, instance: InstanceForCall) -> None:
        """`instance` was read just now, with how it fares with `method`."""
        if len(self._left) >= _MOST:
            self._forget_old()
        if len(self._left) < _MOST:
            self._left[run_id, method] = time.monotonic(), instance

    def take(self, run_id: str, method: str, instance_id: str, *, scope: str) -> InstanceForCall | None:
        """The instance that was left for this run, if it is that one, of that scope, and fresh; it is gone then."""
        at, instance = self._left.pop((run_id, method), (0.0, None))
        # A workflow of somebody else may resolve a call in one scope and make another in a second one.
        if instance is None or (instance.id, instance.scope) != (instance_id, scope):
            return None
        return instance if time.monotonic() - at <= self._good_for else None

    @property
    def kept(self) -> int:
        """How many are left."""
        return len(self._left)

    def _forget_old(self) -> None:
        oldest = time.monotonic() - self._good_for
        self._left = {key: left for key, left in self._left.items() if left[0] > oldest}
