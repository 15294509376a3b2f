"""What children are told: all that they need, nothing that would lead them elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from integration_service.contracts.names import SEARCH_ATTRIBUTES
from integration_service.devstack import services, temporal
from integration_service.devstack.data_dir import DataDir
from integration_service.devstack.environment import child_environment
from integration_service.devstack.options import StackPorts

PORTS = StackPorts(temporal=1, ui=2, gateway=3, postgres=4, temporal_http=5, worker=6)


def test_the_users_shell_does_not_lead_children_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for foreign in ("TEMPORAL_PROFILE", "TEMPORAL_TLS", "INTEGRATIONS_RETURN_URLS", "PGSSLMODE", "PGSERVICE"):
        monkeypatch.setenv(foreign, "foreign")
    monkeypatch.setenv("LANG", "C.UTF-8")
    environment = child_environment({"TEMPORAL_NAMESPACE": "default"})
    assert environment["LANG"] == "C.UTF-8"
    assert environment["TEMPORAL_NAMESPACE"] == "default"
    assert "foreign" not in environment.values()


def test_services_are_named_modules_with_the_stacks_environment() -> None:
    worker, gateway = services.service_children({"INTEGRATIONS_KEYRING": "/k"})
    assert worker.command == (sys.executable, "-P", "-m", "integration_service.worker")
    assert gateway.command == (sys.executable, "-P", "-m", "integration_service.gateway")
    assert worker.environment["INTEGRATIONS_KEYRING"] == gateway.environment["INTEGRATIONS_KEYRING"] == "/k"
    assert worker.grace.total_seconds() >= 15


def test_the_dev_server_gets_our_search_attributes_and_an_empty_configuration(tmp_path: Path) -> None:
    spec = temporal.server(DataDir(tmp_path), PORTS)
    for attribute in SEARCH_ATTRIBUTES:
        assert f"{attribute.name}=Keyword" in spec.command
    assert spec.environment["TEMPORAL_CONFIG_FILE"] == str(tmp_path / "temporal.toml")
    assert spec.cwd == tmp_path
