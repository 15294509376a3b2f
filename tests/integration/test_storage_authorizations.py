"""Authorizations under way in a real Postgres: one callback each, bound to their row, gone when replaced."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.wire import parse
from integration_service.storage.authorizations import Authorizations, PendingRow, pending, state_hash
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.vault.envelope import ENVELOPE_COLUMNS
from integration_service.storage.vault.keyring import Keyring
from tests.world import definition_file

SECRET = {"codeVerifier": "planted-verifier", "nonce": None, "deviceCode": "ü"}
HOUR = timedelta(hours=1)
Add = Callable[[], Awaitable[str]]


@pytest.fixture
def authorizations(database: Database, keyring: Keyring) -> Authorizations:
    return Authorizations(database, keyring)


@pytest.fixture
async def add(database: Database, name: str) -> Add:
    definition = await Definitions(database).apply(parse(DefinitionFile, definition_file(name)), publish=True)

    async def make() -> str:
        id_ = str(uuid.uuid4())
        wanted = ConnectInstanceInput(instance_id=id_, definition=name, name=f"i {id_[:8]}")
        await Instances(database).add(wanted, definition)
        return id_

    return make


async def begin(
    authorizations: Authorizations, instance: str, *, lifetime: timedelta = HOUR, return_url: str | None = None
) -> str:
    hashed = state_hash(f"{instance}.{secrets.token_urlsafe(32)}")
    await authorizations.begin(
        hashed=hashed,
        instance_id=instance,
        scope="global",
        return_url=return_url,
        secret=SECRET,
        lifetime=lifetime,
    )
    return hashed


async def refusal(authorizations: Authorizations, hashed: str, instance: str, claimant: str = "c") -> str:
    """The sentence of a claim that is the caller's mistake."""
    with pytest.raises(IntegrationError) as refused:
        await authorizations.claim(hashed, instance, claimant=claimant)
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, "state")
    return refused.value.message


async def count(database: Database, instance: str) -> int:
    row = await database.one(
        "SELECT count(*) AS n FROM vault.authorizations WHERE instance_id = %(id)s", {"id": instance}
    )
    assert row is not None
    return int(row["n"])


def test_a_states_hash_is_sha_256_in_base64url() -> None:
    # FIPS 180-2, appendix B.1: SHA-256 of "abc".
    assert state_hash("abc") == "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"


async def test_what_was_begun_is_claimed_with_its_secret(
    authorizations: Authorizations, database: Database, add: Add
) -> None:
    instance, before = await add(), datetime.now(UTC)
    hashed = state_hash("a state")
    await database.one("DELETE FROM vault.authorizations WHERE state_hash = %(h)s", {"h": hashed})
    expires_at = await authorizations.begin(
        hashed=hashed,
        instance_id=instance,
        scope="global",
        return_url="https://app.example/done",
        secret=SECRET,
        lifetime=HOUR,
    )
    assert before + HOUR - timedelta(seconds=5) < expires_at < datetime.now(UTC) + HOUR + timedelta(seconds=5)
    assert await pending(database, hashed) == PendingRow(instance, "https://app.example/done")
    assert await authorizations.read(hashed, instance) == SECRET
    assert await authorizations.claim(hashed, instance, claimant="c") == SECRET
    assert await pending(database, hashed) is None
    assert await authorizations.read(hashed, instance) is None


async def test_a_state_is_good_once_and_for_one_claimant(authorizations: Authorizations, add: Add) -> None:
    instance = await add()
    hashed = await begin(authorizations, instance)
    for _ in range(2):
        assert await authorizations.claim(hashed, instance, claimant="first") == SECRET
    assert "used already" in await refusal(authorizations, hashed, instance, "second")


async def test_of_ten_who_claim_at_once_one_wins(authorizations: Authorizations, add: Add) -> None:
    instance = await add()
    hashed = await begin(authorizations, instance)
    results = await asyncio.gather(
        *(authorizations.claim(hashed, instance, claimant=f"c{n}") for n in range(10)), return_exceptions=True
    )
    assert [one for one in results if isinstance(one, dict)] == [SECRET]
    assert {str(one) for one in results if isinstance(one, IntegrationError)} == {
        "VALIDATION_ERROR: that state was used already; begin a new authorization (state)"
    }


async def test_an_unknown_state_and_another_instances_read_the_same(
    authorizations: Authorizations, database: Database, add: Add
) -> None:
    first, second = await add(), await add()
    hashed = await begin(authorizations, first)
    unknown = await refusal(authorizations, state_hash("never"), first)
    assert await refusal(authorizations, hashed, second) == unknown
    assert await pending(database, state_hash("never")) is None
    assert await authorizations.read(hashed, second) is None
    assert await authorizations.claim(hashed, first, claimant="c") == SECRET


async def test_an_expired_authorization_says_so_and_is_good_for_nothing(
    authorizations: Authorizations, database: Database, add: Add
) -> None:
    instance = await add()
    hashed = await begin(authorizations, instance, lifetime=timedelta(0))
    assert "expired" in await refusal(authorizations, hashed, instance)
    assert await pending(database, hashed) is None
    assert await authorizations.read(hashed, instance) is None


async def test_who_claimed_in_time_may_end_late(authorizations: Authorizations, database: Database, add: Add) -> None:
    instance = await add()
    hashed = await begin(authorizations, instance)
    await authorizations.claim(hashed, instance, claimant="c")
    await database.one("UPDATE vault.authorizations SET expires_at = now() WHERE state_hash = %(h)s", {"h": hashed})
    assert await authorizations.claim(hashed, instance, claimant="c") == SECRET
    assert "used already" in await refusal(authorizations, hashed, instance, "late")


async def test_a_code_leaves_once(authorizations: Authorizations, add: Add) -> None:
    instance = await add()
    hashed = await begin(authorizations, instance)
    assert not await authorizations.leaves(hashed, claimant="c")
    await authorizations.claim(hashed, instance, claimant="c")
    assert not await authorizations.leaves(hashed, claimant="another")
    results = await asyncio.gather(*(authorizations.leaves(hashed, claimant="c") for _ in range(5)))
    assert sorted(results) == [False] * 4 + [True]
    assert not await authorizations.leaves(hashed, claimant="c")


async def test_a_new_authorization_replaces_the_one_before(
    authorizations: Authorizations, database: Database, add: Add
) -> None:
    instance, other = await add(), await add()
    foreign = await begin(authorizations, other)
    first = await begin(authorizations, instance)
    second = await begin(authorizations, instance)
    assert "no authorization" in await refusal(authorizations, first, instance)
    assert await pending(database, second) == PendingRow(instance, None)
    assert await pending(database, foreign) == PendingRow(other, None)


async def test_of_five_begun_at_once_one_is_left(authorizations: Authorizations, database: Database, add: Add) -> None:
    instance = await add()
    hashes = await asyncio.gather(*(begin(authorizations, instance) for _ in range(5)))
    assert await count(database, instance) == 1
    assert sum([await pending(database, hashed) is not None for hashed in hashes]) == 1


async def test_what_expired_a_day_ago_is_swept_by_the_next_that_begins(
    authorizations: Authorizations, database: Database, add: Add
) -> None:
    old, late, instance = await add(), await add(), await add()
    await begin(authorizations, old, lifetime=timedelta(hours=-25))
    await begin(authorizations, late, lifetime=timedelta(hours=-23))
    await begin(authorizations, instance)
    assert [await count(database, one) for one in (old, late, instance)] == [0, 1, 1]


async def test_an_instance_that_is_not_there_begins_nothing(authorizations: Authorizations, add: Add) -> None:
    for instance, scope in ((str(uuid.uuid4()), "global"), (await add(), "other")):
        with pytest.raises(IntegrationError) as refused:
            await authorizations.begin(
                hashed=state_hash(instance),
                instance_id=instance,
                scope=scope,
                return_url=None,
                secret=SECRET,
                lifetime=HOUR,
            )
        assert refused.value.code == ErrorCode.INSTANCE_NOT_FOUND


async def test_what_was_erased_is_gone(authorizations: Authorizations, database: Database, add: Add) -> None:
    instance = await add()
    await begin(authorizations, instance)
    await authorizations.erase(instance)
    assert await count(database, instance) == 0


async def test_two_rows_whose_secrets_were_swapped_open_neither(
    authorizations: Authorizations, database: Database, add: Add
) -> None:
    first, second = await add(), await add()
    a, b = await begin(authorizations, first), await begin(authorizations, second)
    columns = ", ".join(f"{name} = other.{name}" for name in ENVELOPE_COLUMNS)
    await database.one(
        f"""UPDATE vault.authorizations one SET {columns} FROM vault.authorizations other
             WHERE one.state_hash IN (%(a)s, %(b)s) AND other.state_hash IN (%(a)s, %(b)s)
               AND other.state_hash <> one.state_hash""",
        {"a": a, "b": b},
    )
    for hashed, instance in ((a, first), (b, second)):
        with pytest.raises(IntegrationError) as refused:
            await authorizations.claim(hashed, instance, claimant="c")
        assert refused.value.code == ErrorCode.INTEGRITY_ERROR


@pytest.mark.parametrize("column", ["state_hash", "instance_id"])
async def test_a_row_with_another_name_on_it_does_not_open(
    authorizations: Authorizations, database: Database, add: Add, column: str
) -> None:
    instance, other = await add(), await add()
    hashed = await begin(authorizations, instance)
    to = {"state_hash": state_hash(other), "instance_id": other}[column]
    await database.one(
        f"UPDATE vault.authorizations SET {column} = %(to)s WHERE state_hash = %(h)s", {"to": to, "h": hashed}
    )
    asked = (to, instance) if column == "state_hash" else (hashed, other)
    with pytest.raises(IntegrationError) as refused:
        await authorizations.read(*asked)
    assert refused.value.code == ErrorCode.INTEGRITY_ERROR


async def test_the_secret_and_the_state_stand_nowhere_in_the_row(
    authorizations: Authorizations, database: Database, add: Add
) -> None:
    hashed = await begin(authorizations, await add())
    row = await database.one(
        "SELECT a::text AS text, ciphertext FROM vault.authorizations a WHERE state_hash = %(h)s", {"h": hashed}
    )
    assert row is not None
    assert "planted" not in row["text"]
    assert b"planted".hex() not in row["text"]
    assert b"planted" not in row["ciphertext"]
