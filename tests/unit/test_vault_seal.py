"""Seals: anyone seals, in any language; only for its instance does one open."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.contracts.credentials import Sealed, SealKey
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.vault.seal import seal, unseal

PRIVATE = X25519PrivateKey.generate()
RAW = PRIVATE.private_bytes_raw()
KEY = SealKey(key_id="k", public_key=base64.b64encode(PRIVATE.public_key().public_bytes_raw()).decode())
INSTANCE = "2f1f6f0a-0f7c-4b7e-9a43-0d6e6f6f0a11"
OTHER = "2f1f6f0a-0f7c-4b7e-9a43-0d6e6f6f0a12"


@given(st.binary(max_size=5000))
@settings(max_examples=40)
def test_what_was_sealed_opens_for_its_instance(plaintext: bytes) -> None:
    assert unseal(seal(KEY, INSTANCE, plaintext), RAW, INSTANCE) == plaintext


def test_a_seal_is_the_encapsulated_key_and_the_ciphertext() -> None:
    box = base64.b64decode(seal(KEY, INSTANCE, b"x" * 100).sealed, validate=True)
    assert len(box) == 32 + 100 + 16
    X25519PublicKey.from_public_bytes(box[:32])


def test_the_same_plaintext_is_never_sealed_the_same() -> None:
    first, second = (base64.b64decode(seal(KEY, INSTANCE, b"secret").sealed) for _ in range(2))
    assert first[:32] != second[:32]
    assert first[32:] != second[32:]


def refused(sealed: Sealed, instance: str = INSTANCE, private: bytes = RAW) -> None:
    with pytest.raises(IntegrationError) as error:
        unseal(sealed, private, instance)
    assert (error.value.code, error.value.path) == (ErrorCode.VALIDATION_ERROR, "sealed")


def test_a_seal_opens_for_no_other_instance() -> None:
    refused(seal(KEY, INSTANCE, b"secret"), OTHER)


def test_a_seal_opens_with_no_other_key() -> None:
    refused(seal(KEY, INSTANCE, b"secret"), private=X25519PrivateKey.generate().private_bytes_raw())


def test_a_change_in_any_byte_does_not_open() -> None:
    box = base64.b64decode(seal(KEY, INSTANCE, b"secret").sealed)
    for position in range(len(box)):
        changed = bytearray(box)
        changed[position] ^= 1
        refused(Sealed(key_id="k", sealed=base64.b64encode(changed).decode()))


@pytest.mark.parametrize("length", [1, 16, 31, 32, 33, 47, 48])
def test_a_cut_seal_is_refused(length: int) -> None:
    box = base64.b64decode(seal(KEY, INSTANCE, b"secret").sealed)
    refused(Sealed(key_id="k", sealed=base64.b64encode(box[:length]).decode()))


def test_a_point_of_low_order_is_refused() -> None:
    refused(Sealed(key_id="k", sealed=base64.b64encode(bytes(32) + bytes(40)).decode()))


@pytest.mark.parametrize("text", ["A", "AAAAA", "AA=", "AAA=A="])
def test_what_only_looks_like_base64_is_refused(text: str) -> None:
    refused(Sealed.model_construct(key_id="k", sealed=text))


# RFC 9180 from its own formulas, as a client without an HPKE library would write it.
KEM_ID, KDF_ID, AEAD_ID = 0x0020, 0x0001, 0x0002
KEM_SUITE = b"KEM" + KEM_ID.to_bytes(2)
HPKE_SUITE = b"HPKE" + KEM_ID.to_bytes(2) + KDF_ID.to_bytes(2) + AEAD_ID.to_bytes(2)


def labeled_extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    mac = HMAC(salt or bytes(32), SHA256())
    mac.update(b"HPKE-v1" + suite + label + material)
    return mac.finalize()


def labeled_expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return HKDFExpand(SHA256(), length, length.to_bytes(2) + b"HPKE-v1" + suite + label + info).derive(key)


def seal_by_hand(public: bytes, info: bytes, plaintext: bytes) -> bytes:
    ephemeral = X25519PrivateKey.generate()
    encapsulated = ephemeral.public_key().public_bytes_raw()
    shared_point = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    extracted = labeled_extract(KEM_SUITE, b"", b"eae_prk", shared_point)
    shared = labeled_expand(KEM_SUITE, extracted, b"shared_secret", encapsulated + public, 32)
    context = (
        b"\0"
        + labeled_extract(HPKE_SUITE, b"", b"psk_id_hash", b"")
        + labeled_extract(HPKE_SUITE, b"", b"info_hash", info)
    )
    secret = labeled_extract(HPKE_SUITE, shared, b"secret", b"")
    key = labeled_expand(HPKE_SUITE, secret, b"key", context, 32)
    nonce = labeled_expand(HPKE_SUITE, secret, b"base_nonce", context, 12)
    return encapsulated + AESGCM(key).encrypt(nonce, plaintext, b"")


def test_a_seal_made_from_the_rfcs_formulas_opens() -> None:
    public = base64.b64decode(KEY.public_key)
    box = seal_by_hand(public, f"integration-service/v1/{INSTANCE}".encode(), b"secret")
    assert unseal(Sealed(key_id="k", sealed=base64.b64encode(box).decode()), RAW, INSTANCE) == b"secret"
    box = seal_by_hand(public, f"integration-service/v1/{OTHER}".encode(), b"secret")
    refused(Sealed(key_id="k", sealed=base64.b64encode(box).decode()))
