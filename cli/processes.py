"""The deployed processes: `worker`, `gateway`, `migrate`."""

from __future__ import annotations

from pathlib import Path

import click

from integration_service.cli.output import print_object
from integration_service.cli.session import common_options, find_session


@click.command()
@common_options
def worker(*, data_dir: Path | None, as_json: bool) -> None:
    """The worker process alone, told everything by the environment."""
    from integration_service.worker import main

    main()


@click.command()
@common_options
def gateway(*, data_dir: Path | None, as_json: bool) -> None:
    """The ASGI process alone, told everything by the environment."""
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
