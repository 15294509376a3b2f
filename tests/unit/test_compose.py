"""The deployed shape, as far as it can be checked without Docker: the files say what our code and Compose accept."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

from integration_service.cli.main import integrations
from integration_service.contracts.names import SEARCH_ATTRIBUTES, TASK_QUEUE
from integration_service.contracts.nexus import NEXUS_ENDPOINT
from integration_service.devstack import temporal as embedded_temporal
from integration_service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


_WORKER, _GATEWAY, _CLI = "worker", "gateway", "cli"
_SERVING = {_WORKER, _GATEWAY, _CLI}
NEEDED_BY: dict[str, set[str]] = {
    "database_url": {"migrate", *_SERVING},
    "keyring": {_WORKER, _CLI},
    "public_url": _SERVING,
    "task_queue": {_WORKER, _CLI},
    "egress_allow": _SERVING,
    "return_urls": _SERVING,
    "web_ui_url": {_GATEWAY},
    "gateway_listen": {_GATEWAY},
    "gateway_tokens": {_GATEWAY, _CLI},
    "results_keyring": _SERVING,
    "payload_encryption": _SERVING,
    "payload_keyring": _SERVING,
    "codec_jwks": {_GATEWAY},
    "codec_issuer": {_GATEWAY},
    "codec_audience": {_GATEWAY},
    "codec_origins": {_GATEWAY},
    "codec_local_ui": set(),  # for a gateway on a loopback address: `dev` alone
    "audit_retention": {_WORKER},
    "worker_listen": {_WORKER},
    "worker_slots": {_WORKER},
    "worker_grace": {_WORKER},
    "deployment": {_WORKER},
    "build_id": {_WORKER},
    "log_format": {_WORKER, _GATEWAY},
    "trace_upstreams": {_WORKER},
}
FIXED = {"database_url", "keyring", "gateway_listen", "worker_listen"}
"""What the file itself decides."""


def test_it_fits_the_compose_specification() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(COMPOSE)


def test_services_wait_only_for_services_that_can_become_what_is_waited_for() -> None:
    for name, service in SERVICES.items():
        for other, wait in service.get("depends_on", {}).items():
            assert other in SERVICES, f"{name} waits for {other}"
            condition = wait["condition"]
            if condition == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{other} is never healthy"
            else:
                assert condition == "service_completed_successfully"
                assert SERVICES[other]["restart"].startswith("on-failure"), f"{other} never completes"


def test_it_starts_in_order() -> None:
    def before(name: str) -> set[str]:
        waits = set(SERVICES[name].get("depends_on", {}))
        return waits.union(*(before(other) for other in waits))

    assert before("worker") == {
        "postgres", "temporal-schema", "temporal", "temporal-namespace", "migrate",
    }  # fmt: skip
    assert before("gateway") == {"postgres", "migrate"}


def test_no_secret_has_a_default() -> None:
    optional = {"INTEGRATIONS_GATEWAY_TOKENS", "INTEGRATIONS_RESULTS_KEYRING", "INTEGRATIONS_PAYLOAD_KEYRING"}
    variables = dict(re.findall(r"\$\{(\w+)(:[?-][^}]*|)\}", TEXT))
    secret = {name for name in variables if re.search("PASSWORD|KEY|SECRET|TOKEN", name)}
    assert secret == {
        "POSTGRES_PASSWORD",
        "TEMPORAL_DB_PASSWORD",
        "INTEGRATIONS_DB_PASSWORD",
        "INTEGRATIONS_KEYRING_FILE",
        *optional,
    }
    for name in secret:
        assert variables[name].startswith(":?") or (name in optional and variables[name] == ":-"), name
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|PWD$", key):
                assert value.startswith("${"), f"{name} {key} is written out"
            assert not re.search(r"://[^@/]*:[^@/]*@", str(value)), f"{name} {key} holds a password"


def test_each_secret_is_only_where_it_is_used() -> None:
    def who(variable: str) -> set[str]:
        return {name for name, service in SERVICES.items() if variable in service.get("environment", {})}

    assert who("INTEGRATIONS_GATEWAY_TOKENS") == {"gateway", "cli"}
    assert who("INTEGRATIONS_RESULTS_KEYRING") == {"worker", "gateway", "cli"}
    assert who("INTEGRATIONS_KEYRING") == {"worker", "cli"}
    assert {name for name, service in SERVICES.items() if service.get("secrets")} == {"worker", "cli"}


def test_secrets_and_configs_are_declared() -> None:
    for service in SERVICES.values():
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
        assert {one["source"] for one in service.get("configs", ())} <= set(COMPOSE["configs"])


@pytest.mark.parametrize("name", OURS)
def test_our_commands_are_subcommands(name: str) -> None:
    command: click.Command = integrations
    for word in OURS[name]["command"]:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None, f"no such command: {word}"
        command = found
    assert not isinstance(command, click.Group)


@pytest.mark.parametrize("name", OURS)
def test_our_variables_are_settings(name: str) -> None:
    given = {key for key in OURS[name]["environment"] if key.startswith("INTEGRATIONS_")}
    assert given <= {f"INTEGRATIONS_{field.upper()}" for field in Settings.model_fields}
    assert "INTEGRATIONS_DATABASE_URL" in given


@pytest.mark.parametrize("setting", Settings.model_fields)
def test_every_setting_reaches_whoever_needs_it(setting: str) -> None:
    variable = f"INTEGRATIONS_{setting.upper()}"
    for name in NEEDED_BY[setting]:
        value = OURS[name]["environment"].get(variable)
        assert value is not None, f"{name} is not given {variable}"
        # What the file does not fix is the operator's to set, and empty means the default.
        assert setting in FIXED or re.fullmatch(r"\$\{" + variable + r":-[^}]*\}", value), f"{name}: {variable}={value}"


def test_who_needs_a_setting_is_known_and_told() -> None:
    assert set(NEEDED_BY) == set(Settings.model_fields)
    told = (ROOT / "docs" / "operating.md").read_text().split("## Environment")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `INTEGRATIONS_(\w+)`", told, re.MULTILINE)) == {
        setting.upper() for setting in Settings.model_fields
    }


def test_a_worker_has_what_it_needs_and_the_gateway_no_keyring() -> None:
    worker = OURS["worker"]["environment"]
    assert {"INTEGRATIONS_KEYRING", "TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"} <= set(worker)
    assert worker["INTEGRATIONS_KEYRING"] == f"/run/secrets/{OURS['worker']['secrets'][0]}"
    gateway = OURS["gateway"]["environment"]
    # The worker makes redirect URIs and checks return URLs; the gateway is where people come back to.
    assert {"INTEGRATIONS_PUBLIC_URL", "INTEGRATIONS_RETURN_URLS"} <= set(worker) & set(gateway)
    assert {"TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"} <= set(gateway)
    assert "secrets" not in OURS["gateway"]
    assert "INTEGRATIONS_KEYRING" not in OURS["gateway"]["environment"]


def test_images_are_pinned_and_ports_are_local() -> None:
    for name, service in SERVICES.items():
        assert re.search(r":\d+\.\d+", service["image"]), f"{name} is not pinned"
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), f"{name} listens everywhere"


def test_temporal_is_tuned_as_the_embedded_one() -> None:
    tuned = yaml.safe_load(COMPOSE["configs"]["temporal-dynamic-config"]["content"])
    written = {key: entries[0]["value"] for key, entries in tuned.items()}
    embedded = {key: json.loads(value) for key, value in embedded_temporal._DYNAMIC_CONFIG.items()}
    assert written == embedded
    target = SERVICES["temporal"]["configs"][0]["target"]
    assert SERVICES["temporal"]["environment"]["DYNAMIC_CONFIG_FILE_PATH"] == target


def test_search_attributes_are_registered() -> None:
    script = SERVICES["temporal-namespace"]["command"][0]
    words = shlex.split(script.replace("$$", "$"), comments=True)
    words = words[words.index("search-attribute") : words.index("nexus")]
    names = {words[index + 1].rstrip(";") for index, word in enumerate(words) if word == "--name"}
    assert names == {attribute.name for attribute in SEARCH_ATTRIBUTES}


def test_the_nexus_endpoint_leads_to_our_queue() -> None:
    script = SERVICES["temporal-namespace"]["command"][0]
    words = shlex.split(script.replace("$$", "$"), comments=True)
    created = [word for word in words[words.index("create", words.index("nexus")) + 1 :] if word.strip()]
    assert dict(zip(created[::2], created[1::2], strict=True)) == {
        "--name": NEXUS_ENDPOINT,
        "--target-namespace": "$TEMPORAL_NAMESPACE",
        "--target-task-queue": TASK_QUEUE,
    }


def test_requirements_are_hashed_hold_no_url_and_satisfy_the_project() -> None:
    text = (ROOT / "requirements.txt").read_text()
    assert "://" not in text
    assert not re.search(r"^--?(index|extra-index|find-links|i |f )", text, re.MULTILINE)
    pinned: dict[str, str] = {}
    for entry in re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines():
        requirement, *hashes = entry.split(" --hash=")
        assert hashes, f"no hash: {requirement}"
        parsed = Requirement(requirement)
        pinned[parsed.name] = str(parsed.specifier).removeprefix("==")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for dependency in map(Requirement, project["dependencies"]):
        assert dependency.specifier.contains(pinned[dependency.name]), f"{dependency} is not {pinned[dependency.name]}"
    for embedded in map(Requirement, project["optional-dependencies"]["embedded"]):
        assert embedded.name not in pinned, f"the image carries {embedded.name}"


def test_the_image_has_what_the_wheel_is_built_from() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert {*wheel, "pyproject.toml", project["project"]["readme"], "LICENSE", "requirements.txt"} == kept
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER 10001", dockerfile, re.MULTILINE)
    assert "--require-hashes" in dockerfile
