"""Payload encryption: what it closes, who opens it, and that a changed byte opens nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from uuid import UUID

import pytest
from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter, DefaultFailureConverter, PayloadCodec
from temporalio.exceptions import ApplicationError

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.plugin import IntegrationClientPlugin, IntegrationPlugin
from integration_service.settings import Settings
from integration_service.storage.temporal_converter import SHARED_DATA_CONVERTER, temporal_converter
from integration_service.storage.vault.keyring import KeyRef, Keyring, generate_keyring
from integration_service.storage.vault.payload_codec import PayloadEncryption

SECRET = Payload(metadata={"encoding": b"json/plain"}, data=b'"planted value"')


@pytest.fixture
def sandboxed_thread() -> Iterator[None]:
    """As Temporal's sandbox marks the thread in which it makes and runs a workflow."""
    workflow.unsafe._set_in_sandbox(True)
    yield
    workflow.unsafe._set_in_sandbox(False)


def _encryption(text: str | None = None, *, encrypts: bool = True) -> PayloadEncryption:
    return PayloadEncryption(Keyring.load(text or generate_keyring()), encrypts=encrypts)


def _settings(**more: str) -> Settings:
    given = {"INTEGRATIONS_PAYLOAD_ENCRYPTION": "on", "INTEGRATIONS_PAYLOAD_KEYRING": generate_keyring(), **more}
    return Settings.from_environment(given)


async def test_what_is_closed_shows_nothing_and_opens_as_it_was() -> None:
    encryption = _encryption()
    closed = await encryption.encode([SECRET, SECRET])
    assert all(b"planted" not in payload.SerializeToString() for payload in closed)
    assert closed[0].data != closed[1].data
    assert await encryption.decode(closed) == [SECRET, SECRET]


async def test_another_process_opens_it_and_another_keyring_does_not() -> None:
    text = generate_keyring()
    [closed] = await _encryption(text).encode([SECRET])
    assert await _encryption(text, encrypts=False).decode([closed]) == [SECRET]
    with pytest.raises(IntegrationError) as refused:
        await _encryption().decode([closed])
    assert refused.value.code == ErrorCode.KEY_UNAVAILABLE


async def test_no_byte_can_be_changed_and_nothing_cut_off() -> None:
    encryption = _encryption()
    [closed] = await encryption.encode([SECRET])
    for place in range(len(closed.data)):
        changed = bytearray(closed.data)
        changed[place] ^= 1
        with pytest.raises(IntegrationError) as refused:
            await encryption.decode([Payload(metadata=closed.metadata, data=bytes(changed))])
        assert refused.value.code == ErrorCode.INTEGRITY_ERROR
        with pytest.raises(IntegrationError):
            await encryption.decode([Payload(metadata=closed.metadata, data=closed.data[:place])])


async def test_after_a_rotation_new_payloads_name_the_new_key_and_old_ones_open() -> None:
    old = Keyring.load(generate_keyring())
    newer = KeyRef(old.active.key_id, 2)
    keys = {**old.keys, newer: b"n" * 32}
    [before] = await PayloadEncryption(old, encrypts=True).encode([SECRET])
    rotated = PayloadEncryption(Keyring(active=newer, keys=keys), encrypts=True)
    [after] = await rotated.encode([SECRET])
    assert (before.metadata["encryption-key-version"], after.metadata["encryption-key-version"]) == (b"1", b"2")
    assert await rotated.decode([before, after]) == [SECRET, SECRET]
    moved = Payload(metadata={**dict(before.metadata), "encryption-key-version": b"2"}, data=before.data)
    with pytest.raises(IntegrationError, match="does not open"):
        await rotated.decode([moved])


async def test_what_others_wrote_is_left_as_it_is() -> None:
    foreign = Payload(metadata={"encoding": b"binary/encrypted"}, data=b"of another codec")
    encryption = _encryption()
    assert await encryption.decode([SECRET, foreign]) == [SECRET, foreign]
    assert await _encryption(encrypts=False).encode([SECRET]) == [SECRET]


class _Reversed(PayloadCodec):
    """A codec of a user's."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"reversed"}, data=p.SerializeToString()[::-1]) for p in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(p.data[::-1]) if p.metadata["encoding"] == b"reversed" else p for p in payloads]


async def test_a_users_codec_is_kept_inside_ours() -> None:
    settings = _settings()
    theirs = dataclasses.replace(DataConverter.default, payload_codec=_Reversed())
    converter = temporal_converter(settings, theirs)
    payloads = await converter.encode(["planted value"])
    assert payloads[0].metadata["encoding"] == b"binary/encrypted"
    assert await converter.decode(payloads) == ["planted value"]
    ours_only = temporal_converter(settings)
    assert ours_only.payload_codec is not None
    [inside] = await ours_only.payload_codec.decode(payloads)
    assert inside.metadata["encoding"] == b"reversed"


def test_applied_twice_it_is_there_once_and_one_that_only_opens_learns_to_encrypt() -> None:
    settings = _settings()
    opens = temporal_converter(settings.model_copy(update={"payload_encryption": False}))
    encrypts = temporal_converter(settings, opens)
    assert temporal_converter(settings, encrypts) is encrypts
    codec = encrypts.payload_codec
    assert isinstance(codec, PayloadEncryption)
    assert codec.encrypts
    assert codec.inner is None


def test_what_was_learned_of_a_type_serves_every_workflow_of_a_process() -> None:
    """The SDK makes a converter for each workflow."""
    converter = temporal_converter(_settings(), SHARED_DATA_CONVERTER)
    first, second = converter.payload_converter_class(), converter.payload_converter_class()
    assert isinstance(first, PydanticPayloadConverter)
    assert isinstance(second, PydanticPayloadConverter)
    assert first.converters[b"json/plain"] is second.converters[b"json/plain"]
    value = {"a": [1, None, "ü"], "b": UUID(int=7)}
    assert first.to_payloads([value, None, b"raw"]) == PydanticPayloadConverter().to_payloads([value, None, b"raw"])


def test_in_the_sandbox_nothing_is_kept_of_a_workflows_own_types(sandboxed_thread: None) -> None:
    converter = temporal_converter(_settings(), SHARED_DATA_CONVERTER)
    first, second = converter.payload_converter_class(), converter.payload_converter_class()
    assert isinstance(first, PydanticPayloadConverter)
    assert isinstance(second, PydanticPayloadConverter)
    assert first.converters[b"json/plain"] is not second.converters[b"json/plain"]


def test_a_users_own_pydantic_converter_stays() -> None:
    class Theirs(PydanticPayloadConverter):
        pass

    theirs = dataclasses.replace(DataConverter.default, payload_converter_class=Theirs)
    assert temporal_converter(_settings(), theirs).payload_converter_class is Theirs


async def test_failures_show_their_type_and_nothing_else() -> None:
    converter = temporal_converter(_settings())
    failure = Failure()
    try:
        raise ApplicationError("planted message", {"at": "planted detail"}, type="HTTP_404")
    except ApplicationError as error:
        await converter.encode_failure(error, failure)
    assert b"planted" not in failure.SerializeToString()
    assert __file__.encode() not in failure.SerializeToString()
    assert failure.application_failure_info.type == "HTTP_404"
    again = await converter.decode_failure(failure)
    assert isinstance(again, ApplicationError)
    assert (again.message, again.details) == ("planted message", ({"at": "planted detail"},))
    # A caller that writes no encrypted failures still reads them.
    reading = dataclasses.replace(converter, failure_converter_class=DefaultFailureConverter)
    assert "planted message" in str(await reading.decode_failure(failure))


def test_without_settings_nothing_is_encrypted_and_nothing_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INTEGRATIONS_PAYLOAD_ENCRYPTION", "INTEGRATIONS_PAYLOAD_KEYRING"):
        monkeypatch.delenv(name, raising=False)
    for plugin in (IntegrationClientPlugin(), IntegrationPlugin()):
        converter = plugin.data_converter
        assert callable(converter)
        assert converter(None).payload_codec is None


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"INTEGRATIONS_PAYLOAD_ENCRYPTION": "on"}, "INTEGRATIONS_PAYLOAD_KEYRING is not set"),
        (
            {"INTEGRATIONS_PAYLOAD_KEYRING": "k.json", "INTEGRATIONS_KEYRING": "k.json"},
            "must be a key set of its own",
        ),
        (
            {"INTEGRATIONS_PAYLOAD_ENCRYPTION": "on", "INTEGRATIONS_PAYLOAD_KEYRING": json.dumps({"keys": ["x"]})},
            "not a key set",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(environment: dict[str, str], says: str) -> None:
    with pytest.raises(IntegrationError, match=says):
        temporal_converter(Settings.from_environment(environment))
