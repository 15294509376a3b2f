"""Undoing an answer's content codings, with a bound on what comes out of each.

Not httpx2's decoders: theirs keep whatever follows the end of a compressed stream, without a bound and without a byte
of output that a limit on the output could see, stop at the first of several gzip members, and take a stream that was
cut off for a whole one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from integration_service.contracts.errors import ErrorCode, IntegrationError

MAX_CODINGS = 2
"""How many may lie upon each other. Honest servers use one; each more multiplies a bomb by a thousand."""
STEP_BYTES = 64 * 1024
"""How much is inflated at a time."""
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_GZIP_MAGIC = 0x1F
_GZIP_NAMES, _DEFLATE = frozenset({"gzip", "x-gzip"}), "deflate"
# What servers write who mean that there is none.
_NO_CODING = frozenset({"", "identity", "none", "binary", "utf-8", "aws-chunked"})


class Decoder:
    """Undoes the codings of one answer (RFC 9110 §8.4). Feed it what comes, then `end` it."""

    def __init__(self, content_encoding: str, *, max_bytes: int) -> None:
        """Raises IntegrationError MALFORMED_RESPONSE for a coding that was not asked for, or too many of them."""
        names = [name.strip().lower() for name in content_encoding.split(",")]
        codings = [name for name in names if name not in _NO_CODING]
        if len(codings) > MAX_CODINGS:
            raise _malformed(f"the answer has more than {MAX_CODINGS} content-encodings")
        if any(name != _DEFLATE and name not in _GZIP_NAMES for name in codings):
            raise _malformed("the answer's content-encoding is neither gzip nor deflate")
        self._layers = [_Layer(name) for name in reversed(codings)]
        self._max_bytes = max_bytes
        self._counts = [0] * (len(codings) + 1)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded pieces, each `STEP_BYTES` at most and some of them empty: a place to let others run.

        Raises IntegrationError RESPONSE_TOO_LARGE as soon as more than `max_bytes` came in, or out of any layer;
        MALFORMED_RESPONSE.
        """
        pieces: Iterable[bytes] = (data,)
        for number, layer in enumerate(self._layers):
            pieces = self._inflated(layer, self._counted(pieces, number))
        return self._counted(pieces, len(self._layers))

    def end(self) -> None:
        """Raises IntegrationError MALFORMED_RESPONSE when a compressed stream was cut off."""
        if self._counts[0] and any(not layer.is_whole for layer in self._layers):
            raise _malformed("the answer's compressed body is cut off")

    def _counted(self, pieces: Iterable[bytes], number: int) -> Iterator[bytes]:
        for piece in pieces:
            self._counts[number] += len(piece)
            if self._counts[number] > self._max_bytes:
                raise IntegrationError(
                    ErrorCode.RESPONSE_TOO_LARGE, f"the upstream's answer is over {self._max_bytes} bytes, decoded"
                )
            yield piece

    @staticmethod
    def _inflated(layer: _Layer, pieces: Iterable[bytes]) -> Iterator[bytes]:
        try:
            for piece in pieces:
                yield from layer.inflate(piece)
        except zlib.error:
            raise _malformed("the answer's content-encoding cannot be decoded") from None


class _Layer:
    """One coding. gzip may come in several members (RFC 1952 §2.2); what follows the end is dropped."""

    def __init__(self, name: str) -> None:
        self._is_gzip = name in _GZIP_NAMES
        self._stream = zlib.decompressobj(_GZIP) if self._is_gzip else None
        self._held = b""
        self._ended = False

    @property
    def is_whole(self) -> bool:
        return self._ended or (self._stream is not None and self._stream.eof)

    def inflate(self, data: bytes) -> Iterator[bytes]:
        data = self._held + data
        self._held = b""
        if self._stream is None:
            if len(data) < 2:
                self._held = data
                return
            # Many send deflate without the zlib header that it should have (RFC 9110 §8.4.1.2).
            has_header = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._stream = zlib.decompressobj(_ZLIB if has_header else _RAW)
        while data and not self._ended:
            if self._stream.eof:
                self._next_member(data)
                continue
            piece = self._stream.decompress(data, STEP_BYTES)
            while piece:
                yield piece
                piece = self._stream.decompress(self._stream.unconsumed_tail, STEP_BYTES)
            data = self._stream.unused_data
        yield b""

    def _next_member(self, data: bytes) -> None:
        if self._is_gzip and data[0] == _GZIP_MAGIC:
            self._stream = zlib.decompressobj(_GZIP)
        else:
            self._ended = True


def _malformed(message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.MALFORMED_RESPONSE, message)
