"""Large results in a real Postgres: as they were, encrypted, and gone in time."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integration_service.contracts.calls import MethodResult, ResultRef
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.wire import parse
from integration_service.storage import large_results
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.large_results import LargeResult, LargeResults
from integration_service.storage.vault.keyring import Keyring, generate_keyring
from tests.world import definition_file

SECRET = "planted-result-7be01a"
Add = Callable[[], Awaitable[str]]


@pytest.fixture
async def add(database: Database, name: str) -> Add:
    """Makes an instance; returns its id."""
    definition = await Definitions(database).apply(parse(DefinitionFile, definition_file(name)), publish=True)

    async def make() -> str:
        id_ = str(uuid.uuid4())
        await Instances(database).add(
            ConnectInstanceInput(instance_id=id_, definition=name, name=f"i {id_[:8]}"), definition
        )
        return id_

    return make


@pytest.fixture
def results(database: Database, keyring: Keyring) -> LargeResults:
    return LargeResults(database, keyring, public_url="https://gateway.test/")


async def expire(database: Database, *ids: str) -> None:
    for id_ in ids:
        await database.one(
            "UPDATE integrations.large_results SET expires_at = now() - interval '1 second' WHERE id = %(id)s",
            {"id": id_},
        )


async def rows(database: Database, *ids: str) -> int:
    found = await database.all("SELECT id FROM integrations.large_results WHERE id = ANY(%(ids)s)", {"ids": list(ids)})
    return len(found)


@pytest.mark.parametrize(
    "data",
    [None, "text", [1, 1.5, True], {"ä": "\u0000🙂"}, {"half": "\ud800"}, {"$binary": 1}, {"big": "x" * 3_000_000}],
    ids=lambda data: ascii(data)[:20],
)
async def test_what_was_stored_comes_back(results: LargeResults, add: Add, data: Any) -> None:
    ref = await results.store(instance_id=await add(), data=data)
    found = await results.open(ref.id)
    assert found is not None
    assert json.loads(found.body) == data
    assert (found.content_type, found.file_name) == ("application/json", None)
    assert (ref.bytes, ref.sha256) == (len(found.body), hashlib.sha256(found.body).hexdigest())
    assert ref.url == f"https://gateway.test/v1/results/{ref.id}"


async def test_a_binary_result_is_its_bytes(results: LargeResults, add: Add) -> None:
    raw = bytes(range(256)) * 40_000  # 10 MiB, as much as the transport takes in
    data = {"$binary": base64.b64encode(raw).decode(), "contentType": "image/png", "fileName": "a b.png"}
    ref = await results.store(instance_id=await add(), data=data)
    assert await results.open(ref.id) == LargeResult(raw, "image/png", "a b.png")
    assert ref.bytes == len(raw)


@pytest.mark.parametrize("kind", ["text/html\r\nSet-Cookie: a=b", "html", "", None, "a/b; x=é", "x" * 200 + "/y"])
def test_a_content_type_that_is_none_is_not_kept(kind: Any) -> None:
    found = LargeResult.of({"$binary": "AAAA", "contentType": kind})
    assert (found.body, found.content_type) == (b"\0\0\0", "application/octet-stream")


@pytest.mark.parametrize("data", [{"$binary": "not base64!"}, {"$binary": "AAAA", "more": 1}])
def test_what_only_looks_binary_is_json(data: Any) -> None:
    found = LargeResult.of(data)
    assert (json.loads(found.body), found.content_type) == (data, "application/json")


async def test_it_expires_after_a_day(results: LargeResults, database: Database, add: Add) -> None:
    ref = await results.store(instance_id=await add(), data=1)
    assert timedelta(hours=23, minutes=59) < ref.expires_at - datetime.now(UTC) < timedelta(hours=24, minutes=1)
    await expire(database, ref.id)
    assert await results.open(ref.id) is None


async def test_expired_rows_go_when_somebody_writes(results: LargeResults, database: Database, add: Add) -> None:
    instance = await add()
    refs = [await results.store(instance_id=instance, data=number) for number in range(8)]
    await expire(database, *(ref.id for ref in refs[:7]))
    for _ in range(2):
        await results.store(instance_id=instance, data=0)
    assert await rows(database, *(ref.id for ref in refs)) == 1
    assert await results.open(refs[7].id) is not None


@pytest.mark.parametrize(
    "id_",
    [
        "",
        "x",
        "../secret",
        "d3b07384-d9a0-4c9b-8f1e-5a2f6c7b8e90",
        "D3B07384-D9A0-4C9B-8F1E-5A2F6C7B8E90",
        "\x00",
        "é" * 300,
    ],
)
async def test_any_other_id_is_unknown(results: LargeResults, id_: str) -> None:
    assert await results.open(id_) is None


async def test_nothing_is_in_clear(results: LargeResults, database: Database, add: Add) -> None:
    binary = {"$binary": base64.b64encode(SECRET.encode()).decode(), "contentType": "text/plain", "fileName": SECRET}
    for data in ({"text": SECRET}, binary):
        ref = await results.store(instance_id=await add(), data=data)
        row = await database.one(
            "SELECT r::text AS text FROM integrations.large_results r WHERE id = %(id)s", {"id": ref.id}
        )
        assert row is not None
        for spelling in (SECRET, SECRET.encode().hex()):
            assert spelling not in row["text"]


async def test_a_row_that_was_moved_or_changed_does_not_open(
    results: LargeResults, database: Database, add: Add
) -> None:
    one, other = await add(), await add()
    ref = await results.store(instance_id=one, data=SECRET)
    moved = await results.store(instance_id=one, data=SECRET)
    await database.one(
        "UPDATE integrations.large_results SET ciphertext = set_byte(ciphertext, 9, get_byte(ciphertext, 9) # 1) "
        "WHERE id = %(id)s",
        {"id": ref.id},
    )
    await database.one(
        "UPDATE integrations.large_results SET instance_id = %(other)s WHERE id = %(id)s",
        {"id": moved.id, "other": other},
    )
    for id_ in (ref.id, moved.id):
        with pytest.raises(IntegrationError) as refused:
            await results.open(id_)
        assert refused.value.code == ErrorCode.INTEGRITY_ERROR


async def test_another_key_set_opens_nothing(results: LargeResults, database: Database, add: Add) -> None:
    ref = await results.store(instance_id=await add(), data=1)
    with pytest.raises(IntegrationError) as refused:
        await LargeResults(database, Keyring.load(generate_keyring())).open(ref.id)
    assert refused.value.code == ErrorCode.KEY_UNAVAILABLE


async def test_a_deleted_instance_takes_its_results_along(results: LargeResults, database: Database, add: Add) -> None:
    instance = await add()
    ref = await results.store(instance_id=instance, data=1)
    await Instances(database).delete(instance)
    assert await results.open(ref.id) is None
    with pytest.raises(IntegrationError) as refused:
        await results.store(instance_id=instance, data=1)
    assert refused.value.code == ErrorCode.INSTANCE_NOT_FOUND


async def test_there_is_a_bound(results: LargeResults, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_results, "MAX_STORED_BYTES", 100)
    instance = await add()
    await results.store(instance_id=instance, data="x" * 98)
    with pytest.raises(IntegrationError) as refused:
        await results.store(instance_id=instance, data="x" * 99)
    assert refused.value.code == ErrorCode.RESPONSE_TOO_LARGE


def test_the_reference_on_the_wire() -> None:
    id_ = str(uuid.uuid4())
    ref = ResultRef(id=id_, url="u", sha256="s", bytes=7, expires_at=datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=UTC))
    wire = {"id": id_, "url": "u", "sha256": "s", "bytes": 7, "expiresAt": "2026-01-02T03:04:05.006Z"}
    result = MethodResult(
        data=None,
        status_code=200,
        attempts=1,
        duration_ms=1,
        definition="d",
        definition_version="1.0.0",
        result_ref=ref,
    )
    assert result.to_wire()["resultRef"] == wire
    assert parse(MethodResult, result.to_wire()) == result
