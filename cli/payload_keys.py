"""The key set of payloads in `integrations keys …`: nothing rewraps what Temporal keeps, so its keys stay for long."""

from __future__ import annotations

from pathlib import Path

import click

from integration_service.cli.session import Session
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject
from integration_service.storage.vault.key_file import activate_key, add_key, open_keyring, remove_key
from integration_service.storage.vault.keyring import KeyRef, is_inline
from integration_service.storage.vault.payload_use import PayloadUse, payload_use

VARIABLE = "INTEGRATIONS_PAYLOAD_KEYRING"


async def payload_rows(session: Session, *, at_most: int) -> list[JsonObject]:
    """A row a key: those of the set, and those that were met in Temporal and are not in it."""
    source = session.settings.payload_key_source()
    if source is None:
        return []
    provider = open_keyring(source)
    use = await _use(session, at_most)
    seen = use.found if use is not None else {}
    return [
        {
            "key": str(ref),
            "set": "payloads",
            "active": ref == provider.active,
            "held": ref in provider.refs,
            "rows": None,
            "tables": {},
            "histories": seen.get(ref, (0, ""))[0] if use is not None else None,
        }
        for ref in sorted({*provider.refs, *seen}, key=lambda ref: (ref.key_id, ref.version))
    ]


async def _use(session: Session, at_most: int) -> PayloadUse | None:
    try:
        use = await payload_use(await session.temporal(), at_most=at_most)
    except IntegrationError as error:
        click.echo(f"payload keys are not counted: {error.message}", err=True)
        return None
    if not use.whole:
        click.echo(f"payload keys are counted in the first {use.looked_at} histories; see --histories", err=True)
    return use


def add_payload_key(session: Session) -> KeyRef:
    """A new key in the file, not active yet."""
    return add_key(_file(session), activate=False)


def activate_payload_key(session: Session, wanted: KeyRef | None) -> KeyRef:
    """New payloads go under `wanted` from now on, in every process that reads this file."""
    if wanted is None:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR,
            "every process and caller must hold a payload key before one uses it: `keys add --payloads`, give all of "
            "them the file, then `keys rotate --payloads --to ID:VERSION`",
            path="--to",
        )
    activate_key(_file(session), wanted)
    return wanted


async def retire_payload_key(session: Session, ref: KeyRef) -> None:
    """Take it out of the file. Raises IntegrationError VALIDATION_ERROR while it is known to be needed, UNAVAILABLE
    where Temporal cannot be asked."""
    path = _file(session)
    if ref == open_keyring(str(path)).active:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, f"{ref} is the active payload key", path=VARIABLE)
    temporal = await session.temporal()
    use = await payload_use(temporal, until=ref)
    if ref in use.found:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR,
            f"Temporal keeps payloads under the key, the first found in {use.found[ref][1]}: it is needed until those "
            "are gone",
            path=str(ref),
        )
    remove_key(path, ref)
    click.echo(
        f"it was in none of {use.looked_at} histories and schedules of namespace {temporal.namespace}; other "
        "namespaces, standalone activities and exported histories were not looked at",
        err=True,
    )


def is_payload_key(session: Session, ref: KeyRef) -> bool:
    """Whether the set holds it."""
    source = session.settings.payload_key_source()
    return source is not None and ref in open_keyring(source).refs


def _file(session: Session) -> Path:
    source = session.settings.payload_key_source()
    if source is None:
        session.settings.require("payload_keyring")
    if source is None or is_inline(source):
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR,
            "the key set of payloads is inline: its owner changes it, not this command",
            path=VARIABLE,
        )
    return Path(source)
