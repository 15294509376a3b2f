"""XML Schema's built-in types as JSON values, and back.

Numbers are JSON numbers where a double holds them exactly, else strings, so that no reader of JSON rounds them. Dates
and times are the ISO 8601 texts that the schema type has, unchanged. Bytes are ``{"$binary"}``.

Source: https://www.w3.org/TR/xmlschema-2/
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from zeep.xsd.types import builtins
from zeep.xsd.types.collection import ListType, UnionType

from integration_service.activities.adapters.binary import Binary, is_binary
from integration_service.activities.wsdl.xml_text import has_no_xml
from integration_service.contracts.errors import IntegrationError

_MAX_EXACT = 2**53
_MAX_DIGITS = 40
_DECIMAL = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_SPECIAL = frozenset({"INF", "-INF", "NaN"})
_ZONE = r"(?:Z|[+-]\d\d:\d\d)?"
_DATE, _TIME = r"-?\d{4,9}-\d\d-\d\d", r"\d\d:\d\d:\d\d(?:\.\d{1,12})?"
_BOUNDS: dict[type, tuple[int | None, int | None]] = {
    builtins.Byte: (-(2**7), 2**7 - 1),
    builtins.Short: (-(2**15), 2**15 - 1),
    builtins.Int: (-(2**31), 2**31 - 1),
    builtins.Long: (-(2**63), 2**63 - 1),
    builtins.UnsignedByte: (0, 2**8 - 1),
    builtins.UnsignedShort: (0, 2**16 - 1),
    builtins.UnsignedInt: (0, 2**32 - 1),
    builtins.UnsignedLong: (0, 2**64 - 1),
    builtins.PositiveInteger: (1, None),
    builtins.NonNegativeInteger: (0, None),
    builtins.NegativeInteger: (None, -1),
    builtins.NonPositiveInteger: (None, 0),
    builtins.Integer: (None, None),
}


class Unfit(Exception):
    """A value that its type does not have; the text is a predicate, and quotes nothing."""


@dataclass(frozen=True)
class Scalar:
    """A simple type: `write` makes the text of a JSON value, `read` the JSON value of a text. Both raise `Unfit`."""

    write: Callable[[Any], str]
    read: Callable[[str], Any]


def scalar_of(xsd_type: Any) -> Scalar:
    """How values of one of zeep's simple types look; what restricts it is the upstream's to check."""
    if isinstance(xsd_type, ListType):
        return _list(scalar_of(xsd_type.item_type))
    if isinstance(xsd_type, UnionType):
        return _ANY
    for base in type(xsd_type).__mro__:
        if base in _BOUNDS:
            return _integer(*_BOUNDS[base])
        if base in _SCALARS:
            return _SCALARS[base]
    return _ANY


def _list(item: Scalar) -> Scalar:
    def write(value: Any) -> str:
        if not isinstance(value, list):
            raise Unfit("must be an array")
        texts = [item.write(one) for one in value]
        if any(not text or re.search(r"\s", text) for text in texts):
            raise Unfit("must be an array of values without spaces")
        return " ".join(texts)

    return Scalar(write, lambda text: [item.read(one) for one in text.split()])


def _integer(least: int | None, most: int | None) -> Scalar:
    def write(value: Any) -> str:
        number: int | None = None
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        elif (isinstance(value, float) and value.is_integer()) or (
            isinstance(value, str) and len(value) <= _MAX_DIGITS and _INTEGER.fullmatch(value)
        ):
            number = int(value)
        if number is None or abs(number) >= 10**_MAX_DIGITS:
            raise Unfit("must be a whole number")
        if (least is not None and number < least) or (most is not None and number > most):
            bounds = " and ".join(
                f"{word} {bound}" for word, bound in (("at least", least), ("at most", most)) if bound is not None
            )
            raise Unfit(f"must be {bounds}")
        return str(number)

    def read(text: str) -> Any:
        if not _INTEGER.fullmatch(text := text.strip()):
            raise Unfit("is no whole number")
        return int(text) if len(text) <= _MAX_DIGITS and abs(int(text)) <= _MAX_EXACT else text

    return Scalar(write, read)


def _write_decimal(value: Any) -> str:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return f"{Decimal(repr(value)):f}"
    raise Unfit("must be a number")


def _read_decimal(text: str) -> Any:
    if not _DECIMAL.fullmatch(text := text.strip()):
        raise Unfit("is no number")
    if len(text) > _MAX_DIGITS:
        return text
    number = Decimal(text)
    if number == number.to_integral_value():
        return int(number) if abs(number) <= _MAX_EXACT else text
    return float(number) if Decimal(repr(float(number))) == number else text


def _write_double(value: Any) -> str:
    if isinstance(value, str) and value in _SPECIAL:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return repr(value)
    raise Unfit("must be a number, INF, -INF or NaN")


def _read_double(text: str) -> Any:
    if (text := text.strip()) in _SPECIAL:
        return text
    try:
        number = float(Decimal(text))
    except (InvalidOperation, ValueError, OverflowError):
        raise Unfit("is no number") from None
    if not math.isfinite(number):
        raise Unfit("is no number that a double holds")
    return int(number) if number.is_integer() and abs(number) <= _MAX_EXACT else number


def _write_boolean(value: Any) -> str:
    if not isinstance(value, bool):
        raise Unfit("must be a boolean")
    return "true" if value else "false"


def _read_boolean(text: str) -> bool:
    match text.strip():
        case "true" | "1":
            return True
        case "false" | "0":
            return False
    raise Unfit("is no boolean")


def _write_text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unfit("must be a string")
    if has_no_xml(value):
        raise Unfit("holds a control character, which XML does not have")
    return value


def _write_any(value: Any) -> str:
    match value:
        case bool():
            return _write_boolean(value)
        case int() | float():
            return _write_decimal(value)
    return _write_text(value)


def _lexical(pattern: str, example: str) -> Scalar:
    compiled = re.compile(pattern, re.ASCII)

    def write(value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise Unfit(f"must be a string such as {example}")
        return value

    return Scalar(write, str.strip)


def _bytes(encode: Callable[[bytes], bytes], decode: Callable[[str], bytes]) -> Scalar:
    def write(value: Any) -> str:
        if not is_binary(value):
            raise Unfit('must be bytes: {"$binary": base64}')
        try:
            return encode(Binary.read(value, at="").content).decode()
        except IntegrationError as error:
            raise Unfit(error.message) from None

    def read(text: str) -> Any:
        try:
            return Binary(decode("".join(text.split()))).to_wire()
        except ValueError:
            raise Unfit("is not encoded as its type says") from None

    return Scalar(write, read)


_ANY = Scalar(_write_any, lambda text: text)
_SCALARS: dict[type, Scalar] = {
    builtins.Decimal: Scalar(_write_decimal, _read_decimal),
    builtins.Float: Scalar(_write_double, _read_double),
    builtins.Double: Scalar(_write_double, _read_double),
    builtins.Boolean: Scalar(_write_boolean, _read_boolean),
    builtins.Base64Binary: _bytes(base64.b64encode, lambda text: binascii.a2b_base64(text, strict_mode=True)),
    builtins.HexBinary: _bytes(lambda content: binascii.hexlify(content).upper(), binascii.unhexlify),
    builtins.DateTime: _lexical(f"{_DATE}T{_TIME}{_ZONE}", "2026-01-31T12:00:00Z"),
    builtins.Date: _lexical(f"{_DATE}{_ZONE}", "2026-01-31"),
    builtins.Time: _lexical(f"{_TIME}{_ZONE}", "12:00:00"),
    builtins.Duration: _lexical(
        r"-?P(?=[\dT])(?:\d+Y)?(?:\d+M)?(?:\d+D)?(?:T(?=\d)(?:\d+H)?(?:\d+M)?(?:\d+(?:\.\d+)?S)?)?", "PT1H30M"
    ),
    builtins.gYearMonth: _lexical(rf"-?\d{{4,9}}-\d\d{_ZONE}", "2026-01"),
    builtins.gYear: _lexical(rf"-?\d{{4,9}}{_ZONE}", "2026"),
    builtins.gMonthDay: _lexical(rf"--\d\d-\d\d{_ZONE}", "--01-31"),
    builtins.gDay: _lexical(rf"---\d\d{_ZONE}", "---31"),
    builtins.gMonth: _lexical(rf"--\d\d{_ZONE}", "--01"),
    builtins.String: Scalar(_write_text, lambda text: text),
    builtins.Token: Scalar(_write_text, lambda text: " ".join(text.split())),
    builtins.AnyURI: Scalar(_write_text, str.strip),
    builtins.QName: Scalar(_write_text, str.strip),
    builtins.Notation: Scalar(_write_text, str.strip),
}
