"""Bodies of files and bytes: what another's parser reads is what was meant, and no name breaks out of its header."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import UploadFile
from starlette.requests import Request

from integration_service.activities.adapters import multipart as multipart_module
from integration_service.activities.adapters.http import HttpAdapter
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.definitions import HttpRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import parse

FILES = {"encoding": "multipart"}
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from('"\\;=\r\n%'), min_size=1, max_size=12)


def binary(content: bytes, **more: Any) -> dict[str, Any]:
    return {"$binary": base64.b64encode(content).decode(), "contentType": "image/png", **more}


def build(params: dict[str, Any], **request: Any) -> OutboundRequest:
    wire = {"method": "POST", "path": "/x", **request}
    return HttpAdapter("https://api.test", parse(HttpRequest, wire), at="methods[0].request").build(
        params=params, config={}, connection={}
    )


def refused(params: dict[str, Any], **request: Any) -> IntegrationError:
    with pytest.raises(IntegrationError) as error:
        build(params, **request)
    assert error.value.code == ErrorCode.VALIDATION_ERROR
    return error.value


async def read(request: OutboundRequest) -> list[tuple[str, Any]]:
    """The parts as Starlette's parser reads them: (name, text) or (name, (file name, type, bytes))."""
    scope = {"type": "http", "headers": [(b"content-type", (request.header("content-type") or "").encode())]}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": request.body, "more_body": False}

    async with Request(scope, receive).form() as form:
        return [
            (name, (part.filename, part.content_type, await part.read()) if isinstance(part, UploadFile) else part)
            for name, part in form.multi_items()
        ]


def quoted(name: str) -> str:
    """A name as a reader sees it that does not decode."""
    return re.sub(r'[\r\n"\\]', lambda found: f"%{ord(found[0]):02X}", name)


async def test_every_kind_of_value_has_its_part() -> None:
    raw = bytes(range(256)) + b"\r\n--"
    params = {
        "title": "Zoë",
        "count": 3,
        "rate": 1.5,
        "public": True,
        "none": None,
        "tags": ["a", "b", None],
        "meta": {"k": [1, "ä"]},
        "photo": binary(raw, fileName="zoë.png"),
        "more": [binary(b""), binary(b"x", contentType="text/plain; charset=utf-8")],
        "rows": [[1], [2]],
    }
    request = build(params, **FILES)
    assert await read(request) == [
        ("title", "Zoë"),
        ("count", "3"),
        ("rate", "1.5"),
        ("public", "true"),
        ("tags", "a"),
        ("tags", "b"),
        ("meta", '{"k":[1,"ä"]}'),
        ("photo", ("zoë.png", "image/png", raw)),
        ("more", ("more", "image/png", b"")),
        ("more", ("more", "text/plain; charset=utf-8", b"x")),
        ("rows", "[1]"),
        ("rows", "[2]"),
    ]
    assert b'name="meta"\r\nContent-Type: application/json\r\n\r\n' in (request.body or b"")


@given(st.dictionaries(NAMES, TEXT | st.binary(max_size=40), max_size=4), TEXT)
@settings(max_examples=150, deadline=None)
async def test_any_name_and_content_survive(fields: dict[str, str | bytes], file_name: str) -> None:
    params = {
        name: binary(value, fileName=file_name) if isinstance(value, bytes) else value for name, value in fields.items()
    }
    request = build(params, **FILES)
    if not params:
        assert request.body is None
        return
    shown = quoted(file_name)
    assert await read(request) == [
        (quoted(name), (shown or quoted(name), "image/png", value) if isinstance(value, bytes) else value)
        for name, value in fields.items()
    ]


@pytest.mark.parametrize("name", ['a"; filename="evil.php', 'a\\"; x="', "a\r\nX-Evil: 1\r\n\r\nbody", "a\n--b", "\\"])
async def test_a_fields_name_stays_in_its_quotes(name: str) -> None:
    request = build({name: "v", "next": binary(b"x", fileName=name.replace("\r", "").replace("\n", ""))}, **FILES)
    (first, second) = await read(request)
    assert first == (quoted(name), "v")
    assert second[1][1:] == ("image/png", b"x")
    assert b"\nX-Evil" not in (request.body or b"")


@pytest.mark.parametrize("name", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\x00b", "a\x7f", "x" * 256, 7, ["a"]])
def test_a_file_name_with_a_control_character_or_no_text_is_refused(name: Any) -> None:
    error = refused({"f": binary(b"x", fileName=name)}, **FILES)
    assert error.path == "params.f.fileName"
    assert str(name) not in error.message


def test_a_field_name_with_a_control_character_is_refused() -> None:
    refused({"a\x00b": "v"}, **FILES)


@pytest.mark.parametrize("kind", ["", "png", "image/png\r\nX-Evil: 1", "image/", "a b/c", "image/png\x00", 7, "é/x"])
def test_a_content_type_is_a_media_type(kind: Any) -> None:
    for request in (FILES, {"body": "f"}):
        assert refused({"f": binary(b"x", contentType=kind)}, **request).path == "params.f.contentType"


@pytest.mark.parametrize(
    "text", ["A", "AB=", "A===", "AA A", "AAA-", "####", "é", "AAAA\n", "data:image/png;base64,AA==", 7]
)
def test_bad_base64_is_refused_with_its_path(text: Any) -> None:
    bad = {"$binary": text, "contentType": "image/png"}
    assert refused({"f": bad}, **FILES).path == "params.f.$binary"
    assert refused({"f": [binary(b"x"), bad]}, **FILES).path == "params.f[1].$binary"
    assert refused({"f": bad}, body="f").path == "params.f.$binary"
    assert refused({"o": {"f": bad}}, body="o", **FILES).path == "params.o.f.$binary"


def test_a_binary_has_no_other_keys() -> None:
    assert refused({"f": binary(b"x", filename="x")}, body="f").path == "params.f"


@pytest.mark.parametrize("value", [{"deep": binary(b"x")}, {"deep": [binary(b"x")]}, [[binary(b"x")]]])
def test_a_file_too_deep_to_be_a_part_is_refused(value: Any) -> None:
    assert (refused({"f": value}, **FILES).path or "").startswith("params.f")


@pytest.mark.parametrize("encoding", ["json", "form", "multipart", "text", "xml"])
def test_a_binary_that_is_the_body_goes_as_it_is(encoding: str) -> None:
    request = build({"photo": binary(b"\x89PNG\x00"), "q": 1}, method="PUT", body="photo", encoding=encoding)
    assert (request.body, request.header("content-type")) == (b"\x89PNG\x00", "image/png")
    assert request.url == "https://api.test/x?q=1"
    untyped = build({"photo": {"$binary": ""}}, body="photo", encoding=encoding)
    assert (untyped.body, untyped.header("content-type")) == (b"", "application/octet-stream")


def test_a_definitions_own_content_type_stands_over_the_binarys() -> None:
    request = build({"f": binary(b"x")}, body="f", headers={"Content-Type": "application/pdf"})
    assert request.header("content-type") == "application/pdf"


def test_a_binary_elsewhere_is_json_as_it_stands() -> None:
    assert json.loads(build({"f": binary(b"x")}).body or b"") == {"f": binary(b"x")}
    assert json.loads(build({"$binary": 7}).body or b"") == {"$binary": 7}


def test_multipart_writes_its_own_content_type() -> None:
    with pytest.raises(IntegrationError) as error:
        build({}, headers={"content-type": "multipart/form-data"}, **FILES)
    assert error.value.path == "methods[0].request.headers.content-type"


def test_multipart_is_made_of_an_object() -> None:
    assert refused({"a": [1]}, body="a", **FILES).path == "params.a"


def test_the_boundary_stands_in_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["first", "second", "third"])
    monkeypatch.setattr(multipart_module.secrets, "token_hex", lambda _: next(drawn))
    request = build({"a": "x first x", "b": binary(b"\r\n--second--\r\n")}, **FILES)
    assert request.header("content-type") == "multipart/form-data; boundary=third"


def test_no_two_bodies_share_a_boundary() -> None:
    assert len({build({"a": "x"}, **FILES).header("content-type") for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("params", "request_"),
    [
        ({"f": binary(bytes(10_000_000))}, FILES),
        ({"f": binary(bytes(10_000_000))}, {"body": "f"}),
        ({"f": ["x"] * 100_000}, FILES),
        ({"f": "x" * 10_000_000}, {"encoding": "form"}),
    ],
)
def test_large_bodies_do_not_take_long(params: dict[str, Any], request_: dict[str, Any]) -> None:
    assert build(params, **request_).body  # each took under 0.2 s; a quadratic one would hang the suite
