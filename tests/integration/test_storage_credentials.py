"""Credentials in a real Postgres: encrypted, bound to their row, and useless anywhere else."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integration_service.contracts.credentials import CredentialPayload, parse_credential
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.wire import parse
from integration_service.storage.credentials import Credentials
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.vault.envelope import ENVELOPE_COLUMNS
from integration_service.storage.vault.keyring import KeyRef, Keyring, generate_keyring
from tests.world import definition_file

SECRET = "planted-api-key-61c0ffee"
BYTEA = ("wrapped_key", "commitment", "nonce", "ciphertext")
Add = Callable[[], Awaitable[str]]


def payload(key: str = SECRET) -> CredentialPayload:
    wire = {"type": "api_key", "apiKey": {"key": key, "headerOrParam": "X-Key", "inHeader": True}}
    return parse_credential(json.dumps(wire).encode())


@pytest.fixture
def credentials(database: Database, keyring: Keyring) -> Credentials:
    return Credentials(database, keyring)


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


async def opened(credentials: Credentials, instance_id: str) -> str:
    """The key, or the code of the refusal."""
    stored = await credentials.load(instance_id)
    assert stored is not None
    try:
        credential = await credentials.open(stored)
    except IntegrationError as error:
        return error.code
    assert credential.api_key is not None
    return credential.api_key.key


async def quarantined(database: Database, instance_id: str) -> bool:
    row = await database.one(
        "SELECT quarantined_at IS NOT NULL AS yes FROM vault.credentials WHERE instance_id = %(id)s",
        {"id": instance_id},
    )
    assert row is not None
    return bool(row["yes"])


async def change(database: Database, instance_id: str, assignment: str, **values: Any) -> None:
    await database.one(
        f"UPDATE vault.credentials SET {assignment} WHERE instance_id = %(id)s", {"id": instance_id, **values}
    )


async def test_what_was_stored_opens(credentials: Credentials, database: Database, add: Add) -> None:
    instance = await add()
    assert await credentials.load(instance) is None
    assert await credentials.store(instance_id=instance, scope="global", payload=payload()) == 1
    stored = await credentials.load(instance)
    assert stored is not None
    credential = await credentials.open(stored)
    assert (credential.integration_instance_id, credential.generation) == (instance, 1)
    assert credential.to_wire()["apiKey"] == payload().to_wire()["apiKey"]
    assert SECRET not in repr(credential)
    for_call = await Instances(database).for_call("global", instance)
    assert for_call.credential is not None
    assert (await credentials.open(for_call.credential)).api_key == credential.api_key


async def test_every_write_is_a_generation_of_the_same_row(
    credentials: Credentials, database: Database, add: Add
) -> None:
    instance = await add()
    ids = set()
    for generation in (1, 2, 3):
        key = f"{SECRET}-{generation}"
        assert await credentials.store(instance_id=instance, scope="global", payload=payload(key)) == generation
        assert await opened(credentials, instance) == key
        stored = await credentials.load(instance)
        assert stored is not None
        ids.add(stored.row["id"])
    assert len(ids) == 1


async def test_an_older_row_put_back_does_not_open(credentials: Credentials, database: Database, add: Add) -> None:
    instance = await add()
    await credentials.store(instance_id=instance, scope="global", payload=payload("old"))
    before = await credentials.load(instance)
    assert before is not None
    await credentials.store(instance_id=instance, scope="global", payload=payload("new"))
    columns = ", ".join(f"{name} = %({name})s" for name in ENVELOPE_COLUMNS)
    await change(database, instance, columns, **{name: before.row[name] for name in ENVELOPE_COLUMNS})
    assert await opened(credentials, instance) == ErrorCode.INTEGRITY_ERROR


async def test_writers_at_the_same_time_share_no_generation(credentials: Credentials, add: Add) -> None:
    instance = await add()
    results = await asyncio.gather(
        *(credentials.store(instance_id=instance, scope="global", payload=payload(f"k{n}")) for n in range(8)),
        return_exceptions=True,
    )
    won = [one for one in results if isinstance(one, int)]
    lost = [one.code for one in results if isinstance(one, IntegrationError)]
    assert len(won) == len(set(won)) >= 1
    assert len(won) + len(lost) == 8
    assert set(lost) <= {ErrorCode.VERSION_CONFLICT}
    assert (await opened(credentials, instance)).startswith("k")


async def pair(credentials: Credentials, add: Add) -> tuple[str, str]:
    first, second = await add(), await add()
    for instance, key in ((first, "first-key"), (second, "second-key")):
        await credentials.store(instance_id=instance, scope="global", payload=payload(key))
    return first, second


async def test_two_rows_whose_secrets_were_swapped_open_neither(
    credentials: Credentials, database: Database, add: Add
) -> None:
    first, second = await pair(credentials, add)
    columns = ", ".join(f"{name} = other.{name}" for name in ENVELOPE_COLUMNS)
    await database.one(
        f"""UPDATE vault.credentials c SET {columns} FROM vault.credentials other
             WHERE c.instance_id IN (%(a)s, %(b)s) AND other.instance_id IN (%(a)s, %(b)s) AND other.id <> c.id""",
        {"a": first, "b": second},
    )
    for instance in (first, second):
        assert not await quarantined(database, instance)
        assert await opened(credentials, instance) == ErrorCode.INTEGRITY_ERROR
        assert await quarantined(database, instance)


async def test_two_rows_that_changed_instances_open_neither(
    credentials: Credentials, database: Database, add: Add
) -> None:
    first, second = await pair(credentials, add)
    spare = await add()
    for frm, to in ((first, spare), (second, first), (spare, second)):
        await change(database, frm, "instance_id = %(to)s", to=to)
    for instance in (first, second):
        assert await opened(credentials, instance) == ErrorCode.INTEGRITY_ERROR
        assert await quarantined(database, instance)


@pytest.mark.parametrize("column", BYTEA)
async def test_one_changed_byte_does_not_open_and_is_marked(
    credentials: Credentials, database: Database, add: Add, column: str
) -> None:
    instance = await add()
    await credentials.store(instance_id=instance, scope="global", payload=payload())
    stored = await credentials.load(instance)
    assert stored is not None
    size = len(stored.row[column])
    for position in (0, size // 2, size - 1):
        flip = f"{column} = set_byte({column}, {position}, get_byte({column}, {position}) # 1)"
        await change(database, instance, flip)
        assert await opened(credentials, instance) == ErrorCode.INTEGRITY_ERROR
        assert await quarantined(database, instance)
        await change(database, instance, f"{flip}, quarantined_at = NULL")
    assert await opened(credentials, instance) == SECRET


@pytest.mark.parametrize(
    "assignment",
    [
        "generation = generation + 1",
        "type = 'basic'",
        "scope = 'other'",
        "schema_version = 2",
        "id = gen_random_uuid()",
        "envelope_version = 2",
        "suite = 7",
    ],
)
async def test_a_row_with_another_name_on_it_does_not_open(
    credentials: Credentials, database: Database, add: Add, assignment: str
) -> None:
    instance = await add()
    await credentials.store(instance_id=instance, scope="global", payload=payload())
    await change(database, instance, assignment)
    assert await opened(credentials, instance) == ErrorCode.INTEGRITY_ERROR
    assert await quarantined(database, instance)


@pytest.mark.parametrize("assignment", ["key_id = 'gone'", "key_version = 99"])
async def test_a_missing_key_is_no_reason_to_mark_the_row(
    credentials: Credentials, database: Database, add: Add, assignment: str
) -> None:
    instance = await add()
    await credentials.store(instance_id=instance, scope="global", payload=payload())
    await change(database, instance, assignment)
    assert await opened(credentials, instance) == ErrorCode.KEY_UNAVAILABLE
    assert not await quarantined(database, instance)


async def test_a_new_credential_ends_the_quarantine(credentials: Credentials, database: Database, add: Add) -> None:
    instance = await add()
    await credentials.store(instance_id=instance, scope="global", payload=payload())
    await change(database, instance, "commitment = decode(repeat('00', 32), 'hex')")
    assert await opened(credentials, instance) == ErrorCode.INTEGRITY_ERROR
    await credentials.store(instance_id=instance, scope="global", payload=payload())
    assert not await quarantined(database, instance)
    assert await opened(credentials, instance) == SECRET


async def test_another_keyring_opens_nothing(credentials: Credentials, database: Database, add: Add) -> None:
    instance = await add()
    await credentials.store(instance_id=instance, scope="global", payload=payload())
    foreign = Credentials(database, Keyring.load(generate_keyring()))
    assert await opened(foreign, instance) == ErrorCode.KEY_UNAVAILABLE


async def test_of_writers_that_expect_one_generation_one_wins(credentials: Credentials, add: Add) -> None:
    instance = await add()
    for expected in (0, 1):
        results = await asyncio.gather(
            *(
                credentials.store(instance_id=instance, scope="global", payload=payload(f"k{n}"), expected=expected)
                for n in range(6)
            ),
            return_exceptions=True,
        )
        assert [one for one in results if isinstance(one, int)] == [expected + 1]
        lost = [one for one in results if isinstance(one, IntegrationError)]
        assert {one.code for one in lost} == {ErrorCode.VERSION_CONFLICT}
        assert [one.details for one in lost] == [{"expected": expected, "current": expected + 1}] * 5


@pytest.mark.parametrize("expected", [0, 1, 3])
async def test_an_unexpected_generation_is_told_and_nothing_is_written(
    credentials: Credentials, add: Add, expected: int
) -> None:
    instance = await add()
    for key in ("one", "two"):
        await credentials.store(instance_id=instance, scope="global", payload=payload(key))
    with pytest.raises(IntegrationError) as refused:
        await credentials.store(instance_id=instance, scope="global", payload=payload("x"), expected=expected)
    assert refused.value.code == ErrorCode.VERSION_CONFLICT
    assert refused.value.details == {"expected": expected, "current": 2}
    assert await opened(credentials, instance) == "two"


async def test_a_generation_never_comes_twice_not_even_after_an_erasure(credentials: Credentials, add: Add) -> None:
    instance = await add()
    for _ in range(2):
        await credentials.store(instance_id=instance, scope="global", payload=payload("before"))
    await credentials.erase(instance)
    await credentials.erase(instance)
    # Who still holds generation 2 is too late, before and after the new one is there.
    for current in (0, 3):
        with pytest.raises(IntegrationError) as refused:
            await credentials.store(instance_id=instance, scope="global", payload=payload("late"), expected=2)
        assert refused.value.details == {"expected": 2, "current": current}
        if not current:
            await credentials.store(instance_id=instance, scope="global", payload=payload("after"), expected=0)
    assert await opened(credentials, instance) == "after"


async def test_a_credential_that_is_erased_while_it_is_replaced_stays_gone(
    credentials: Credentials, database: Database, keyring: Keyring, add: Add
) -> None:
    instance = await add()
    await credentials.store(instance_id=instance, scope="global", payload=payload())

    class ErasesOnWrap(Keyring):
        async def wrap(self, data_key: bytes, bound: bytes) -> tuple[KeyRef, bytes]:
            await credentials.erase(instance)
            return await super().wrap(data_key, bound)

    late = Credentials(database, ErasesOnWrap(keyring.active, keyring.keys))
    with pytest.raises(IntegrationError) as refused:
        await late.store(instance_id=instance, scope="global", payload=payload("late"))
    assert refused.value.details == {"expected": 1, "current": 0}
    assert await credentials.load(instance) is None


async def test_what_is_known_of_a_token_stands_in_clear(credentials: Credentials, database: Database, add: Add) -> None:
    instance, before = await add(), datetime.now(UTC) - timedelta(seconds=5)
    wire = {
        "accessToken": SECRET,
        "refreshToken": f"{SECRET}-r",
        "expiresAt": "2031-02-03T04:05:06.789Z",
        "scope": "read\x00 write",
    }
    token = parse_credential(json.dumps({"type": "oauth2", "oauth2": wire}).encode())
    await credentials.store(instance_id=instance, scope="global", payload=token, renewable=True)
    for_call = await Instances(database).for_call("global", instance)
    for stored in (await credentials.load(instance), for_call.credential):
        assert stored is not None
        assert stored.expires_at == datetime(2031, 2, 3, 4, 5, 6, 789000, UTC)
        assert (stored.granted_scope, stored.renewable, stored.generation) == ("read write", True, 1)
        assert before < stored.obtained_at < datetime.now(UTC) + timedelta(seconds=5)
        assert (await credentials.open(stored)).oauth2 == token.oauth2
    assert for_call.refresh_sends == 0
    jwt = parse_credential(b'{"type":"jwt","jwt":{"token":"t","expiresAt":"2032-01-01T00:00:00Z"}}')
    await credentials.store(instance_id=instance, scope="global", payload=jwt)
    stored = await credentials.load(instance)
    assert stored is not None
    assert (stored.expires_at, stored.granted_scope, stored.renewable) == (
        datetime(2032, 1, 1, tzinfo=UTC),
        None,
        False,
    )
    await credentials.store(instance_id=instance, scope="global", payload=payload())
    stored = await credentials.load(instance)
    assert stored is not None
    assert (stored.expires_at, stored.renewable) == (None, False)


async def test_no_credential_is_stored_for_an_instance_that_is_not_there(credentials: Credentials) -> None:
    with pytest.raises(IntegrationError) as refused:
        await credentials.store(instance_id=str(uuid.uuid4()), scope="global", payload=payload())
    assert refused.value.code == ErrorCode.INSTANCE_NOT_FOUND


async def test_what_was_erased_is_gone(credentials: Credentials, add: Add) -> None:
    instance = await add()
    await credentials.store(instance_id=instance, scope="global", payload=payload())
    await credentials.erase(instance)
    assert await credentials.load(instance) is None
    await credentials.erase(instance)


async def test_the_secret_stands_in_no_row_of_any_table(credentials: Credentials, database: Database, add: Add) -> None:
    await credentials.store(instance_id=await add(), scope="global", payload=payload())
    tables = await database.all(
        """SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
            WHERE schemaname IN ('vault', 'integrations', 'audit')"""
    )
    assert len(tables) >= 7
    dump = ""
    for table in tables:
        rows = await database.all(f"SELECT t::text AS text FROM {table['name']} t")
        dump += "\n".join(row["text"] for row in rows)
    assert "api_key" in dump
    raw = SECRET.encode()
    spellings = [SECRET, raw.hex(), raw.hex().upper()]
    # Base64 of a text inside another depends on where it begins: all three.
    spellings += [base64.b64encode(b"x" * shift + raw + b"x" * 3).decode()[4:-8] for shift in range(3)]
    for spelling in spellings:
        assert spelling not in dump
