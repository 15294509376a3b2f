"""Params as what zeep writes into an envelope, checked against the schema on the way.

A param is an element or attribute by its name. An element that may repeat is an array, null is ``xsi:nil``, ``_type``
names a derived type (``{namespace}Name``). Where a whole sequence or choice repeats, its turns are an array of objects
under the name that zeep gives it (``_value_1``); that is also the text of a type with simple content, and the XML text
of an ``xsd:any``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zeep.xsd.const import Nil, SkipValue
from zeep.xsd.elements import Any as Wildcard
from zeep.xsd.elements import Choice, Element, Group
from zeep.xsd.elements.indicators import Indicator
from zeep.xsd.types import ComplexType
from zeep.xsd.types.collection import ListType

from integration_service.activities.adapters.soap_scalars import Unfit, scalar_of
from integration_service.activities.wsdl.xml_text import has_no_xml, load_xml
from integration_service.contracts.errors import ErrorCode, IntegrationError

TYPE = "_type"


class Arguments:
    """Makes zeep's values. Every refusal is IntegrationError VALIDATION_ERROR with the param's path."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema

    def of(self, xsd_type: Any, value: Any, *, at: str) -> Any:
        """The value of a type: zeep's object of a complex one, else a text."""
        if isinstance(xsd_type, ComplexType):
            return self._object(xsd_type, value, at)
        try:
            text = scalar_of(xsd_type).write(value)
        except Unfit as error:
            raise _wrong(at, str(error)) from None
        return [_Text(one) for one in text.split()] if isinstance(xsd_type, ListType) else _Text(text)

    def _object(self, declared: Any, value: Any, at: str) -> Any:
        if not isinstance(value, dict):
            raise _wrong(at, "must be an object")
        xsd_type = self._derived(declared, value[TYPE], f"{at}.{TYPE}") if TYPE in value else declared
        if xsd_type._array_type:
            raise _wrong(at, "is a SOAP-encoded array, which this version cannot write")
        attributes = dict(xsd_type.attributes)
        made = xsd_type()
        seen = {TYPE}
        for name, content in xsd_type.elements_nested:
            if isinstance(content, Element):
                seen.add(name)
                made[name] = self.of(content.type, value.get(name), at=f"{at}.{name}")
            elif content.accepts_multiple:
                seen.add(name)
                made[name] = self._turns(content, value.get(name, []), f"{at}.{name}")
            else:
                seen |= _names(content)
                for key, item in self._group(content, value, at).items():
                    made[key] = item
        for key in value:
            if key in attributes:
                made[key] = self._attribute(attributes[key], value[key], f"{at}.{key}")
            elif key not in seen:
                raise _wrong(f"{at}.{key}", "the WSDL has no element or attribute of that name here")
        return made

    def _derived(self, declared: Any, name: Any, at: str) -> Any:
        found = None
        if isinstance(name, str):
            found = next((one for one in self._schema.types if one.qname is not None and one.qname.text == name), None)
        if not isinstance(found, ComplexType):
            raise _wrong(at, f"the WSDL has no type of that name to stand for {declared.name}")
        return found

    def _group(self, group: Any, value: Mapping[str, Any], at: str) -> dict[str, Any]:
        """The values of a sequence, choice or group that stands once, by the names that zeep gives its parts."""
        content = group.child if isinstance(group, Group) else group
        if isinstance(content, Choice):
            return self._choice(content, value, at)
        made: dict[str, Any] = {}
        for name, part in content.elements_nested:
            if name is None:
                if part.is_optional and not _names(part) & value.keys():
                    # zeep would ask for what is required inside a part that is not there.
                    made |= dict.fromkeys((key for key, _ in _named(part, choices=False)), SkipValue)
                else:
                    made |= self._group(part, value, at)
            elif name in value:
                made[name] = self._part(part, value[name], f"{at}.{name}")
            elif (
                not part.is_optional and not getattr(part, "nillable", False) and getattr(part, "default", None) is None
            ):
                raise _wrong(f"{at}.{name}", "is missing")
        return made

    def _choice(self, choice: Any, value: Mapping[str, Any], at: str) -> dict[str, Any]:
        present = _names(choice) & value.keys()
        if not present:
            return {}  # zeep's schema does not tell whether an alternative may be empty
        for name, part in choice.elements_nested:
            if present <= (_names(part) if name is None else {name}):
                return (
                    self._group(part, value, at)
                    if name is None
                    else {name: self._part(part, value[name], f"{at}.{name}")}
                )
        raise _wrong(at, f"can have only one of {', '.join(sorted(present))}")

    def _part(self, part: Any, value: Any, at: str) -> Any:
        if isinstance(part, Indicator):
            return self._turns(part, value, at)
        if not part.accepts_multiple:
            return self._item(part, value, at)
        items = _array(value, at)
        _check_bounds(part, len(items), at)
        return [self._item(part, item, f"{at}[{index}]", listed=True) for index, item in enumerate(items)]

    def _turns(self, group: Any, value: Any, at: str) -> list[dict[str, Any]]:
        """The turns of a sequence or choice that repeats."""
        turns = _array(value, at)
        _check_bounds(group, len(turns), at)
        made = []
        for index, turn in enumerate(turns):
            where = f"{at}[{index}]"
            if not isinstance(turn, dict):
                raise _wrong(where, "must be an object")
            for key in turn.keys() - _names(group):
                raise _wrong(f"{where}.{key}", "the WSDL has no element of that name here")
            made.append(self._group(group, turn, where))
        return made

    def _item(self, part: Any, value: Any, at: str, *, listed: bool = False) -> Any:
        if isinstance(part, Wildcard):
            return _xml(value, at)
        if value is None:
            if part.nillable:
                return Nil
            if part.is_optional and not listed:
                return None
            raise _wrong(at, "must not be null")
        return self.of(part.type, value, at=at)

    def _attribute(self, attribute: Any, value: Any, at: str) -> Any:
        if attribute.name is not None:
            return None if value is None else self.of(attribute.type, value, at=at)
        if not isinstance(value, dict) or not all(
            isinstance(text, str) and not has_no_xml(text) for text in value.values()
        ):
            raise _wrong(at, "must be an object of attributes, each a string")
        return value


class _Text(str):
    """zeep drops what is empty from some choices; a text that was given is there."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return True


def _names(part: Any) -> set[str]:
    """The names by which params reach a part."""
    if not isinstance(part, Indicator):
        return set()
    return {name for name, _ in _named(part)}


def _named(group: Any, *, choices: bool = True) -> Iterator[tuple[str, Any]]:
    content = group.child if isinstance(group, Group) else group
    if isinstance(content, Choice) and not choices:
        return
    for name, part in content.elements_nested:
        if name is None:
            yield from _named(part, choices=choices)
        else:
            yield name, part


def _array(value: Any, at: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(at, "must be an array: the WSDL says that it may repeat")
    return value


def _check_bounds(part: Any, count: int, at: str) -> None:
    if count < part.min_occurs:
        raise _wrong(at, f"must have at least {part.min_occurs} items")
    if isinstance(part.max_occurs, int) and count > part.max_occurs:
        raise _wrong(at, f"must have at most {part.max_occurs} items")


def _xml(value: Any, at: str) -> Any:
    if not isinstance(value, str):
        raise _wrong(at, "must be XML, as a string")
    try:
        return load_xml(value)
    except ValueError as error:
        raise _wrong(at, str(error)) from None


def _wrong(path: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=path)
