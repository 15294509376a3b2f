"""Definition files: names, references within a file, and the lifecycle."""

from __future__ import annotations

from itertools import product

import pytest

from integration_service.contracts.definitions import DefinitionFile, IntegrationDefinitionStatus
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import parse
from tests.world import definition_file, method


@pytest.mark.parametrize("good", ["a", "a" + "b" * 62, "a-b_c9"])
def test_a_good_definition_name_is_accepted(good: str) -> None:
    assert parse(DefinitionFile, definition_file(good)).name == good


@pytest.mark.parametrize("bad", ["", "A", "1a", "-a", "_a", "a.b", "a b", "ä", "a\n", "a" * 64])
def test_a_bad_definition_name_is_refused(bad: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        parse(DefinitionFile, definition_file(bad))
    assert refused.value.path == "name"


@pytest.mark.parametrize("good", ["a", "_", "A9_", "x" * 63])
def test_a_good_method_name_is_accepted(good: str) -> None:
    assert parse(DefinitionFile, definition_file("t", methods=[method(good, "GET", "/")])).method(good) is not None


@pytest.mark.parametrize("bad", ["", "9a", "a-b", "a.b", "a b", "é", "a\n", "x" * 64])
def test_a_bad_method_name_is_refused(bad: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        parse(DefinitionFile, definition_file("t", methods=[method(bad, "GET", "/")]))
    assert refused.value.path == "methods[0].name"


def test_a_method_name_that_stands_twice_is_refused_at_the_second() -> None:
    twice = [method("a", "GET", "/"), method("b", "GET", "/"), method("a", "POST", "/")]
    with pytest.raises(IntegrationError) as refused:
        parse(DefinitionFile, definition_file("t", methods=twice))
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, "methods[2].name")


def test_a_connection_test_names_a_method_of_the_definition() -> None:
    assert parse(DefinitionFile, definition_file("t", connectionTest="get")).connection_test == "get"
    with pytest.raises(IntegrationError) as refused:
        parse(DefinitionFile, definition_file("t", connectionTest="other"))
    assert refused.value.path == "connectionTest"


def test_oauth2_needs_its_config() -> None:
    with pytest.raises(IntegrationError) as refused:
        parse(DefinitionFile, definition_file("t", authType="oauth2"))
    assert refused.value.path == "oauth2Config"


NEXT = {("DRAFT", "PUBLISHED"), ("PUBLISHED", "DEPRECATED"), ("DEPRECATED", "ARCHIVED")}


@pytest.mark.parametrize(("before", "after"), list(product(IntegrationDefinitionStatus, repeat=2)))
def test_the_lifecycle_has_three_steps_and_no_others(
    before: IntegrationDefinitionStatus, after: IntegrationDefinitionStatus
) -> None:
    assert before.may_become(after) == ((before.value, after.value) in NEXT)
