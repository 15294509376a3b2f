"""A WSDL and everything that it imports, as texts in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from lxml import etree

from integration_service.activities.wsdl.xml_text import load_xml
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode, IntegrationError

MAX_DOCUMENTS = 50
MAX_BYTES = 5 * 1024 * 1024

WSDL = "http://schemas.xmlsoap.org/wsdl/"
XSD = "http://www.w3.org/2001/XMLSchema"
_REFERENCES = {
    f"{{{WSDL}}}import": "location",
    f"{{{XSD}}}import": "schemaLocation",
    f"{{{XSD}}}include": "schemaLocation",
    f"{{{XSD}}}redefine": "schemaLocation",
}
_XML_SCHEMA = f"""<schema xmlns="{XSD}" targetNamespace="http://www.w3.org/XML/1998/namespace">
  <attribute name="lang" type="language"/><attribute name="space" type="NCName"/>
  <attribute name="base" type="anyURI"/><attribute name="id" type="ID"/>
  <attributeGroup name="specialAttrs"><attribute ref="xml:base"/><attribute ref="xml:lang"/>
  <attribute ref="xml:space"/><attribute ref="xml:id"/></attributeGroup></schema>"""
WELL_KNOWN = dict.fromkeys(
    (f"{scheme}://www.w3.org/{path}xml.xsd" for scheme in ("http", "https") for path in ("2001/", "2001/03/")),
    _XML_SCHEMA,
)
"""What half the world imports from w3.org, which asks not to be asked: the schema of ``xml:lang`` and its like."""


@dataclass(frozen=True)
class WsdlDocuments:
    """`main` is the WSDL's text; `imported` are the others, each by the location by which they are imported."""

    main: str = field(repr=False)
    imported: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, definition: DefinitionFile) -> Self:
        """A stored definition's. Raises IntegrationError VALIDATION_ERROR with the path."""
        if definition.wsdl is None:
            raise _wrong("wsdl", "required key is missing")
        if not is_inline(definition.wsdl):
            raise _wrong("wsdl", "must be the WSDL itself: `definition apply` reads files and URLs")
        documents = cls(definition.wsdl, tuple(sorted((definition.wsdl_documents or {}).items())))
        if len(documents.imported) >= MAX_DOCUMENTS:
            raise too_many()
        if sum(len(text.encode(errors="replace")) for text in (documents.main, *documents.others.values())) > MAX_BYTES:
            raise too_large()
        return documents

    @cached_property
    def others(self) -> Mapping[str, str]:
        """The imported ones by location."""
        return dict(self.imported)

    def trees(self) -> Iterator[etree._Element]:
        """All of them, parsed. Raises IntegrationError VALIDATION_ERROR with the path of one that is no such XML."""
        yield read_tree(self.main, at="wsdl")
        for location, text in self.imported:
            yield read_tree(text, at=f"wsdlDocuments.{location}")


def is_inline(wsdl: str) -> bool:
    """Whether a definition's `wsdl` is the document and not where it is."""
    return wsdl.removeprefix("\ufeff").lstrip().startswith("<")


def read_tree(data: bytes | str, *, at: str) -> etree._Element:
    """Raises IntegrationError VALIDATION_ERROR for what is not XML, or has a DTD."""
    try:
        return load_xml(data)
    except ValueError as error:
        raise _wrong(at, f"the document {error}") from None


def references(tree: etree._Element) -> Iterator[tuple[etree._Element, str]]:
    """Each import and include that says where, and its attribute that says it."""
    for node in tree.iter(*_REFERENCES):
        attribute = _REFERENCES[str(node.tag)]
        if node.get(attribute):
            yield node, attribute


def too_many() -> IntegrationError:
    return _wrong("wsdl", f"the WSDL and what it imports are over {MAX_DOCUMENTS} documents")


def too_large() -> IntegrationError:
    return _wrong("wsdl", f"the WSDL and what it imports are over {MAX_BYTES} bytes")


def _wrong(path: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=path)
