"""The console script `integrations`."""

from __future__ import annotations

import os
import sys

import click

from integration_service.cli.lazy_group import LazyCommand, LazyGroup

# Nothing else of ours is imported here: `--help` answers at once, and a command waits for its own imports only.
_COMMANDS = {
    "demo": LazyCommand("stack", "The main job, end to end, on a stack of its own, with links into the Web UI."),
    "dev": LazyCommand("stack", "Postgres, Temporal with its Web UI, worker and gateway, until Ctrl-C."),
    "worker": LazyCommand("processes", "The worker process alone, told everything by the environment."),
    "gateway": LazyCommand("processes", "The ASGI process alone, told everything by the environment."),
    "migrate": LazyCommand("processes", "Bring the database to this version; safe when two start at once."),
    "definition": LazyCommand("definition", "What an API is: apply files, publish, list."),
    "instance": LazyCommand("instance", "One customer's connection: connect, prove, call, take away."),
    "call": LazyCommand("call", "Run METHOD of INSTANCE (id or name) and print the whole MethodResult as JSON."),
    "result": LazyCommand("result", "Results that were too large to be handed over."),
    "keys": LazyCommand("keys", "Key-encryption keys."),
    "audit": LazyCommand("audit", "The execution log: one row per attempt."),
    "events": LazyCommand("events", "Who hears of what: webhooks and workflows that subscribe, dead letters, replay."),
    "schema": LazyCommand("schema", "JSON Schemas of what goes over the wire, and of methods."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="integration-service")
def integrations() -> None:
    """Durable, safe calls to other companies' APIs, on Temporal and Postgres."""


def main() -> None:
    """Run; exit 1 with one line on stderr for our errors, 2 for bad usage."""
    code = 0
    try:
        integrations.main(standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        code = 1
    except Exception as error:
        code = _tell(error)
    _leave(code)


def _tell(error: Exception) -> int:
    from integration_service.cli.output import print_error, wants_json
    from integration_service.contracts.errors import ErrorCode, IntegrationError

    code = 1
    if isinstance(error, click.UsageError):
        error, code = IntegrationError(ErrorCode.VALIDATION_ERROR, error.format_message()), 2
    if not isinstance(error, IntegrationError):
        if os.environ.get("INTEGRATIONS_DEBUG"):
            raise error
        message = f"unexpected {type(error).__name__}; with INTEGRATIONS_DEBUG=1 it tells where"
        error = IntegrationError(ErrorCode.UNAVAILABLE, message)
    print_error(error, as_json=wants_json())
    return code


def _leave(code: int) -> None:
    # Temporal's runtime threads sometimes crash the interpreter's own shutdown; all work is done by now.
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = code or 1
    os._exit(code)
