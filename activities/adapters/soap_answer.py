"""An answer's XML as JSON, by the schema where it knows the element, else by its looks.

zeep's own reader is not used: it takes quadratic time where a choice repeats, loses empty texts, digits of times and
what it cannot convert, and writes that into the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lxml import etree
from zeep.exceptions import Error as ZeepError
from zeep.utils import qname_attr
from zeep.xsd.elements import Any as Wildcard
from zeep.xsd.elements import Choice, Element, Group
from zeep.xsd.elements.indicators import Indicator
from zeep.xsd.types import ComplexType
from zeep.xsd.types.simple import AnySimpleType

from integration_service.activities.adapters.json_text import MAX_DEPTH
from integration_service.activities.adapters.soap_arguments import TYPE
from integration_service.activities.adapters.soap_scalars import Unfit, scalar_of
from integration_service.activities.wsdl.xml_text import local_name
from integration_service.contracts.errors import ErrorCode, IntegrationError

_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_NIL, _TYPE = f"{{{_XSI}}}nil", f"{{{_XSI}}}type"
_XSI_NAMES = f"{{{_XSI}}}"
_ENCODING = "http://schemas.xmlsoap.org/soap/encoding/"
_VALUE = "_value_1"


@dataclass(frozen=True)
class _Field:
    """Where a child goes. `turns` is the key of the repeating group that it is part of; `place` its place in it."""

    key: str
    element: Any
    many: bool
    chosen: bool
    turns: str | None = None
    place: int = 0
    """A group whose parts are alternatives has them all in place 0: each begins a turn."""


@dataclass(frozen=True)
class _Fields:
    """What a complex type may hold."""

    by_name: dict[str, _Field]
    turns: frozenset[str]
    wildcard: tuple[str, bool] | None
    """The key of its `xsd:any`, and whether it repeats."""


class AnswerReader:
    """Reads elements. Raises IntegrationError MALFORMED_RESPONSE with the path of what its type does not have."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._fields: dict[int, tuple[Any, _Fields]] = {}

    def value(self, node: etree._Element, declared: Any, *, at: str, depth: int = 0) -> Any:
        """The JSON value of an element that the schema declares to be of that type."""
        if depth > MAX_DEPTH:
            raise _malformed(f"the upstream's answer is nested deeper than {MAX_DEPTH}")
        if node.get(_NIL, "").strip() in ("true", "1"):
            return None
        xsd_type = self._told_type(node) or declared
        if isinstance(xsd_type, ComplexType):
            made = self._object(node, xsd_type, at, depth)
            if xsd_type is not declared and xsd_type.qname is not None:
                made[TYPE] = xsd_type.qname.text
            return made
        if isinstance(xsd_type, AnySimpleType):
            return _scalar(xsd_type, node.text or "", at)
        return self.untyped(node, depth=depth)

    def untyped(self, node: etree._Element, *, depth: int = 0) -> Any:
        """By its looks: a text, or an object of attributes (``@name``), children and ``#text``; what comes more than
        once is an array."""
        if depth > MAX_DEPTH:
            raise _malformed(f"the upstream's answer is nested deeper than {MAX_DEPTH}")
        if node.get(_NIL, "").strip() in ("true", "1"):
            return None
        made: dict[str, Any] = {
            f"@{etree.QName(str(name)).localname}": value
            for name, value in node.attrib.items()
            if not str(name).startswith(_XSI_NAMES)
        }
        repeated: set[str] = set()
        for child in node:
            _put(made, local_name(child), self.untyped(child, depth=depth + 1), repeated)
        text = node.text or ""
        if not made:
            return text
        if text.strip():
            made["#text"] = text
        return made

    def any(self, node: etree._Element, *, at: str, depth: int = 0) -> Any:
        """By the schema where it declares an element of that name."""
        declared = self._global_element(str(node.tag))
        if declared is None:
            return self.untyped(node, depth=depth)
        return self.value(node, declared.type, at=at, depth=depth)

    def _object(self, node: etree._Element, xsd_type: Any, at: str, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, attribute in xsd_type.attributes:
            if attribute.name is None:
                others = {
                    str(key): str(text) for key, text in node.attrib.items() if not str(key).startswith(_XSI_NAMES)
                }
                if others:
                    made[name] = others
            elif (text := node.get(attribute.qname.text)) is not None:
                made[name] = _scalar(attribute.type, text, f"{at}.{name}")
        content = next((part for _, part in xsd_type.elements_nested), None)
        if isinstance(content, Element):
            made[_VALUE] = _scalar(content.type, node.text or "", f"{at}.{_VALUE}")
            return made
        fields = self._fields_of(xsd_type)
        for key in fields.turns:
            made[key] = []
        if fields.wildcard is not None and fields.wildcard[1]:
            made[fields.wildcard[0]] = []
        for field in fields.by_name.values():
            if field.many and not field.chosen and field.turns is None:
                made[field.key] = []
        self._children(node, fields, made, at, depth)
        return made

    def _children(self, node: etree._Element, fields: _Fields, made: dict[str, Any], at: str, depth: int) -> None:
        last: dict[str, _Field] = {}
        repeated: set[str] = set()
        for child in node:
            name = local_name(child)
            field = fields.by_name.get(name)
            if field is None:
                self._stranger(child, fields, made, repeated, at, depth)
                continue
            value = self.value(child, field.element.type, at=f"{at}.{field.key}", depth=depth + 1)
            into = made
            if field.turns is not None:
                turns = made[field.turns]
                before = last.get(field.turns)
                if before is None or not (field.place > before.place or (field is before and field.many)):
                    turns.append({})
                last[field.turns] = field
                into = turns[-1]
            if field.many:
                into.setdefault(field.key, []).append(value)
            else:
                _put(into, field.key, value, repeated)

    def _stranger(
        self,
        child: etree._Element,
        fields: _Fields,
        made: dict[str, Any],
        repeated: set[str],
        at: str,
        depth: int,
    ) -> None:
        """A child that its type does not name: part of its `xsd:any`, or more than the WSDL says."""
        name = local_name(child)
        value = self.any(child, at=f"{at}.{name}", depth=depth + 1)
        if fields.wildcard is None:
            return _put(made, name, value, repeated)
        key, many = fields.wildcard
        if many:
            made.setdefault(key, []).append({name: value})
        else:
            _put(made, key, {name: value}, repeated)

    def _fields_of(self, xsd_type: Any) -> _Fields:
        known = self._fields.get(id(xsd_type))
        if known is None:
            # The type is kept beside: an id is one's own only while its object lives.
            known = self._fields[id(xsd_type)] = (xsd_type, _fields(xsd_type))
        return known[1]

    def _told_type(self, node: etree._Element) -> Any:
        """The type that the answer says the element is of; None where it says none that the schema has."""
        if _TYPE not in node.attrib:
            return None
        try:
            name = qname_attr(node, etree.QName(_XSI, "type"))
            if name is None or name.namespace == _ENCODING:
                return None
            return self._schema.get_type(name, fail_silently=True)
        except (ZeepError, ValueError, KeyError):
            return None

    def _global_element(self, tag: str) -> Any:
        name = etree.QName(tag)
        if not name.namespace or name.namespace == _ENCODING:
            return None
        try:
            return self._schema.get_element(name)
        except (ZeepError, ValueError, KeyError):
            return None


def _fields(xsd_type: Any) -> _Fields:
    by_name: dict[str, _Field] = {}
    turns: set[str] = set()
    wildcard: tuple[str, bool] | None = None
    for key, part, turn, place, chosen, many in _walk(xsd_type.elements_nested, chosen=False):
        if turn is not None:
            turns.add(turn)
        if isinstance(part, Wildcard):
            wildcard = wildcard or (key, many or turn is not None)
        else:
            by_name.setdefault(part.name, _Field(key, part, many, chosen, turn, place))
    return _Fields(by_name, frozenset(turns), wildcard)


def _walk(
    parts: Any, *, chosen: bool, turns: str | None = None, place: int | None = None, many: bool = False
) -> Iterator[tuple[str, Any, str | None, int, bool, bool]]:
    """Key, element, turns, place, chosen and many of all that stands below."""
    for index, (name, part) in enumerate(parts):
        here = index if place is None else place
        if not isinstance(part, Indicator):
            yield name, part, turns, here, chosen, many or part.accepts_multiple
            continue
        content: Any = part.child if isinstance(part, Group) else part
        is_choice = isinstance(content, Choice)
        begins = part.accepts_multiple and turns is None
        yield from _walk(
            content.elements_nested,
            chosen=chosen or is_choice,
            turns=name if begins else turns,
            place=(0 if is_choice else None) if begins else here if turns is not None else None,
            many=many or (part.accepts_multiple and not begins),
        )


def _put(made: dict[str, Any], key: str, value: Any, repeated: set[str]) -> None:
    """What comes a second time under a name makes it an array."""
    if key not in made:
        made[key] = value
    elif key in repeated:
        made[key].append(value)
    else:
        repeated.add(key)
        made[key] = [made[key], value]


def _scalar(xsd_type: Any, text: str, at: str) -> Any:
    scalar = scalar_of(xsd_type)
    try:
        return scalar.read(text)
    except Unfit as error:
        if not text.strip():
            return None  # what servers send for a number that they do not have
        raise _malformed(f"what the upstream's answer holds {error}", at) from None


def _malformed(message: str, path: str | None = None) -> IntegrationError:
    return IntegrationError(ErrorCode.MALFORMED_RESPONSE, message, path=path)
