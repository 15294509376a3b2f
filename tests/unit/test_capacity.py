"""How much a worker takes on is said in one place, and versions only where a build is named."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import WorkerDeploymentConfig

from integration_service.activities.capacity import Capacity
from integration_service.activities.parts import Parts
from integration_service.contracts.errors import IntegrationError
from integration_service.settings import Settings
from integration_service.storage.vault.keyring import generate_keyring


def test_sleepers_are_a_quarter_of_the_slots_that_the_worker_has() -> None:
    capacity = Capacity.of(Settings.from_environment({"INTEGRATIONS_WORKER_SLOTS": "40"}))
    activities = capacity.methods()["tuner"]._get_activity_task_slot_supplier()
    assert activities.slot_config.maximum_slots == 40  # type: ignore[union-attr]
    # Even where memory is short, sleepers leave as many slots to others as they take.
    assert capacity.sleepers * 2 == activities.slot_config.minimum_slots  # type: ignore[union-attr]


def test_those_who_wait_for_a_cached_answer_are_as_many() -> None:
    keyring = generate_keyring()
    settings = Settings(database_url="postgresql://u@127.0.0.1:1/d", keyring=keyring, worker_slots=40)
    parts = Parts.build(settings, task_queue="unused")
    assert parts.methods._pipeline._cache._max_waiting == 10


def test_a_grace_is_the_method_workers() -> None:
    capacity = Capacity.of(Settings.from_environment({"INTEGRATIONS_WORKER_GRACE": "90"}))
    assert capacity.methods()["graceful_shutdown_timeout"] == timedelta(seconds=90)
    assert capacity.control()["graceful_shutdown_timeout"] >= timedelta(seconds=20)


def test_a_build_makes_all_workers_versioned() -> None:
    capacity = Capacity.of(Settings.from_environment({"INTEGRATIONS_BUILD_ID": "1.2.3"}))
    for serving in (capacity.methods(), capacity.control(), capacity.tests()):
        deployment = serving["deployment_config"]
        assert deployment is not None
        assert (deployment.version.deployment_name, deployment.version.build_id) == ("integrations", "1.2.3")
        assert deployment.default_versioning_behavior is VersioningBehavior.AUTO_UPGRADE
    assert "deployment_config" not in Capacity.of(Settings()).methods()


def test_beside_somebody_elses_worker_the_version_is_his_and_entities_move_on() -> None:
    his = WorkerDeploymentConfig(
        version=WorkerDeploymentVersion("his", "7"),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.PINNED,
    )
    deployment = Capacity.of(Settings()).within(his).control()["deployment_config"]
    assert deployment is not None
    assert deployment.version == his.version
    assert deployment.default_versioning_behavior is VersioningBehavior.AUTO_UPGRADE


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WORKER_SLOTS", "3"),
        ("WORKER_SLOTS", "many"),
        ("WORKER_GRACE", "0"),
        ("WORKER_GRACE", "PT30S"),
        ("BUILD_ID", "a b"),
        ("BUILD_ID", "a\n"),
        ("DEPLOYMENT", "a.b"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_what_cannot_be_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        Settings.from_environment({f"INTEGRATIONS_{variable}": value})
    assert refused.value.path == f"INTEGRATIONS_{variable}"
