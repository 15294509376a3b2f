"""What a caller remembers of methods that it has called, so that its next calls need less looking up."""

from __future__ import annotations

from typing import TypeVar

from temporalio.common import SearchAttributePair, TypedSearchAttributes

from integration_service.contracts.calls import MethodCall, MethodPlan, MethodResult
from integration_service.contracts.names import (
    INTEGRATION_DEFINITION,
    INTEGRATION_INSTANCE,
    INTEGRATION_METHOD,
    is_canonical_uuid,
)

_KEPT = 10_000
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class KnownMethods:
    """What results have told of instances and methods. A call that says it spares `ExecuteMethod` the looking up."""

    def __init__(self) -> None:
        self._versions: dict[str, tuple[str, str]] = {}
        self._plans: dict[tuple[str, str, str, str], MethodPlan | None] = {}

    def learn(self, call: MethodCall, result: MethodResult) -> None:
        """The definition and version of the instance, and how the method of that version is scheduled."""
        if not is_canonical_uuid(call.instance_id) or call.method is None:
            return
        version = result.definition, result.definition_version
        _keep(self._versions, call.instance_id, version)
        if result.plan is not None:
            key = (call.scope, *version, call.method)
            # A scope's own definition and a global one may share name and version; their plans would alternate.
            same = self._plans.get(key, result.plan) == result.plan
            _keep(self._plans, key, result.plan if same else None)

    def plan(self, call: MethodCall) -> MethodPlan | None:
        """What is known of the method. The activity checks that the instance still has that version."""
        version = self._versions.get(call.instance_id)
        if version is None or call.method is None:
            return None
        return self._plans.get((call.scope, *version, call.method))

    def search_attributes(self, call: MethodCall) -> TypedSearchAttributes:
        """What the workflow would have to add by itself. None before a call of the instance has succeeded: until a
        worker has run, the namespace may not know these attributes, and would refuse the start."""
        version = self._versions.get(call.instance_id)
        if version is None or call.method is None:
            return TypedSearchAttributes.empty
        return TypedSearchAttributes(
            [
                SearchAttributePair(INTEGRATION_DEFINITION, version[0]),
                SearchAttributePair(INTEGRATION_INSTANCE, call.instance_id),
                SearchAttributePair(INTEGRATION_METHOD, call.method),
            ]
        )


def _keep(known: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """With a bound. What was forgotten costs a looking up."""
    if len(known) >= _KEPT and key not in known:
        known.clear()
    known[key] = value
