"""Versions and ids by the rules of their own standards."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from integration_service.contracts.names import (
    InstanceName,
    Scope,
    SemVer,
    Uuid,
    execution_key,
    is_canonical_uuid,
    is_prerelease,
    is_uuid,
    semver_key,
)

# semver.org §11, in its own words: "Example: 1.0.0-alpha < 1.0.0-alpha.1 < …".
ASCENDING = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"]
ASCENDING += ["1.0.0-rc.1", "1.0.0", "2.0.0", "2.1.0", "2.1.1"]

NUMBERS = st.integers(min_value=0, max_value=10**12)
IDENTIFIERS = NUMBERS.map(str) | st.from_regex(r"[0-9]{0,3}[A-Za-z-][0-9A-Za-z-]{0,5}", fullmatch=True)
PRERELEASES = st.lists(IDENTIFIERS, max_size=4).map(".".join)
VERSIONS = st.builds(
    lambda core, pre, build: ".".join(map(str, core)) + (f"-{pre}" if pre else "") + (f"+{build}" if build else ""),
    st.tuples(NUMBERS, NUMBERS, NUMBERS),
    PRERELEASES,
    st.lists(st.from_regex(r"[0-9A-Za-z-]{1,5}", fullmatch=True), max_size=2).map(".".join),
)


def precedes(left: str, right: str) -> bool:
    """§11 read aloud, comparison by comparison."""

    def split(version: str) -> tuple[list[int], list[str]]:
        core, _, pre = version.split("+")[0].partition("-")
        return [int(number) for number in core.split(".")], pre.split(".") if pre else []

    (core_left, pre_left), (core_right, pre_right) = split(left), split(right)
    if core_left != core_right:
        return core_left < core_right
    if not pre_left or not pre_right:
        return bool(pre_left) and not pre_right
    for one, other in zip(pre_left, pre_right, strict=False):
        if one == other:
            continue
        if one.isdigit() and other.isdigit():
            return int(one) < int(other)
        if one.isdigit() != other.isdigit():
            return one.isdigit()
        return one < other
    return len(pre_left) < len(pre_right)


def test_the_standards_own_examples_are_in_order() -> None:
    shuffled = sorted(ASCENDING, key=lambda version: version[::-1])
    assert sorted(shuffled, key=semver_key) == ASCENDING
    assert len({semver_key(version) for version in ASCENDING}) == len(ASCENDING)


@given(VERSIONS, VERSIONS)
@settings(max_examples=200)
def test_any_two_versions_are_ordered_as_the_standard_says(left: str, right: str) -> None:
    assert (semver_key(left) < semver_key(right)) == precedes(left, right)
    assert (semver_key(right) < semver_key(left)) == precedes(right, left)


@given(VERSIONS)
@settings(max_examples=100)
def test_build_metadata_has_no_part_in_precedence(version: str) -> None:
    assert semver_key(version.split("+")[0]) == semver_key(version)
    assert is_prerelease(version) == ("-" in version.split("+")[0])


GOOD = ["0.0.0", "1.0.0-0A.is.legal", "1.0.0--", "1.0.0-0-0", "1.1.1+001", "1.0.0-alpha-a.b-c-somethinglong+e.1-aef.1"]
# From the standard's own list of invalid versions.
BAD = ["1", "1.2", "01.1.1", "1.01.1", "1.1.01", "1.2.3-01", "1.2.3-0123.0123", "1.1.2+.123", "+invalid", "-1.0.3"]
BAD += ["1.0.0-alpha_beta", "1.0.0-alpha..", "1.2.3.DEV", "1.2-SNAPSHOT", "v1.2.3", "1.2.3\n", " 1.2.3", "1.2.3-"]
BAD += [
    "1.2.3+",
    "1.2.3----RC-SNAPSHOT.12.09.1--..12",
    "\u0661.٢.٣",
    "1\u0661.0.0",
    "1.0.0-\u0661a",
    "1.2.3-" + "a" * 128,
]


@pytest.mark.parametrize("version", GOOD)
def test_a_version_of_the_standard_is_accepted(version: str) -> None:
    assert TypeAdapter(SemVer).validate_python(version) == version


@pytest.mark.parametrize("version", BAD)
def test_what_is_no_version_by_the_standard_is_refused(version: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(SemVer).validate_python(version)


ID = "2f1f6f0a-0f7c-4b7e-9a43-0d6e6f6f0a11"


@pytest.mark.parametrize("text", [ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}", ID + "\n", "x"])
def test_an_id_is_canonical_lower_case(text: str) -> None:
    assert TypeAdapter(Uuid).validate_python(ID) == ID
    with pytest.raises(ValidationError):
        TypeAdapter(Uuid).validate_python(text)


@pytest.mark.parametrize("text", [ID, ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}", "", "a\x00b"])
def test_an_instances_name_is_text_that_is_no_uuid(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(InstanceName).validate_python(text)


@pytest.mark.parametrize("text", ["x", "ACME's GitHub", "名前", "a\nb", "x" * 255])
def test_an_instances_name_may_be_any_text(text: str) -> None:
    assert TypeAdapter(InstanceName).validate_python(text) == text


@pytest.mark.parametrize("text", ["", "x" * 256, "a\x00"])
def test_a_scope_is_never_empty_nor_longer_than_its_column_takes(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Scope).validate_python(text)


@given(st.uuids())
@settings(max_examples=30)
def test_any_spelling_of_a_uuid_is_told_from_a_name(value: uuid.UUID) -> None:
    assert all(is_uuid(text) for text in (str(value), str(value).upper(), value.hex, value.urn))
    assert not is_uuid(f"{value} again")
    assert is_canonical_uuid(str(value))
    others = {str(value).upper(), value.hex, value.urn, f"{{{value}}}", f"{value}\n", f" {value}"} - {str(value)}
    assert not any(is_canonical_uuid(text) for text in others)


def test_an_execution_key_is_the_same_for_the_same_execution_only() -> None:
    assert execution_key("ns", "wf", "run") == execution_key("ns", "wf", "run")
    assert execution_key("ns", "wf", "run") != execution_key("ns", "wf", "run2")
    assert uuid.UUID(execution_key("a", "b")).version == 5
