"""How a method's pages follow one another."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from integration_service.contracts.wire import WireModel

MAX_PAGES = 1000


class _Pages(WireModel):
    """`items` is JSONata over a page's body (after `responseTransform`): the array of that page's items."""

    items: str = Field(min_length=1)
    max_pages: int = Field(ge=1, le=MAX_PAGES)


class LinkPagination(_Pages):
    """The next page's URL stands in the `Link` header (RFC 8288, ``rel="next"``), or where `next` (JSONata) says."""

    kind: Literal["link"]
    next: str | None = Field(default=None, min_length=1)


class CursorPagination(_Pages):
    """`next` (JSONata over the body) gives the cursor that `param` carries to the next page; null ends."""

    kind: Literal["cursor"]
    next: str = Field(min_length=1)
    param: str = Field(min_length=1)


class OffsetPagination(_Pages):
    """`param` counts items from 0. A page of fewer than `limit` items ends them, or an empty one without `limit`."""

    kind: Literal["offset"]
    param: str = Field(min_length=1)
    limit_param: str | None = Field(default=None, min_length=1)
    limit: int | None = Field(default=None, ge=1)


class PagePagination(_Pages):
    """`param` counts pages from `first`. A page of fewer than `limit` items ends, where `limit` is given; else an
    empty one."""

    kind: Literal["page"]
    param: str = Field(min_length=1)
    first: int = Field(default=1, ge=0)
    limit_param: str | None = Field(default=None, min_length=1)
    limit: int | None = Field(default=None, ge=1)


_KINDS = ("link", "cursor", "offset", "page")


def _kind(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return f"<{kind}>" if kind in _KINDS else "<link>"


Pagination = Annotated[
    Annotated[LinkPagination, Tag("<link>")]
    | Annotated[CursorPagination, Tag("<cursor>")]
    | Annotated[OffsetPagination, Tag("<offset>")]
    | Annotated[PagePagination, Tag("<page>")],
    Discriminator(_kind),
]
