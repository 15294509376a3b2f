"""A form is made of a schema, and read back into a config and a secret that is never shown again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.wire import JsonObject, parse
from integration_service.gateway.connect_form import ConnectForm
from integration_service.gateway.fields import config_fields
from tests.world import definition_file

SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "apiBaseUrl": {"type": "string", "format": "uri"},
        "ratio": {"type": "number", "minimum": 0, "maximum": 1},
        "level": {"enum": [1, "one", None]},
        "hook": {"type": "string", "writeOnly": True},
        "deep": {
            "type": "object",
            "title": "Deep things",
            "properties": {"on": {"type": "boolean", "default": True}, "further": {"type": "object", "properties": {}}},
            "required": ["on"],
        },
        "any": True,
    },
    "required": ["apiBaseUrl", "hook"],
}


def form(config: JsonObject, **changes: Any) -> ConnectForm:
    return ConnectForm.of(parse(DefinitionFile, definition_file("t", configSchema=SCHEMA, **changes)), config)


def test_each_schema_has_its_input() -> None:
    fields = {one.name: one for one in config_fields(SCHEMA, {})}
    assert {name: one.kind for name, one in fields.items()} == {
        "config.apiBaseUrl": "url",
        "config.ratio": "number",
        "config.level": "select",
        "config.hook": "password",
        "config.deep.on": "checkbox",
        "config.deep.further": "json",
        "config.any": "json",
    }
    assert fields["config.apiBaseUrl"].label == "Api base url"
    assert fields["config.deep.on"].group == "Deep things"
    assert fields["config.deep.on"].value == "on"
    assert fields["config.hook"].required


def test_a_config_is_read_back_and_what_is_not_shown_stays() -> None:
    before = {"apiBaseUrl": "http://a", "hook": "stored-secret", "unknown": 1, "ratio": 0.5}
    shown = form(before)
    hook = next(one for one in shown.fields if one.name == "config.hook")
    assert (hook.value, hook.required) == ("", False)
    read = shown.filled({"config.apiBaseUrl": " http://b ", "config.level": "1", "config.any": "[1]"})
    assert read.errors == {}
    # An empty secret keeps what is stored, an empty field is taken away, a box without its mark is false.
    assert read.config == {
        "apiBaseUrl": "http://b",
        "hook": "stored-secret",
        "unknown": 1,
        "level": 1,
        "any": [1],
        "deep": {"on": False},
    }
    assert before["ratio"] == 0.5
    assert "stored-secret" not in repr(read.fields)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("config.apiBaseUrl", " ", "Enter a value."),
        ("config.ratio", "1.5", "Enter 1 or less."),
        ("config.ratio", "nan", "Enter a number."),
        ("config.ratio", "9" * 5000, "Enter a number."),
        ("config.level", "two", "Choose one of the list."),
        ("config.any", "{", "Enter valid JSON."),
        ("config.any", "NaN", "Enter valid JSON."),
        ("config.any", '"\\ud800"', "Enter valid JSON."),
        ("config.any", "[" * 100_000, "Enter valid JSON."),
    ],
)
def test_what_does_not_fit_is_told_at_its_field(name: str, text: str, told: str) -> None:
    read = form({"hook": "x"}).filled({"config.apiBaseUrl": "http://a", name: text})
    assert read.errors == {name: told}
    assert read.secret is None


def test_configschemas_own_words_find_their_fields() -> None:
    found = [
        {"path": "config.deep.on", "rule": "type"},
        {"path": "config.any[3].x", "rule": "required"},
        {"path": "config.unknown", "rule": "additionalProperties"},
    ]
    marked = form({}).with_config_error({"errors": found})
    assert marked.errors == {"config.deep.on": "This breaks the rule “type”.", "config.any": "Enter a value."}


def test_a_secret_is_in_the_plaintext_only() -> None:
    read = form({"hook": "x"}, authType="basic").filled(
        {"config.apiBaseUrl": "http://a", "basicAuth.username": "ada", "basicAuth.password": " planted "}
    )
    assert read.secret is not None
    assert json.loads(read.secret) == {"type": "basic", "basicAuth": {"username": "ada", "password": " planted "}}
    assert "planted" not in repr(read)
    assert {one.value for one in read.fields if one.secret} == {""}


def test_a_custom_credential_without_names_is_json() -> None:
    bare = form({"hook": "x"}, authType="custom")
    given_ = {"config.apiBaseUrl": "http://a"}
    assert json.loads(bare.filled({**given_, "custom.*": '{"a": "b"}'}).secret or b"") == {
        "type": "custom",
        "custom": {"a": "b"},
    }
    assert list(bare.filled({**given_, "custom.*": "[1]"}).errors) == ["custom.*"]


@given(st.dictionaries(st.sampled_from([one.name for one in config_fields(SCHEMA, {})]), st.text(max_size=20)))
def test_no_input_breaks_it(given_: dict[str, str]) -> None:
    read = form({}).filled(given_)
    assert set(read.errors) <= {one.name for one in read.fields}


@pytest.mark.parametrize(
    ("urls", "before", "after", "moves"),
    [
        ({"baseUrl": "{config.url}/v1"}, {"url": "https://a.test"}, {"url": "https://b.test"}, True),
        ({"baseUrl": "{config.url}/v1"}, {"url": "https://a.test"}, {"url": "https://a.test", "x": 1}, False),
        ({"baseUrl": "https://{config.at.region}.test/x"}, {"at": {"region": "eu"}}, {"at": {"region": "us"}}, True),
        ({"baseUrl": "https://{config.at.region}.test/x"}, {"at": {"region": "eu"}}, {"at": 7}, True),
        ({"baseUrl": "https://a.test/{config.account}"}, {"account": "1"}, {"account": "2"}, False),
        ({"baseUrl": "{config.url}"}, {}, {"url": "https://b.test"}, False),
        ({"baseUrl": "{config.url}", "defaultConfig": {"url": "https://a.test"}}, {}, {"url": "https://b.test"}, True),
        (
            {"authType": "oauth2", "oauth2Config": {"tokenUrl": "https://{config.tenant}/token"}},
            {"tenant": "a.test"},
            {"tenant": "b.test"},
            True,
        ),
    ],
)
def test_what_leads_to_another_host_is_known(
    urls: JsonObject, before: JsonObject, after: JsonObject, moves: bool
) -> None:
    file = parse(DefinitionFile, definition_file("t", **urls))
    assert replace(ConnectForm.of(file, before), config=after).leads_elsewhere(before) is moves


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "object", "properties": {"pw": {"type": "string", "writeOnly": True}}}},
        {"type": "array", "items": {"type": "string", "format": "password"}},
        {"type": "object", "writeOnly": True, "properties": {"pw": {"type": "string"}}},
        {"type": "object", "properties": {"a": {"type": "object", "properties": {"pw": {"format": "password"}}}}},
        {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"pw": {"writeOnly": True}}}]},
        {"$ref": "#/$defs/held"},
        {"type": "array", "items": {"$ref": "#/$defs/held"}},
    ],
)
def test_a_secret_deep_in_the_config_is_not_shown(schema: JsonObject) -> None:
    held = {"type": "object", "properties": {"pw": {"type": "string", "writeOnly": True}}}
    root = {"type": "object", "properties": {"x": schema}, "$defs": {"held": held}}
    config = {"x": {"a": {"pw": "planted"}, "pw": "planted"} if schema.get("type") == "object" else ["planted"]}
    file = parse(DefinitionFile, definition_file("t", configSchema=root))
    form = ConnectForm.of(file, config)
    assert "planted" not in str([one.value for one in form.fields])
    # Empty keeps what is stored, and what is typed is not shown again.
    assert form.filled({}).config == config
    name = form.fields[0].name
    typed = form.filled({name: '{"pw": "planted-2"}'})
    assert typed.config != config
    assert "planted" not in str([one.value for one in typed.fields])


def test_json_without_secrets_is_shown() -> None:
    schema = {
        "type": "object",
        "properties": {"x": {"type": "array", "items": {"$ref": "#/$defs/y"}}},
        "$defs": {"y": {}},
    }
    [one] = config_fields(schema, {"x": [1]})
    assert (one.value, one.secret) == ("[1]", False)
