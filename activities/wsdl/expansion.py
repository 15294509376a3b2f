"""How much a schema grows when its groups, bases and unions are written out.

A few hundred lines can say a billion elements, as entities can: groups of groups, extensions of extensions. A reader
of schemas writes them all out; what would grow so is refused before it does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from lxml import etree

from integration_service.activities.wsdl.documents import WSDL, XSD
from integration_service.contracts.errors import ErrorCode, IntegrationError

MAX_EXPANDED = 50_000
"""Declarations, all types and groups written out: about 2 s and 100 MB, once for each process and definition."""

_Key = tuple[str, str | None, str]  # kind, namespace, name
_SIMPLE, _COMPLEX, _GROUP, _ATTRIBUTES, _ELEMENT = "simpleType", "complexType", "group", "attributeGroup", "element"
_COUNTED = tuple(
    f"{{{XSD}}}{tag}"
    for tag in (
        *(_SIMPLE, _COMPLEX, _GROUP, _ATTRIBUTES, _ELEMENT, "attribute", "any", "anyAttribute"),
        *("sequence", "choice", "all", "union", "list", "restriction", "extension"),
    )
)
_KINDS = frozenset({_SIMPLE, _COMPLEX, _GROUP, _ATTRIBUTES})
_REFERRING = {
    "base": (_SIMPLE, _COMPLEX),
    "memberTypes": (_SIMPLE,),
    "itemType": (_SIMPLE,),
    "type": (_SIMPLE,),  # complex ones are not written out where an element has them
}


def check_expansion(trees: Iterable[etree._Element]) -> None:
    """Raises IntegrationError VALIDATION_ERROR, path ``wsdl``."""
    try:
        expansion, size = _Expansion(), 0
        for tree in trees:
            size += sum(1 for _ in tree.iter(f"{{{WSDL}}}*"))
            for schema in tree.iter(f"{{{XSD}}}schema"):
                expansion.add(schema)
        size += expansion.total()
    except (ValueError, RecursionError):
        raise _wrong("a type or group of the WSDL's schemas is defined by itself, or too deeply") from None
    if size > MAX_EXPANDED:
        raise _wrong(f"the WSDL, its types written out, is over {MAX_EXPANDED} declarations")


class _Expansion:
    """Components by kind, namespace and name, with what each refers to."""

    def __init__(self) -> None:
        self._own: dict[_Key, int] = {}
        self._refers: dict[_Key, list[_Key]] = defaultdict(list)
        self._sizes: dict[_Key, int | None] = {}

    def add(self, schema: etree._Element) -> None:
        namespace = schema.get("targetNamespace")
        for node in schema.iter(*_COUNTED):
            kind = etree.QName(node).localname
            if kind not in _KINDS and not (kind == _ELEMENT and node.getparent() is schema):
                continue
            # A component without a name stands for itself alone.
            key = (kind, namespace, node.get("name") or f"#{len(self._own)}")
            # Whoever refers to an element gets the element, and shares its type.
            parts = [node] if kind == _ELEMENT else list(node.iter(*_COUNTED))
            self._own[key] = self._own.get(key, 0) + len(parts)
            for part in parts:
                self._refers[key] += _references(part)

    def total(self) -> int:
        return sum(self._size(key) for key in self._own)

    def _size(self, key: _Key) -> int:
        """Raises ValueError for what is defined by itself."""
        if key not in self._own:
            # A schema without a namespace takes that of whoever includes it.
            key = key[0], None, key[2]
            if key not in self._own:
                return 0
        if key in self._sizes:
            known = self._sizes[key]
            if known is None:
                raise ValueError("defined by itself")
            return known
        self._sizes[key] = None
        size = self._own[key]
        for other in self._refers[key]:
            size += self._size(other)
            if size > MAX_EXPANDED:
                break
        self._sizes[key] = size
        return size


def _references(node: etree._Element) -> Iterator[_Key]:
    for attribute, kinds in _REFERRING.items():
        for name in (node.get(attribute) or "").split():
            for kind in kinds:
                yield _key(kind, name, node)
    if (ref := node.get("ref")) is not None:
        tag = etree.QName(node).localname
        if tag in (_GROUP, _ATTRIBUTES, _ELEMENT):
            yield _key(tag, ref, node)


def _key(kind: str, text: str, node: etree._Element) -> _Key:
    prefix, colon, name = text.strip().rpartition(":")
    return kind, node.nsmap.get(prefix if colon else None), name


def _wrong(message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path="wsdl")
