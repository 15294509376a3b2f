"""The console script `integrations`."""

from __future__ import annotations

import os
import sys

import click

from integration_service.cli.audit import audit
from integration_service.cli.call import call
from integration_service.cli.definition import definition
from integration_service.cli.events import events
from integration_service.cli.instance import instance
from integration_service.cli.keys import keys
from integration_service.cli.output import print_error, wants_json
from integration_service.cli.processes import gateway, migrate, worker
from integration_service.cli.result import result
from integration_service.cli.schema import schema
from integration_service.cli.stack import demo, dev
from integration_service.contracts.errors import ErrorCode, IntegrationError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="integration-service")
def integrations() -> None:
    """Durable, safe calls to other companies' APIs, on Temporal and Postgres."""


for _command in (demo, dev, worker, gateway, migrate, definition, instance, call, result, keys, audit, events, schema):
    integrations.add_command(_command)


def main() -> None:
    """Run; exit 1 with one line on stderr for our errors, 2 for bad usage."""
    code = 0
    try:
        integrations.main(standalone_mode=False)
    except IntegrationError as error:
        print_error(error, as_json=wants_json())
        code = 1
    except click.UsageError as error:
        print_error(IntegrationError(ErrorCode.VALIDATION_ERROR, error.format_message()), as_json=wants_json())
        code = 2
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        code = 1
    except Exception as error:
        if os.environ.get("INTEGRATIONS_DEBUG"):
            raise
        message = f"unexpected {type(error).__name__}; with INTEGRATIONS_DEBUG=1 it tells where"
        print_error(IntegrationError(ErrorCode.UNAVAILABLE, message), as_json=wants_json())
        code = 1
    _leave(code)


def _leave(code: int) -> None:
    # Temporal's runtime threads sometimes crash the interpreter's own shutdown; all work is done by now.
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = code or 1
    os._exit(code)
