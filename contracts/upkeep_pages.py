"""What the pages of `DeliverEvents` and `RotateKeys` in Temporal's Web UI say, in every run of theirs.

A summary that a workflow was started with is gone once it has continued as new: Temporal's server drops it.
"""

from __future__ import annotations

from datetime import datetime

from integration_service.contracts.events import ShiftReport
from integration_service.contracts.keys import KeyName, RotateKeys, RotationCarried
from integration_service.contracts.markdown import code, moment


def delivery_page(last: ShiftReport | None, at: datetime | None, *, trouble: bool = False) -> str:
    """Markdown. `last` is what the last shift of this run did, `at` when it ended."""
    wrong = "A shift failed: it is a bug of ours. Events wait." if trouble else "nothing."
    do = "look at the shift's failure; delivery goes on with the program that mends it." if trouble else "nothing."
    facts = ["A shift is one activity of ten minutes, and one follows another"]
    if last is not None and at is not None:
        facts.append(
            f"The last one, until {moment(at)}: {last.delivered} delivered, {last.failed} to be tried again, "
            f"{last.dead} given up"
        )
    facts.append(f"Those that were given up: {code('integrations events dead')}")
    return "\n\n".join(
        [
            "## Delivers events to those who subscribed",
            f"**What is wrong:** {wrong}",
            f"**What to do:** {do}",
            "\n".join(f"- {fact}" for fact in facts),
        ]
    )


def rotation_page(to: RotateKeys, done: RotationCarried, doing: str) -> str:
    """Markdown. `doing` is a sentence without its full stop."""
    facts = [f"Rows wrapped anew: {done.rewrapped}", f"Now: {doing}"]
    if done.tables:
        facts.append(f"Tables still to do: {', '.join(code(table) for table in done.tables)}")
    if to.results is not None and to.results != to.active:
        facts.append(f"Large results come under {_key(to.results)}")
    if done.broken:
        facts.append(f"Rows that do not open, and stay: {done.broken}")
    if done.missing:
        facts.append(f"Rows under keys that no worker has: {done.missing}. Add those to the keyring")
    return f"## Everything comes under key {_key(to.active)}\n\n" + "\n".join(f"- {fact}" for fact in facts)


def _key(name: KeyName) -> str:
    return code(f"{name.id}:{name.version}")
