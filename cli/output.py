"""What a command prints: results on stdout, one error line on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.wire import JsonObject


def print_json(value: Any) -> None:
    """`value` as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_object(value: Mapping[str, Any], *, as_json: bool) -> None:
    """An object: as JSON, or a line a key."""
    if as_json:
        return print_json(value)
    for key, item in value.items():
        click.echo(f"{key}: {item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)}")


def print_rows(rows: Sequence[JsonObject], columns: Sequence[str], *, as_json: bool) -> None:
    """Rows: whole as JSON, or the named columns aligned."""
    if as_json:
        return print_json(list(rows))
    table = [list(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in table) for index in range(len(columns))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_error(error: IntegrationError, *, as_json: bool) -> None:
    """``CODE: sentence (path)``, or the same as JSON."""
    if as_json:
        wire = {"code": error.code, "message": error.message, "path": error.path}
        click.echo(json.dumps(wire, ensure_ascii=False), err=True)
    else:
        click.echo(str(error).replace("\n", " "), err=True)


def wants_json() -> bool:
    """Whether the command line asks for JSON; also told where it could not be parsed."""
    return "--json" in sys.argv[1:]


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
