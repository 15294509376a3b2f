"""Tickets that let a person connect one instance in a browser: made, exchanged once for a session, ended.

A ticket and a session are 256 random bits; only their SHA-256 is kept. Times are the database's own.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from integration_service.contracts.connect_tickets import ConnectTicket, ConnectTicketWanted
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.names import is_canonical_uuid
from integration_service.contracts.oauth_urls import allowed_return_url
from integration_service.contracts.wire import parse
from integration_service.storage.database import Database
from integration_service.storage.instances import not_found

SESSION_LIFETIME = timedelta(minutes=15)
MAX_POSTS = 20
"""How often one ticket's form may be sent."""

_SUBJECT = """i.id AS instance_id, i.scope, i.name AS instance_name, d.content,
              d.name AS definition, d.version AS definition_version, t.return_url, t.posts"""
_JOINED = """JOIN integrations.instances i ON i.id = t.instance_id
             JOIN integrations.definitions d ON d.id = i.definition_id"""
_UNOPENED = "t.session_hash IS NULL AND t.expires_at > clock_timestamp()"
_IN_SESSION = "t.session_hash = %(hashed)s AND t.session_expires_at > clock_timestamp() AND t.ended_at IS NULL"


@dataclass(frozen=True)
class ConnectSubject:
    """What a ticket is for: the instance, and the definition that the form is made from. Not the instance's config:
    the gateway's role may not read it, and its workflow tells it."""

    instance_id: str
    scope: str
    name: str
    definition: DefinitionFile
    return_url: str | None
    posts: int


class ConnectTickets:
    """The tickets of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def make(self, wanted: ConnectTicketWanted, *, public_url: str, return_urls: Sequence[str]) -> ConnectTicket:
        """The link to a gateway at `public_url`.

        Raises IntegrationError INSTANCE_NOT_FOUND, or VALIDATION_ERROR for a URL that `return_urls` does not allow.
        """
        if wanted.return_url is not None and not allowed_return_url(wanted.return_url, return_urls):
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR, "INTEGRATIONS_RETURN_URLS does not allow that URL", path="returnUrl"
            )
        ticket = secrets.token_urlsafe(32)
        column = "id" if is_canonical_uuid(wanted.instance_id) else "name"
        row = await self._database.one(
            f"""INSERT INTO integrations.connect_tickets (ticket_hash, instance_id, return_url, expires_at)
                SELECT %(hashed)s, id, %(return_url)s, clock_timestamp() + %(lifetime)s FROM integrations.instances
                 WHERE scope = %(scope)s AND {column} = %(reference)s
                RETURNING expires_at""",
            {
                "hashed": _hash(ticket),
                "return_url": wanted.return_url,
                "lifetime": timedelta(milliseconds=wanted.expires_ms),
                "scope": wanted.scope,
                "reference": wanted.instance_id,
            },
        )
        if row is None:
            raise not_found(wanted.instance_id)
        return ConnectTicket(url=f"{public_url.rstrip('/')}/connect/{ticket}", expires_at=row["expires_at"])

    async def look(self, ticket: str) -> ConnectSubject | None:
        """What an unopened, unexpired ticket is for. Uses nothing up: link previews do this."""
        return await self._subject(_UNOPENED + " AND t.ticket_hash = %(hashed)s", ticket)

    async def exchange(self, ticket: str) -> str | None:
        """A session for the ticket, once; None for one that is unknown, expired or was exchanged before."""
        session = secrets.token_urlsafe(32)
        row = await self._database.one(
            f"""UPDATE integrations.connect_tickets t
                   SET session_hash = %(session)s, session_expires_at = clock_timestamp() + %(lifetime)s
                 WHERE t.ticket_hash = %(hashed)s AND {_UNOPENED} RETURNING 1 AS exchanged""",
            {"hashed": _hash(ticket), "session": _hash(session), "lifetime": SESSION_LIFETIME},
        )
        return session if row else None

    async def in_session(self, session: str) -> ConnectSubject | None:
        """What a session is for, or None when it is over."""
        return await self._subject(_IN_SESSION, session)

    async def count_post(self, session: str) -> bool:
        """Count one sending of the form; False when there were too many."""
        row = await self._database.one(
            f"""UPDATE integrations.connect_tickets t SET posts = posts + 1
                 WHERE {_IN_SESSION} AND posts < {MAX_POSTS} RETURNING 1 AS counted""",
            {"hashed": _hash(session)},
        )
        return row is not None

    async def end(self, session: str) -> None:
        """The session's work is done."""
        await self._database.one(
            f"UPDATE integrations.connect_tickets t SET ended_at = clock_timestamp() WHERE {_IN_SESSION}",
            {"hashed": _hash(session)},
        )

    async def _subject(self, condition: str, token: str) -> ConnectSubject | None:
        row = await self._database.one(
            f"SELECT {_SUBJECT} FROM integrations.connect_tickets t {_JOINED} WHERE {condition}",
            {"hashed": _hash(token)},
        )
        return _subject(row) if row else None


def _subject(row: dict[str, Any]) -> ConnectSubject:
    content = {
        **row["content"],
        "scope": row["scope"],
        "name": row["definition"],
        "version": row["definition_version"],
    }
    return ConnectSubject(
        instance_id=str(row["instance_id"]),
        scope=row["scope"],
        name=row["instance_name"],
        definition=parse(DefinitionFile, content),
        return_url=row["return_url"],
        posts=row["posts"],
    )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
