"""Where an authorization may lead back to: our callers' pages, and a terminal's own loopback listener.

Browsers, servers and libraries read odd URLs differently, and every difference is somebody's open redirect. So
whatever is not plain is refused: no user info, backslash, control or non-ASCII character, no path that climbs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_LENGTH = 2048
# RFC 3986 without the characters that readers disagree on; `[` and `]` stand in hosts only.
_PLAIN = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_SCHEME = re.compile(r"https?://", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?\.?|[0-9a-f:.]*:[0-9a-f:.]*")
_LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|\[::1\])(?::([1-9][0-9]{0,4}))?((?:/[A-Za-z0-9._~!$&'()*+,;=:-]*)*)")


@dataclass(frozen=True)
class _Target:
    """The parts of a URL that decide where a browser goes."""

    origin: tuple[str, str, int]
    path: str
    query: str


def is_return_url(url: str) -> bool:
    """Whether `url` is a plain http(s) URL: fit to be a return URL, or an entry of ``INTEGRATIONS_RETURN_URLS``."""
    return _read(url) is not None


def allowed_return_url(url: str, allowed: Iterable[str]) -> bool:
    """Whether a person may be sent to `url` after an authorization.

    An entry is an origin (``https://app.example``: every page of it), a prefix that ends in ``/`` (what lies below)
    or an exact URL, whose query is free where the entry has none. Scheme, host and port must be the entry's.
    """
    target = _read(url)
    if target is None:
        return False
    return any(_covers(entry, target) for entry in map(_read, allowed) if entry is not None)


def is_loopback_redirect(uri: str) -> bool:
    """Whether `uri` is a loopback redirect URI (RFC 8252 §7.3): http, 127.0.0.1 or [::1], any port, a plain path."""
    match = _LOOPBACK.fullmatch(uri) if len(uri) <= _MAX_LENGTH else None
    if match is None:
        return False
    port, path = match.groups()
    return (port is None or int(port) <= 65535) and not _climbs(path)


def with_parameters(url: str, parameters: dict[str, str]) -> str:
    """`url` with `parameters` after its own query, before its fragment."""
    base, mark, fragment = url.partition("#")
    joined = base + ("&" if "?" in base else "?") + urlencode(parameters)
    return joined + mark + fragment


def _covers(entry: _Target, target: _Target) -> bool:
    if entry.origin != target.origin:
        return False
    if entry.path.endswith("/") and not entry.query:
        return target.path.startswith(entry.path)
    return entry.path == target.path and entry.query in ("", target.query)


def _read(url: str) -> _Target | None:
    if len(url) > _MAX_LENGTH or not _PLAIN.fullmatch(url) or not _SCHEME.match(url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname or ""
    if "@" in parts.netloc or parts.netloc.endswith(":") or port == 0 or not _HOST.fullmatch(host):
        return None
    if ("[" in url or "]" in url) and not _bracketed(parts):
        return None
    path = parts.path or "/"
    if _climbs(path):
        return None
    return _Target((parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme]), path, parts.query)


def _bracketed(parts: SplitResult) -> bool:
    """Brackets stand around an IPv6 address and nowhere else."""
    rest = parts.path + parts.query + parts.fragment
    return parts.netloc.startswith("[") and not {"[", "]"} & set(rest)


def _climbs(path: str) -> bool:
    """Whether a path has a ``.`` or ``..`` segment for any reader: a browser, or a server that decodes it twice or
    takes ``..;x`` for ``..``."""
    while True:
        segments = re.split(r"[/\\]", path)
        if any(segment.partition(";")[0] in (".", "..") for segment in segments):
            return True
        decoded = unquote(path)
        if decoded == path:
            return False
        path = decoded
