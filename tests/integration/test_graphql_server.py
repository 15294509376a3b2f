"""The GraphQL adapter against servers that others wrote, through the real sender."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from integration_service.activities.adapters.graphql import GraphqlAdapter
from integration_service.activities.adapters.protocol import Parsed
from integration_service.activities.outbound.transport import Transport
from integration_service.contracts.definitions import GraphqlRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError
from tests.graphql_server import TOKEN, Bucket, GraphqlServer, graphql_server, strict_graphql_server

PATIENCE = timedelta(seconds=10)
BOOK = "query Book($id: ID!) { book(id: $id) { ...Shown } } fragment Shown on Book { id title }"


@pytest.fixture
async def server() -> AsyncIterator[GraphqlServer]:
    async with graphql_server() as running:
        yield running


async def call(
    transport: Transport, url: str, document: str, params: dict[str, Any] | None = None, token: str | None = None
) -> Parsed:
    """What the pipeline does around the adapter: build, authenticate, send, and parse or refuse."""
    adapter = GraphqlAdapter(url, GraphqlRequest(document=document), at="methods[0].request")
    request = adapter.build(params=params or {}, config={}, connection={})
    if token is not None:
        request = request.with_secret_header("Authorization", f"Bearer {token}")
    response = await transport.send(request, within=PATIENCE)
    if response.status != 200:
        failure = adapter.refusal(response)
        assert failure is not None
        raise failure
    return adapter.parse(response)


async def test_a_query_with_variables_and_a_fragment(transport: Transport, server: GraphqlServer) -> None:
    parsed = await call(transport, server.url, BOOK, {"id": "2"})
    assert parsed == Parsed({"book": {"id": "2", "title": "Zoë — a life"}})
    assert (server.operations, server.documents) == (["Book"], [BOOK])


async def test_lists_go_as_lists_and_an_optional_variable_may_be_left_out(
    transport: Transport, server: GraphqlServer
) -> None:
    document = "query ($ids: [ID!]) { books(ids: $ids) { title } }"
    assert len((await call(transport, server.url, document)).data["books"]) == 2
    assert (await call(transport, server.url, document, {"ids": ["1"]})).data == {"books": [{"title": "Ulysses"}]}


async def test_a_mutation_takes_an_object(transport: Transport, server: GraphqlServer) -> None:
    document = "mutation Add($book: BookInput!) { addBook(book: $book) { id } }"
    parsed = await call(transport, server.url, document, {"book": {"id": "3", "title": 'Quote "me"\n'}})
    assert (parsed.data, server.books["3"]) == ({"addBook": {"id": "3"}}, 'Quote "me"\n')


async def test_200_with_errors_is_no_success(transport: Transport, server: GraphqlServer) -> None:
    with pytest.raises(IntegrationError) as refused:
        await call(transport, server.url, BOOK, {"id": "9"})
    assert refused.value.code == ErrorCode.GRAPHQL_ERROR
    (error,) = refused.value.details["errors"]
    assert (error["message"], error["path"], error["extensions"]) == ("no such book", ["book"], {"code": "NOT_FOUND"})
    assert refused.value.details["data"] is None


async def test_partial_data_is_kept_beside_its_errors(transport: Transport, server: GraphqlServer) -> None:
    parsed = await call(transport, server.url, "{ books { title price } }")
    assert [book["title"] for book in parsed.data["books"]] == ["Ulysses", "Zoë — a life"]
    assert [error["path"] for error in parsed.errors or []] == [["books", 0, "price"], ["books", 1, "price"]]
    assert (parsed.errors or [])[0]["extensions"]["shelf"] == 7


@pytest.mark.parametrize("document", ["{ nothing }", "query ($x: Nope) { book(id: $x) { id } }"])
async def test_what_only_the_upstreams_schema_can_tell_comes_as_its_error(
    transport: Transport, server: GraphqlServer, document: str
) -> None:
    with pytest.raises(IntegrationError) as refused:
        await call(transport, server.url, document)
    assert refused.value.code == ErrorCode.GRAPHQL_ERROR
    assert refused.value.details["errors"][0]["locations"][0]["line"] == 1


async def test_a_refused_credential_in_a_200(transport: Transport, server: GraphqlServer) -> None:
    with pytest.raises(IntegrationError) as refused:
        await call(transport, server.url, "{ secret }", token="wrong")
    assert refused.value.code == ErrorCode.AUTH_ERROR
    assert (await call(transport, server.url, "{ secret }", token=TOKEN)).data == {"secret": "the cat is called Tom"}


async def test_a_cost_bucket_is_told_of_before_and_when_it_is_empty(
    transport: Transport, server: GraphqlServer
) -> None:
    server.bucket = Bucket(maximum=1000, available=350, restore_rate=50, cost=100)
    delays = [(await call(transport, server.url, "{ books { id } }")).hold_back for _ in range(3)]
    assert delays == [None, None, timedelta(seconds=1)]
    with pytest.raises(IntegrationError) as refused:
        await call(transport, server.url, "{ books { id } }")
    assert (refused.value.code, refused.value.retry_after) == (ErrorCode.RATE_LIMITED, timedelta(seconds=1))


async def test_a_400_with_errors_is_graphqls_own_failure(transport: Transport) -> None:
    async with strict_graphql_server() as url:
        document = "query Q($name: String!) { hello(name: $name) }"
        assert (await call(transport, url, document, {"name": "Zoë"})).data == {"hello": "hello Zoë"}
        with pytest.raises(IntegrationError) as refused:
            await call(transport, url, "{ nothing }")
    assert (refused.value.code, refused.value.details["statusCode"]) == (ErrorCode.GRAPHQL_ERROR, 400)
    assert "nothing" in refused.value.details["errors"][0]["message"]
