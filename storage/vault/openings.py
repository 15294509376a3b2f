"""Who opens secrets, and why: what `decrypt` notes for the log of decrypts.

An activity runs inside `opening_for`. Whatever it opens is then noted under its use, by kind and by what names it, and
never with a value. Uses that wait for nothing write each note before they get the plaintext: no note, no secret. A
method call keeps its notes for the statement that records it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from integration_service.storage.vault.keyring import KeyRef

_NO_SECRETS = frozenset({"response-cache", "large-result", "page"})
"""Kinds that hold an upstream's data, which their readers asked for: who got them stands in the execution log."""


@dataclass(frozen=True)
class Use:
    """Who opens: a worker, in an activity of a workflow, for a reason such as ``call`` or ``refresh``."""

    worker: str
    reason: str
    activity_type: str
    activity_id: str
    attempt: int
    workflow_id: str | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class Opening:
    """One secret that was opened: its kind, what names it (`Context.parts`), and the key it was under."""

    use: Use
    kind: str
    parts: tuple[str, ...]
    key: KeyRef


Write = Callable[[list[Opening]], Awaitable[None]]


@dataclass
class Openings:
    """What one activity has opened and nobody has written yet. `write` is None where that waits for `take`."""

    use: Use
    write: Write | None
    _unwritten: list[Opening] = field(default_factory=list)

    def take(self) -> list[Opening]:
        """What is not written yet; whoever takes it writes it."""
        taken, self._unwritten = self._unwritten, []
        return taken

    def give_back(self, taken: list[Opening]) -> None:
        """What was taken could not be written."""
        self._unwritten = [*taken, *self._unwritten]

    async def note(self, kind: str, parts: tuple[str, ...], key: KeyRef) -> None:
        """Raises what `write` raises: the secret is then not handed out."""
        opening = Opening(self.use, kind, parts, key)
        if self.write is None:
            self._unwritten.append(opening)
        else:
            await self.write([opening])


_current: ContextVar[Openings | None] = ContextVar("openings", default=None)


@contextmanager
def opening_for(use: Use, *, write: Write | None = None) -> Iterator[Openings]:
    """Inside, what is opened is noted under `use`: written by `write` at once, or kept for `take`."""
    openings = Openings(use, write)
    token = _current.set(openings)
    try:
        yield openings
    finally:
        _current.reset(token)


def current_openings() -> Openings | None:
    """Those of the activity that runs, or None."""
    return _current.get()


async def note_opening(kind: str, parts: tuple[str, ...], key: KeyRef) -> None:
    """Note that a secret is about to be handed out. Outside of an activity there is nobody to note it for."""
    openings = _current.get()
    if openings is not None and kind not in _NO_SECRETS:
        await openings.note(kind, parts, key)
