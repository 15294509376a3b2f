"""Keyrings: read from a file or inline, never quoted, never overwritten."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.vault.keyring import KeyRef, Keyring, generate_keyring, generate_keyring_file

KEY = bytes(range(100, 132))
KEY_TEXT = base64.b64encode(KEY).decode()
ENTRY = {"id": "primary", "version": 1, "key": KEY_TEXT, "createdAt": "2026-01-01T00:00:00.000Z"}
ACTIVE = {"id": "primary", "version": 1}


def refused(source: str) -> IntegrationError:
    with pytest.raises(IntegrationError) as error:
        Keyring.load(source)
    assert error.value.code == ErrorCode.VALIDATION_ERROR
    shown = f"{error.value} {error.value.details} {error.value!r} {error.value.__cause__!r}"
    assert KEY_TEXT not in shown
    assert KEY_TEXT[:16] not in shown
    return error.value


def test_a_key_set_is_read_inline_and_from_a_file(tmp_path: Path) -> None:
    text = json.dumps({"active": ACTIVE, "keys": [ENTRY]})
    (tmp_path / "keys.json").write_text(text)
    for source in (text, "\n  " + text, str(tmp_path / "keys.json")):
        keyring = Keyring.load(source)
        assert keyring.active == KeyRef("primary", 1)
        assert keyring.keys == {KeyRef("primary", 1): KEY}


def test_a_keyring_shows_no_key() -> None:
    keyring = Keyring.load(json.dumps({"active": ACTIVE, "keys": [ENTRY]}))
    assert repr(KEY)[2:-1] not in repr(keyring)
    assert KEY_TEXT not in repr(keyring) + str(keyring)
    assert "primary" in repr(keyring)


def variants() -> dict[str, Any]:
    def keys(**change: Any) -> dict[str, Any]:
        return {"active": ACTIVE, "keys": [{**ENTRY, **change}]}

    return {
        "no active": {"keys": [ENTRY]},
        "no keys": {"active": ACTIVE},
        "empty keys": {"active": ACTIVE, "keys": []},
        "active is not among the keys": {"active": {"id": "primary", "version": 2}, "keys": [ENTRY]},
        "a key twice": {"active": ACTIVE, "keys": [ENTRY, ENTRY]},
        "a short key": keys(key=KEY_TEXT[:20]),
        "a long key": keys(key=base64.b64encode(KEY + KEY).decode()),
        "no base64": keys(key=KEY_TEXT[:-2] + "!!"),
        "a key that is no text": keys(key=[KEY_TEXT]),
        "an id that is no text": keys(id=7),
        "a version that is no number": keys(version="1"),
        "a version below nought": {"active": {**ACTIVE, "version": -1}, "keys": [{**ENTRY, "version": -1}]},
        "a version that its column cannot hold": {
            "active": {**ACTIVE, "version": 2**40},
            "keys": [{**ENTRY, "version": 2**40}],
        },
        "keys as an object": {"active": ACTIVE, "keys": {KEY_TEXT: ENTRY}},
        "active as text": {"active": KEY_TEXT, "keys": [ENTRY]},
    }


@pytest.mark.parametrize("what", variants())
def test_a_malformed_key_set_is_refused_without_a_quote(what: str) -> None:
    assert refused(json.dumps(variants()[what])).path == "INTEGRATIONS_KEYRING"


@pytest.mark.parametrize("text", ["{" + KEY_TEXT, KEY_TEXT, f'["{KEY_TEXT}"]', KEY_TEXT * 200, "/nowhere/keys.json"])
def test_what_is_neither_json_nor_a_file_is_refused_without_a_quote(text: str) -> None:
    assert refused(text).path == "INTEGRATIONS_KEYRING"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00" + KEY, b"[]", b"null", KEY_TEXT.encode()])
def test_a_file_that_holds_no_key_set_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys").write_bytes(content)
    assert refused(str(tmp_path / "keys")).path == "INTEGRATIONS_KEYRING"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert refused(str(tmp_path)).path == "INTEGRATIONS_KEYRING"


def test_every_generated_key_set_loads_and_differs() -> None:
    first, second = Keyring.load(generate_keyring()), Keyring.load(generate_keyring())
    assert len(first.keys[first.active]) == 32
    assert first.keys != second.keys


def test_a_generated_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    generate_keyring_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Keyring.load(str(path)).active.version == 1


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    path.write_text("precious")
    with pytest.raises(IntegrationError) as error:
        generate_keyring_file(path)
    assert error.value.code == ErrorCode.VALIDATION_ERROR
    assert path.read_text() == "precious"


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(IntegrationError):
        generate_keyring_file(tmp_path / "link")
    assert not (tmp_path / "target").exists()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(IntegrationError) as error:
        generate_keyring_file(tmp_path / "none" / "keyring.json")
    assert error.value.path == str(tmp_path / "none" / "keyring.json")


async def test_a_wrapped_key_opens_only_in_its_context_and_under_its_key() -> None:
    keyring = Keyring.load(generate_keyring())
    ref, wrapped = await keyring.wrap(KEY, b"here")
    assert KEY not in wrapped
    assert await keyring.unwrap(ref, wrapped, b"here") == KEY
    with pytest.raises(IntegrationError) as error:
        await keyring.unwrap(ref, wrapped, b"there")
    assert error.value.code == ErrorCode.INTEGRITY_ERROR
    with pytest.raises(IntegrationError) as error:
        await keyring.unwrap(KeyRef("other", 1), wrapped, b"here")
    assert error.value.code == ErrorCode.KEY_UNAVAILABLE
