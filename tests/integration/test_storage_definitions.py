"""Definitions in a real Postgres: unique, immutable once published, found where they belong."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from integration_service.contracts.definitions import (
    DefinitionFile,
    IntegrationDefinition,
    IntegrationDefinitionStatus,
)
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.wire import parse
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from tests.world import definition_file, method

Status = IntegrationDefinitionStatus


def file(name: str, **changes: Any) -> DefinitionFile:
    return parse(DefinitionFile, definition_file(name, **changes))


@pytest.fixture
def definitions(database: Database) -> Definitions:
    return Definitions(database)


async def add_instance(database: Database, definition: IntegrationDefinition) -> str:
    wanted = ConnectInstanceInput(
        instance_id=str(uuid.uuid4()), scope=definition.scope, definition=definition.name, name=uuid.uuid4().hex + "-i"
    )
    return (await Instances(database).add(wanted, definition)).id


async def test_the_same_content_again_changes_nothing(definitions: Definitions, name: str) -> None:
    first = await definitions.apply(file(name))
    assert (first.status, first.published_at) == (Status.DRAFT, None)
    again = await definitions.apply(file(name))
    assert again == first
    published = await definitions.apply(file(name), publish=True)
    assert (published.id, published.status) == (first.id, Status.PUBLISHED)
    assert published.published_at is not None
    assert await definitions.apply(file(name), publish=True) == published
    assert await definitions.apply(file(name)) == published


async def test_everything_that_was_applied_comes_back(definitions: Definitions, name: str) -> None:
    whole = file(
        name,
        title="T",
        defaultConfig={"z": 1, "a": [None]},
        connectionTest="get",
        configSchema={"type": "object", "properties": {"zeta": {"type": "string"}, "alpha": {"type": "null"}}},
    )
    stored = await definitions.apply(whole)
    assert stored.content() == whole.content()
    found = await definitions.find("global", name)
    assert found == stored
    assert found is not None
    assert isinstance(found.config_schema, dict)
    assert list(found.config_schema["properties"]) == ["zeta", "alpha"]


async def test_a_draft_is_replaced_and_keeps_its_id(definitions: Definitions, name: str) -> None:
    first = await definitions.apply(file(name))
    second = await definitions.apply(file(name, description="Other."))
    assert (second.id, second.description, second.created_at) == (first.id, "Other.", first.created_at)
    assert (await definitions.get(first.id)).description == "Other."


async def test_what_was_published_never_changes(definitions: Definitions, name: str) -> None:
    await definitions.apply(file(name), publish=True)
    for status in (Status.PUBLISHED, Status.DEPRECATED, Status.ARCHIVED):
        await definitions.move("global", name, "1.0.0", status)
        with pytest.raises(IntegrationError) as refused:
            await definitions.apply(file(name, description="Other."))
        assert (refused.value.code, refused.value.path) == (ErrorCode.VERSION_CONFLICT, "version")
    found = await definitions.find("global", name)
    assert found is not None
    assert found.description == "Things."


async def test_client_id_and_secret_are_not_stored(database: Database, definitions: Definitions, name: str) -> None:
    oauth = {
        "clientId": "planted-client-id",
        "clientSecret": "planted-client-secret",
        "authorizationUrl": "https://p.test/a",
        "tokenUrl": "https://p.test/t",
    }
    stored = await definitions.apply(file(name, authType="oauth2", oauth2Config=oauth))
    assert stored.oauth2_config is not None
    assert stored.oauth2_config.client_secret is None
    row = await database.one("SELECT d::text AS text FROM integrations.definitions d WHERE name = %(n)s", {"n": name})
    assert row is not None
    assert "planted" not in row["text"]
    assert "https://p.test/t" in row["text"]


@pytest.mark.parametrize("target", list(Status))
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
async def test_only_the_next_step_of_the_lifecycle_is_taken(
    definitions: Definitions, name: str, steps: int, target: Status
) -> None:
    await definitions.apply(file(name))
    order = list(Status)
    for status in order[1 : steps + 1]:
        assert (await definitions.move("global", name, "1.0.0", status)).status is status
    if order.index(target) in (steps, steps + 1):
        assert (await definitions.move("global", name, "1.0.0", target)).status is target
        return
    with pytest.raises(IntegrationError) as refused:
        await definitions.move("global", name, "1.0.0", target)
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, "status")
    found = await definitions.find("global", name)
    assert found is not None
    assert found.status is order[steps]


async def test_a_version_in_use_is_not_archived(database: Database, definitions: Definitions, name: str) -> None:
    published = await definitions.apply(file(name), publish=True)
    instance = await add_instance(database, published)
    await definitions.move("global", name, None, Status.DEPRECATED)
    with pytest.raises(IntegrationError) as refused:
        await definitions.move("global", name, None, Status.ARCHIVED)
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, "status")
    await Instances(database).delete(instance)
    assert (await definitions.move("global", name, None, Status.ARCHIVED)).status is Status.ARCHIVED


async def test_without_a_version_the_only_one_that_can_move_does(definitions: Definitions, name: str) -> None:
    await definitions.apply(file(name), publish=True)
    await definitions.apply(file(name, version="2.0.0"))
    assert (await definitions.move("global", name, None, Status.PUBLISHED)).version == "2.0.0"
    with pytest.raises(IntegrationError) as refused:
        await definitions.move("global", name, None, Status.DEPRECATED)
    assert refused.value.path == "version"
    assert "1.0.0, 2.0.0" in refused.value.message


async def test_what_is_not_there_is_not_moved(definitions: Definitions, name: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        await definitions.move("global", name, None, Status.PUBLISHED)
    assert refused.value.code == ErrorCode.DEFINITION_NOT_FOUND


async def test_the_highest_published_release_is_connected(definitions: Definitions, name: str) -> None:
    for version in ("1.9.0", "1.10.0", "1.2.0", "2.0.0-rc.1"):
        await definitions.apply(file(name, version=version), publish=True)
    await definitions.apply(file(name, version="3.0.0"))
    assert (await definitions.connectable("global", name)).version == "1.10.0"
    assert (await definitions.connectable("global", name, "2.0.0-rc.1")).version == "2.0.0-rc.1"
    for version in ("3.0.0", "9.9.9"):
        with pytest.raises(IntegrationError) as refused:
            await definitions.connectable("global", name, version)
        expected = "DEFINITION_NOT_PUBLISHED" if version == "3.0.0" else "DEFINITION_NOT_FOUND"
        assert refused.value.code == expected
    await definitions.move("global", name, "1.10.0", Status.DEPRECATED)
    assert (await definitions.connectable("global", name)).version == "1.9.0"


async def test_drafts_and_prereleases_alone_are_not_connected(definitions: Definitions, name: str) -> None:
    await definitions.apply(file(name))
    await definitions.apply(file(name, version="1.1.0-beta"), publish=True)
    with pytest.raises(IntegrationError) as refused:
        await definitions.connectable("global", name)
    assert refused.value.code == ErrorCode.DEFINITION_NOT_PUBLISHED


async def test_an_own_scopes_definition_comes_before_the_global_one(definitions: Definitions, name: str) -> None:
    shared = await definitions.apply(file(name, version="5.0.0"), publish=True)
    scope, other = f"s-{name}", f"o-{name}"
    assert (await definitions.connectable(scope, name)).id == shared.id
    own = await definitions.apply(file(name, scope=scope), publish=True)
    assert own.id != shared.id
    assert (await definitions.connectable(scope, name)).id == own.id
    assert (await definitions.connectable(scope, name, "5.0.0")).id == shared.id
    for place in (other, "global"):
        assert (await definitions.connectable(place, name)).id == shared.id
    with pytest.raises(IntegrationError) as refused:
        await definitions.connectable(other, name, "1.0.0")
    assert refused.value.code == ErrorCode.DEFINITION_NOT_FOUND


async def test_ten_who_apply_the_same_new_version_at_once_make_one_row(definitions: Definitions, name: str) -> None:
    stored = await asyncio.gather(*(definitions.apply(file(name), publish=index % 2 == 0) for index in range(10)))
    assert len({one.id for one in stored}) == 1
    (only,) = await definitions.list(name=name)
    assert (only.id, only.status) == (stored[0].id, Status.PUBLISHED)


async def test_of_ten_contents_for_one_published_version_one_wins(definitions: Definitions, name: str) -> None:
    files = [file(name, methods=[method(f"m{index}", "GET", "/")]) for index in range(10)]
    results = await asyncio.gather(*(definitions.apply(one, publish=True) for one in files), return_exceptions=True)
    won = [one for one in results if isinstance(one, IntegrationDefinition)]
    lost = [one for one in results if isinstance(one, IntegrationError)]
    assert (len(won), len(lost)) == (1, 9)
    assert {one.code for one in lost} == {ErrorCode.VERSION_CONFLICT}
    assert await definitions.list(name=name) == won


async def test_an_id_that_names_nothing_is_not_found(definitions: Definitions) -> None:
    with pytest.raises(IntegrationError) as refused:
        await definitions.get(str(uuid.uuid4()))
    assert refused.value.code == ErrorCode.DEFINITION_NOT_FOUND
