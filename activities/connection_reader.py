"""An instance as its workflow decides by it: the row, what its config lacks, what the vault says of its token."""

from __future__ import annotations

from integration_service.activities.execution.compiled import CompiledDefinitions
from integration_service.activities.oauth.authorization import missing_scope, requested_scope
from integration_service.activities.tokens import token_state
from integration_service.contracts.connections import ConnectionState
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.instances import InstanceError, IntegrationInstance
from integration_service.storage.credentials import Credentials


class ConnectionReader:
    """Reads; writes nothing."""

    def __init__(self, *, definitions: CompiledDefinitions, credentials: Credentials) -> None:
        self._definitions = definitions
        self._credentials = credentials

    async def state(self, instance: IntegrationInstance) -> ConnectionState:
        """What the row of `instance` amounts to now."""
        compiled = await self._definitions.get(instance.integration_definition_id)
        credential = await self._credentials.load(instance.id)
        problem: IntegrationError | None = None
        try:
            compiled.config(instance.config)
        except IntegrationError as error:
            problem = error
        rules = {entry["rule"] for entry in problem.details.get("errors", ())} if problem else set()
        oauth = compiled.definition.oauth2_config
        token = token_state(oauth, credential) if oauth and credential else None
        granted = token.granted_scope if token else None
        return ConnectionState(
            instance=instance,
            generation=credential.generation if credential else 0,
            config_problem=InstanceError.of(problem) if problem else None,
            unconfigured=rules == {"required"} and not instance.config,
            grant=oauth.grant if oauth else None,
            token=token,
            missing_scope=_missing(oauth, granted) if oauth else [],
        )


def _missing(oauth: OAuth2Config, granted: str | None) -> list[str]:
    return missing_scope(requested_scope(oauth), granted, oauth.scope_separator, aliases=oauth.scope_aliases)
