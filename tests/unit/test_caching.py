"""What a cached answer is found by, and what of a result is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration_service.storage.cache_key import CacheKey, canonical

_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


def key(**changes: Any) -> CacheKey:
    given: dict[str, Any] = {
        "definition_id": "d1",
        "method": "get",
        "scope": "global",
        "instance_id": "i1",
        "epoch": 1,
        "config": {"url": "https://a.test"},
        "connection": None,
        "params": {"id": 1, "fields": ["a", "b"]},
    }
    return CacheKey.of(**{**given, **changes})


def reordered(value: Any) -> Any:
    match value:
        case dict():
            return {name: reordered(item) for name, item in reversed(value.items())}
        case list():
            return [reordered(item) for item in value]
    return value


@given(_JSON)
def test_the_order_of_keys_does_not_count(value: Any) -> None:
    assert canonical(reordered(value)) == canonical(value)
    assert canonical(json.loads(json.dumps(value))) == canonical(value)


@given(_JSON, _JSON)
def test_different_values_have_different_spellings(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (canonical(one) == canonical(other)) is same


@pytest.mark.parametrize(
    "pair",
    [(1, 1.0), (1, True), (0.0, -0.0), (1, "1"), (None, "null"), ("é", "e\u0301"), ([], {}), ("a", "A")],
    ids=repr,
)
def test_what_is_sent_differently_is_different(pair: tuple[Any, Any]) -> None:
    one, other = pair
    assert key(params={"x": one}).digest != key(params={"x": other}).digest


@pytest.mark.parametrize(
    "change",
    [
        {"definition_id": "d2"},
        {"method": "list"},
        {"scope": "other"},
        {"instance_id": "i2"},
        {"epoch": 2},
        {"epoch": None},
        {"config": {"url": "https://b.test"}},
        {"connection": {"instance_url": "https://c.test"}},
        {"params": {"id": 1}},
        {"params": {"id": 1, "fields": ["b", "a"]}},
        {"page": "next"},
        {"shared": True},
    ],
    ids=str,
)
def test_everything_that_decides_the_answer_is_in_the_key(change: dict[str, Any]) -> None:
    assert key(**change).digest != key().digest


def test_a_shared_key_leaves_out_instance_and_credential_only() -> None:
    shared = key(shared=True)
    assert shared == key(shared=True, instance_id="i2", epoch=7)
    assert shared.instance_id is None
    for change in ({"scope": "other"}, {"config": {}}, {"connection": {"a": 1}}, {"definition_id": "d2"}):
        assert key(shared=True, **change).digest != shared.digest


def test_parts_do_not_run_into_one_another() -> None:
    assert key(definition_id="ab", method="c").digest != key(definition_id="a", method="bc").digest


def test_half_a_surrogate_pair_has_a_spelling() -> None:
    assert key(page="\ud800").digest != key(page="\udfff").digest
