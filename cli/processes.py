"""The deployed processes: `worker`, `gateway`, `migrate`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from integration_service.cli.output import print_object
from integration_service.cli.session import common_options, find_session


@click.command()
@common_options
def worker(*, data_dir: Path | None, as_json: bool) -> None:
    """The worker process alone, told everything by the environment.

    With --data-dir it is one more of that `dev` stack, and listens only where the environment says.
    """
    _told_by(data_dir)
    from integration_service.worker import main

    main()


@click.command()
@common_options
def gateway(*, data_dir: Path | None, as_json: bool) -> None:
    """The ASGI process alone, told everything by the environment.

    With --data-dir it is one more of that `dev` stack, and listens only where the environment says.
    """
    _told_by(data_dir)
    from integration_service.gateway.__main__ import main

    main()


@click.command()
@common_options
def migrate(*, data_dir: Path | None, as_json: bool) -> None:
    """Bring the database to this version; safe when two start at once."""
    from integration_service.storage.migrations import migrate as run
    from integration_service.storage.schema_version import HEAD

    run(find_session(data_dir).settings.require("database_url"))
    print_object({"database": HEAD}, as_json=as_json)


def _told_by(data_dir: Path | None) -> None:
    """Let a running stack's environment stand for ours, but for where its own processes listen."""
    if data_dir is None:
        return
    from integration_service.devstack.environment import child_environment

    stack = find_session(data_dir).environment
    own = {name: value for name, value in stack.items() if not name.endswith("_LISTEN")}
    own |= {name: value for name, value in os.environ.items() if name.endswith("_LISTEN")}
    whole = child_environment(own)
    os.environ.clear()
    os.environ.update(whole)
