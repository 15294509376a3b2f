"""`integrations result …`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from urllib.parse import quote

import click

from integration_service.cli.output import print_object
from integration_service.cli.session import common_options, find_session
from integration_service.client import fetch_result
from integration_service.contracts.calls import RESULTS_PATH
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.settings import Settings

_TOKENS = "INTEGRATIONS_GATEWAY_TOKENS"


@click.group()
def result() -> None:
    """Results that were too large to be handed over."""


@result.command()
@click.argument("id_", metavar="ID")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it here instead of to stdout.")
@common_options
def get(id_: str, *, out: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Fetch the result that ID, a resultRef's id, names: with the token of the stack, or with the first one of
    INTEGRATIONS_GATEWAY_TOKENS."""
    settings = _settings(data_dir)
    if not settings.gateway_tokens:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, f"{_TOKENS} is not set", path=_TOKENS)
    url = settings.public_url.rstrip("/") + RESULTS_PATH + quote(id_, safe="")
    found = asyncio.run(fetch_result(url, token=settings.gateway_tokens[0]))
    if out is None:
        sys.stdout.buffer.write(found.body)
        return
    try:
        out.write_bytes(found.body)
    except OSError as error:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, f"cannot write it: {error.strerror}", path="--out") from None
    told = {
        "file": str(out),
        "bytes": len(found.body),
        "sha256": found.sha256,
        "contentType": found.content_type,
    }
    print_object(told, as_json=as_json)


def _settings(data_dir: Path | None) -> Settings:
    """Whoever has a token and the gateway's URL needs neither database nor Temporal."""
    if data_dir is None and os.environ.get(_TOKENS):
        return Settings.from_environment()
    return find_session(data_dir).settings
