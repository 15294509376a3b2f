"""What a provider sends back with the person (RFC 6749 §4.1.2, RFC 9207), read and made into our message."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl

from integration_service.contracts.credentials import SealKey
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.names import is_canonical_uuid
from integration_service.contracts.oauth import state_hash
from integration_service.contracts.wire import JsonObject
from integration_service.storage.vault.seal import seal

_MAX_QUERY = 32_768
_MAX_PARAMETERS = 50
_MAX_NAME = 128
_MAX_VALUE = 8_192
_MAX_OF = {"state": 256, "iss": 2_048}
_RANDOM = re.compile(r"[A-Za-z0-9_-]{16,}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# RFC 6749 §4.1.2.1; what is no such code is told as one that is.
_ERROR = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,100}")
_UNREADABLE = "unreadable_error"


@dataclass(frozen=True)
class AuthorizationResponse:
    """A callback's query, checked as far as it can be without the vault. `others` may hold anything, secrets too."""

    instance_id: str
    state_hash: str
    code: str | None = field(default=None, repr=False)
    error: str | None = None
    iss: str | None = None
    others: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, query: str) -> Self:
        """Raises IntegrationError VALIDATION_ERROR with a sentence for the person who looks at it."""
        given = _parameters(query)
        state = given.pop("state", "")
        instance_id, _, random = state.partition(".")
        if not state:
            raise _bad("The address has no state.", "state")
        if not is_canonical_uuid(instance_id) or not _RANDOM.fullmatch(random):
            raise _bad("The state is not one of ours.", "state")
        code, error, iss = given.pop("code", None), given.pop("error", None), given.get("iss")
        if error is not None and not _ERROR.fullmatch(error):
            error = _UNREADABLE
        return cls(instance_id, state_hash(state), code, error, iss, given)

    def to_message(self, key: SealKey) -> JsonObject:
        """Update `complete_authorization`: the provider's refusal, or the code, sealed."""
        iss = {} if self.iss is None else {"iss": self.iss}
        if self.error is not None:
            return {"stateHash": self.state_hash, "error": {"error": self.error, **iss}}
        if self.code is None:
            raise _bad("The provider must return a code in the address's query, not a token in its fragment.", "code")
        plaintext = json.dumps({"code": self.code, **iss, "callback": dict(self.others)}).encode()
        return {"stateHash": self.state_hash, "sealed": seal(key, self.instance_id, plaintext).to_wire()}


def _parameters(query: str) -> dict[str, str]:
    """Each parameter once (RFC 6749 §3.1); one without a value counts as left out."""
    if len(query) > _MAX_QUERY:
        raise _bad("The address is too long.")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise _bad("The address cannot be read.") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise _bad("The address has a parameter twice.")
    for name, value in pairs:
        if len(name) > _MAX_NAME or len(value) > _MAX_OF.get(name, _MAX_VALUE):
            raise _bad("A parameter of the address is too long.")
        if _CONTROL.search(name + value):
            raise _bad("The address cannot be read.")
    return {name: value for name, value in given.items() if value}


def _bad(sentence: str, path: str | None = None) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, sentence, path=path)
