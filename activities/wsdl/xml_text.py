"""XML that others wrote: no DTD, no entity, nothing fetched.

Source: https://cheatsheetseries.owasp.org/cheatsheets/XML_External_Entity_Prevention_Cheat_Sheet.html
"""

from __future__ import annotations

import re

from lxml import etree

_MAX_NAMESPACES = 1000
_MAX_ATTRIBUTES = 1000
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DECLARED_ENCODING = re.compile(r"^(\s*<\?xml[^>]*?)\s+encoding\s*=\s*(?:\"[^\"]*\"|'[^']*')")


def load_xml(data: bytes | str) -> etree._Element:
    """The root element, without comments and processing instructions.

    Raises ValueError with a predicate that quotes nothing. Deeper than 256 elements, a text over 10 MB and entities
    that multiply are refused by libxml2, by us any DTD and what lxml takes quadratic time to look up: over 1000
    attributes of one element, or namespaces in scope.
    """
    try:
        root = etree.fromstring(data if isinstance(data, bytes) else encoded(data), _parser())
    except (etree.XMLSyntaxError, UnicodeEncodeError):
        raise ValueError("is not well-formed XML") from None
    if root.getroottree().docinfo.doctype:
        raise ValueError("has a DTD, which is not read")
    if any(len(node.attrib) > _MAX_ATTRIBUTES for node in root.iter()):
        raise ValueError(f"has an element with over {_MAX_ATTRIBUTES} attributes")
    if _namespaces(root) > _MAX_NAMESPACES:
        raise ValueError(f"has over {_MAX_NAMESPACES} namespaces in one place")
    return root


def encoded(text: str) -> bytes:
    """A document's text in UTF-8. What it declares is how it was encoded before it became a text."""
    return _DECLARED_ENCODING.sub(r"\1", text.removeprefix("\ufeff").lstrip(), count=1).encode()


def has_no_xml(text: str) -> bool:
    """Whether a text holds a character that XML 1.0 does not have, however it is written."""
    return _NOT_XML.search(text) is not None


def local_name(node: etree._Element) -> str:
    """The element's name without its namespace."""
    return etree.QName(node).localname


def _namespaces(root: etree._Element) -> int:
    """How many declarations of namespaces are in scope where most are."""
    most = here = 0
    for event, _ in etree.iterwalk(root, events=("start-ns", "end-ns")):
        here += 1 if event == "start-ns" else -1
        most = max(most, here)
    return most


def _parser() -> etree.XMLParser[etree._Element]:
    # One for each document: a parser keeps its last errors, and pieces of what it read stand in them.
    return etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
