"""Markdown that people read in Temporal's Web UI, made of names that others chose."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime

from integration_service.contracts.names import DEFAULT_SCOPE

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#|~!&:@.])")
_LONGEST = 300


def plain(text: str) -> str:
    """`text` as itself on one line: nothing of it becomes a link, a heading or a tag. Cut after 300 characters."""
    line = _one_line(text)
    return _SPECIAL.sub(r"\\\1", line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…")


def code(text: str) -> str:
    """`text` as a code span (CommonMark §6.1), whatever backticks are in it."""
    line = _one_line(text)
    if "`" not in line and line.strip():
        return f"`{line}`"
    fence = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line.strip() else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def moment(at: datetime) -> str:
    """A time as people read it, to the second, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def instance_command(verb: str, instance: str, *more: str, scope: str = DEFAULT_SCOPE) -> str:
    """An ``integrations instance …`` command as a code span, quoted for a shell."""
    return command(
        "integrations", "instance", verb, instance, *more, *(("--scope", scope) if scope != DEFAULT_SCOPE else ())
    )


def command(*words: str) -> str:
    """A command as a code span, quoted for a shell."""
    return code(shlex.join(words))


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split(" "))
