"""The immediate parent of one child of the dev stack: it outlives nobody and leaves nobody behind.

A stdlib-only script, run as ``python -I -S guard.py ORDER COMMAND…`` where ORDER is the JSON of `GuardOrder`.
Its stdin is a pipe whose other end only ``dev`` holds:

- a byte, then its end: ``dev`` asks for an orderly stop; the child gets its stop signal and its whole grace.
- its end alone: ``dev`` is gone (even by kill -9); the same, but hurried.

The guard ends as its child ended: same exit code, or killed by the same signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import TypedDict

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_HURRIED_S = 5.0
_CANNOT_EXECUTE = 127


class GuardOrder(TypedDict):
    """`claim` is an inherited, locked, read-only descriptor of `pidFile`: held while guard or child lives."""

    claim: int
    pidFile: str
    stopSignal: int
    deathSignal: int
    graceS: float
    uid: int | None
    gid: int | None


def _before_exec(order: GuardOrder) -> Callable[[], None]:
    """What the child runs between fork and exec, with its own uid already."""
    guard = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None

    def run() -> None:
        if order["stopSignal"] == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # not lost before the child has a handler
        if prctl:
            # Even kill -9 of the guard takes the child along. A later change of uid would clear it (prctl(2)).
            prctl(_PR_SET_PDEATHSIG, order["deathSignal"], 0, 0, 0)
            if os.getppid() != guard:
                os._exit(_CANNOT_EXECUTE)

    return run


def _start(order: GuardOrder, command: list[str]) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=(order["claim"],),
        start_new_session=True,
        user=order["uid"],
        group=order["gid"],
        extra_groups=None if order["uid"] is None else [],
        preexec_fn=_before_exec(order),  # safe: this is the only thread so far
    )
    with open(order["pidFile"], "w", encoding="ascii") as pid_file:
        pid_file.write(f"{child.pid}\n")
    return child


def _guard(order: GuardOrder, command: list[str]) -> int:
    # Ctrl-C is for `dev`, which stops us in order. Children inherit this and may set a handler of their own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        child = _start(order, command)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"cannot start {command[0]}: {error}", file=sys.stderr)  # noqa: T201 - stderr is the child's log
        return _CANNOT_EXECUTE

    def stop(grace_s: float) -> None:
        child.send_signal(order["stopSignal"])
        killer = threading.Timer(grace_s, child.kill)
        killer.daemon = True
        killer.start()

    def watch_dev() -> None:
        try:
            asked = os.read(0, 1)
        except OSError:
            asked = b""
        stop(order["graceS"] if asked else min(order["graceS"], _HURRIED_S))

    signal.signal(signal.SIGTERM, lambda *_: stop(order["graceS"]))
    threading.Thread(target=watch_dev, daemon=True).start()
    code = child.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # what the child itself left behind
    return code


def main() -> None:
    code = _guard(json.loads(sys.argv[1]), sys.argv[2:])
    if code < 0:
        ending = signal.Signals(-code)
        if ending is not signal.SIGKILL:
            signal.signal(ending, signal.SIG_DFL)
        os.kill(os.getpid(), ending)
    os._exit(code)  # the thread still reads stdin


if __name__ == "__main__":
    main()
