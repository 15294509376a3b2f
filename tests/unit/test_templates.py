"""`{name}` templates."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.activities.templates import Template, scalar_text
from integration_service.contracts.errors import ErrorCode, IntegrationError

NO_BRACES = st.text(st.characters(exclude_characters="{}"), max_size=15)
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True).filter(lambda name: name not in ("config", "connection"))


def values(params: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"params": params or {}, "config": config or {}, "connection": {"host": "h"}}


@given(st.lists(st.tuples(NO_BRACES, NAMES, st.text(max_size=10)), max_size=4), NO_BRACES)
@settings(max_examples=150)
def test_every_hole_is_filled_and_the_rest_stays(pieces: list[tuple[str, str, str]], tail: str) -> None:
    params = {name: value for _, name, value in pieces}
    template = Template("".join(f"{literal}{{{name}}}" for literal, name, _ in pieces) + tail, at="x")
    assert template.render(values(params)) == "".join(literal + params[name] for literal, name, _ in pieces) + tail
    assert template.names == tuple(name for _, name, _ in pieces)
    assert template.params == set(params)


@given(st.text(max_size=30))
@settings(max_examples=150)
def test_any_text_compiles_or_is_refused_at_its_place(text: str) -> None:
    error = None
    try:
        template = Template(text, at="methods[0].request.path")
    except IntegrationError as refused:
        error = refused
    if error is None:
        assert template.names or template.render(values()) == text
        return
    assert (error.code, error.path) == (ErrorCode.VALIDATION_ERROR, "methods[0].request.path")
    assert {"{", "}"} & set(text)


@pytest.mark.parametrize("text", ["{", "}", "{}", "{a", "a}", "{a b}", "{1a}", "{{a}}", "{a}}", "{ä}", "{a}{", "{a\n}"])
def test_a_hole_that_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        Template(text, at="here")
    assert refused.value.path == "here"


def test_what_is_filled_in_is_not_read_again() -> None:
    rendered = Template("{a}", at="x").render(values({"a": "{b} {config.secret}", "b": "no"}, {"secret": "no"}))
    assert rendered == "{b} {config.secret}"


def test_config_and_connection_are_looked_up_by_their_path() -> None:
    template = Template("{config.a.b}/{connection.host}", at="x")
    assert template.render(values({}, {"a": {"b": 3}})) == "3/h"
    assert template.params == frozenset()


@pytest.mark.parametrize("name", ["config", "connection", "configuration", "config_id", "a.b", "$x"])
def test_a_param_may_have_any_name(name: str) -> None:
    template = Template(f"{{{name}}}", at="x")
    assert template.params == {name}
    assert template.render(values({name: "mine"})) == "mine"


@pytest.mark.parametrize(
    ("text", "code", "path"),
    [
        ("{a}", ErrorCode.VALIDATION_ERROR, "params.a"),
        ("{config.a}", ErrorCode.CONFIG_ERROR, "config.a"),
        ("{config.a.b.c}", ErrorCode.CONFIG_ERROR, "config.a.b.c"),
        ("{connection.a}", ErrorCode.CONFIG_ERROR, "connection.a"),
    ],
)
@pytest.mark.parametrize("value", [None, {"secret": "planted"}, ["planted"]])
def test_what_is_missing_or_no_scalar_is_named_and_not_quoted(text: str, code: str, path: str, value: Any) -> None:
    with pytest.raises(IntegrationError) as refused:
        Template(text, at="x").render({"params": {"a": value}, "config": {"a": value}, "connection": {"a": value}})
    assert (refused.value.code, refused.value.path) == (code, path)
    assert "planted" not in f"{refused.value} {refused.value.details}"


@pytest.mark.parametrize(
    ("value", "text"), [("a", "a"), ("", ""), (True, "true"), (False, "false"), (7, "7"), (1.5, "1.5"), (0, "0")]
)
def test_scalars_have_jsons_spelling(value: Any, text: str) -> None:
    assert scalar_text(value) == text
    assert Template("{a}", at="x").render(values({"a": value})) == text


def test_escape_gets_every_hole_and_no_literal() -> None:
    seen: list[tuple[str, str]] = []

    def escape(name: str, text: str) -> str:
        seen.append((name, text))
        return f"<{text}>"

    assert Template("/{a}/{config.b}", at="x").render(values({"a": "1"}, {"b": "2"}), escape) == "/<1>/<2>"
    assert seen == [("a", "1"), ("config.b", "2")]
