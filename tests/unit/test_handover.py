"""An instance that `resolve` read goes to the attempt that follows at once, and to no other."""

from __future__ import annotations

import uuid
from datetime import timedelta

from integration_service.activities.execution.handover import Handover
from integration_service.contracts.instances import IntegrationInstanceStatus
from integration_service.storage.instances import InstanceForCall
from integration_service.storage.upstream_health import UpstreamHealth


def instance() -> InstanceForCall:
    id_ = str(uuid.uuid4())
    return InstanceForCall(
        id=id_,
        scope="global",
        name=id_,
        definition_id=str(uuid.uuid4()),
        config={},
        status=IntegrationInstanceStatus.CONNECTED,
        error=None,
        credential=None,
        refresh_sends=0,
        health=UpstreamHealth(),
    )


def test_it_is_handed_over_once() -> None:
    left, handover = instance(), Handover()
    handover.leave("run", "get", left)
    assert handover.take("run", "get", left.id, scope="global") is left
    assert handover.take("run", "get", left.id, scope="global") is None


def test_another_run_or_method_or_instance_gets_nothing() -> None:
    left, handover = instance(), Handover()
    handover.leave("run", "get", left)
    assert handover.take("run", "get", left.id, scope="tenant-b") is None
    handover.leave("run", "get", left)
    assert handover.take("other", "get", left.id, scope="global") is None
    assert handover.take("run", "post", left.id, scope="global") is None
    assert handover.take("run", "get", str(uuid.uuid4()), scope="global") is None


def test_what_is_no_longer_fresh_is_not_handed_over() -> None:
    left, handover = instance(), Handover(good_for=timedelta(0))
    handover.leave("run", "get", left)
    assert handover.take("run", "get", left.id, scope="global") is None


def test_what_nobody_takes_does_not_pile_up() -> None:
    left, handover = instance(), Handover(good_for=timedelta(0))
    for number in range(5_000):
        handover.leave(f"run {number}", "get", left)
    assert handover.kept <= 1_000


def test_what_is_fresh_is_not_pushed_out() -> None:
    left, handover = instance(), Handover(good_for=timedelta(minutes=1))
    for number in range(1_001):
        handover.leave(f"run {number}", "get", left)
    assert handover.take("run 0", "get", left.id, scope="global") is left
    assert handover.take("run 1000", "get", left.id, scope="global") is None
