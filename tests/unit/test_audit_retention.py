"""How long the execution log is kept, as the environment says it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from integration_service.contracts.errors import IntegrationError
from integration_service.settings import Settings

_VARIABLE = "INTEGRATIONS_AUDIT_RETENTION"


@pytest.mark.parametrize(("text", "days"), [("", 400), ("1", 1), ("3650", 3650)])
def test_it_is_a_number_of_days(text: str, days: int) -> None:
    assert Settings.from_environment({_VARIABLE: text}).audit_retention == timedelta(days=days)


@pytest.mark.parametrize("text", ["0", "-1", "400d", "1.5", "P400D", "100000", "\u0661"])
def test_anything_else_is_refused_by_the_variables_name(text: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        Settings.from_environment({_VARIABLE: text})
    assert refused.value.path == _VARIABLE
    assert "days" in refused.value.message
