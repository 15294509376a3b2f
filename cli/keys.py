"""`integrations keys …`."""

from __future__ import annotations

from pathlib import Path

import click
from temporalio.client import WorkflowFailureError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from integration_service.cli.output import print_object, print_rows
from integration_service.cli.payload_keys import (
    activate_payload_key,
    add_payload_key,
    is_payload_key,
    payload_rows,
    retire_payload_key,
)
from integration_service.cli.session import Session, common_options, with_session
from integration_service.contracts.errors import ErrorCode, IntegrationError, from_failure
from integration_service.contracts.keys import ROTATE_KEYS, KeyName, RotateKeys, Rotation, rotation_workflow_id
from integration_service.contracts.names import control_queue
from integration_service.contracts.wire import JsonObject, parse
from integration_service.storage.key_rotation import key_use
from integration_service.storage.vault.key_file import activate_key, add_key, open_keyring, remove_key
from integration_service.storage.vault.keyring import (
    VARIABLE,
    KeyRef,
    generate_keyring,
    generate_keyring_file,
    is_inline,
    key_not_held,
)

_STATUS = ("key", "set", "active", "held", "rows", "tables", "histories")
_HISTORIES = 500

_payloads_option = click.option("--payloads", is_flag=True, help="Of the key set of payloads, not of the keyring.")


@click.group()
def keys() -> None:
    """Key-encryption keys."""


@keys.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write it here, mode 0600, instead of to stdout.")
@common_options
def generate(out: Path | None, *, data_dir: Path | None, as_json: bool) -> None:
    """Make a new key set for INTEGRATIONS_KEYRING."""
    if out is None:
        return click.echo(generate_keyring(), nl=False)
    generate_keyring_file(out)
    print_object({"keyring": str(out)}, as_json=as_json)


@keys.command()
@click.option(
    "--histories",
    type=click.IntRange(min=0),
    default=_HISTORIES,
    show_default=True,
    help="How many of Temporal's histories are looked through for keys of payloads.",
)
@with_session
async def status(session: Session, *, histories: int) -> None:
    """Every key by id and version: of which set, whether it is active, whether it is held here, and how many rows are
    under it; a payload key, in how many histories it stands."""
    providers = {name: open_keyring(source) for name, source in _sources(session).items()}
    holder = {ref: name for name, provider in providers.items() for ref in provider.refs}
    active = {provider.active for provider in providers.values()}
    async with session.database() as database:
        used = {use.key: use for use in await key_use(database)}
    rows: list[JsonObject] = [
        {
            "key": str(ref),
            "set": holder.get(ref),
            "active": ref in active,
            "held": ref in holder,
            "rows": used[ref].total if ref in used else 0,
            "tables": used[ref].rows if ref in used else {},
        }
        for ref in sorted(holder.keys() | used.keys(), key=lambda ref: (ref.key_id, ref.version))
    ]
    rows += await payload_rows(session, at_most=histories)
    print_rows(rows, _STATUS, as_json=session.as_json)


@keys.command()
@_payloads_option
@with_session
async def add(session: Session, *, payloads: bool) -> None:
    """Add a new key to the keyring's file, not active yet: distribute the file, then `rotate --to` it."""
    made = add_payload_key(session) if payloads else add_key(_file(session), activate=False)
    print_object({"key": str(made), "active": False}, as_json=session.as_json)


@keys.command()
@click.option("--to", metavar="ID:VERSION", help="A key that the keyring holds already, instead of a new one.")
@_payloads_option
@with_session
async def rotate(session: Session, *, to: str | None, payloads: bool) -> None:
    """Make a key active, and return when everything is wrapped under it.

    Stopped half way, it is taken up again by `rotate --to` the same key. With --payloads new payloads go under the key;
    what Temporal keeps stays under the old ones, which are needed for as long.
    """
    if payloads:
        activated = activate_payload_key(session, KeyRef.parse(to) if to else None)
        return print_object({"active": str(activated)}, as_json=session.as_json)
    source = session.settings.require("keyring")
    wanted = KeyRef.parse(to) if to else None
    temporal = await session.temporal()
    async with session.database():
        pass  # before any key is made: whether there is something to rotate
    active = _activated(source, wanted)
    results = open_keyring(session.settings.results_key_source()).active
    if wanted is None and (own := session.settings.results_keyring) and own != source and not is_inline(own):
        results = add_key(Path(own), activate=True)
    order = RotateKeys(active=_name(active), results=_name(results))
    try:
        handle = await temporal.start_workflow(
            ROTATE_KEYS,
            order.to_wire(),
            id=rotation_workflow_id(session.settings.task_queue),
            task_queue=control_queue(session.settings.task_queue),
            # A newer key takes the place of the one before, whose rows it rewraps as well.
            id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING,
            static_summary=f"rewraps everything under {active}",
        )
        click.echo(f"{active} is active; rewrapping what is under other keys", err=True)
        done = parse(Rotation, await handle.result())
    except WorkflowFailureError as error:
        raise from_failure(error.cause) or IntegrationError(
            ErrorCode.UNAVAILABLE, f"the rotation was ended by somebody; go on with `keys rotate --to {active}`"
        ) from error
    except RPCError as error:
        raise IntegrationError(
            ErrorCode.UNAVAILABLE,
            f"Temporal answered {error.status.name}; go on with `keys rotate --to {active}`",
        ) from error
    if done.broken:
        raise IntegrationError(
            ErrorCode.INTEGRITY_ERROR,
            f"{done.rewrapped} rows are rewrapped; {done.broken} do not open and stay under their old key",
        )
    if session.settings.payload_key_source() is not None:
        click.echo("the key set of payloads is another one: `keys rotate --payloads` changes its active key", err=True)
    print_object({"active": str(active), "rewrapped": done.rewrapped}, as_json=session.as_json)


@keys.command()
@click.argument("key", metavar="ID:VERSION")
@with_session
async def retire(session: Session, *, key: str) -> None:
    """Take a key out of its file. Refused while a row, or for a payload key a history, is under it."""
    ref = KeyRef.parse(key)
    if is_payload_key(session, ref):
        await retire_payload_key(session, ref)
        return print_object({"retired": str(ref)}, as_json=session.as_json)
    path = next(
        (
            Path(source)
            for source in _sources(session).values()
            if not is_inline(source) and ref in open_keyring(source).refs
        ),
        None,
    )
    if path is None:
        _file(session)
        raise key_not_held(ref)
    async with session.database() as database:
        for use in await key_use(database):
            if use.key == ref:
                counts = ", ".join(f"{count} of {table}" for table, count in use.rows.items())
                raise IntegrationError(
                    ErrorCode.VALIDATION_ERROR, f"the key is in use by {counts}; rotate first", path=str(ref)
                )
    remove_key(path, ref)
    print_object({"retired": str(ref)}, as_json=session.as_json)


def _activated(source: str, wanted: KeyRef | None) -> KeyRef:
    """The key that is active now; where the keyring is a file, it was made so."""
    if not is_inline(source):
        if wanted is None:
            return add_key(Path(source), activate=True)
        if wanted != open_keyring(source).active:
            activate_key(Path(source), wanted)
        return wanted
    active = open_keyring(source).active
    if wanted is None or wanted != active:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR,
            "the keyring is inline and only its owner changes it: give every worker a key set with the new key beside "
            "the old, restart them, make the new key `active` in it, restart them again, "
            "then run `keys rotate --to ID:VERSION`",
            path=VARIABLE,
        )
    return active


def _sources(session: Session) -> dict[str, str]:
    """The key sets that this command knows: secrets, where they are inline."""
    found: dict[str, str] = {"keyring": session.settings.require("keyring")}
    if session.settings.results_keyring:
        found["results"] = session.settings.results_keyring
    return found


def _file(session: Session) -> Path:
    source = session.settings.require("keyring")
    if is_inline(source):
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, "the keyring is inline: its owner changes it, not this command", path=VARIABLE
        )
    return Path(source)


def _name(ref: KeyRef) -> KeyName:
    return KeyName(id=ref.key_id, version=ref.version)
