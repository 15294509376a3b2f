"""What people read in the Web UI: every state says what to do, and nobody's name becomes markup."""

from __future__ import annotations

import shlex
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integration_service.contracts.advice import advice_for
from integration_service.contracts.connection_page import connection_page
from integration_service.contracts.connections import ConnectionState
from integration_service.contracts.errors import ErrorCode
from integration_service.contracts.events import ShiftReport
from integration_service.contracts.instances import InstanceError, IntegrationInstance
from integration_service.contracts.instances import IntegrationInstanceStatus as Status
from integration_service.contracts.keys import KeyName, RotateKeys, RotationCarried
from integration_service.contracts.markdown import code, instance_command, moment, plain
from integration_service.contracts.oauth import PendingAuthorization, RefreshFailure, RefreshInput, TokenState
from integration_service.contracts.token_page import token_page
from integration_service.contracts.upkeep_pages import delivery_page, rotation_page

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
ID = str(uuid.uuid4())


def _state(status: Status, *, name: str = "acme", auth: str = "oauth2", **more: Any) -> ConnectionState:
    instance = IntegrationInstance.model_validate(
        {
            "id": ID,
            "integrationDefinitionId": str(uuid.uuid4()),
            "name": name,
            "config": {"url": "https://planted.test"},
            "status": status.value,
            "createdAt": NOW,
            "updatedAt": NOW,
            "definition": "github",
            "definitionVersion": "1.2.0",
            "authType": auth,
            "version": 1,
        },
        by_alias=True,
    )
    return ConnectionState(instance=instance, generation=more.pop("generation", 1), **more)


def _error(code: str, **details: str) -> InstanceError:
    return InstanceError(code=code, message="planted words of the upstream", details=details or None)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("auth", ["none", "basic", "oauth2"])
@pytest.mark.parametrize("error", [None, "AUTH_ERROR", "REAUTH_REQUIRED", "TIMEOUT", "HTTP_503", "CIRCUIT_OPEN"])
def test_every_state_says_what_is_wrong_and_what_to_do(status: Status, auth: str, error: str | None) -> None:
    page = connection_page(_state(status, auth=auth), _error(error) if error else None, None)
    assert "**What is wrong:** " in page
    assert "**What to do:** " in page
    assert status.value in page
    assert "planted" not in page
    if status not in (Status.CONNECTED, Status.DISCONNECTED):
        assert "`integrations instance " in page


@pytest.mark.parametrize(
    ("status", "auth", "grant", "command"),
    [
        (Status.AUTH_ERROR, "oauth2", "authorization_code", "integrations instance authorize acme"),
        (Status.AUTH_ERROR, "oauth2", "authorization_code", "integrations instance connect-link acme"),
        (Status.AUTH_ERROR, "oauth2", "password", "integrations instance connect-link acme"),
        (Status.PENDING_AUTHENTICATION, "oauth2", "device_code", "integrations instance connect-link acme"),
        (Status.PENDING_AUTHENTICATION, "api_key", None, "integrations instance connect-link acme"),
        (Status.PENDING_CONFIGURATION, "none", None, "integrations instance connect-link acme"),
        (Status.CONFIG_ERROR, "jwt", None, "integrations instance connect-link acme"),
        (Status.AUTH_ERROR, "oauth2", "client_credentials", "integrations definition client set github"),
        (Status.AUTH_ERROR, "api_key", None, "integrations instance credentials acme"),
        (Status.CONFIG_ERROR, "none", None, "integrations instance configure acme"),
        (Status.DISCONNECTED, "none", None, "integrations instance reconnect acme"),
    ],
)
def test_the_command_fits(status: Status, auth: str, grant: Any, command: str) -> None:
    assert command in connection_page(_state(status, auth=auth, grant=grant), None, None)


@pytest.mark.parametrize(
    ("status", "auth", "grant"),
    [
        (Status.AUTH_ERROR, "oauth2", "client_credentials"),
        (Status.AUTH_ERROR, "oauth2", "jwt_bearer"),
        (Status.AUTH_ERROR, "none", None),
        (Status.CONNECTED, "oauth2", "authorization_code"),
        (Status.DISCONNECTED, "api_key", None),
    ],
)
def test_where_no_person_is_waited_for_nobody_is_sent_a_link(status: Status, auth: str, grant: Any) -> None:
    assert "connect-link" not in connection_page(_state(status, auth=auth, grant=grant), None, None)


def test_why_a_connection_was_lost() -> None:
    lost = connection_page(_state(Status.AUTH_ERROR), _error("REAUTH_REQUIRED", cause="outcome_unknown"), None)
    assert "An answer of the provider was lost" in lost


def test_an_authorization_that_is_under_way_shows_its_end_and_not_its_address() -> None:
    pending = PendingAuthorization(
        authorization_url="https://idp.test/authorize?state=planted", expires_at=NOW, state_hash="h"
    )
    page = connection_page(_state(Status.PENDING_AUTHENTICATION, generation=0), None, pending)
    assert "until 2026-03-01 12:00:30 UTC" in page.replace("\n", " ")
    assert "planted" not in page


def test_a_connected_tokens_times() -> None:
    token = TokenState(generation=3, expires_at=NOW + timedelta(hours=1), next_refresh_at=NOW)
    page = connection_page(_state(Status.CONNECTED, token=token), None, None)
    assert "Access token expires: 2026-03-01 13:00:30 UTC" in page
    assert "Next refresh: 2026-03-01 12:00:30 UTC" in page
    assert f"oauth-refresh:{ID}" in page


def test_the_token_page() -> None:
    wanted = RefreshInput(instance_id=ID, scope="team a")
    token = TokenState(generation=3, expires_at=NOW)
    fresh = token_page(wanted, token, NOW, None)
    assert "Next refresh: 2026-03-01 12:00:30 UTC" in fresh
    trouble = token_page(wanted, token, NOW, RefreshFailure(code="HTTP_503", message="planted"))
    assert "tried again" in trouble
    lost = token_page(wanted, token, None, RefreshFailure(code="REAUTH_REQUIRED", message="planted", final=True))
    assert f"integrations instance authorize {ID} --scope 'team a'" in lost
    assert f"integrations instance connect-link {ID} --scope 'team a'" in lost
    assert "planted" not in trouble + lost


@pytest.mark.parametrize(
    "name",
    ["[click](https://evil.test)", "<img src=x>", "a `b` c", "# big", "https://evil.test", "a\n## b", "x" * 255, "  "],
)
def test_names_stay_names(name: str) -> None:
    page = connection_page(_state(Status.AUTH_ERROR, name=name), None, None)
    heading = page.splitlines()[0]
    for sign in ("](", " <img", "https://"):
        assert sign not in heading
    assert page.count("\n## ") == 0


def test_code_spans_hold_what_they_hold() -> None:
    assert code("a") == "`a`"
    assert code("a`b") == "``a`b``"
    assert code("`a") == "`` `a ``"
    assert code("a\nb") == "`a b`"
    assert plain("a\x00\u202eb") == "a  b"
    assert moment(NOW) == "2026-03-01 12:00:30 UTC"
    command = instance_command("authorize", "it's; rm -rf /").strip("`")
    assert shlex.split(command) == ["integrations", "instance", "authorize", "it's; rm -rf /"]


def test_the_pages_of_upkeep_say_what_goes_on() -> None:
    assert "**What is wrong:** nothing." in delivery_page(None, None)
    assert "12:00:30 UTC: 3 delivered, 1 to be tried again, 0 given up" in delivery_page(
        ShiftReport(delivered=3, failed=1), NOW
    )
    assert "A shift failed" in delivery_page(None, None, trouble=True)
    to = RotateKeys(active=KeyName(id="kek-1", version=2), results=KeyName(id="kek-9", version=4))
    page = rotation_page(to, RotationCarried(rewrapped=12, tables=["vault.seal_keys"], missing=3), "at work on x")
    for fact in ("under key `kek-1:2`", "anew: 12", "Now: at work on x", "`vault.seal_keys`", "`kek-9:4`", "has: 3"):
        assert fact in page


def test_every_code_has_advice() -> None:
    unknown = advice_for("?")
    own_words = {ErrorCode.GRAPHQL_ERROR, ErrorCode.SOAP_FAULT}
    assert {one for one in ErrorCode if advice_for(one) == unknown} == own_words
    assert advice_for("HTTP_404").means == "The upstream answered HTTP 404."
