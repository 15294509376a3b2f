"""The process's log: one line a record, with what it belongs to, and without secrets.

All records pass one handler, ours and others'. What is written is redacted as a whole, after formatting: arguments,
tracebacks and the words of any library.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

from integration_service.telemetry.redaction import redacted

# At INFO they write whole URLs, at DEBUG whole headers and bodies.
_CHATTY = ("httpx2", "httpcore2", "authlib", "zeep", "urllib3", "opentelemetry", "asyncio", "psycopg")
# Its lines are made of the request's target, query and all.
_SILENT = ("uvicorn.access",)

_belongs_to: ContextVar[dict[str, str] | None] = ContextVar("belongs_to", default=None)


@contextmanager
def belonging_to(**names: str | None) -> Iterator[None]:
    """Inside, each record says what it belongs to: ``workflowId``, ``runId``, ``activityId``, ``method`` …"""
    known = {**(_belongs_to.get() or {}), **{name: value for name, value in names.items() if value}}
    token = _belongs_to.set(known)
    try:
        yield
    finally:
        _belongs_to.reset(token)


def now_belongs_to(**names: str | None) -> None:
    """Add to what the innermost `belonging_to` says, once it is known."""
    known = _belongs_to.get()
    if known is not None:
        known.update({name: value for name, value in names.items() if value})


class _Lines(logging.Formatter):
    """Text for people."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        belongs = _belongs_to.get()
        if belongs:
            first, *more = line.split("\n", 1)
            told = " ".join(f"{name}={_printable(value)}" for name, value in belongs.items())
            line = "\n".join([f"{first} {told}", *more])
        return redacted(line)


def _printable(text: str) -> str:
    """A caller's own words begin no line of theirs."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class _Json(logging.Formatter):
    """An object a line for machines."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, str] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        for name, value in (_belongs_to.get() or {}).items():
            entry[name] = redacted(value)
        if record.exc_info:
            entry["exception"] = redacted(self.formatException(record.exc_info))
        if record.stack_info:
            entry["stack"] = redacted(self.formatStack(record.stack_info))
        return json.dumps(entry, ensure_ascii=False)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name in logging
        """Without what the record held: the standard's own answer shows its arguments as they are."""
        kind = sys.exc_info()[0]
        with contextlib.suppress(OSError, ValueError):
            where = f"{record.name} ({record.filename}:{record.lineno})"
            sys.stderr.write(f"a log record of {where} could not be written: {kind.__name__ if kind else 'unknown'}\n")


def configure_logs(kind: str, *, stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send every record of the process to `stream` (stderr) as ``text`` or ``json``, uncaught exceptions too."""
    handler = _Handler(stream or sys.stderr)
    text = _Lines("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(_Json() if kind == "json" else text)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    for name in _SILENT:
        logging.getLogger(name).disabled = True
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda given: _uncaught(given.exc_type, given.exc_value, given.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None and issubclass(kind, Exception):
        logging.getLogger("uncaught").critical("%s", kind.__name__, exc_info=(kind, error, trace))
    else:
        sys.__excepthook__(kind, error or kind(), trace)
