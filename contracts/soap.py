"""What a definition of type `soap` says beside its WSDL."""

from __future__ import annotations

from typing import Literal

from integration_service.contracts.wire import WireModel


class SoapConfig(WireModel):
    """How a basic credential goes into the envelope (`security`), instead of into the Authorization header.

    `digest` sends a digest of the password with nonce and time, not the password (WSS UsernameToken 1.1, §3.1).
    """

    security: Literal["usernameToken"]
    digest: bool = False
