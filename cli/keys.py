"""`integrations keys …`."""

from __future__ import annotations

from pathlib import Path

import click

from integration_service.cli.output import print_object
from integration_service.cli.session import common_options
from integration_service.storage.vault.keyring import generate_keyring, generate_keyring_file


@click.group()
def keys() -> None:
    """Key-encryption keys."""


@keys.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write it here, mode 0600, instead of to stdout.")
@common_options
def generate(out: Path | None, *, data_dir: Path | None, as_json: bool) -> None:
    """Make a new key set for INTEGRATIONS_KEYRING."""
    if out is None:
        return click.echo(generate_keyring(), nl=False)
    generate_keyring_file(out)
    print_object({"keyring": str(out)}, as_json=as_json)
