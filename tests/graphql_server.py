"""GraphQL servers from packages: Strawberry, which answers 200 whatever happens, and Ariadne, which answers 400."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import ariadne
import strawberry
from ariadne.asgi import GraphQL as AriadneApp
from graphql import GraphQLError
from strawberry.asgi import GraphQL as StrawberryApp
from strawberry.extensions import SchemaExtension
from strawberry.types import Info

from tests.served import served

TOKEN = "planted-graphql-token-3c"


@dataclass
class Bucket:
    """A cost bucket as Shopify's: each request that asks for `cost` needs so much in it. It never fills by itself."""

    maximum: float = 1000
    available: float = 1000
    restore_rate: float = 50
    cost: float = 100


@dataclass
class GraphqlServer:
    """A running server, what it holds and what came."""

    url: str = ""
    books: dict[str, str] = field(default_factory=lambda: {"1": "Ulysses", "2": "Zoë — a life"})
    bucket: Bucket | None = None
    operations: list[str | None] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)


@strawberry.type
class Book:
    id: strawberry.ID
    title: str

    @strawberry.field
    def price(self) -> float | None:
        raise GraphQLError("the price list is away", extensions={"code": "PRICES_DOWN", "shelf": 7})


@strawberry.input
class BookInput:
    id: strawberry.ID
    title: str


@strawberry.type
class Query:
    @strawberry.field
    def book(self, info: Info, id: strawberry.ID) -> Book:  # noqa: A002  # the schema's name for it
        title = info.context["server"].books.get(id)
        if title is None:
            raise GraphQLError("no such book", extensions={"code": "NOT_FOUND"})
        return Book(id=id, title=title)

    @strawberry.field
    def books(self, info: Info, ids: list[strawberry.ID] | None = None) -> list[Book]:
        held = info.context["server"].books
        return [Book(id=strawberry.ID(key), title=title) for key, title in held.items() if ids is None or key in ids]

    @strawberry.field
    def secret(self, info: Info) -> str:
        if info.context["request"].headers.get("authorization") != f"Bearer {TOKEN}":
            raise GraphQLError("who are you?", extensions={"code": "UNAUTHENTICATED"})
        return "the cat is called Tom"


@strawberry.type
class Mutation:
    @strawberry.mutation
    def add_book(self, info: Info, book: BookInput) -> Book:
        info.context["server"].books[str(book.id)] = book.title
        return Book(id=book.id, title=book.title)


class _Cost(SchemaExtension):
    """Answers cost as Shopify does, and throttles."""

    def on_execute(self) -> Iterator[None]:
        server: GraphqlServer = self.execution_context.context["server"]
        server.operations.append(self.execution_context.operation_name)
        server.documents.append(self.execution_context.query or "")
        bucket = server.bucket
        if bucket is not None:
            if bucket.available < bucket.cost:
                raise GraphQLError("Throttled", extensions={"code": "THROTTLED"})
            bucket.available -= bucket.cost
        yield

    def get_results(self) -> dict[str, Any]:
        bucket = self.execution_context.context["server"].bucket
        if bucket is None:
            return {}
        status = {
            "maximumAvailable": bucket.maximum,
            "currentlyAvailable": bucket.available,
            "restoreRate": bucket.restore_rate,
        }
        return {"cost": {"requestedQueryCost": bucket.cost, "actualQueryCost": bucket.cost, "throttleStatus": status}}


class _Strawberry(StrawberryApp):
    def __init__(self, schema: strawberry.Schema, server: GraphqlServer) -> None:
        super().__init__(schema)
        self._server = server

    async def get_context(self, request: Any, response: Any) -> Any:
        return {"request": request, "response": response, "server": self._server}


@asynccontextmanager
async def graphql_server() -> AsyncIterator[GraphqlServer]:
    """Books, by Strawberry: ``book``, ``books``, ``secret`` (with the bearer `TOKEN`), ``addBook``.

    A book's price never comes. Set `bucket` to have cost told, and asked for.
    """
    server = GraphqlServer()
    app = _Strawberry(strawberry.Schema(Query, Mutation, extensions=[_Cost]), server)
    async with served(app) as url:
        server.url = url
        yield server


@asynccontextmanager
async def strict_graphql_server() -> AsyncIterator[str]:
    """``hello(name: String!)``, by Ariadne: what cannot be executed is answered 400."""
    query = ariadne.QueryType()
    query.set_field("hello", lambda _, __, name: f"hello {name}")
    schema = ariadne.make_executable_schema("type Query { hello(name: String!): String! }", query)
    async with served(AriadneApp(schema)) as url:
        yield url
