"""Taking secrets out of text that leaves the process: those that were opened just now, and what looks like one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from integration_service.telemetry.spellings import spellings

REDACTED = "[REDACTED]"
_SHORTEST = 6
"""Shorter values would hit ordinary words."""
_LONGEST = 64 * 1024
"""Longer texts are cut: a log line is no place for more, and the patterns' work stays bounded."""

_NAMES = (
    r"(?:access|refresh|id|auth|session|bearer|csrf|device)[_-]?token|token|client[_-]?secret|client[_-]?assertion"
    r"|secret(?:[_-]?key)?|pass(?:word|wd|phrase)?|pwd|api[_-]?key|apikey|x-api-key|private[_-]?key|assertion|code"
    r"|code[_-]?verifier|device[_-]?code|user[_-]?code|state|sig(?:nature)?|credentials?|cookie|set-cookie"
)
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}-----|\Z)", re.DOTALL), REDACTED),
    # A whole header's value, whatever its scheme.
    (
        re.compile(r"(?i)((?:proxy-)?authorization[\"']?\s{0,4}[:=,]\s{0,4}[bu]?[\"']?)[^\"'\r\n,}\])]{1,8192}"),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"(?i)\b(bearer|basic|dpop)\s{1,4}[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {REDACTED}"),
    (re.compile(r"://[^\s/@\"'<>]{1,512}@"), f"://{REDACTED}@"),
    # A quoted field: JSON, a dict's repr, a tuple of a header's name and value.
    (
        re.compile(rf"(?i)([\"'](?:{_NAMES})[\"']\s{{0,4}}[:,]\s{{0,4}}[bu]?)([\"'])(?:\\.|(?!\2)[^\\])*(?:\2|\\?\Z)"),
        rf"\1\2{REDACTED}\2",
    ),
    # A parameter of a query, a fragment or a form.
    (re.compile(rf"(?i)(?<![\w-])((?:{_NAMES})=)[^&\s\"'#;,)}}\]]+"), rf"\1{REDACTED}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{2,}\.?[A-Za-z0-9_-]*"), REDACTED),
    (
        re.compile(
            r"\b(?:gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{8,}"
            r"|[sr]k[_-](?:live|test|proj)[_-]\w{8,}|whsec_[\w+/=]{8,}|shp(?:at|ca|pa|ss)_\w{16,}"
            r"|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}|ya29\.[\w-]{10,}|SG\.[\w-]{10,}\.[\w-]{10,}|npm_\w{20,}|hf_\w{20,})"
        ),
        REDACTED,
    ),
)

_opened: ContextVar[list[bytes] | None] = ContextVar("opened_plaintexts", default=None)


@contextmanager
def remembering() -> Iterator[None]:
    """Inside, whatever the vault opens or stores is taken out of what is logged. Forgotten at the end."""
    token = _opened.set([])
    try:
        yield
    finally:
        _opened.reset(token)


def remember(plaintext: bytes) -> None:
    """The vault has it in hand. Cheap: it is looked at when something is logged."""
    opened = _opened.get()
    if opened is not None:
        opened.append(plaintext)


def redacted(text: str) -> str:
    """`text` without secrets."""
    # Before it is cut: of a secret across the cut nobody would know the beginning.
    for secret in _secrets():
        text = text.replace(secret, REDACTED)
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + "…"
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def _secrets() -> list[str]:
    found: set[str] = set()
    for plaintext in _opened.get() or ():
        text = plaintext.decode("utf-8", "ignore")
        try:
            values: Iterable[str] = _leaves(json.loads(text))
        except ValueError:
            values = (text,)
        for value in values:
            if len(value) >= _SHORTEST:
                found |= {*spellings(value), repr(value)[1:-1], repr(value.encode("utf-8", "surrogatepass"))[2:-1]}
    # The longest first: one may be a part of another.
    return sorted(found, key=len, reverse=True)


def _leaves(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for one in value.values():
                yield from _leaves(one)
        case list():
            for one in value:
                yield from _leaves(one)
