"""How the embedded stack's payloads are read again: a key set, and who may have the gateway decode.

The Web UI of a dev server knows no user and sends no token, so its pages are let in by their origin, on this machine
only. The `temporal` command sends a token that this makes: signed by a key that is forgotten at once.
"""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta

from joserfc import jwt
from joserfc.jwk import ECKey

from integration_service.devstack.data_dir import DataDir, write_private
from integration_service.devstack.options import StackPorts
from integration_service.devstack.ports import HOST
from integration_service.settings import Settings

_ISSUER = "integrations-dev"
_AUDIENCE = "codec"
_LIFE = timedelta(days=90)
"""Longer than a stack is left running; each start makes another."""


def are_encrypted() -> bool:
    """Whether the caller's environment turns payload encryption on. Raises IntegrationError where it cannot be read."""
    name = "INTEGRATIONS_PAYLOAD_ENCRYPTION"
    return Settings.from_environment({name: os.environ.get(name, "")}).payload_encryption


def environment(data_dir: DataDir, ports: StackPorts) -> dict[str, str]:
    """What worker, gateway and CLI are told. What was encrypted once can be opened with encryption off, too.

    Writes the token for `temporal --codec-auth`.
    """
    held = {"INTEGRATIONS_PAYLOAD_KEYRING": str(data_dir.payload_keyring)}
    if not are_encrypted():
        return held
    key = ECKey.generate_key("P-256")
    claims = {"iss": _ISSUER, "aud": _AUDIENCE, "exp": round(time.time() + _LIFE.total_seconds())}
    write_private(data_dir.codec_token, jwt.encode({"alg": "ES256"}, claims, key))
    return {
        **held,
        "INTEGRATIONS_PAYLOAD_ENCRYPTION": "on",
        "INTEGRATIONS_CODEC_JWKS": json.dumps({"keys": [key.as_dict(private=False)]}),
        "INTEGRATIONS_CODEC_ISSUER": _ISSUER,
        "INTEGRATIONS_CODEC_AUDIENCE": _AUDIENCE,
        "INTEGRATIONS_CODEC_ORIGINS": f"http://{HOST}:{ports.ui}",
        "INTEGRATIONS_CODEC_LOCAL_UI": "on",
    }
