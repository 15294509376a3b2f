"""Every way in which a secret's text is usually written: as it is, escaped, percent-encoded, in base64."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

_UNESCAPED = re.compile(r"[ !#-%(-.0-;=?-\[\]-~]*")
_LOWER = re.compile("%[0-9A-F]{2}")
# Python's own default keeps the slash; the two others are what JavaScript's encodeURIComponent and encodeURI keep.
_KEPT = ("", "/", "!'()*", "!'()*;,/?:@&=+$#")
_SHORTEST_PIECE = 8
"""A shorter piece of base64 may stand anywhere by chance."""


def spellings(text: str) -> dict[str, None]:
    """`text` and its other spellings, each once, in order."""
    return dict.fromkeys([text, *_escaped(text), *_percent(text), *_base64(text)])


def _escaped(text: str) -> Iterator[str]:
    if _UNESCAPED.fullmatch(text):
        return
    for quoted in (True, False):
        markup = html.escape(text, quote=quoted)
        yield markup
        yield markup.replace("&#x27;", "&#39;")
    for ascii_only in (True, False):
        inside = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield inside
        yield inside.replace("/", "\\/")  # PHP writes it so


def _percent(text: str) -> Iterator[str]:
    raw = text.encode("utf-8", "surrogatepass")
    if quote(raw, safe="") == text:
        return
    for percent in (*(quote(raw, safe=kept) for kept in _KEPT), quote_plus(raw)):
        yield percent
        yield _LOWER.sub(lambda found: found[0].lower(), percent)


def _base64(text: str) -> Iterator[str]:
    """By itself, and as it looks within something longer: that depends on where among three bytes it begins."""
    raw = text.encode("utf-8", "surrogatepass")
    for whole in (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()):
        yield whole
        yield whole.rstrip("=")
    for before in range(3):
        bits = base64.b64encode(b"\0" * before + raw).decode()
        # What the neighbours have no part in.
        piece = bits[(0, 2, 3)[before] : (before + len(raw)) * 8 // 6]
        if len(piece) >= _SHORTEST_PIECE:
            yield piece
            yield piece.replace("+", "-").replace("/", "_")
