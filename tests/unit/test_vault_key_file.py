"""A keyring's file: replaced whole, read again when it changes, never quoted."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.vault.envelope import Context, Wrapped, decrypt, encrypt, rewrap
from integration_service.storage.vault.key_file import (
    KeyringFile,
    activate_key,
    add_key,
    open_keyring,
    remove_key,
)
from integration_service.storage.vault.keyring import KeyRef, Keyring, generate_keyring, generate_keyring_file

CONTEXT = Context("credential", ("s", "i"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "keyring.json"
    generate_keyring_file(made)
    return made


async def test_a_new_key_is_used_at_once_and_the_old_one_still_opens(path: Path) -> None:
    keyring = KeyringFile.open(path)
    before = await encrypt(keyring, b"secret", CONTEXT)
    made = add_key(path, activate=True)
    assert made == KeyRef(before.key_id, 2) == keyring.active
    after = await encrypt(keyring, b"secret", CONTEXT)
    assert after.key_version == 2
    assert [await decrypt(keyring, one, CONTEXT) for one in (before, after)] == [b"secret"] * 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == [path.name]


async def test_a_key_that_is_added_for_later_is_held_and_not_used(path: Path) -> None:
    keyring = KeyringFile.open(path)
    first, made = keyring.active, add_key(path, activate=False)
    assert keyring.active == first
    assert set(keyring.refs) == {first, made}
    activate_key(path, made)
    assert keyring.active == made
    remove_key(path, first)
    assert keyring.refs == (made,)


async def test_an_unknown_key_is_looked_for_in_the_file_before_it_is_missing(path: Path) -> None:
    """Also where the file's change was not to be seen: its times and size are what they were."""
    keyring = KeyringFile.open(path)
    add_key(path, activate=True)
    envelope = await encrypt(Keyring.load(str(path)), b"secret", CONTEXT)
    blind = KeyringFile(path, keyring._keyring, keyring._seen)
    blind._seen = KeyringFile.open(path)._seen
    assert await decrypt(blind, envelope, CONTEXT) == b"secret"
    foreign = await encrypt(Keyring.load(generate_keyring()), b"secret", CONTEXT)
    with pytest.raises(IntegrationError) as refused:
        await decrypt(blind, foreign, CONTEXT)
    assert refused.value.code == ErrorCode.KEY_UNAVAILABLE


@pytest.mark.parametrize("damage", ["gone", "empty", "half"])
async def test_a_file_that_cannot_be_read_leaves_the_keys_in_force(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    keyring = KeyringFile.open(path)
    envelope = await encrypt(keyring, b"secret", CONTEXT)
    text = path.read_text()
    path.unlink() if damage == "gone" else path.write_text("" if damage == "empty" else text[: len(text) // 2])
    assert await decrypt(keyring, envelope, CONTEXT) == b"secret"
    assert json.loads(text)["keys"][0]["key"] not in caplog.text
    path.write_text(text)
    assert await decrypt(keyring, envelope, CONTEXT) == b"secret"


def test_many_that_add_at_once_lose_no_key(path: Path) -> None:
    """Each gets a version of its own, and nobody's file replaces another's, an empty one least of all."""
    before = Keyring.load(str(path)).refs
    together = threading.Barrier(8)
    made: list[KeyRef] = []

    def add() -> None:
        together.wait()
        made.extend(add_key(path, activate=True) for _ in range(10))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ref.version for ref in made) == list(range(2, 82))
    assert set(Keyring.load(str(path)).refs) == {*before, *made}
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_what_a_dead_process_left_stands_in_nobodys_way(path: Path) -> None:
    left = path.with_name(f".{path.name}.new")
    left.write_text("half of")
    assert add_key(path, activate=False).version == 2
    assert not left.exists()


def test_what_cannot_be_changed_says_so_without_a_value(path: Path) -> None:
    active = KeyringFile.open(path).active
    for change, code in (
        (lambda: remove_key(path, active), ErrorCode.VALIDATION_ERROR),
        (lambda: remove_key(path, KeyRef("other", 1)), ErrorCode.KEY_UNAVAILABLE),
        (lambda: activate_key(path, KeyRef("other", 1)), ErrorCode.KEY_UNAVAILABLE),
        (lambda: add_key(path.with_name("missing"), activate=True), ErrorCode.VALIDATION_ERROR),
        (lambda: KeyRef.parse("no-version"), ErrorCode.VALIDATION_ERROR),
    ):
        with pytest.raises(IntegrationError) as refused:
            change()
        assert refused.value.code == code
    assert KeyRef.parse("kek:1:22") == KeyRef("kek:1", 22)
    text = json.loads(path.read_text())["keys"][0]["key"]
    assert text not in repr(KeyringFile.open(path))


def test_a_source_is_a_file_or_the_keys_themselves(path: Path) -> None:
    assert isinstance(open_keyring(str(path)), KeyringFile)
    assert isinstance(open_keyring(generate_keyring()), Keyring)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=st.binary(max_size=200), parts=st.lists(st.text(max_size=20), min_size=1, max_size=4), other=st.text())
async def test_rewrapping_changes_the_wrap_and_nothing_else(secret: bytes, parts: list[str], other: str) -> None:
    old, context = Keyring.load(generate_keyring()), Context("kind", tuple(parts))
    new_key = KeyRef("new", 1)
    both = Keyring(active=new_key, keys={**old.keys, new_key: bytes(range(32))})
    envelope = await encrypt(old, secret, context)
    held = Wrapped(old.active, envelope.wrapped_key)
    wrapped = await rewrap(both, held, context)
    moved = type(envelope)(
        **{
            **envelope.to_row(),
            "key_id": wrapped.key.key_id,
            "key_version": wrapped.key.version,
            "wrapped_key": wrapped.wrapped_key,
        }
    )
    only_new = Keyring(active=new_key, keys={new_key: bytes(range(32))})
    assert await decrypt(only_new, moved, context) == secret
    with pytest.raises(IntegrationError) as refused:
        await rewrap(both, held, Context("kind", (*parts, other)))
    assert refused.value.code == ErrorCode.INTEGRITY_ERROR
