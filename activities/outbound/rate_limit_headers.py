"""What the rate-limit headers of an answer say: how long to hold back because nothing is left.

Read are

- the pairs `…remaining…` and `…reset…` (or `…reset-after…`) of any rate-limit header, which covers `X-RateLimit-*`,
  `X-Rate-Limit-*`, `RateLimit-*`, Discord's `X-RateLimit-Reset-After`, OpenAI's `X-RateLimit-Remaining-Requests`,
  Anthropic's `Anthropic-RateLimit-Requests-Remaining`;
- `RateLimit: "default";r=0;t=30` (draft-ietf-httpapi-ratelimit-headers-10) and, of its older drafts,
  `RateLimit: limit=100, remaining=0, reset=30`.

Not read is `X-Shopify-Shop-Api-Call-Limit: 40/40`: it names no time, and Shopify's 429 brings a `Retry-After`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from integration_service.activities.outbound.reset_time import bounded, number, time_until

_NAME = re.compile(r"rate-?limit")
# A quoted string, or one character that is none: what is left between the separators.
_MEMBERS, _PARAMETERS = (re.compile(rf'(?:"(?:[^"\\]|\\.)*"|[^{mark}])+') for mark in ",;")

_READ_CHARACTERS = 1000
"""Of a field: quotes that are never closed cost the square of it."""


def exhausted_for(headers: Mapping[str, str], *, now: datetime) -> timedelta | None:
    """How long nothing is left, by the headers' own count; None where something is, or no count stands there.

    Of several limits, the longest wait counts. From 0 to an hour.
    """
    waits = [*_pairs(headers, now), *_field(headers.get("ratelimit", ""))]
    return max(waits, default=None)


def reset_in(headers: Mapping[str, str], *, now: datetime) -> timedelta | None:
    """How long it is until a limit is reset that names no count of what is left, as some refusals do."""
    counted = {_reset_name(name) for name in headers if "remaining" in name}
    waits = [
        wait
        for name, text in headers.items()
        if "reset" in name and _NAME.search(name) and name not in counted
        if (wait := time_until(text, headers, now=now)) is not None
    ]
    return max(waits, default=None)


def _pairs(headers: Mapping[str, str], now: datetime) -> Iterator[timedelta]:
    for name, text in headers.items():
        if "remaining" not in name or not _NAME.search(name):
            continue
        left = number(text)
        if left is None or left >= 1:
            continue
        reset = _reset_name(name)
        for mate in (f"{reset}-after", reset):
            wait = time_until(headers[mate], headers, now=now) if mate in headers else None
            if wait is not None:
                yield wait
                break


def _reset_name(name: str) -> str:
    return name.replace("remaining", "reset")


def _field(text: str) -> Iterator[timedelta]:
    old: dict[str, float] = {}
    for member in _MEMBERS.findall(text[:_READ_CHARACTERS]):
        parts = dict(_keyed(member))
        old |= parts
        if "r" in parts and "t" in parts and parts["r"] < 1:
            yield bounded(parts["t"])
    if "remaining" in old and "reset" in old and old["remaining"] < 1:
        yield bounded(old["reset"])


def _keyed(member: str) -> Iterator[tuple[str, float]]:
    for part in _PARAMETERS.findall(member):
        key, _, text = part.partition("=")
        value = number(text)
        if value is not None:
            yield key.strip().lower(), value
