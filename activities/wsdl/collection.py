"""Reading a WSDL and all that it imports, once, when a definition is applied.

What comes out is a definition that holds everything: no worker ever fetches a WSDL. In the texts each location is
written out, so that it is found among the documents as it stands: ``file:///`` is the folder of the definition's file.
"""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from lxml import etree

from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.activities.outbound.transport import SendFailed, Transport
from integration_service.activities.wsdl.documents import (
    MAX_BYTES,
    MAX_DOCUMENTS,
    WELL_KNOWN,
    is_inline,
    read_tree,
    references,
    too_large,
    too_many,
)
from integration_service.activities.wsdl.model import MAIN
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode, IntegrationError

PATIENCE = timedelta(seconds=60)
_ACCEPT = (("Accept", "text/xml, application/xml, */*"),)
_MAX_SHOWN = 200


async def with_documents(file: DefinitionFile, *, beside: Path, transport: Transport) -> DefinitionFile:
    """The definition with its `wsdl` inline and the imports in `wsdlDocuments`; others as they are.

    `beside` is the definition's own file. Raises IntegrationError with path ``wsdl``: VALIDATION_ERROR for what is
    missing, no XML, too much or outside of the file's folder, or what the transport met at a URL.
    """
    if file.type != "soap" or file.wsdl is None:
        return file
    reading = _Reading(folder=beside.parent, transport=transport, given=file.wsdl_documents or {})
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            main, imported = await reading.all(file.wsdl)
    except TimeoutError:
        raise IntegrationError(
            ErrorCode.TIMEOUT, f"not all was read within {PATIENCE.total_seconds():g} s", path="wsdl"
        ) from None
    return file.model_copy(update={"wsdl": main, "wsdl_documents": imported or None})


class _Reading:
    """One definition's reading: what came so far, and how much of it."""

    def __init__(self, *, folder: Path, transport: Transport, given: Mapping[str, str]) -> None:
        self._folder = folder
        self._transport = transport
        self._given = given
        self._imported: dict[str, str] = {}
        self._asked: set[str] = set()
        self._bytes = 0

    async def all(self, wsdl: str) -> tuple[str, dict[str, str]]:
        """The WSDL's text and the others' by location, sorted."""
        if is_inline(wsdl):
            self._count(wsdl.encode(errors="replace"))
            main, waiting = self._written_out(wsdl, MAIN)
        else:
            location = self._resolved(wsdl, MAIN)
            main, waiting = self._written_out(await self._load(location), location)
        while waiting:
            location = waiting.pop()
            if len(self._asked) >= MAX_DOCUMENTS:
                raise too_many()
            self._asked.add(location)
            self._imported[location], more = self._written_out(await self._load(location), location)
            waiting += [one for one in more if one not in self._asked and one not in waiting]
        return main, dict(sorted(self._imported.items()))

    def _written_out(self, data: bytes | str, location: str) -> tuple[str, list[str]]:
        """A document's text with the locations in it written out, and those that are still to be read."""
        tree = read_tree(data, at="wsdl")
        changed, found = False, dict[str, None]()
        for node, attribute in references(tree):
            target = self._resolved(node.get(attribute, ""), location)
            changed = changed or target != node.get(attribute)
            node.set(attribute, target)
            if target not in WELL_KNOWN and target not in self._asked:
                found[target] = None
        text = data if isinstance(data, str) and not changed else etree.tostring(tree, encoding="unicode")
        return text, list(found)

    def _resolved(self, reference: str, base: str) -> str:
        """A location as a URL without a fragment. Raises IntegrationError VALIDATION_ERROR for one that is not read."""
        reference = urldefrag(reference.strip()).url
        if reference in self._given:
            return reference
        try:
            scheme, of_files = urlsplit(reference).scheme, urlsplit(base).scheme == "file"
            if scheme in ("http", "https") or not of_files:
                target = urljoin(base, reference)
                parts = urlsplit(target)
                if parts.scheme in ("http", "https") and parts.hostname and parts.username is None:
                    return target
                raise _wrong(f"{_shown(reference)} is no http or https URL without user")
        except ValueError:
            raise _wrong(f"{_shown(reference)} is no URL") from None
        path = posixpath.normpath(
            posixpath.join(posixpath.dirname(urlsplit(base).path).lstrip("/"), unquote(reference))
        )
        if scheme or posixpath.isabs(path) or path.split("/")[0] == "..":
            raise _wrong(f"{_shown(reference)} leads out of the folder of the definition's file")
        return MAIN + path

    async def _load(self, location: str) -> bytes | str:
        if location in self._given:
            self._count(self._given[location].encode(errors="replace"))
            return self._given[location]
        data = (
            await asyncio.to_thread(self._file, location.removeprefix(MAIN))
            if location.startswith(MAIN)
            else await self._fetched(location)
        )
        self._count(data)
        return data

    def _file(self, path: str) -> bytes:
        try:
            file = (self._folder / path).resolve(strict=True)
            if not file.is_relative_to(self._folder.resolve()):
                raise _wrong(f"{_shown(path)} leads out of the folder of the definition's file")
            with file.open("rb") as opened:
                return opened.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "no file name"
            raise _wrong(f"{_shown(path)} cannot be read: {why}") from None

    async def _fetched(self, url: str) -> bytes:
        request = OutboundRequest(method="GET", url=url, headers=_ACCEPT)
        try:
            response = await self._transport.send(request, within=PATIENCE, max_bytes=MAX_BYTES - self._bytes)
        except SendFailed as error:
            if error.code == ErrorCode.RESPONSE_TOO_LARGE:
                raise too_large() from None
            raise IntegrationError(error.code, f"{_shown(url)} cannot be read: {error.message}", path="wsdl") from None
        if response.status != 200:
            raise _wrong(f"{_shown(url)} cannot be read: the server answers {response.status}")
        return response.body

    def _count(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > MAX_BYTES:
            raise too_large()


def _shown(location: str) -> str:
    # A query may hold a key, and what stands before the host a password.
    return re.sub(r"//[^/]*@", "//", location.partition("?")[0])[:_MAX_SHOWN]


def _wrong(message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path="wsdl")
