"""Envelopes: what was changed, swapped or cut does not open."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.vault.envelope import ENVELOPE_COLUMNS, Context, Envelope, decrypt, encrypt
from integration_service.storage.vault.keyring import KeyRef, Keyring, generate_keyring

KEYRING = Keyring.load(generate_keyring())
CONTEXT = Context("credential", ("global", "instance", "id", "api_key", "1", "3"))
PLAINTEXT = b"planted-plaintext-secret"
SECRET_COLUMNS = ("wrapped_key", "commitment", "nonce", "ciphertext")


def run(plaintext: bytes = PLAINTEXT, context: Context = CONTEXT) -> Envelope:
    return asyncio.run(encrypt(KEYRING, plaintext, context))


def opened(envelope: Envelope, context: Context = CONTEXT, keyring: Keyring = KEYRING) -> bytes:
    return asyncio.run(decrypt(keyring, envelope, context))


@pytest.fixture(scope="module")
def envelope() -> Envelope:
    return run()


@given(st.binary(max_size=2000), st.text(max_size=10), st.lists(st.text(max_size=20), max_size=6))
@settings(max_examples=60)
def test_what_was_encrypted_opens_in_its_context(plaintext: bytes, kind: str, parts: list[str]) -> None:
    context = Context(kind, tuple(parts))
    stored = run(plaintext, context)
    assert opened(Envelope.from_row(stored.to_row()), context) == plaintext


async def broken(envelope: Envelope, context: Context = CONTEXT) -> str:
    """The code of the refusal."""
    with pytest.raises(IntegrationError) as refused:
        await decrypt(KEYRING, envelope, context)
    assert PLAINTEXT.decode() not in f"{refused.value} {refused.value.details}"
    return refused.value.code


@pytest.mark.parametrize("column", SECRET_COLUMNS)
async def test_a_change_in_any_byte_does_not_open(envelope: Envelope, column: str) -> None:
    before: bytes = getattr(envelope, column)
    outcomes = {}
    for position in range(len(before)):
        changed = bytearray(before)
        changed[position] ^= 1 << (position % 8)
        outcomes[position] = await broken(replace(envelope, **{column: bytes(changed)}))
    assert len(outcomes) == len(before) > 0
    assert set(outcomes.values()) == {ErrorCode.INTEGRITY_ERROR}


@pytest.mark.parametrize("column", SECRET_COLUMNS)
async def test_a_cut_or_longer_column_does_not_open(envelope: Envelope, column: str) -> None:
    before: bytes = getattr(envelope, column)
    variants = [before[:length] for length in range(len(before))] + [before[1:], before + b"\0", b"\0" + before]
    assert {await broken(replace(envelope, **{column: one})) for one in variants} == {ErrorCode.INTEGRITY_ERROR}


async def test_no_mixture_of_two_envelopes_of_one_context_opens(envelope: Envelope) -> None:
    other = await encrypt(KEYRING, PLAINTEXT, CONTEXT)
    for column in SECRET_COLUMNS:
        mixed = replace(envelope, **{column: getattr(other, column)})
        assert await broken(mixed) == ErrorCode.INTEGRITY_ERROR, column


CONTEXTS = [Context("seal_key", CONTEXT.parts), Context(CONTEXT.kind, CONTEXT.parts[:-1])]
CONTEXTS += [Context(CONTEXT.kind, (*CONTEXT.parts, ""))]
CONTEXTS += [
    Context(CONTEXT.kind, (*CONTEXT.parts[:index], part + "x", *CONTEXT.parts[index + 1 :]))
    for index, part in enumerate(CONTEXT.parts)
]
CONTEXTS += [Context(CONTEXT.kind, CONTEXT.parts[::-1])]


@pytest.mark.parametrize("context", CONTEXTS, ids=[f"{one.kind}-{'/'.join(one.parts)}" for one in CONTEXTS])
async def test_another_context_does_not_open(envelope: Envelope, context: Context) -> None:
    assert await broken(envelope, context) == ErrorCode.INTEGRITY_ERROR


def test_shifted_boundaries_make_other_contexts() -> None:
    texts = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ("a", "b", "c"), ()]
    assert len({Context("k", parts).encoded() for parts in texts}) == len(texts)
    assert Context("ka", ("b",)).encoded() != Context("k", ("ab",)).encoded()


PARTS = st.lists(st.text(alphabet="ab\x00é", max_size=4), max_size=4).map(tuple)


@given(PARTS, PARTS)
@settings(max_examples=200)
def test_only_equal_contexts_have_equal_encodings(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert (Context("k", one).encoded() == Context("k", other).encoded()) == (one == other)


@pytest.mark.parametrize("change", [{"key_id": "gone"}, {"key_version": 2}, {"key_version": 0}, {"key_version": -1}])
async def test_an_unknown_key_is_unavailable_not_broken(envelope: Envelope, change: dict[str, object]) -> None:
    assert await broken(replace(envelope, **change)) == ErrorCode.KEY_UNAVAILABLE


async def test_a_key_of_the_same_name_with_other_bytes_does_not_open(envelope: Envelope) -> None:
    (ref,) = KEYRING.keys
    other = Keyring(active=ref, keys={ref: bytes(32)})
    with pytest.raises(IntegrationError) as refused:
        await decrypt(other, envelope, CONTEXT)
    assert refused.value.code == ErrorCode.INTEGRITY_ERROR


async def test_the_keyring_of_another_installation_is_told_as_such(envelope: Envelope) -> None:
    with pytest.raises(IntegrationError) as refused:
        await decrypt(Keyring.load(generate_keyring()), envelope, CONTEXT)
    assert refused.value.code == ErrorCode.KEY_UNAVAILABLE


async def test_the_name_of_the_key_is_authenticated(envelope: Envelope) -> None:
    (ref,) = KEYRING.keys
    alias = KeyRef(ref.key_id, ref.version + 1)
    doubled = Keyring(active=ref, keys={ref: KEYRING.keys[ref], alias: KEYRING.keys[ref]})
    with pytest.raises(IntegrationError) as refused:
        await decrypt(doubled, replace(envelope, key_version=alias.version), CONTEXT)
    assert refused.value.code == ErrorCode.INTEGRITY_ERROR


@pytest.mark.parametrize("change", [{"envelope_version": 2}, {"envelope_version": 0}, {"suite": 2}, {"suite": 0}])
async def test_an_unknown_format_does_not_open(envelope: Envelope, change: dict[str, object]) -> None:
    assert await broken(replace(envelope, **change)) == ErrorCode.INTEGRITY_ERROR


def test_the_same_plaintext_twice_shares_no_secret_column() -> None:
    envelopes = [run() for _ in range(5)]
    for one, other in pairwise(envelopes):
        for column in SECRET_COLUMNS:
            assert getattr(one, column) != getattr(other, column), column


def test_no_column_holds_the_plaintext(envelope: Envelope) -> None:
    assert PLAINTEXT not in b"".join(getattr(envelope, column) for column in SECRET_COLUMNS)
    assert len(envelope.commitment) == 32
    assert set(envelope.to_row()) == set(ENVELOPE_COLUMNS)


async def test_envelopes_of_a_retired_key_open_while_the_keyring_holds_it(envelope: Envelope) -> None:
    (old,) = KEYRING.keys
    new = KeyRef("primary", 2)
    rotated = Keyring(active=new, keys={**KEYRING.keys, new: bytes(range(32))})
    assert await decrypt(rotated, envelope, CONTEXT) == PLAINTEXT
    fresh = await encrypt(rotated, PLAINTEXT, CONTEXT)
    assert (fresh.key_id, fresh.key_version) == (new.key_id, new.version) != (old.key_id, old.version)
