"""The files that operators take: manifests fit Kubernetes, rules parse, and what they name is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import promql_parser
import pytest
import yaml

from integration_service.cli.main import integrations
from integration_service.gateway.connections import COMPLETE_WITHIN
from integration_service.settings import Settings
from integration_service.telemetry.figures import PoolCollector, Standing, StandingCollector
from integration_service.telemetry.metrics import Metrics
from tests.unit.test_compose import NEEDED_BY

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "operating"
MANIFESTS: list[dict[str, Any]] = [
    manifest
    for file in sorted((FOLDER / "kubernetes").glob("*.yaml"))
    for manifest in yaml.safe_load_all(file.read_text())
]
ALERTS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
# Theirs, as `test_metrics` has seen them on a real page.
TEMPORALS = {
    "temporal_activity_schedule_to_start_latency_seconds_bucket",
    "temporal_num_pollers",
    "temporal_worker_task_slots_available",
    "temporal_worker_task_slots_used",
}
OF_PROMETHEUS = {"up"}


def _expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in ALERTS)
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "5m").replace("$definition", ".*")


def _metrics(expression: Any) -> Iterator[str]:
    if isinstance(expression, promql_parser.VectorSelector):
        yield str(expression.name)
    for name in ("expr", "lhs", "rhs", "param", "vector_selector", "args"):
        inner = getattr(expression, name, None)
        for one in inner if isinstance(inner, list) else [inner]:
            if one is not None and not isinstance(one, str):
                yield from _metrics(one)


async def _exposed() -> set[str]:
    """Every name that a scrape can show, labels or not."""
    metrics = Metrics()

    async def look() -> Standing:
        return Standing(connections={"CONNECTED": 1}, seal_age=timedelta(1), unsealed_age=timedelta(1))

    collector = StandingCollector(look)
    collector._seen, collector._seen_at = await look(), float("inf")
    metrics.collect_from(collector)
    metrics.collect_from(PoolCollector(dict))
    names: set[str] = set()
    for family in metrics.registry.collect():
        ends = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
        names |= {family.name + end for end in ends}
    return names


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_manifests_fit_kubernetes(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.33", strict=True)


def _pods() -> dict[str, dict[str, Any]]:
    return {
        manifest["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]: manifest["spec"]["template"][
            "spec"
        ]
        for manifest in MANIFESTS
        if manifest["kind"] in ("Deployment", "Job")
    }


def test_pods_run_as_nobody_and_write_nowhere() -> None:
    for name, pod in _pods().items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert f"USER {pod['securityContext']['runAsUser']}:" in (ROOT / "Dockerfile").read_text()
        assert pod["automountServiceAccountToken"] is False
        [container] = pod["containers"]
        held = container["securityContext"]
        assert held["readOnlyRootFilesystem"] is True
        assert held["allowPrivilegeEscalation"] is False
        assert held["capabilities"] == {"drop": ["ALL"]}
        assert isinstance(integrations.get_command(click.Context(integrations), container["args"][0]), click.Command)


def test_every_pod_has_a_network_policy_both_ways() -> None:
    policies = {
        one["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]: one["spec"]
        for one in MANIFESTS
        if one["kind"] == "NetworkPolicy"
    }
    assert policies.keys() == _pods().keys()
    assert all(one["policyTypes"] == ["Ingress", "Egress"] for one in policies.values())
    # Only workers reach the world, and none of them the cluster or the cloud's metadata.
    world = {name for name, one in policies.items() if "ipBlock" in json.dumps(one["egress"])}
    assert world == {"integrations-worker"}
    assert "169.254.0.0/16" in json.dumps(policies["integrations-worker"])


def test_outside_are_the_paths_of_people_and_callers_only() -> None:
    [ingress] = [one for one in MANIFESTS if one["kind"] == "Ingress"]
    paths = {one["path"] for rule in ingress["spec"]["rules"] for one in rule["http"]["paths"]}
    assert paths == {"/oauth/callback", "/connect", "/v1/", "/codec/"}


def test_secrets_are_made_without_standing_in_a_command() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    assert "--from-literal" not in text


def test_variables_are_settings_and_no_secret_stands_there() -> None:
    variables = {entry["name"] for pod in _pods().values() for entry in pod["containers"][0].get("env", ())}
    [config] = [manifest for manifest in MANIFESTS if manifest["kind"] == "ConfigMap"]
    ours = {name for name in variables | config["data"].keys() if name.startswith("INTEGRATIONS_")}
    assert ours <= {f"INTEGRATIONS_{field.upper()}" for field in Settings.model_fields}
    assert not [manifest for manifest in MANIFESTS if manifest["kind"] == "Secret"]
    assert not any(re.search("PASSWORD|TOKEN|DATABASE_URL", name) for name in config["data"])
    gateway = json.dumps(_pods()["integrations-gateway"])
    assert "keyring.json" not in gateway


SECRET = {"database_url", "keyring", "gateway_tokens", "results_keyring", "payload_keyring"}


@pytest.mark.parametrize("pod", ["integrations-worker", "integrations-gateway"])
def test_every_setting_has_its_place(pod: str) -> None:
    """In the pod, in the ConfigMap that it takes whole, or in the commands that make its Secret."""
    [config] = [manifest for manifest in MANIFESTS if manifest["kind"] == "ConfigMap"]
    [container] = _pods()[pod]["containers"]
    taken = {ref["name"] for source in container["envFrom"] for ref in source.values()}
    assert taken == {config["metadata"]["name"], pod}
    given = {entry["name"] for entry in container["env"]} | config["data"].keys()
    made = (ROOT / "docs" / "operating.md").read_text().split("## On Kubernetes")[1].split("\n## ")[0]
    [secret] = re.findall(rf"secret generic {pod} ((?:.*\\\n)*.*)", made)
    given |= set(re.findall(r'(INTEGRATIONS_\w+) "\$', secret))
    short = pod.removeprefix("integrations-")
    needed = {setting for setting, who in NEEDED_BY.items() if short in who}
    assert {f"INTEGRATIONS_{setting.upper()}" for setting in needed} <= given
    for name in config["data"].keys() & {f"INTEGRATIONS_{setting.upper()}" for setting in SECRET}:
        raise AssertionError(f"{name} is secret")


def test_the_config_says_the_defaults() -> None:
    """An operator reads there what can be set; what is not changed there is as without it."""
    [config] = [manifest for manifest in MANIFESTS if manifest["kind"] == "ConfigMap"]
    chosen = {
        "INTEGRATIONS_PUBLIC_URL",
        "INTEGRATIONS_RETURN_URLS",
        "INTEGRATIONS_WEB_UI_URL",
        "INTEGRATIONS_LOG_FORMAT",
    }
    ours = {name: value for name, value in config["data"].items() if name.startswith("INTEGRATIONS_")}
    rest = {name: value for name, value in ours.items() if name not in chosen}
    assert Settings.from_environment(rest) == Settings()
    assert Settings.from_environment(ours).public_url == config["data"]["INTEGRATIONS_PUBLIC_URL"]


def test_what_people_reach_is_let_in_and_no_more() -> None:
    [ingress] = [manifest for manifest in MANIFESTS if manifest["kind"] == "Ingress"]
    [rule] = ingress["spec"]["rules"]
    paths = {(path["path"], path["pathType"]) for path in rule["http"]["paths"]}
    assert paths == {("/oauth/callback", "Exact"), ("/v1/", "Prefix"), ("/connect", "Prefix"), ("/codec/", "Prefix")}


def test_pods_are_given_time_to_stop() -> None:
    worker = _pods()["integrations-worker"]
    env = {entry["name"]: entry["value"] for entry in worker["containers"][0]["env"]}
    # Calls, then a token request of 25 s, then what is still to be sent of traces.
    assert worker["terminationGracePeriodSeconds"] >= int(env["INTEGRATIONS_WORKER_GRACE"]) + 25 + 10
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    default = Settings.model_fields["worker_grace"].default
    assert int(compose["worker"]["stop_grace_period"].removesuffix("s")) >= default.total_seconds() + 25 + 10
    # What a person waits for in a browser.
    gateway = _pods()["integrations-gateway"]["terminationGracePeriodSeconds"]
    assert gateway >= COMPLETE_WITHIN.total_seconds() + 10
    assert int(compose["gateway"]["stop_grace_period"].removesuffix("s")) >= COMPLETE_WITHIN.total_seconds() + 10


def test_probes_ask_where_the_processes_answer() -> None:
    for name in ("integrations-worker", "integrations-gateway"):
        [container] = _pods()[name]["containers"]
        [port] = [port for port in container["ports"] if port["name"] == container["livenessProbe"]["httpGet"]["port"]]
        env = {entry["name"]: entry.get("value", "") for entry in container["env"]}
        assert any(value.endswith(f":{port['containerPort']}") for value in env.values())
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


async def test_every_metric_that_is_watched_is_told() -> None:
    known = await _exposed() | TEMPORALS | OF_PROMETHEUS
    named: set[str] = set()
    for text in _expressions():
        named |= set(_metrics(promql_parser.parse(text)))
    assert named <= known, named - known
    assert {name for name in named if name.startswith("temporal_")} <= TEMPORALS
    # Whatever we count of our own is watched by somebody.
    ours = {name for name in await _exposed() if name.startswith("integrations_")}
    watched = {re.sub("_(bucket|count|sum)$", "", name) for name in named}
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in ours} <= watched


def test_each_alert_has_its_line() -> None:
    text = (ROOT / "docs" / "operating.md").read_text().split("## What each alert asks of you")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == [rule["alert"] for rule in ALERTS]
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
