"""The command line starts quickly: a command imports what it needs, and help imports nothing."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from integration_service.cli.lazy_group import LazyGroup
from integration_service.cli.main import integrations

_HEAVY = {
    "zeep", "lxml", "graphql", "sqlalchemy", "alembic", "uvicorn", "starlette", "httpx2", "authlib", "joserfc",
    "jsonata", "jsonschema_rs", "cryptography",
}  # fmt: skip
_SCRIPT = """
import sys
from integration_service.cli.main import integrations
try:
    integrations.main(sys.argv[1:], standalone_mode=False)
finally:
    print("\\n" + " ".join({name.split(".")[0] for name in sys.modules}))
"""


def imported(*words: str) -> set[str]:
    """The top-level packages that a fresh interpreter has imported once the command has run."""
    command = [sys.executable, "-c", _SCRIPT, *words]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Usage: " in out
    return set(out.splitlines()[-1].split())


def test_help_imports_nothing_but_click() -> None:
    assert not imported("--help") & {*_HEAVY, "temporalio", "pydantic", "psycopg"}


def test_a_call_imports_none_of_what_others_need() -> None:
    found = imported("call", "--help")
    assert "temporalio" in found
    assert not found & (_HEAVY - {"cryptography"})  # payloads may be encrypted


@pytest.mark.parametrize("name", integrations.list_commands(click.Context(integrations)))
def test_each_command_is_where_the_table_says_and_says_of_itself_what_the_table_does(name: str) -> None:
    assert isinstance(integrations, LazyGroup)
    command = integrations.get_command(click.Context(integrations), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(limit=200) == integrations.lazy[name].short_help
