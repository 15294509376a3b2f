"""`integrations result …`."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path
from urllib.parse import quote

import click
import httpx2

from integration_service.cli.output import print_object
from integration_service.cli.session import common_options, find_session
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
    answer = asyncio.run(_fetch(_settings(data_dir), id_))
    sha256 = hashlib.sha256(answer.content).hexdigest()
    if answer.headers.get("etag") != f'"{sha256}"':
        raise IntegrationError(ErrorCode.INTEGRITY_ERROR, "the result arrived changed: its hash is another")
    if out is None:
        sys.stdout.buffer.write(answer.content)
        return
    try:
        out.write_bytes(answer.content)
    except OSError as error:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, f"cannot write it: {error.strerror}", path="--out") from None
    told = {
        "file": str(out),
        "bytes": len(answer.content),
        "sha256": sha256,
        "contentType": answer.headers["content-type"],
    }
    print_object(told, as_json=as_json)


def _settings(data_dir: Path | None) -> Settings:
    """Whoever has a token and the gateway's URL needs neither database nor Temporal."""
    if data_dir is None and os.environ.get(_TOKENS):
        return Settings.from_environment()
    return find_session(data_dir).settings


async def _fetch(settings: Settings, id_: str) -> httpx2.Response:
    if not settings.gateway_tokens:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, f"{_TOKENS} is not set", path=_TOKENS)
    url = settings.public_url.rstrip("/") + RESULTS_PATH + quote(id_, safe="")
    headers = {"Authorization": f"Bearer {settings.gateway_tokens[0]}"}
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
            answer = await http.get(url, headers=headers)
    except httpx2.HTTPError:
        sentence = f"no gateway answers at {settings.public_url}"
        raise IntegrationError(ErrorCode.UNAVAILABLE, sentence, path="INTEGRATIONS_PUBLIC_URL") from None
    if answer.status_code == 200:
        return answer
    try:
        told = answer.json()
        refused = IntegrationError(told["code"], told["message"], path=told.get("path"))
    except (ValueError, KeyError, TypeError):
        refused = IntegrationError(ErrorCode.UNAVAILABLE, f"the gateway answered {answer.status_code}")
    raise refused
