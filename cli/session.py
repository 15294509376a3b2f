"""What a command works on: a running `dev` stack, or what the environment names."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click
from temporalio.client import Client

from integration_service.cli.output import wants_json
from integration_service.client import Integrations
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.devstack.data_dir import DEFAULT_DATA_DIR
from integration_service.devstack.running import find_stack
from integration_service.settings import Settings, temporal_config
from integration_service.storage.database import Database
from integration_service.storage.schema_version import check_schema_version
from integration_service.storage.temporal_converter import temporal_converter

Rest = ParamSpec("Rest")


@dataclass(frozen=True)
class Session:
    """Where this command's Temporal, database and gateway are."""

    settings: Settings
    environment: Mapping[str, str]
    as_json: bool

    async def temporal(self) -> Client:
        """Raises IntegrationError UNAVAILABLE when Temporal does not answer."""
        config = temporal_config(self.environment)
        try:
            return await Client.connect(**config, data_converter=temporal_converter(self.settings))
        except RuntimeError as error:
            where = config["target_host"]
            raise IntegrationError(
                ErrorCode.UNAVAILABLE, f"no Temporal answers at {where}", path="TEMPORAL_ADDRESS"
            ) from error

    async def integrations(self) -> Integrations:
        return Integrations(await self.temporal(), task_queue=self.settings.task_queue)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """Raises IntegrationError UNAVAILABLE when it does not answer or is of another version."""
        async with Database(self.settings.require("database_url"), max_connections=2) as database:
            await check_schema_version(database)
            yield database


def find_session(data_dir: Path | None) -> Session:
    """`--data-dir` first, then the environment, then the stack in the default data directory."""
    if data_dir is None and os.environ.get("INTEGRATIONS_DATABASE_URL"):
        return Session(Settings.from_environment(), os.environ, wants_json())
    stack = find_stack(data_dir or DEFAULT_DATA_DIR)
    if stack is not None:
        return Session(Settings.from_environment(stack.environment), stack.environment, wants_json())
    if data_dir is not None:
        raise IntegrationError(ErrorCode.UNAVAILABLE, f"no `integrations dev` runs on {data_dir}", path="--data-dir")
    if any(name.startswith("TEMPORAL_") for name in os.environ):
        return Session(Settings.from_environment(), os.environ, wants_json())
    raise IntegrationError(
        ErrorCode.UNAVAILABLE,
        "no stack found: start `integrations dev`, or set INTEGRATIONS_DATABASE_URL and TEMPORAL_ADDRESS",
    )


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--data-dir` and `--json`, which every command takes."""
    json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")
    return data_dir_option(json_option(command))


def data_dir_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="The data directory of the `dev` stack (default: in the user's data folder).",
    )(command)


def with_session(
    command: Callable[Concatenate[Session, Rest], Awaitable[None]],
) -> Callable[..., None]:
    """A command as a coroutine over a `Session`, with the options that all commands take."""

    @functools.wraps(command)
    def run(*args: Any, data_dir: Path | None, as_json: bool, **kwargs: Any) -> None:
        asyncio.run(command(find_session(data_dir), *args, **kwargs))  # type: ignore[arg-type]

    return common_options(run)
