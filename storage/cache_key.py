"""What a cached response is found by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Self

from integration_service.contracts.wire import JsonObject

_FORMAT = 1
"""Part of every key: raise it when the stored value changes its shape."""


@dataclass(frozen=True)
class CacheKey:
    """All that decides a method's answer, as a SHA-256; beside it in clear what the row is bound to and found by.

    `instance_id` is None where the instances of a scope share the answer.
    """

    digest: bytes
    definition_id: str
    method: str
    scope: str
    instance_id: str | None

    @classmethod
    def of(
        cls,
        *,
        definition_id: str,
        method: str,
        scope: str,
        instance_id: str,
        epoch: int | None,
        config: JsonObject,
        connection: JsonObject | None,
        params: JsonObject,
        page: Any = None,
        shared: bool = False,
    ) -> Self:
        """The key of a call. `config` is the merged one, `connection` what the token's answer told, `epoch` that of
        the credential; a `shared` key leaves out instance and epoch, and nothing else.
        """
        whose = None if shared else [instance_id, epoch]
        decides = [_FORMAT, definition_id, method, scope, whose, config, connection or {}, params, page]
        return cls(
            digest=hashlib.sha256(canonical(decides)).digest(),
            definition_id=definition_id,
            method=method,
            scope=scope,
            instance_id=None if shared else instance_id,
        )


def canonical(value: Any) -> bytes:
    """One spelling of a JSON value, after RFC 8785: keys sorted, no white space, text as it is.

    Unlike there a number keeps its kind: 1 and 1.0 are sent as different texts, so they are different params.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
