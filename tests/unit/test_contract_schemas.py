"""The table of wire types: complete, sound, and what the workflows really take and answer."""

from __future__ import annotations

from typing import Any

import jsonschema
import nexusrpc
import pytest
from temporalio import workflow

from integration_service.contracts import answers, instances, oauth
from integration_service.contracts.definitions import IntegrationDefinition
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.nexus import IntegrationsService
from integration_service.contracts.schemas import (
    NEXUS_OPERATIONS,
    WIRE_TYPES,
    WORKFLOWS,
    definition_schemas,
    method_schemas,
    type_schema,
)
from integration_service.contracts.wire import parse
from integration_service.plugin import IntegrationPlugin
from tests.world import definition_file, method

_NOW = "2026-01-01T00:00:00.000Z"


def defined(**changes: Any) -> IntegrationDefinition:
    stored = {"id": "5b3b1e0e-7a52-4f0e-9d39-6a1f3a2f7c10", "status": "PUBLISHED", "createdAt": _NOW, "updatedAt": _NOW}
    return parse(IntegrationDefinition, {**definition_file("things", **changes), **stored})


@pytest.mark.parametrize("name", WIRE_TYPES)
def test_each_is_a_sound_document_with_an_identity(name: str) -> None:
    schema = type_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:integration-service:v1:{name}"
    assert schema["type"] == "object"


def test_another_name_is_refused() -> None:
    with pytest.raises(IntegrationError) as caught:
        type_schema("Nobody")
    assert caught.value.code == "VALIDATION_ERROR"


def test_the_table_has_every_message_of_every_workflow_and_no_other() -> None:
    served = {}
    for one in IntegrationPlugin().workflows:  # type: ignore[union-attr]
        definition = workflow._Definition.must_from_class(one)
        served[definition.name] = {
            "updates": set(definition.updates),
            "queries": set(definition.queries),
            "signals": set(definition.signals),
        }
    told = {
        name: {"updates": set(one.updates), "queries": set(one.queries), "signals": set(one.signals)}
        for name, one in WORKFLOWS.items()
    }
    assert told == served
    for one in WORKFLOWS.values():
        named = [one.input, one.result, *one.queries.values(), *one.signals.values()]
        named += [name for pair in one.updates.values() for name in pair]
        assert {name for name in named if name} <= set(WIRE_TYPES)


def test_the_table_has_every_nexus_operation() -> None:
    service = nexusrpc.get_service_definition(IntegrationsService)
    assert service is not None
    assert set(NEXUS_OPERATIONS) == set(service.operation_definitions)
    assert {name for pair in NEXUS_OPERATIONS.values() for name in pair} <= set(WIRE_TYPES)


def test_answers_have_the_keys_of_their_models() -> None:
    def aliases(model: Any) -> set[str]:
        return {field.alias for field in model.model_fields.values()}

    assert set(answers.Authorization.__annotations__) == aliases(oauth.PendingAuthorization)
    assert set(answers.TokenRefresh.__annotations__) == aliases(oauth.RefreshAnswer)
    assert set(answers.ConnectionStatus.__annotations__) >= aliases(instances.IntegrationInstance)


def test_a_methods_params_and_result_are_documents_of_their_own() -> None:
    params = {"type": "object", "properties": {"id": {"$ref": "#/$defs/id"}}, "$defs": {"id": {"type": "integer"}}}
    told = method_schemas(
        defined(scope="acme/eu", methods=[method("get", "GET", "/things", paramSchema=params)]), "get"
    )
    assert told["activityType"] == "things.get"
    assert told["params"]["$id"] == "urn:integration-service:v1:method:acme%2Feu:things:1.0.0:get:params"
    validator = jsonschema.Draft202012Validator(told["params"])
    assert validator.is_valid({"id": 7})
    assert not validator.is_valid({"id": "seven"})
    assert jsonschema.Draft202012Validator(told["result"]).is_valid(None)
    with pytest.raises(IntegrationError) as caught:
        method_schemas(defined(), "nobody")
    assert caught.value.code == "METHOD_NOT_FOUND"


def test_an_author_who_says_which_draft_is_believed() -> None:
    draft = "http://json-schema.org/draft-07/schema#"
    told = definition_schemas(
        defined(methods=[method("get", "GET", "/a", paramSchema={"$schema": draft}, resultSchema=False)])
    )
    assert told["methods"]["get"]["params"]["$schema"] == draft
    assert not jsonschema.Draft202012Validator(told["methods"]["get"]["result"]).is_valid(1)
    assert told["config"]["required"] == ["url"]
