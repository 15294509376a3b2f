"""What a credential may need to know beside itself: the definition, the config, the time."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.wire import JsonObject


@dataclass(frozen=True)
class AuthContext:
    """`config` is the merged one; `now` is aware."""

    definition: DefinitionFile | None = None
    config: JsonObject = field(default_factory=dict, repr=False)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
