"""The browser's side of a ticket: its cookie, the form's token, and which requests come from our own pages."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from integration_service.storage.connect_tickets import SESSION_LIFETIME

_MAX_BODY = 256 * 1024
_MAX_FIELDS = 500


class ConnectSession:
    """How a gateway at `public_url` keeps a session in a cookie."""

    def __init__(self, public_url: str) -> None:
        parts = urlsplit(public_url)
        self._secure = parts.scheme == "https"
        # As a browser writes it (RFC 6454 §6.2).
        self._origin = f"{parts.scheme}://{parts.netloc.lower().removesuffix(':443' if self._secure else ':80')}"
        # `__Host-` lets no other host of the domain set it (RFC 6265bis §4.1.3.2), and needs https.
        self._name = "__Host-connect" if self._secure else "connect"

    def read(self, request: Request) -> str | None:
        return request.cookies.get(self._name) or None

    def write(self, response: Response, session: str) -> None:
        age = int(SESSION_LIFETIME.total_seconds())
        # Strict: no other site's link or form ever carries it.
        response.set_cookie(
            self._name, session, max_age=age, path="/", secure=self._secure, httponly=True, samesite="strict"
        )

    def erase(self, response: Response) -> None:
        response.delete_cookie(self._name, path="/", secure=self._secure, httponly=True, samesite="strict")

    def is_ours(self, request: Request) -> bool:
        """Whether a POST comes from a page of ours: else another site could open its ticket in somebody's browser,
        and have him type a secret into an instance of theirs.

        Fetch Metadata tells ours from those of others. Where there is none, over plain http and in old browsers, the
        origin must be ours: ``null`` is what a page of anybody sends that asks for no referrer.
        """
        fetched = request.headers.get("sec-fetch-site")
        if fetched is not None:
            return fetched == "same-origin"
        return request.headers.get("origin") == self._origin


def form_token(session: str) -> str:
    """What the form must bring beside the cookie."""
    return hmac.new(session.encode(), b"connect-form", hashlib.sha256).hexdigest()


def fits_session(token: str, session: str) -> bool:
    return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), form_token(session).encode())


async def read_form(request: Request) -> dict[str, str] | None:
    """The fields of a plain form; None where it is none, too large, cut off, or holds what is no text."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return None
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > _MAX_BODY:
                return None
    except ClientDisconnect:
        return None
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        return None
    given = dict(pairs)
    return given if len(given) == len(pairs) and not any("\0" in text for text in given.values()) else None
