"""`integrations dev` and `integrations demo`: the embedded stack."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import click

from integration_service.cli.session import common_options
from integration_service.devstack.data_dir import DEFAULT_DATA_DIR
from integration_service.devstack.options import StackOptions


@click.command()
@common_options
@click.option("--temporal-port", default=7233, show_default=True, type=click.IntRange(0, 65535))
@click.option("--ui-port", default=8233, show_default=True, type=click.IntRange(0, 65535))
@click.option("--gateway-port", default=8700, show_default=True, type=click.IntRange(0, 65535))
@click.option("--postgres-port", default=54320, show_default=True, type=click.IntRange(0, 65535))
def dev(
    *,
    data_dir: Path | None,
    as_json: bool,
    temporal_port: int,
    ui_port: int,
    gateway_port: int,
    postgres_port: int,
) -> None:
    """Postgres, Temporal with its Web UI, worker and gateway, until Ctrl-C. A port of 0 picks a free one."""
    options = StackOptions(
        data_dir=data_dir or DEFAULT_DATA_DIR,
        temporal_port=temporal_port,
        ui_port=ui_port,
        gateway_port=gateway_port,
        postgres_port=postgres_port,
    )
    asyncio.run(_serve(options))


@click.command()
@common_options
@click.option("--keep", is_flag=True, help="Leave the stack up until Ctrl-C, so that the links open.")
def demo(*, data_dir: Path | None, as_json: bool, keep: bool) -> None:
    """The main job, end to end, on a stack of its own, with links into the Web UI."""
    asyncio.run(_demo(data_dir, keep=keep, as_json=as_json))


async def _serve(options: StackOptions) -> None:
    from integration_service.devstack.stack import Stack

    async def serve(stop: asyncio.Event, is_up: asyncio.Event) -> None:
        async with Stack(options, on_progress=lambda text: click.echo(text, err=True)) as stack:
            is_up.set()
            click.echo(f"READY {json.dumps(stack.ready.to_wire())}")
            sys.stdout.flush()
            await stack.run_until(stop)
            click.echo("stopping", err=True)

    await _until_told(serve)


async def _demo(data_dir: Path | None, *, keep: bool, as_json: bool) -> None:
    from integration_service.devstack.demo import run_demo

    async def show(stop: asyncio.Event, is_up: asyncio.Event) -> None:
        await run_demo(data_dir=data_dir, keep=keep, as_json=as_json, stop=stop, is_done=is_up)

    await _until_told(show)


async def _until_told(work: Callable[[asyncio.Event, asyncio.Event], Coroutine[None, None, None]]) -> None:
    """Run `work(stop, is_up)`. SIGINT and SIGTERM cancel it until it is up, and after that set `stop`; either way
    what runs is stopped in order, also when they come twice."""
    stop, is_up = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    working, stopping = asyncio.create_task(work(stop, is_up)), asyncio.create_task(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not is_up.is_set() and not working.done():
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        raise click.Abort
    await working
