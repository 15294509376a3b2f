"""Settings come from the environment, once, and show no secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.service import GrpcCompression, TLSConfig

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.settings import Settings, temporal_config

ENVIRONMENT = {
    "INTEGRATIONS_DATABASE_URL": "postgresql://u:planted-db-pass@h/d",
    "INTEGRATIONS_KEYRING": '{"planted": "planted-key"}',
    "INTEGRATIONS_PUBLIC_URL": "https://integrations.test",
    "INTEGRATIONS_TASK_QUEUE": "other",
    "INTEGRATIONS_EGRESS_ALLOW": " 10.0.0.0/8, ,fd00::/8,",
    "INTEGRATIONS_RETURN_URLS": "https://app.test, http://localhost:3000/done ,",
    "UNRELATED": "x",
}


def test_every_variable_is_read() -> None:
    settings = Settings.from_environment(ENVIRONMENT)
    assert settings.database_url == ENVIRONMENT["INTEGRATIONS_DATABASE_URL"]
    assert settings.keyring == ENVIRONMENT["INTEGRATIONS_KEYRING"]
    assert settings.public_url == "https://integrations.test"
    assert settings.task_queue == "other"
    assert settings.egress_allow == ("10.0.0.0/8", "fd00::/8")
    assert settings.return_urls == ("https://app.test", "http://localhost:3000/done")


@pytest.mark.parametrize("environment", [{}, {"INTEGRATIONS_TASK_QUEUE": "", "INTEGRATIONS_EGRESS_ALLOW": ""}])
def test_what_is_unset_or_empty_has_its_default(environment: dict[str, str]) -> None:
    settings = Settings.from_environment(environment)
    assert (settings.task_queue, settings.egress_allow, settings.return_urls) == ("integrations", (), ())


@pytest.mark.parametrize("entry", ["*", "app.test", "https://*.app.test", "https://u:planted@app.test", "https://a b"])
def test_a_return_url_that_matches_nothing_is_refused_by_its_place(entry: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        Settings.from_environment({"INTEGRATIONS_RETURN_URLS": f"https://app.test,{entry}"})
    assert refused.value.path == "INTEGRATIONS_RETURN_URLS"
    assert "entry 2" in refused.value.message
    assert "planted" not in str(refused.value)


def test_the_processes_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTEGRATIONS_TASK_QUEUE", "from-the-process")
    assert Settings.from_environment().task_queue == "from-the-process"


def test_no_secret_shows() -> None:
    settings = Settings.from_environment(ENVIRONMENT)
    assert "planted" not in repr(settings) + str(settings)


@pytest.mark.parametrize(
    ("name", "variable"), [("database_url", "INTEGRATIONS_DATABASE_URL"), ("keyring", "INTEGRATIONS_KEYRING")]
)
def test_what_is_needed_and_unset_is_named(name: str, variable: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        Settings.from_environment({}).require(name)
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, variable)
    assert variable in refused.value.message
    assert Settings.from_environment(ENVIRONMENT).require(name) == ENVIRONMENT[variable]


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.from_environment({}).task_queue = "x"


def test_temporal_is_reached_as_its_own_variables_say() -> None:
    config = temporal_config(
        {
            "TEMPORAL_ADDRESS": "temporal.test:7233",
            "TEMPORAL_NAMESPACE": "billing",
            "TEMPORAL_API_KEY": "planted-api-key",
            "TEMPORAL_TLS_SERVER_NAME": "inner.test",
        }
    )
    assert (config["target_host"], config["namespace"]) == ("temporal.test:7233", "billing")
    assert config["api_key"] == "planted-api-key"
    assert isinstance(config["tls"], TLSConfig)
    assert config["tls"].domain == "inner.test"
    assert config["grpc_compression"] is GrpcCompression.NONE


def test_a_profile_of_temporals_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "temporal.toml"
    file.write_text('[profile.other]\naddress = "other.test:7233"\nnamespace = "elsewhere"\n')
    config = temporal_config({"TEMPORAL_CONFIG_FILE": str(file), "TEMPORAL_PROFILE": "other"})
    assert (config["target_host"], config["namespace"]) == ("other.test:7233", "elsewhere")


def test_without_any_it_is_the_local_server(tmp_path: Path) -> None:
    config = temporal_config({"TEMPORAL_CONFIG_FILE": str(tmp_path / "none.toml")})
    assert config["target_host"] == "localhost:7233"
