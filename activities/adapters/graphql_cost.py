"""What a GraphQL request costs, and what is left, told in the answer's `extensions.cost`.

Source: https://shopify.dev/docs/api/usage/limits#graphql-admin-api-rate-limits
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

_LONGEST = timedelta(hours=1)


def cost_delay(body: Mapping[str, Any]) -> timedelta | None:
    """How long until the bucket holds the cost of the same request again, at most an hour.

    `body` is the whole answer, parsed. None when there is room now, or when it tells no cost.
    """
    cost = _object(_object(body, "extensions"), "cost")
    bucket = _object(cost, "throttleStatus")
    asked, there, pace = (
        _number(cost, "requestedQueryCost"),
        _number(bucket, "currentlyAvailable"),
        _number(bucket, "restoreRate"),
    )
    if asked is None or there is None or pace is None or pace <= 0:
        return None
    # More than the bucket can ever hold is not worth waiting for: when it is full, the upstream says what is wrong.
    missing = min(asked, _number(bucket, "maximumAvailable") or asked) - there
    return timedelta(seconds=min(missing / pace, _LONGEST.total_seconds())) if missing > 0 else None


def _object(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def _number(value: Mapping[str, Any], key: str) -> float | None:
    found = value.get(key)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    try:
        number = float(found)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
