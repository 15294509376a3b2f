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


def _leaves(group: click.Group, path: str = "") -> dict[str, click.Command]:
    context, found = click.Context(group), {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found |= _leaves(command, f"{path}{name} ") if isinstance(command, click.Group) else {f"{path}{name}": command}
    return found


def test_every_command_takes_data_dir_and_json_and_no_secret_as_an_argument() -> None:
    assert isinstance(integrations, click.Group)
    for name, command in _leaves(integrations).items():
        options = {option for one in command.params for option in one.opts}
        assert {"--data-dir", "--json"} <= options, name
        assert not options & {"--secret", "--password", "--token", "--key", "--client-secret", "--private-key"}, name


def test_the_promised_commands_are_there() -> None:
    promised = """
        demo dev worker gateway migrate call schema
        definition: apply list show publish deprecate archive client+set
        instance: connect list show authorize credentials test refresh upgrade disconnect delete
        keys: generate status rotate
        audit: tail stats verify
    """
    wanted = set()
    for line in promised.split("\n"):
        group, _, names = line.strip().rpartition(":")
        wanted |= {f"{group} {name}".strip().replace("+", " ") for name in names.split()}
    assert isinstance(integrations, click.Group)
    assert len(wanted) == 30
    assert wanted <= set(_leaves(integrations))
